# Each target works from any clone in any directory, and twice in a row.

# A Python of 3.11 or later: Debian's own if it is new enough (wrappers of version managers cost milliseconds a start).
PYTHON ?= $(shell for python in /usr/bin/python3 /usr/local/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import os, sys; sys.version_info < (3, 11) and sys.exit(1); print(os.path.realpath(sys.executable))' 2>/dev/null && break; done)
PACKAGES = ocirt $(wildcard api/ocirt_api images/ocirt_images cni/ocirt_cni shim/ocirt_shim csi/ocirt_csi cri/ocirt_cri)
SOURCES = $(shell find $(PACKAGES) -name '*.py')
VENV = build/venv
PIP = 26.3
CHECKED = $(wildcard ocirt api images cni shim csi cri launcher tests bench conformance)

.PHONY: all build api images cri csi run test lint test-all test-unit test-system test-v2 test-vm test-vm-systemd test-power \
	conformance conformance-cri conformance-csi conformance-kubelet bench clean \
	needs needs-test needs-vm needs-conformance
all: build

build: build/ocirt build/bytecode

# Without a compiler this is a shell script (launcher/launcher.sh).
build/ocirt: launcher/launcher.c launcher/waiter.c launcher/podinit.c launcher/call.h launcher/launcher.sh launcher/boot.py launcher/build.py
	@test -n "$(PYTHON)" || { echo "ocirt needs Python 3.11 or later" >&2; exit 1; }
	$(PYTHON) launcher/build.py build

# Byte code beside the sources: the launcher runs Python with -B, so a start never writes it.
build/bytecode: $(SOURCES) build/ocirt
	$(PYTHON) -m compileall -q -j 0 $(PACKAGES)
	$(PYTHON) launcher/build.py archive
	@touch $@

# The libraries that the verbs for images and ocirtd need, where the commands of a clone look for them; the only thing that takes a
# network.
# `pinned NAME...`: the lowest versions that pyproject.toml allows, exactly: what we promise is what we test.
images: build build/libraries/ready

# All that `build/ocirtd` and `build/ocirt-csi` need.
cri csi: images api

pinned = import tomllib; \
	wanted = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*(one.replace(">=", "==") for name in "$(1)".split() for one in wanted[name]), sep="\n")

build/libraries/ready: pyproject.toml
	rm -rf build/libraries build/installer
	$(PYTHON) -m venv build/installer
	$(PYTHON) -c '$(call pinned,images api streams)' >build/installer/requirements
	build/installer/bin/pip install -q --disable-pip-version-check --target build/libraries -r build/installer/requirements
	@rm -rf build/installer
	@touch $@

# The stubs of api/, each beside the .proto file that it is made from.
api: build/stubs

build/stubs: $(shell find api -name '*.proto') api/stubs.py $(VENV)/ready
	$(VENV)/bin/python api/stubs.py
	@touch $@

# What is missing is installed from Debian, if we are root and there is apt. `need PACKAGE FOUND`: FOUND is empty if it is missing;
# `program PACKAGE NAME`: the same for a command.
define install
	@set -e; missing=; path=$$PATH:/usr/local/sbin:/usr/sbin:/sbin; \
	need() { test -n "$$2" || missing="$$missing $$1"; }; \
	program() { need "$$1" "$$(PATH=$$path command -v "$$2")"; }; \
	$(1) \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq; \
		apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

needs:
	$(call install, \
		need python3 "$(PYTHON)"; \
		need gcc "$$(command -v cc gcc clang | head -n 1)"; \
		need libc6-dev "$$(ls /usr/include/link.h 2>/dev/null)"; \
		program busybox-static busybox; \
		need libseccomp2 "$$(ls /usr/lib/*/libseccomp.so.2 /usr/lib64/libseccomp.so.2 /lib/*/libseccomp.so.2 2>/dev/null)";)

# A Python of Debian's comes without ensurepip. Its library is for a test that makes a relocatable Python.
needs-test: needs
	$(call install, \
		need python3-venv "$$($(PYTHON) -c 'import ensurepip; print(1)' 2>/dev/null)"; \
		version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		need libpython$$version-dev "$$(ls /usr/include/python$$version/Python.h 2>/dev/null)"; \
		program strace strace; \
		program zsh zsh; \
		program fish fish; \
		program groff-base groff; \
		program procps ps; \
		program iproute2 ip; \
		program nftables nft; \
		program iptables iptables; \
		need containernetworking-plugins "$$(ls /usr/lib/cni/host-local 2>/dev/null)"; \
		program util-linux setpriv; \
		program docker-registry docker-registry; \
		program dnsmasq-base dnsmasq; \
		program runc runc; \
		program uidmap newuidmap; \
		program btrfs-progs mkfs.btrfs; \
		program xfsprogs mkfs.xfs; \
		program e2fsprogs mkfs.ext4;)

needs-vm: needs-test
	$(call install, program qemu-system-x86 qemu-system-x86_64; program busybox-static busybox; program kmod depmod; \
		program apparmor apparmor_parser; program lvm2 lvm; program thin-provisioning-tools thin_check; \
		program sudo sudo;)

