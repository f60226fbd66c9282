"""The validation programs of runtime-tools, each with ocirt and with every runc of the machine.

A program prints lines of the Test Anything Protocol. One that crashes, or does not end, counts as one `not ok` more.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conformance import goprograms
from conformance.drivers import Machine, ours, program
from tests.support.isolation import mount_targets, umount

TOOLS = "github.com/opencontainers/runtime-tools"
# The newest release is of 2018, so are the interfaces that it was written for.
MODULES = {
    TOOLS: "v0.9.0",
    "github.com/opencontainers/runtime-spec": "v1.0.2",
    "github.com/opencontainers/selinux": "v1.9.1",
    "github.com/blang/semver": "v3.5.1+incompatible",
    "github.com/hashicorp/errwrap": "v1.1.0",
    "github.com/hashicorp/go-multierror": "v1.1.1",
    "github.com/mndrix/tap-go": "v0.0.0-20171203230836-629fa407e90b",
    "github.com/mrunalp/fileutils": "v0.5.1",
    "github.com/satori/go.uuid": "v1.2.0",
    "github.com/sirupsen/logrus": "v1.9.3",
    "github.com/syndtr/gocapability": "v0.0.0-20200815063812-42c35b437635",
    "github.com/urfave/cli": "v1.22.14",
    "github.com/xeipuuv/gojsonschema": "v1.2.0",
    "golang.org/x/sys": "v0.13.0",
    "gopkg.in/yaml.v2": "v2.4.0",
}
PROGRAMS = (
    *("config_updates_without_affect", "create", "default", "delete", "delete_only_create_resources", "delete_resources"),
    *("hooks", "hooks_stdin", "hostname", "kill", "kill_no_effect", "killsig", "linux_cgroups_blkio", "linux_cgroups_cpus"),
    *("linux_cgroups_devices", "linux_cgroups_hugetlb", "linux_cgroups_memory", "linux_cgroups_network"),
    *("linux_cgroups_pids", "linux_cgroups_relative_blkio", "linux_cgroups_relative_cpus"),
    *("linux_cgroups_relative_devices", "linux_cgroups_relative_hugetlb", "linux_cgroups_relative_memory"),
    *("linux_cgroups_relative_network", "linux_cgroups_relative_pids", "linux_devices", "linux_masked_paths"),
    *("linux_mount_label", "linux_ns_itype", "linux_ns_nopath", "linux_ns_path", "linux_ns_path_type"),
    *("linux_process_apparmor_profile", "linux_readonly_paths", "linux_rootfs_propagation", "linux_seccomp"),
    *("linux_sysctl", "linux_uid_mappings", "misc_props", "mounts", "pidfile", "poststart", "poststart_fail", "poststop"),
    *("poststop_fail", "prestart", "prestart_fail", "process", "process_capabilities", "process_capabilities_fail"),
    *("process_oom_score_adj", "process_rlimits", "process_rlimits_fail", "process_user", "root_readonly_true", "start"),
    "state",
)
# This one gives options of a file system (mode=755) to bind mounts. The kernel would leave them aside, and the specification has
# none for bind mounts, so runc since 1.2 and ocirt refuse the container. Both get the program with those options taken out.
MOUNTS = "mounts"
REFUSED = "a bind mount takes no options of a file system, but 'mode=755' is not one of a mount"
SECONDS = 240.0  # until a program hangs; an emulated processor takes its time

# A runtime for the program: it takes the options out of the config.json that it is given, and is the other runtime from there on.
TAKES_OPTIONS_OUT = """\
#!{python} -IS
import json, os, sys
args = sys.argv[1:]
if args[0] == "create":
    path = args[args.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        config = json.load(file)
    for mount in config["mounts"]:
        if set(mount.get("options", ())) & {{"bind", "rbind"}}:
            mount["options"] = [option for option in mount["options"] if "=" not in option]
    with open(path, "w") as file:
        json.dump(config, file)
os.execv("{runtime}", ["{runtime}", *args])
"""


class Outcome(NamedTuple):
    """What a program said: lines `ok` and `not ok`, the number that it planned, and whether it came to its end."""

    ok: int
    failed: int
    planned: int
    ended: bool
    text: str

    def __str__(self) -> str:
        return f"{self.ok} ok, {self.failed} not ok of {self.planned}" + ("" if self.ended else ", crashed")


_outcomes: dict[str, list[Outcome]] = {}


@pytest.fixture(scope="module")
def programs() -> Path:
    """The directory of the programs."""
    return goprograms.build("validation", MODULES, [f"{TOOLS}/validation/...", f"{TOOLS}/cmd/runtimetest"])


@pytest.fixture(scope="module")
def place(programs: Path, machine: Machine) -> Path:
    """Where the programs run: beside the root file system of the suite and the program that looks at a container from inside."""
    root = machine.path / "validation"
    root.mkdir()
    machine.path.chmod(0o711)  # root of a user namespace has to come to the bundles
    (image,) = goprograms.source("validation", TOOLS, MODULES[TOOLS]).glob("rootfs-amd64.tar.gz")
    shutil.copy(image, root)
    shutil.copy(programs / "runtimetest", root)
    return root


@pytest.fixture(scope="module")
def peers(programs: Path, place: Path, machine: Machine) -> list[str]:
    """Every runc of this machine that starts the suite's containers: what OCIRT_TEST_PEER names, `runc-new` and `runc` of PATH.

    The suite's seccomp profile is older than statx(2), without which a runc of this year does not get to the end of a start.
    """
    named = [os.environ.get("OCIRT_TEST_PEER"), program("runc-new"), program("runc")]
    found = list(dict.fromkeys(path for path in named if path))
    return [path for path in found if validate(programs / "default", place, path, machine).ended]


def validate(binary: Path, place: Path, runtime: str, machine: Machine) -> Outcome:
    """Run one program, and clean up what it leaves: most end without deleting what they have made."""
    with (place / "output").open("w+b") as output:
        with subprocess.Popen(
            [str(binary)],
            cwd=place,
            env={**machine.env, "RUNTIME": runtime},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as running:
            try:
                status = running.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                status = -1
        _clean_up(runtime, machine)
        output.seek(0)
        text = output.read().decode(errors="backslashreplace")
    ok, failed = (len(re.findall(f"^{word} ", text, re.MULTILINE)) for word in ("ok", "not ok"))
    planned = max(map(int, re.findall(r"^1\.\.(\d+)", text, re.MULTILINE)), default=0)
    return Outcome(ok, failed + (status != 0), planned, status == 0, text)


def validate_peer(binary: Path, place: Path, runtime: str, machine: Machine) -> Outcome:
    """The same with a runc, which also leaves the mounts of a container without a mount namespace."""
    before = mount_targets()
    outcome = validate(binary, place, runtime, machine)
    for target in reversed(mount_targets()[len(before) :]):
        umount(str(target))
    return outcome


def _clean_up(runtime: str, machine: Machine) -> None:
    done = subprocess.run([runtime, "list", "-q"], env=machine.env, capture_output=True, text=True, check=False)
    for container in done.stdout.split():
        subprocess.run([runtime, "delete", "--force", container], env=machine.env, capture_output=True, check=False)
    # The cgroups that the programs name: runc leaves those above the container's.
    for hierarchy in {Path(target) for target in _cgroup_directories()}:
        for name in ("cgrouptest", "testdir/cgrouptest/container", "testdir/cgrouptest", "testdir"):
            try:
                (hierarchy / name).rmdir()
            except OSError:
                continue


def _cgroup_directories() -> Iterator[str]:
    """The root of each hierarchy, and this process's own cgroup in it: relative paths count from there."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mount = f"/sys/fs/cgroup/{controllers.removeprefix('name=') or 'unified'}"
        if not controllers and not os.path.isdir(mount):
            mount = "/sys/fs/cgroup"
        yield mount
        yield mount + path


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest, peers: list[str]) -> Iterator[None]:
    """At the end: all programs side by side."""
    yield
    rows = [("", ["ocirt", *peers]), *((name, [str(one) for one in found]) for name, found in _outcomes.items())]
    lines = ["", *(f"{name:30}" + "".join(f"{said:>36}" for said in row) for name, row in rows)]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n".join(lines))


