"""Namespaces: new, by path, none; user namespaces and their maps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle

# The spec's names and the kernel's.
KERNEL = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup", "user": "user"}
MAPPING = [{"containerID": 0, "hostID": 100_000, "size": 65536}]


def own(kind: str) -> str:
    """The namespace of the tests, which is the runtime's too."""
    return os.readlink(f"/proc/self/ns/{KERNEL[kind]}")


def with_user_namespace(made: Bundle, **edits: Any) -> Bundle:
    """Give the bundle a user namespace of its own: its root owned by the first mapped user."""
    for directory, directories, files in os.walk(made.rootfs):
        for name in (".", *directories, *files):
            path = Path(directory, name)
            # A program is a hard link to a file that others use: it stays root's.
            if not (path.is_file() and path.stat().st_nlink > 1):
                os.lchown(path, 100_000, 100_000)
    namespaces = [item["type"] for item in made.config["linux"]["namespaces"]]
    return made.edit(namespaces=[*namespaces, "user"], uidMappings=MAPPING, gidMappings=MAPPING, **edits)


def test_new_namespaces(runtime: Runtime, bundle: MakeBundle) -> None:
    """Those that are named are new, the others are the runtime's."""
    seen = runtime.probe(bundle(namespaces=["mount", "pid", "network", "ipc", "uts", "cgroup"]))["namespaces"]
    for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup"):
        assert seen[KERNEL[kind]] != own(kind), kind
    assert seen["user"] == own("user")


def test_only_a_mount_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """The others are shared with the host."""
    made = bundle(namespaces=["mount"], hostname=None, edit=lambda config: config["mounts"].pop())
    made.edit(maskedPaths=[], readonlyPaths=[])
    seen = runtime.probe(made)
    for kind in ("pid", "network", "ipc", "uts", "cgroup", "user"):
        assert seen["namespaces"][KERNEL[kind]] == own(kind), kind
    assert seen["hostname"] == os.uname().nodename


def test_host_and_domain_name(runtime: Runtime, bundle: MakeBundle) -> None:
    """In the container only."""
    before = os.uname().nodename
    seen = runtime.probe(bundle(hostname="inside", domainname="example.org"))
    assert (seen["hostname"], seen["domainname"]) == ("inside", "example.org")
    assert os.uname().nodename == before


def test_loopback_is_up(runtime: Runtime, bundle: MakeBundle) -> None:
    """A new network namespace has lo, up, and nothing else."""
    result = runtime.shell(bundle(), "cat /proc/net/dev | tail -n +3 | wc -l; cat /sys/class/net/lo/flags").ok()
    assert result.out.split() == ["1", "0x9"]


@pytest.fixture
def holder() -> Iterator[int]:
    """The pid of a process with namespaces of its own."""
    command = ["unshare", "--net", "--ipc", "--uts", "--cgroup", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # unshare has become cat
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup"])
def test_namespace_by_path(runtime: Runtime, bundle: MakeBundle, holder: int, kind: str) -> None:
    """One that exists already; it goes on after the container."""
    path = f"/proc/{holder}/ns/{KERNEL[kind]}"
    others = [name for name in ("pid", "network", "ipc", "uts", "mount") if name != kind]
    made = bundle(namespaces=[*others, {"type": kind, "path": path}], hostname=None)
    assert runtime.probe(made)["namespaces"][KERNEL[kind]] == os.readlink(path)
    assert os.path.exists(path)


def test_pid_namespace_of_another_container(runtime: Runtime, bundle: MakeBundle) -> None:
    """Joined by path: the other's processes are in sight, and the two end on their own."""
    first = runtime.run_detached(bundle(args=["sleep", "1000"]))
    path = f"/proc/{runtime.pid(first)}/ns/pid"
    made = bundle(namespaces=[{"type": "pid", "path": path}, "network", "ipc", "uts", "mount"])
    seen = runtime.probe(made)
    assert seen["namespaces"]["pid"] == os.readlink(path)
    assert seen["pid"] != 1
    assert "sleep 1000" in runtime.run(made.edit(args=["ps"])).ok().out
    second = runtime.run_detached(made.edit(args=["sleep", "999"]))
    runtime.delete(second, "--force").ok()
    assert runtime.status(first) == "running"


@pytest.mark.parametrize("namespace", [{"type": "network", "path": "/nope"}, {"type": "network", "path": "/proc/self/ns/uts"}])
def test_namespace_by_a_wrong_path(runtime: Runtime, bundle: MakeBundle, namespace: dict[str, str]) -> None:
    """One that is not there, or of another kind: an error, and nothing is left."""
    runtime.run(bundle(namespaces=["pid", "ipc", "uts", "mount", namespace])).failed(rc=1)


def test_user_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """The maps as they are asked for; root inside is somebody else outside."""
    made = with_user_namespace(bundle())
    seen = runtime.probe(made)
    assert seen["uid_map"].split() == seen["gid_map"].split() == ["0", "100000", "65536"]
    assert seen["setgroups"] == "allow"
    assert (seen["uid"], seen["gid"]) == ([0] * 3, [0] * 3)
    assert seen["namespaces"]["user"] != own("user")
    container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    status = Path(f"/proc/{runtime.pid(container)}/status").read_text()
    assert "\nUid:\t100000\t100000\t100000\t100000\n" in status
    assert runtime.exec(container, "/bin/probe").ok().json()["uid_map"] == seen["uid_map"]
    runtime.shell(made, "echo x > /mine").ok()
    assert (made.rootfs / "mine").stat().st_uid == 100_000


def test_user_in_a_user_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """Ids of config.json are those inside; supplementary groups too."""
    made = with_user_namespace(bundle(user={"uid": 1000, "gid": 1000, "additionalGids": [29]}))
    seen = runtime.probe(made)
    assert (seen["uid"], seen["gid"], seen["groups"]) == ([1000] * 3, [1000] * 3, [29])
    container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    assert "\nUid:\t101000\t" in Path(f"/proc/{runtime.pid(container)}/status").read_text()


def test_devices_in_a_user_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """mknod is not allowed there: the host's nodes are bound, and they work."""
    made = with_user_namespace(bundle(args=["sh", "-c", "echo x > /dev/null && head -c 3 /dev/zero | wc -c"]))
    assert runtime.run(made).ok().out == "3\n"
    seen = runtime.run(made.edit(args=["/bin/probe", "stat", "/dev/null"])).ok().json()
    assert (seen["type"], seen["rdev"]) == ("char", [1, 3])


def test_terminal_in_a_user_namespace(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """The console is the container's own."""
    from tests.support.terminal import ConsoleSocket, Reader  # noqa: PLC0415

    made = with_user_namespace(bundle(terminal=True, args=["sh", "-c", "tty; echo up > /dev/console"]))
    with ConsoleSocket(tmp_path / "console") as console:
        container = runtime.create(made, "--console-socket", console.path)
        _, fds = console.receive()
        runtime.start(container).ok()
        Reader(fds[0]).expect("up")
