# What a person types. Every target works from any clone in any directory, and twice in a row.

# A Python of 3.11 or later: Debian's own if it is new enough (wrappers of version managers cost milliseconds a start).
PYTHON ?= $(shell for python in /usr/bin/python3 /usr/local/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import os, sys; sys.version_info < (3, 11) and sys.exit(1); print(os.path.realpath(sys.executable))' 2>/dev/null && break; done)
FLOORS = ocirt

.PHONY: all build clean
all: build

build: build/ocirt build/.bytecode

build/ocirt: launcher/launcher.c launcher/boot.py launcher/build.py
	@test -n "$(PYTHON)" || { echo "ocirt needs Python 3.11 or later" >&2; exit 1; }
	$(PYTHON) launcher/build.py build

# Byte code beside the sources: the launcher runs Python with -B, so a start never writes it.
build/.bytecode: $(shell find $(FLOORS) -name '*.py') build/ocirt
	$(PYTHON) -m compileall -q -j 0 $(FLOORS)
	@touch $@

clean:
	rm -rf build
	find $(FLOORS) -name __pycache__ -prune -exec rm -rf {} +
