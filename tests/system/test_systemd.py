"""Cgroups by systemd: a real one is asked, and what it says of its units is looked at, and where the processes are."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.build import ROOT
from tests.support.bundle import make_bundle
from tests.support.isolation import Isolation
from tests.support.runtime import Runtime, default_command, wait_for
from tests.support.systemd import Systemd, is_running
from tests.support.systemd_units import NOTE, SLEEP, SLICE, box, bundle, new, own_cgroups, shared, systemd
from tests.system.conftest import MakeBundle

# Fixtures of others.
__all__ = ["box", "bundle", "new", "shared", "systemd"]


def test_nothing_of_the_machine_is_writable(systemd: Systemd) -> None:
    """A systemd that boots empties /tmp, sets sysctls and makes devices: not those of the machine that the tests run on."""
    if is_running():
        pytest.skip("this machine runs under systemd")
    machine = {line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}  # file systems by device number
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    writable = set()
    for line in systemd.call("cat", "/proc/self/mountinfo").stdout.splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        # Of cgroups it sees its own group.
        if "rw" in fields[5].split(",") and fields[2] in machine and kind not in ("cgroup", "cgroup2"):
            writable.add(fields[4])
    assert writable - devices == {str(systemd.share)}
    for path in ("/proc/sys/fs/nr_open", f"{ROOT}/README.md", "/sys/kernel/notes"):
        done = systemd.call("sh", "-c", f"test -w {path}")
        assert done.returncode == 1, path
    assert "masked" in systemd.call("systemctl", "start", "sysinit.target").stderr
    # What is in its /tmp is what was put there.
    shown = {path.parts[2] for path in (ROOT, systemd.share) if path.parts[1] == "tmp"}
    assert set(systemd.call("ls", "/tmp").stdout.split()) == shown


# -- the life of a container ---------------------------------------------------------------------------------------------------


def test_a_container_s_life(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    container = box.create(bundle(args=SLEEP))
    unit = f"test-{container}.scope"
    group = f"/{SLICE}/{unit}"
    shown = systemd.show(unit)
    assert (shown["ActiveState"], shown["ControlGroup"], shown["Transient"]) == (["active"], [group], ["yes"])
    assert box.status(container) == "created"
    box.start(container).ok()
    where = own_cgroups(box.exec(container, "cat", "/proc/1/cgroup").ok().out)
    joined = own_cgroups(box.exec(container, "cat", "/proc/self/cgroup").ok().out)
    assert where[""] == joined[""] == group
    if systemd.view == "hybrid":
        # Also in those that systemd does nothing in.
        assert {where[name] for name in ("memory", "pids", "freezer", "cpuset", "devices", "name=systemd")} == {group}
        assert joined == where
    assert len(box.call("ps", "--format", "json", container).ok().json()) == 1
    box.call("pause", container).ok()
    assert box.status(container) == "paused"
    box.exec(container, "true").failed("paused")
    box.call("resume", container).ok()
    assert box.status(container) == "running"
    box.kill(container, "--all", "KILL").ok()
    wait_for(lambda: box.status(container) == "stopped", "its end")
    box.delete(container).ok()
    assert systemd.show(unit)["LoadState"] == ["not-found"]
    assert not systemd.directory(group).exists()


def test_an_attached_run(box: Runtime, bundle: MakeBundle) -> None:
    """The unit is there for the program, and is gone when `run` ends (the fixture looks)."""
    found = box.run(bundle(args=["cat", "/proc/self/cgroup"])).ok()
    assert own_cgroups(found.out)[""].endswith(".scope")


def test_a_cgroup_namespace_s_root_is_the_unit(box: Runtime, bundle: MakeBundle) -> None:
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    found = box.run(bundle(args=["cat", "/proc/self/cgroup"], namespaces=kinds)).ok()
    assert own_cgroups(found.out)[""] == "/"


def test_the_name_without_a_path(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """As runc has it, prefix and all: callers look there."""
    made = bundle(args=SLEEP)
    made.write()
    container = box.new_id()
    box.detached("run", "-d", "--bundle", made.path, container, out=box.output_of(container)).ok()
    shown = systemd.show(f"runc-{container}.scope")
    assert shown["Slice"] == ["system.slice"]
    assert shown["ControlGroup"] == [f"/system.slice/runc-{container}.scope"]


@pytest.mark.parametrize(("name", "path"), [("peer-a-b.slice", "/peer.slice/peer-a.slice/peer-a-b.slice"), ("-.slice", "")])
def test_slices(box: Runtime, bundle: MakeBundle, systemd: Systemd, name: str, path: str) -> None:
    container = box.run_detached(bundle(args=SLEEP, cgroupsPath=f"{name}:pre:x"))
    shown = systemd.show("pre-x.scope")
    group = f"{path}/pre-x.scope"
    assert (shown["Slice"], shown["ControlGroup"]) == ([name], [group])
    assert own_cgroups(box.exec(container, "cat", "/proc/1/cgroup").ok().out)[""] == group
    box.delete(container, "--force").ok()
    if is_running() and path:
        systemd.call("systemctl", "stop", name, "peer-a.slice", "peer.slice")


def test_annotations(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    notes = {
        NOTE + "TimeoutStopSec": "uint64 7",
        NOTE + "Description": "'of my own'",
        NOTE + "CollectMode": "'inactive'",
        NOTE + "After": "['a.service', 'b.service']",
    }
    container = box.run_detached(bundle(args=SLEEP, annotations=notes))
    shown = systemd.show(f"test-{container}.scope")
    assert (shown["TimeoutStopUSec"], shown["Description"], shown["CollectMode"]) == (["7s"], ["of my own"], ["inactive"])
    assert {"a.service", "b.service"} <= set(shown["After"][0].split())


def test_processes_that_outlive_init(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """Without a pid namespace of its own the unit lives on with what init has left; `delete` ends it."""
    made = bundle(args=["sh", "-c", "sleep 1000 & sleep 0.2"], namespaces=["mount", "uts", "ipc"])
    container = box.run_detached(made)
    wait_for(lambda: box.status(container) == "stopped", "its end")
    assert systemd.show(f"test-{container}.scope")["ActiveState"] == ["active"]
    box.delete(container).ok()
    assert systemd.show(f"test-{container}.scope")["LoadState"] == ["not-found"]


def test_a_paused_container_is_deleted(box: Runtime, bundle: MakeBundle) -> None:
    container = box.run_detached(bundle(args=SLEEP))
    box.call("pause", container).ok()
    box.delete(container, "--force").ok()


def test_systemd_stops_the_container(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """As on shutdown, or when its slice is stopped."""
    made = bundle(args=SLEEP, annotations={NOTE + "TimeoutStopSec": "uint64 1"})
    container = box.run_detached(made)
    systemd.call("systemctl", "stop", f"test-{container}.scope")
    wait_for(lambda: box.status(container) == "stopped", "its end")
    box.delete(container).ok()


# -- what goes wrong -----------------------------------------------------------------------------------------------------------


def test_without_systemd(runtime: Runtime, tmp_path: Path) -> None:
    if is_running():
        pytest.skip("this machine runs under systemd")
    path = make_bundle(tmp_path / "bundle").path
    container = runtime.new_id()
    for verb in ("create", "run"):
        found = runtime.call(verb, "--bundle", path, container, globals_=["--systemd-cgroup"])
        found.failed("systemd not running on this host, cannot use systemd cgroups manager", rc=1)
        assert not (runtime.root / container).exists(), verb


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/b", "expected cgroupsPath to be of format"),
        ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
        ("system.slice:x:y+z", "unit"),
    ],
)
def test_names_that_are_none(box: Runtime, bundle: MakeBundle, path: str, words: str) -> None:
    container = box.new_id()
    box.run(bundle(cgroupsPath=path), container=container).failed(words, rc=1)
    assert not (box.root / container).exists()


def test_a_unit_that_is_taken(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """By another container, in the same slice and in another: it is left alone."""
    first = box.run_detached(bundle(args=SLEEP, cgroupsPath=f"{SLICE}:pre:taken"))
    box.try_create(bundle(args=SLEEP, cgroupsPath=f"{SLICE}:pre:taken")).failed("container's cgroup is not empty", rc=1)
    box.try_create(bundle(args=SLEEP, cgroupsPath="system.slice:pre:taken")).failed("pre-taken.scope", rc=1)
    assert box.status(first) == "running"
    assert systemd.show("pre-taken.scope")["ActiveState"] == ["active"]


def test_check_finds_a_unit_that_is_taken(box: Runtime, bundle: MakeBundle) -> None:
    """Before anything is made, as it finds a cgroup that is."""
    box.run_detached(bundle(args=SLEEP, cgroupsPath=f"{SLICE}:pre:taken"))
    said = box.call("check", "--json", bundle(cgroupsPath=f"{SLICE}:pre:taken").path)
    assert said.err == ""
    [finding] = said.json()
    assert finding["pointer"] == "/linux/cgroupsPath"
    assert "not empty" in finding["message"]


def test_a_property_that_systemd_does_not_know(box: Runtime, bundle: MakeBundle) -> None:
    container = box.new_id()
    found = box.run(bundle(annotations={NOTE + "Nonsense": "5"}), container=container)
    found.failed(f"unable to start unit .*test-{container}.scope.*Nonsense|Cannot set property Nonsense", rc=1)
    assert not (box.root / container).exists()


def test_what_fails_later_leaves_no_unit(box: Runtime, bundle: MakeBundle) -> None:
    container = box.new_id()
    box.try_create(bundle(args=["/bin/nosuch"]), container=container).failed("nosuch", rc=1)
    mount = {"destination": "/x", "type": "nosuchfs", "source": "x"}
    box.run(bundle(add_mounts=[mount]), container=container).failed("nosuchfs|no such device", rc=1)
    assert not (box.root / container).exists()


@pytest.mark.ocirt_only("runc leaves things behind here (opencontainers/runc issue 4534)")
@pytest.mark.parametrize("call", ["connect", "sendto", "recvfrom", "clone3", "write", "rename"])
def test_a_killed_creator(box: Runtime, bundle: MakeBundle, systemd: Systemd, call: str) -> None:
    """At each of its words to systemd, and around them: `delete --force` leaves no unit, and the name is free."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    made = bundle(args=SLEEP)
    killed = 0
    for number in range(1, 13):
        container = box.new_id()
        box.prepare(made, container)
        argv = box.argv("create", "--bundle", made.path, container)
        trace = [strace, "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        argv[len(systemd.prefix) : len(systemd.prefix)] = trace
        null = subprocess.DEVNULL  # where it is not killed, the container keeps them
        done = subprocess.run(argv, stdin=null, stdout=null, stderr=null, check=False, timeout=30)
        killed += done.returncode in (-9, 137)
        box.delete(container, "--force").ok()
        assert systemd.show(f"test-{container}.scope")["LoadState"] == ["not-found"], (call, number)
        if done.returncode == 0:
            break
    assert killed, f"no {call}"
    assert systemd.directories() == []


# -- rootless ------------------------------------------------------------------------------------------------------------------

USER = 1000


@pytest.fixture(scope="module")
def environment(systemd: Systemd) -> dict[str, str]:
    """How a user finds their systemd, which stays as long as the system's."""
    if systemd.view != "v2":
        pytest.skip("a user has no cgroups of version 1")
    return systemd.start_user()


@pytest.fixture
def user(systemd: Systemd, environment: dict[str, str], shared: Path, isolation: Isolation) -> Iterator[Runtime]:
    """The runtime, called by a user in a cgroup that is below the user's systemd."""
    caller = "/sys/fs/cgroup/user.slice/user-1000.slice/ocirt-user.service/caller"
    script = f'mkdir -p {caller} && chown {USER} {caller} {caller}/cgroup.procs && echo $$ >{caller}/cgroup.procs && exec "$@"'
    work = shared / "user"
    work.mkdir()
    os.chown(work, USER, USER)
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    prefix = [*systemd.prefix, "sh", "-c", script, "sh", *drop]
    made = Runtime(default_command(), work, f"{isolation.token}-u", None, manager="systemd", prefix=prefix)
    made.env = {"PATH": os.environ["PATH"]} | environment
    yield made
    assert made.clean_up() == []
    assert systemd.directories() == []


def test_a_user_s_container(user: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """In a scope of the user's systemd; `exec` gets there too."""
    one = [{"containerID": 0, "hostID": USER, "size": 1}]
    proc = {"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]}
    edits: dict[str, Any] = {
        "namespaces": ["ipc", "uts", "mount", "user"],
        "linux": {"uidMappings": one, "gidMappings": one},
        "mounts": [proc],
        "maskedPaths": [],
        "readonlyPaths": [],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "cgroupsPath": "a-b.slice:libpod:u1",
    }
    made = bundle(args=SLEEP, **edits)
    for path in (made.path, made.rootfs, *made.rootfs.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    container = user.run_detached(made)
    group = "/user.slice/user-1000.slice/ocirt-user.service/a.slice/a-b.slice/libpod-u1.scope"
    pid = user.pid(container)
    assert own_cgroups(systemd.call("cat", f"/proc/{pid}/cgroup").stdout)[""] == group
    assert own_cgroups(user.exec(container, "cat", "/proc/self/cgroup").ok().out)[""] == group
    assert user.call("ps", "--format", "json", container).ok().json() == [pid]
    user.call("pause", container).ok()
    assert user.status(container) == "paused"
    user.call("resume", container).ok()
    user.delete(container, "--force").ok()
    assert not systemd.directory(group).exists()


def test_a_user_without_systemd(user: Runtime, bundle: MakeBundle) -> None:
    user.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": "/run/nobody"}
    user.call("run", "--bundle", bundle().path, "nobody").failed("failed to connect to dbus.*systemd --user", rc=1)
    user.env = {"PATH": os.environ["PATH"]}
    user.call("run", "--bundle", bundle().path, "nobody").failed("could not detect DBUS_SESSION_BUS_ADDRESS", rc=1)