def _with_options_out(runtime: str, place: Path) -> str:
    """The runtime by which the program `mounts` asks for nothing that cannot be had."""
    script = place / f"{Path(runtime).name}-for-mounts"
    script.write_text(TAKES_OPTIONS_OUT.format(python=sys.executable, runtime=runtime))
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("name", PROGRAMS)
def test_validation(name: str, programs: Path, place: Path, peers: list[str], machine: Machine) -> None:
    """ocirt passes at least what any runc passes, and comes as far."""
    runtimes = [ours(), *peers]
    if name == MOUNTS:
        runtimes = [_with_options_out(runtime, place) for runtime in runtimes]
    mine = validate(programs / name, place, runtimes[0], machine)
    others = [validate_peer(programs / name, place, runtime, machine) for runtime in runtimes[1:]]
    _outcomes[name] = [mine, *others]
    for other in others:
        assert mine.ok >= other.ok, f"{mine}; runc: {other}\n{mine.text}"
        if other.ended:
            assert mine.ended, f"{mine}; runc: {other}\n{mine.text}"
            assert mine.planned == other.planned or mine.ok > other.ok, f"{mine}; runc: {other}\n{mine.text}"


def test_why_options_are_taken_out(programs: Path, place: Path, machine: Machine) -> None:
    """As the program is, its container is refused for them, and for nothing else."""
    outcome = validate(programs / MOUNTS, place, ours(), machine)
    assert not outcome.ended
    assert REFUSED in outcome.text


def test_all_programs(programs: Path) -> None:
    """None is left out."""
    assert sorted(path.name for path in programs.iterdir()) == sorted([*PROGRAMS, "runtimetest"])
