"""Namespaces that are nowhere but behind a descriptor: in no mount tree, and of no process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import KERNEL, MAPPING, with_user_namespace

KINDS = ["mount", "pid", "network", "ipc", "uts", "cgroup"]
FILES = KERNEL | {"time": "time"}


class Kept:
    """Descriptors of the namespaces of a container that is gone."""

    def __init__(self, runtime: Runtime, made: Bundle) -> None:
        self.fds: dict[str, int] = {}
        self.links: dict[str, str] = {}
        container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
        place = f"/proc/{runtime.pid(container)}/ns"
        for entry in made.config["linux"]["namespaces"]:
            kind = entry["type"]
            if kind not in ("mount", "pid"):  # these end with their init
                self.fds[kind] = os.open(f"{place}/{FILES[kind]}", os.O_RDONLY)
                self.links[kind] = os.readlink(f"{place}/{FILES[kind]}")
        runtime.delete(container, "--force").ok()

    def close(self) -> None:
        """Let them go, which ends them."""
        for fd in self.fds.values():
            os.close(fd)

    def path(self, kind: str, way: str) -> str:
        """Where a runtime that has the descriptors too finds one; or by way of ours."""
        return f"/proc/{os.getpid() if way == 'another process' else 'self'}/fd/{self.fds[kind]}"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what is kept."""
    with ExitStack() as stack:
        yield stack


def kept(opened: ExitStack, runtime: Runtime, made: Bundle) -> Kept:
    found = Kept(runtime, made)
    opened.callback(found.close)
    return found


def joined(made: Bundle, spaces: Kept, way: str, *kinds: str) -> Bundle:
    """The bundle with these kinds joined, and those that it had else new."""
    others = [entry["type"] for entry in made.config["linux"]["namespaces"] if entry["type"] not in kinds]
    entries = [{"type": kind, "path": spaces.path(kind, way)} for kind in kinds]
    return made.edit(namespaces=[*others, *entries], hostname=None, args=["/bin/probe"])


def probe(runtime: Runtime, made: Bundle, spaces: Kept, way: str) -> Any:
    fds = () if way == "another process" else tuple(spaces.fds.values())
    return runtime.run(made, pass_fds=fds).ok().json()


@pytest.mark.parametrize("way", ["own", "another process"])
@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup"])
def test_one(runtime: Runtime, bundle: MakeBundle, opened: ExitStack, kind: str, way: str) -> None:
    """Of each kind, by a descriptor of the runtime's or of a process that keeps it."""
    made = bundle(namespaces=KINDS)
    spaces = kept(opened, runtime, made)
    seen = probe(runtime, joined(made, spaces, way, kind), spaces, way)["namespaces"]
    assert seen[FILES[kind]] == spaces.links[kind]
    assert all(seen[FILES[other]] != link for other, link in spaces.links.items() if other != kind)


@pytest.mark.parametrize("way", ["own", "another process"])
@pytest.mark.parametrize("kinds", [("user",), ("user", "network"), ("user", "network", "ipc", "uts")], ids="-".join)
def test_a_user_namespace(runtime: Runtime, bundle: MakeBundle, opened: ExitStack, kinds: tuple[str, ...], way: str) -> None:
    """Alone, and with others that belong to it: as the containers of a pod with a user namespace have them."""
    made = with_user_namespace(bundle(namespaces=KINDS))
    spaces = kept(opened, runtime, made)
    joined(made, spaces, way, *kinds).edit(uidMappings=None, gidMappings=None)
    seen = probe(runtime, made, spaces, way)
    assert {kind: seen["namespaces"][FILES[kind]] for kind in kinds} == {kind: spaces.links[kind] for kind in kinds}
    assert seen["uid_map"].split() == ["0", str(MAPPING[0]["hostID"]), str(MAPPING[0]["size"])]
    assert (seen["uid"], seen["gid"]) == ([0] * 3, [0] * 3)


@pytest.mark.parametrize("way", ["own", "another process"])
def test_a_user_namespace_with_others_of_the_host_s(runtime: Runtime, bundle: MakeBundle, opened: ExitStack, way: str) -> None:
    """A network of the host's user namespace beside them; a sysfs of that may be mounted by its owner alone (sysfs(5))."""
    of_host = kept(opened, runtime, bundle(namespaces=KINDS))
    made = with_user_namespace(bundle(namespaces=KINDS))
    spaces = kept(opened, runtime, made)
    joined(made, spaces, way, "user", "ipc", "uts").edit(uidMappings=None, gidMappings=None)
    entries = [entry for entry in made.config["linux"]["namespaces"] if entry["type"] != "network"]
    made.edit(namespaces=[*entries, {"type": "network", "path": of_host.path("network", "another process")}])
    made.edit(mounts=[mount for mount in made.config["mounts"] if mount["type"] != "sysfs"])
    seen = probe(runtime, made, spaces, way)["namespaces"]
    assert seen["net"] == of_host.links["network"]
    assert seen["user"] == spaces.links["user"]


