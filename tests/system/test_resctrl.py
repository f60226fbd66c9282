"""`linux.intelRdt`: the groups of a container, on a file system that behaves as the kernel's resctrl, which few machines have."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import ROOT
from tests.support.bundle import Bundle
from tests.support.isolation import Isolation
from tests.support.resctrl import RESOURCES, FakeResctrl
from tests.support.runtime import Runtime, default_command
from tests.system.conftest import MakeBundle
from tests.system.test_check import checked

pytestmark = pytest.mark.ocirt_only("the mount point is given to it by a program around its command line")

AROUND = """
import sys
sys.path.append({root!r})
from ocirt.cgroups import resctrl
resctrl.find = lambda: resctrl.Resctrl({mount!r}, frozenset({resources!r}))
from ocirt.cli.main import main
main("ocirt", sys.argv[1:])
"""
FULL = "    L3:0=fff;1=fff\n    MB:0= 100;1= 100\n"


@pytest.fixture
def resctrl(no_leaks: list[Path], tmp_path: Path) -> Iterator[Path]:
    """A resctrl file system with four classes of service."""
    del no_leaks
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse")
    path = tmp_path / "resctrl"
    path.mkdir()
    fake = FakeResctrl(path)
    fake.start()
    yield path
    fake.stop()


@pytest.fixture
def runtime(runtime: Runtime, resctrl: Path, tmp_path: Path) -> Runtime:
    """The runtime, for which resctrl is mounted there."""
    program = tmp_path / "around.py"
    program.write_text(AROUND.format(root=str(ROOT), mount=str(resctrl), resources=RESOURCES))
    runtime.command = [sys.executable, "-I", "-S", "-B", str(program)]
    return runtime


def confined(bundle: MakeBundle, rdt: dict[str, Any], **edits: Any) -> Bundle:
    """A bundle with `linux.intelRdt`."""
    return bundle(args=["sleep", "1000"], linux={"intelRdt": rdt}, **edits)


def tasks(group: Path) -> list[str]:
    """The processes in a group."""
    return (group / "tasks").read_text().split()


def groups(resctrl: Path) -> set[str]:
    """The groups that there are."""
    return set(os.listdir(resctrl)) - {"info", "tasks", "schemata", "mon_groups"}


@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_group_of_its_own(runtime: Runtime, bundle: MakeBundle, resctrl: Path, user_namespace: bool) -> None:
    """Named after the container, with its schemata; its processes are in it, also those of `exec`; `delete` removes it."""
    from tests.system.test_namespaces import with_user_namespace  # noqa: PLC0415

    rdt = {"l3CacheSchema": "L3:0=f0", "memBwSchema": "MB:0=25", "schemata": ["L3:1=f", "MB:1=20"], "enableMonitoring": True}
    made = confined(bundle, rdt)
    if user_namespace:
        with_user_namespace(made)
    container = runtime.create(made)
    group = resctrl / container
    pid = str(runtime.pid(container))
    assert (group / "schemata").read_text() == "    L3:0=f0;1=f\n    MB:0=  30;1=  20\n"
    assert tasks(group) == tasks(group / "mon_groups" / container) == [pid]
    runtime.start(container).ok()
    pid_file = runtime.work / "inner"
    words = ("exec", "--detach", "--pid-file", pid_file, container, "sleep", "1000")
    runtime.detached(*words, out=runtime.work / "inner.out").ok()
    inner = pid_file.read_text()
    assert tasks(group) == tasks(group / "mon_groups" / container) == sorted([pid, inner], key=int)
    os.kill(int(inner), signal.SIGKILL)
    os.waitpid(int(inner), 0)
    runtime.delete(container, "--force").ok()
    assert groups(resctrl) == set()


def test_nothing_asked_for(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """An empty section means a group, too; its schemata are the kernel's."""
    container = runtime.run_detached(confined(bundle, {}))
    assert tasks(resctrl / container) == [str(runtime.pid(container))]
    assert (resctrl / container / "schemata").read_text() == FULL
    assert os.listdir(resctrl / container / "mon_groups") == []
    runtime.delete(container, "--force").ok()
    assert groups(resctrl) == set()


