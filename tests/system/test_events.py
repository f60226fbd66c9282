"""`events`: what a container uses, and when it lacks memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import Isolation
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import SLEEP, available

MIB = 1 << 20
BUSY = ["sh", "-c", "while :; do :; done"]


def stats(runtime: Runtime, container: str) -> Any:
    """The data of `events --stats`: one line, of one event."""
    result = runtime.call("events", "--stats", container).ok()
    assert result.err == ""
    assert result.out.count("\n") == 1
    event = result.json()
    assert (event["type"], event["id"], list(event)) == ("stats", container, ["type", "id", "data"])
    return event["data"]


class Stream:
    """`events` in the background."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events: list[Any] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.events += (json.loads(line) for line in self.process.stdout)

    def wait(self) -> str:
        """Until it ends, successfully; what it wrote on standard error."""
        assert self.process.wait(10) == 0
        self._reader.join()
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@pytest.fixture
def stream(runtime: Runtime) -> Iterator[Any]:
    """Start `events` with flags."""
    started: list[Stream] = []

    def start(*args: str) -> Stream:
        started.append(Stream(runtime.argv("events", *args)))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
        each._reader.join()
        for pipe in (each.process.stdout, each.process.stderr):
            assert pipe is not None
            pipe.close()


def test_stats(runtime: Runtime, bundle: MakeBundle) -> None:
    """What is measured is what the container does."""
    resources: dict[str, Any] = {}
    if available("cpu"):
        resources["cpu"] = {"quota": 5000, "period": 50000}
    if available("memory"):
        resources["memory"] = {"limit": 64 * MIB, "swap": 96 * MIB}
    if available("pids"):
        resources["pids"] = {"limit": 30}
    container = runtime.run_detached(bundle(args=BUSY, resources=resources))
    names = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"]
    shown = stats(runtime, container)
    assert list(shown) == names
    assert shown["pids"]["current"] == 1
    used = shown["cpu"].get("usage", {}).get("total", 0)
    wait_for(lambda: stats(runtime, container)["cpu"].get("usage", {}).get("total", 0) > used + 20_000_000, "processor time")
    if "cpu" in resources:
        wait_for(lambda: stats(runtime, container)["cpu"].get("throttling", {}).get("throttledPeriods", 0) >= 2, "throttling")
        assert stats(runtime, container)["cpu"]["throttling"]["throttledTime"] > 0
    if "memory" in resources:
        memory = stats(runtime, container)["memory"]
        assert (memory["usage"]["limit"], memory["swap"]["limit"]) == (64 * MIB, 96 * MIB)
        assert 0 < memory["usage"]["usage"] <= memory["usage"]["max"] <= 64 * MIB
        assert memory["raw"]["pgfault"] > 0
    if "pids" in resources:
        assert shown["pids"]["limit"] == 30


def test_stats_of_disks(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """What is read from a disk is counted there."""
    if not available("blkio") and not available("io"):
        pytest.skip("no controller of I/O in this view")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(MIB))
    device = file.stat().st_dev
    if not Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists():
        pytest.skip("the tests' files are not on a disk")
    bind = {"destination": "/mnt", "type": "bind", "source": str(file), "options": ["bind", "ro"]}
    # Version 1 counts nothing before anybody on this machine has set a limit for the device.
    limit = {"major": os.major(device), "minor": os.minor(device), "rate": 1 << 40}
    made = bundle(args=SLEEP, add_mounts=[bind], resources={"blockIO": {"throttleReadBpsDevice": [limit]}})
    (made.rootfs / "mnt").rmdir()
    (made.rootfs / "mnt").touch()
    container = runtime.run_detached(made)

    def read() -> bool:
        """From the disk, unless the kernel could not drop what it has of the file: somebody may look at it just then."""
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        runtime.exec(container, "cat", "/mnt").ok()
        entries = stats(runtime, container)["blkio"].get("ioServiceBytesRecursive") or []
        return bool(sum(entry.get("value", 0) for entry in entries if entry.get("op") == "Read") >= MIB)

    wait_for(read, "what was read from the disk", 10)


def test_pressure(runtime: Runtime, bundle: MakeBundle) -> None:
    """Version 2 tells how long processes have waited."""
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("version 1 has no pressure files")
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel does not tell pressure")
    container = runtime.run_detached(bundle(args=["sh", "-c", "for each in 1 2 3 4; do while :; do :; done & done; wait"]))
    wait_for(lambda: stats(runtime, container)["cpu"]["psi"], "processes that wait for each other")
    shown = stats(runtime, container)
    for part in ("cpu", "memory", "blkio"):
        psi = shown[part]["psi"]
        assert all(list(psi[kind]) == ["avg10", "avg60", "avg300", "total"] for kind in psi)
    assert list(shown["cpu"]["psi"]) == ["some", "full"]
    assert shown["cpu"]["psi"]["some"]["total"] > 0


def test_a_line_each_interval(runtime: Runtime, bundle: MakeBundle, stream: Any) -> None:
    """Of a created, a running and a paused container; it ends when the container does."""
    container = runtime.create(bundle(args=SLEEP))
    started = stream("--interval", "50ms", container)
    wait_for(lambda: len(started.events) >= 2, "lines of a created container")
    runtime.start(container).ok()
    runtime.call("pause", container).ok()
    seen = len(started.events)
    wait_for(lambda: len(started.events) >= seen + 2, "lines of a paused container")
    runtime.call("resume", container).ok()
    runtime.kill(container, "KILL").ok()
    if not runtime.is_ocirt:
        runtime.delete(container, "--force").ok()
    assert started.wait() == ""
    assert set(started.types()) == {"stats"}


