# Each target works from any clone in any directory, and twice in a row.

# A Python of 3.11 or later: Debian's own if it is new enough (wrappers of version managers cost milliseconds a start).
PYTHON ?= $(shell for python in /usr/bin/python3 /usr/local/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import os, sys; sys.version_info < (3, 11) and sys.exit(1); print(os.path.realpath(sys.executable))' 2>/dev/null && break; done)
PACKAGES = ocirt
SOURCES = $(shell find $(PACKAGES) -name '*.py')
VENV = build/venv
CHECKED = $(wildcard ocirt launcher tests bench conformance)

.PHONY: all build run test lint test-unit test-system conformance bench clean needs
all: build

build: build/ocirt build/bytecode

# Without a compiler this is a shell script (launcher/launcher.sh).
build/ocirt: launcher/launcher.c launcher/launcher.sh launcher/boot.py launcher/build.py
	@test -n "$(PYTHON)" || { echo "ocirt needs Python 3.11 or later" >&2; exit 1; }
	$(PYTHON) launcher/build.py build

# Byte code beside the sources: the launcher runs Python with -B, so a start never writes it.
build/bytecode: $(SOURCES) build/ocirt
	$(PYTHON) -m compileall -q -j 0 $(PACKAGES)
	$(PYTHON) launcher/build.py archive
	@touch $@

# What a command is missing is installed from Debian, if we are root and there is apt.
needs:
	@set -e; missing=; \
	need() { test -n "$$2" || missing="$$missing $$1"; }; \
	path=$$PATH:/usr/sbin:/sbin; \
	need gcc "$$(command -v cc gcc clang | head -n 1)"; \
	need libc6-dev "$$(ls /usr/include/link.h 2>/dev/null)"; \
	need busybox-static "$$(PATH=$$path command -v busybox)"; \
	need libseccomp2 "$$(ls /usr/lib/*/libseccomp.so.2 /usr/lib64/libseccomp.so.2 /lib/*/libseccomp.so.2 2>/dev/null)"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq; \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

run: needs
	@$(MAKE) -s build
	@docs/demo.sh

test: lint test-unit test-system

# The lowest versions that pyproject.toml allows, exactly: what we promise is what we test.
$(VENV)/ready: pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -c 'import tomllib; \
		wanted = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"]; \
		print(*(one.replace(">=", "==") for one in wanted), sep="\n")' >$(VENV)/requirements
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $(VENV)/requirements
	@touch $@

lint: $(VENV)/ready
	$(VENV)/bin/ruff check $(CHECKED)
	$(VENV)/bin/ruff format --check $(CHECKED)
	$(VENV)/bin/mypy

test-unit: build $(VENV)/ready
	$(VENV)/bin/pytest tests/unit

test-system: build $(VENV)/ready
	$(VENV)/bin/pytest tests/system

# Suites and clients that others wrote.
conformance: build $(VENV)/ready
	@test -d conformance || { echo "there is no conformance/ yet" >&2; exit 1; }
	$(VENV)/bin/pytest conformance

bench: build
	$(PYTHON) bench/run.py

clean:
	rm -rf build
	find $(PACKAGES) -name __pycache__ -prune -exec rm -rf {} +