@pytest.mark.parametrize("way", ["own", "another process"])
def test_exec_and_delete_need_no_descriptor(runtime: Runtime, bundle: MakeBundle, opened: ExitStack, way: str) -> None:
    """Later verbs find the namespaces by the container's init: what the path meant is gone by then."""
    made = with_user_namespace(bundle(namespaces=KINDS))
    spaces = kept(opened, runtime, made)
    joined(made, spaces, way, "user", "network", "ipc", "uts").edit(uidMappings=None, gidMappings=None, args=["sleep", "1000"])
    fds = () if way == "another process" else tuple(spaces.fds.values())
    container = runtime.run_detached(made, pass_fds=fds)
    opened.close()
    seen = runtime.exec(container, "/bin/probe").ok().json()["namespaces"]
    assert {kind: seen[FILES[kind]] for kind in spaces.links if kind != "cgroup"} == {
        kind: link for kind, link in spaces.links.items() if kind != "cgroup"
    }
    # Not one of ours is open in there.
    assert len(os.listdir(f"/proc/{runtime.pid(container)}/fd")) == 3
    runtime.kill(container, "KILL").ok()
    runtime.delete(container, "--force").ok()


def test_of_another_mount_namespace(runtime: Runtime, bundle: MakeBundle, opened: ExitStack) -> None:
    """What is bound in a mount namespace that only its keeper is in can be reached through the keeper's root."""
    keeper = runtime.run_detached(bundle(args=["sleep", "1000"]))
    pid = runtime.pid(keeper)
    made = bundle(namespaces=KINDS)
    spaces = kept(opened, runtime, made)
    path = f"/proc/{pid}/root/proc/1/ns/net"
    joined(made, spaces, "own", "ipc")
    entries = [entry for entry in made.config["linux"]["namespaces"] if entry["type"] != "network"]
    made.edit(namespaces=[*entries, {"type": "network", "path": path}])
    seen = probe(runtime, made, spaces, "own")["namespaces"]
    assert seen["net"] == os.readlink(f"/proc/{pid}/ns/net")
    assert Path(path).exists()


def test_a_descriptor_that_is_none(runtime: Runtime, bundle: MakeBundle) -> None:
    """One that is not open, and one of another kind of file."""
    made = bundle(namespaces=KINDS, hostname=None)
    reader, writer = os.pipe()
    try:
        for fd, words in ((999, "no such file"), (reader, "is no namespace")):
            others = [{"type": kind} for kind in KINDS if kind != "ipc"]
            made.edit(namespaces=[*others, {"type": "ipc", "path": f"/proc/self/fd/{fd}"}])
            runtime.run(made, pass_fds=(reader,)).failed(words, rc=1)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def alive() -> Iterator[int]:
    """The pid of a process with the kinds of namespaces that end with their processes, or are entered by children alone."""
    words = ["unshare", "--mount", "--propagation", "unchanged", "--time", "cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # unshare has become cat
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize("way", ["own", "another process"])
@pytest.mark.parametrize("kind", ["mount", "time", "pid"])
def test_those_that_need_a_process(
    runtime: Runtime, bundle: MakeBundle, opened: ExitStack, alive: int, kind: str, way: str
) -> None:
    """Mounts, clocks, and the processes of another container."""
    name = {"mount": "mnt", "time": "time_for_children", "pid": "pid"}[kind]
    holder = runtime.run_detached(bundle(args=["sleep", "1000"])) if kind == "pid" else None
    fd = os.open(f"/proc/{runtime.pid(holder) if holder else alive}/ns/{name}", os.O_RDONLY)
    opened.callback(os.close, fd)
    link = os.readlink(f"/proc/self/fd/{fd}")
    path = f"/proc/{'self' if way == 'own' else os.getpid()}/fd/{fd}"
    made = bundle(namespaces=[*(each for each in KINDS if each != kind), {"type": kind, "path": path}])
    script = "readlink /proc/self/ns/" + name.partition("_")[0]
    made.edit(args=["/bin/sh", "-c", script], hostname=None)
    assert runtime.run(made, pass_fds=(fd,) if way == "own" else ()).ok().out.strip() == link
    if holder:
        runtime.delete(holder, "--force").ok()