def test_out_of_memory(runtime: Runtime, bundle: MakeBundle, stream: Any) -> None:
    """Once for a process that is killed, and for init before the end."""
    if not available("memory"):
        pytest.skip("no memory controller in this view")
    limit = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    hungry = "dd if=/dev/zero of=/dev/null bs=64M count=1"
    script = f"while ! [ -e /tmp/go ]; do sleep 0.05; done; exec {hungry}"
    made = bundle(args=["sh", "-c", script], resources=limit, root={"readonly": False})
    container = runtime.run_detached(made)
    started = stream("--interval", "1h", container)
    # It may not watch yet: then the first ones are missed.
    codes: list[int] = []

    def told() -> bool:
        codes.append(runtime.exec(container, *hungry.split()).rc)
        assert codes[-1] == 137, (codes, runtime.status(container))
        return bool(started.types())

    wait_for(told, "a line")
    assert set(started.types()) == {"oom"}
    runtime.exec(container, "true").ok()
    before = len(started.events)
    (made.rootfs / "tmp/go").touch()
    wait_for(lambda: runtime.status(container) == "stopped", "its end")
    if not runtime.is_ocirt:
        wait_for(lambda: len(started.events) > before, "a line")
        runtime.delete(container, "--force").ok()
    assert started.wait() == ""
    assert len(started.events) == before + 1
    assert started.events[-1] == {"type": "oom", "id": container}


def test_removal_is_no_lack_of_memory(runtime: Runtime, bundle: MakeBundle, stream: Any) -> None:
    """Version 1 counts it all the same."""
    container = runtime.run_detached(bundle(args=SLEEP))
    started = stream("--interval", "20ms", container)
    wait_for(lambda: started.events, "a line")
    runtime.delete(container, "--force").ok()
    started.wait()
    assert set(started.types()) == {"stats"}


def test_not_running(runtime: Runtime, bundle: MakeBundle) -> None:
    """In runc's words."""
    container = runtime.run_detached(bundle(args=["true"]))
    wait_for(lambda: runtime.status(container) == "stopped", "its end")
    runtime.call("events", container).failed(f"container with id {container} is not running", rc=1)
    runtime.call("events", "--stats", container).failed(f"container with id {container} is not running", rc=1)
    runtime.call("events", "nobody").failed("container does not exist", rc=1)
    running = runtime.run_detached(bundle(args=SLEEP))
    runtime.call("events", "--interval", "0", running).failed("duration interval must be greater than 0", rc=1)
    runtime.call("events", "--interval", "5x", running).failed(r'invalid value \\"5x\\" for flag -interval: parse error', rc=1)


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Every member's path, in order; what lists hold counts once."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}/{key}"
            yield from keys(item, f"{path}/{key}")
    elif isinstance(value, list) and value:
        yield from keys(value[0], path + "/0")


def test_the_same_as_the_peer(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """All names and their order, side by side with runc on a container of the same kind."""
    command = os.environ.get("OCIRT_TEST_PEER")
    if not command:
        pytest.skip("OCIRT_TEST_PEER names no runtime")
    peer = Runtime([command], runtime.work / "peer", runtime.token + "p", isolation.cgroup_parent)
    peer.work.mkdir()
    resources = {"pids": {"limit": 30}} if available("pids") else {}
    try:
        shown: list[Any] = []
        for each in (runtime, peer):
            container = each.run_detached(bundle(args=SLEEP, resources=resources))
            each.exec(container, "cat", "/bin/busybox").ok()
            shown.append(stats(each, container))
    finally:
        assert peer.clean_up() == []
    # What is zero is left out, and not all of it is the same twice: whether a disk was read depends on who came first.
    by_chance = re.compile(r"/max$|/cache$|/psi/|/blkio/io")
    ours, theirs = ([key for key in keys(each) if not by_chance.search(key)] for each in shown)
    assert ours == theirs


def test_out_of_memory_without_a_killer(runtime: Runtime, bundle: MakeBundle, stream: Any) -> None:
    """Version 1 tells although nobody is killed: somebody has to give the container more."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists() or not available("memory"):
        pytest.skip("needs version 1's memory controller")
    limit = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB, "disableOOMKiller": True}}
    # The kernel tells of a process that touches the memory itself, not of a system call that would fill it for the process.
    greedy = ["busybox", "awk", 'BEGIN { text = "sixteen letters."; for (i = 0; i < 21; i++) text = text text }']
    container = runtime.create(bundle(args=greedy, resources=limit))
    pid = runtime.pid(container)
    started = stream("--interval", "100ms", container)
    wait_for(lambda: started.events, "a line")
    runtime.start(container).ok()
    wait_for(lambda: "oom" in started.types(), "the lack of memory")
    assert runtime.status(container) == "running"
    runtime.call("update", "--memory", "256m", "--memory-swap", "256m", container).ok()
    assert runtime.wait(container, pid) == 0