def test_a_group_that_somebody_made(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """Without schemata it must be there, and it stays; the container's monitoring group in it goes."""
    rdt = {"closID": "gold", "enableMonitoring": True}
    runtime.run(confined(bundle, rdt)).failed("/linux/intelRdt/closID: clos dir not accessible", rc=1)
    assert groups(resctrl) == set()
    (resctrl / "gold").mkdir()
    container = runtime.run_detached(confined(bundle, rdt))
    pid = str(runtime.pid(container))
    assert tasks(resctrl / "gold") == tasks(resctrl / "gold/mon_groups" / container) == [pid]
    runtime.delete(container, "--force").ok()
    assert groups(resctrl) == {"gold"}
    assert os.listdir(resctrl / "gold/mon_groups") == []


def test_a_group_with_a_name_and_schemata(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """Made if it is missing, kept; who comes next must want the same, however it is written."""
    rdt = {"closID": "gold", "l3CacheSchema": "L3:0=f0;1=00f", "memBwSchema": "MB:0=25"}
    first = runtime.run_detached(confined(bundle, rdt))
    second = runtime.run_detached(confined(bundle, rdt | {"l3CacheSchema": "L3:1=F;0=0xf0", "memBwSchema": "MB:0=30"}))
    assert tasks(resctrl / "gold") == sorted([str(runtime.pid(first)), str(runtime.pid(second))], key=int)
    other = runtime.run(confined(bundle, rdt | {"memBwSchema": "MB:0=40"}))
    other.failed("/linux/intelRdt/closID: MB:0=40 does not match the group, which is MB:0=30", rc=1)
    for container in (first, second):
        runtime.delete(container, "--force").ok()
    assert groups(resctrl) == {"gold"}
    assert (resctrl / "gold/schemata").read_text() == "    L3:0=f0;1=f\n    MB:0=  30;1= 100\n"


@pytest.mark.parametrize(
    ("there", "rdt", "pointer", "word"),
    [
        (False, {}, "", ""),
        (False, {"closID": "/", "enableMonitoring": True}, "", ""),
        (False, {"closID": "gold", "memBwSchema": "MB:0=25"}, "", ""),
        (True, {"closID": "gold", "memBwSchema": "MB:0=100"}, "", ""),
        (True, {"closID": "gold", "enableMonitoring": True}, "", ""),
        (False, {"closID": "gold"}, "/linux/intelRdt/closID", "clos dir not accessible"),
        (True, {"closID": "gold", "memBwSchema": "MB:0=40"}, "/linux/intelRdt/closID", "does not match the group"),
        (True, {"closID": "gold", "schemata": ["L2:0=f"]}, "/linux/intelRdt/closID", "does not match the group"),
    ],
)
def test_check_says_what_is_refused(
    runtime: Runtime, bundle: MakeBundle, resctrl: Path, there: bool, rdt: dict[str, Any], pointer: str, word: str
) -> None:
    """Of groups that others have made or have not; and makes none."""
    if there:
        (resctrl / "gold").mkdir()
    made = confined(bundle, rdt)
    before = groups(resctrl)
    found = checked(runtime, made)
    assert groups(resctrl) == before
    assert [each["pointer"] for each in found] == ([pointer] if pointer else [])
    assert all(word in each["message"] and each["hint"] for each in found)
    result = runtime.try_create(made)
    if pointer:
        result.failed(f"{pointer}: .*{word}", rc=1)
        assert groups(resctrl) == before
    else:
        result.ok()


@pytest.mark.parametrize(
    ("resources", "rdt", "pointer"),
    [
        (("MB",), {"l3CacheSchema": "L3:0=1"}, "/linux/intelRdt/l3CacheSchema"),
        (("L3",), {"memBwSchema": "MB:0=20"}, "/linux/intelRdt/memBwSchema"),
        (("L3", "MB"), {"enableMonitoring": True}, "/linux/intelRdt/enableMonitoring"),
    ],
)
def test_check_knows_what_the_processor_has(
    runtime: Runtime, bundle: MakeBundle, resctrl: Path, tmp_path: Path, resources: Any, rdt: dict[str, Any], pointer: str
) -> None:
    (tmp_path / "around.py").write_text(AROUND.format(root=str(ROOT), mount=str(resctrl), resources=resources))
    made = confined(bundle, rdt)
    [finding] = checked(runtime, made)
    assert finding["pointer"] == pointer
    assert "not enabled" in finding["message"] or "cannot monitor" in finding["message"]
    runtime.try_create(made).failed(f"{pointer}: ", rc=1)


def test_the_group_of_all_others(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """`/` is the root, which has its monitoring groups."""
    container = runtime.run_detached(confined(bundle, {"closID": "/", "enableMonitoring": True}))
    pid = str(runtime.pid(container))
    assert tasks(resctrl) == tasks(resctrl / "mon_groups" / container) == [pid]
    runtime.delete(container, "--force").ok()
    assert os.listdir(resctrl / "mon_groups") == []


@pytest.mark.parametrize(
    ("rdt", "said"),
    [
        (
            {"l3CacheSchema": "L3:0=5"},
            r"/linux/intelRdt: unable to write .*L3:0=5.*The mask 5 has non-consecutive 1-bits: invalid",
        ),
        ({"closID": "new", "memBwSchema": "MB:7=50"}, "/linux/intelRdt: unable to write .*Unknown domain 7: invalid argument"),
        ({"schemata": ["L2:0=f"]}, "/linux/intelRdt: unable to write .*Unknown or unsupported resource name 'L2'"),
        ({"closID": "a/b"}, "/linux/intelRdt/closID: invalid intelRdt.ClosID"),
    ],
)
def test_what_is_refused_leaves_no_group(
    runtime: Runtime, bundle: MakeBundle, resctrl: Path, rdt: dict[str, Any], said: str
) -> None:
    """With the kernel's own words."""
    runtime.run(confined(bundle, rdt)).failed(said, rc=1)
    assert groups(resctrl) == set()


@pytest.mark.parametrize("rdt", [{"enableMonitoring": True}, {"closID": "new", "memBwSchema": "MB:0=50"}])
def test_a_container_that_fails_later_leaves_no_group(
    runtime: Runtime, bundle: MakeBundle, resctrl: Path, rdt: dict[str, Any]
) -> None:
    """Its program is missing."""
    runtime.run(confined(bundle, rdt).edit(args=["/nosuch"])).failed("/process/args/0", rc=1)
    assert groups(resctrl) == set()


def test_no_group_is_left(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """The hardware knows a few classes only."""
    for name in ("a", "b", "c"):
        (resctrl / name).mkdir()
    runtime.run(confined(bundle, {})).failed("make group .*Failed to allocate CLOSIDs: no space left on device", rc=1)
    assert groups(resctrl) == {"a", "b", "c"}


def test_exec_when_the_group_is_gone(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """Somebody removed it: the process is where all others are."""
    container = runtime.run_detached(confined(bundle, {}))
    (resctrl / container).rmdir()
    runtime.exec(container, "true").ok()
    runtime.delete(container, "--force").ok()


def test_update(runtime: Runtime, bundle: MakeBundle, resctrl: Path) -> None:
    """One schema, or both; what was given before is written again. What fails changes nothing."""
    container = runtime.run_detached(confined(bundle, {"l3CacheSchema": "L3:0=f0"}))
    file = resctrl / container / "schemata"
    runtime.call("update", "--mem-bw-schema", "MB:0=50", container).ok()
    assert file.read_text() == "    L3:0=f0;1=fff\n    MB:0=  50;1= 100\n"
    file.write_text("L3:0=1\n")  # by somebody else
    runtime.call("update", "--mem-bw-schema", "MB:1=30", container).ok()
    after = "    L3:0=f0;1=fff\n    MB:0=  50;1=  30\n"
    assert file.read_text() == after
    for words, said in (
        (("--l3-cache-schema", "L3:0=5"), "non-consecutive"),
        (("--l3-cache-schema", "L3:0=f", "--cpuset-cpus", "4095"), "cpus"),
    ):
        runtime.call("update", *words, container).failed(said, rc=1)
        assert file.read_text() == after
    runtime.call("update", "--l3-cache-schema", "L3:1=ff", "--mem-bw-schema", "MB:0=20", container).ok()
    assert file.read_text() == "    L3:0=f0;1=ff\n    MB:0=  20;1=  30\n"
    runtime.delete(container, "--force").ok()
    assert groups(resctrl) == set()


def test_update_without_a_group(runtime: Runtime, bundle: MakeBundle) -> None:
    """It is not made up afterwards."""
    container = runtime.run_detached(bundle(args=["sleep", "1000"]))
    result = runtime.call("update", "--l3-cache-schema", "L3:0=1", container)
    result.failed("updating a non-existent Intel RDT configuration is not supported", rc=1)


def test_on_this_host(bundle: MakeBundle, no_leaks: list[Path], isolation: Isolation, tmp_path: Path) -> None:
    """Without resctrl it is refused by name, before anything is made."""
    del no_leaks
    if os.path.exists("/sys/fs/resctrl"):
        pytest.skip("this host has resctrl")
    work = tmp_path / "plain"
    work.mkdir()
    plain = Runtime(default_command(), work, f"{isolation.token}-rdt", isolation.cgroup_parent)
    made = confined(bundle, {"closID": "gold"})
    plain.run(made).failed("/linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled", rc=1)
    plain.call("plan", made.path).failed("Intel RDT is not enabled", rc=1)