needs-conformance: needs-test
	$(call install, program podman podman; program conmon conmon; program catatonit catatonit; program runc runc; \
		program buildah buildah; program skopeo skopeo; program umoci umoci; program containerd containerd; \
		program docker.io dockerd; program golang-go go;)

run: needs
	@$(MAKE) -s build
	@docs/demo.sh

# One run of pytest for both, so that the last line counts all tests.
test: needs-test
	@$(MAKE) --no-print-directory lint test-all

$(VENV)/ready: pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PYTHON) -c '$(call pinned,images api streams test)' >$(VENV)/requirements
	@# The pip that comes with a Python may be too old to install for a newer one, which the tests do.
	$(VENV)/bin/pip install -q --disable-pip-version-check pip==$(PIP)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $(VENV)/requirements
	@touch $@

lint: api
	$(VENV)/bin/ruff check $(CHECKED)
	$(VENV)/bin/ruff format --check $(CHECKED)
	$(VENV)/bin/mypy

test-all: build api images $(VENV)/ready
	$(VENV)/bin/pytest tests/unit tests/system

test-unit: build api $(VENV)/ready
	$(VENV)/bin/pytest tests/unit

test-system: build api images $(VENV)/ready
	$(VENV)/bin/pytest tests/system

# They make no cgroups, and there is no network to install from in the virtual machine.
NO_INSTALLS = $(patsubst %,--ignore %,$(wildcard tests/system/test_installs*.py))

# The same system tests with cgroup2 alone, which a host with version 1 shows in a mount namespace (without its controllers); but
# for those that make no cgroups.
V2_TESTS ?= tests/system $(NO_INSTALLS) --ignore tests/system/test_launcher.py \
	--ignore tests/system/images --ignore tests/system/cni
test-v2: build images $(VENV)/ready
	OCIRT_TEST_VIEW=v2 $(VENV)/bin/pytest $(V2_TESTS)

# And in a virtual machine with cgroup2 alone and all its controllers, with a kernel that is older. Slow: the processor is emulated.
# The launcher's tests have no need of another kernel.
VM_TESTS ?= tests/system $(NO_INSTALLS) --ignore tests/system/test_launcher.py --ignore tests/system/test_bench.py
# Two files at a time: much of the time is waiting. What fails is shown at once, as the rest takes long.
VM_PYTEST = PYTHONUNBUFFERED=1 PYTEST_TIMEOUT=1200 OCIRT_TEST_SLOWNESS=4 OCIRT_TEST_GRACE=10 OCIRT_TEST_MOMENTS=5 OCIRT_TEST_POINTS=10 \
	$(VENV)/bin/python -m pytest -v -p no:cacheprovider -p tests.support.at_once -n 2 --dist loadfile --no-loadscope-reorder $(VM_TESTS)
# What is compiled here need not be compiled there, where it takes twenty times as long and is forgotten.
VM_READY = $(VENV)/bin/python -m pytest -q --collect-only $(VM_TESTS) >/dev/null; \
	$(VENV)/bin/python -c 'from tests.support.build import compiled; compiled("probe")'
test-vm: needs-vm build images $(VENV)/ready
	@$(VM_READY)
	$(PYTHON) tests/vm/run.py --seconds 7200 '$(VM_PYTEST)'

# The same under systemd, which makes the cgroups: without what makes none.
test-vm-systemd: VM_TESTS += $(addprefix --ignore tests/system/,images cni csi cri_images)
test-vm-systemd: needs-vm build images $(VENV)/ready
	@$(VM_READY)
	$(PYTHON) tests/vm/run.py --systemd --seconds 7200 'OCIRT_TEST_MANAGER=systemd $(VM_PYTEST)'

# The power fails while images are pulled. Eight lives of a machine, each of which takes a minute.
test-power: needs-vm build images $(VENV)/ready
	$(PYTHON) tests/vm/power.py

# Suites and clients that others wrote.
CONFORMANCE ?= conformance
conformance: needs-conformance
	@$(MAKE) --no-print-directory build api images $(VENV)/ready
	$(VENV)/bin/pytest $(CONFORMANCE)

# critest whole: the one on PATH, or one that is built.
conformance-cri: needs-conformance
	@$(MAKE) --no-print-directory build api images $(VENV)/ready
	OCIRT_TEST_CRITEST=1 $(VENV)/bin/pytest conformance/test_critest.py conformance/test_crictl.py conformance/test_crictl_views.py conformance/test_streams.py conformance/test_nri.py

# A kubelet with an API server on ocirtd, and kubectl. They are built from their Go modules: ten minutes for the first time.
conformance-kubelet: needs-conformance
	@$(MAKE) --no-print-directory build api images $(VENV)/ready
	OCIRT_TEST_KUBELET=1 $(VENV)/bin/pytest conformance/test_kubelet.py

# The suite of CSI's own on ocirt-csi, which is built from its Go module.
conformance-csi: needs-conformance
	@$(MAKE) --no-print-directory build api images $(VENV)/ready
	$(VENV)/bin/pytest -s conformance/test_csi.py

bench: build
	$(PYTHON) bench/run.py

clean:
	rm -rf build
	$(PYTHON) api/stubs.py clean
	find $(PACKAGES) -name __pycache__ -prune -exec rm -rf {} +
