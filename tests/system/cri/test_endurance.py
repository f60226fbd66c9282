"""Pods that come and go, that stay, and programs that are run in one: what the daemon and a shim hold in the end.

OCIRT_TEST_ENDURANCE=1 does it in full (1,000 cycles; 500 pods for ten minutes; 500 execs); else a part, so that it takes seconds.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

FULL = os.environ.get("OCIRT_TEST_ENDURANCE") == "1"
CYCLES, FROM = (1000, 100) if FULL else (30, 10)
PODS, SECONDS = (500, 600) if FULL else (8, 0)
EXECS = 500 if FULL else 40
GROWTH = 5 << 10  # KiB of the daemon and the zygote between cycle FROM and the last
GROWTH_OF_A_SHIM = 300  # KiB, after all execs


def memory(pid: int, kind: str) -> int:
    """KiB of a kind; of one that has just ended 0.

    Pss: what the process has, and of pages that others have, too, its part; Anonymous: all that it has of no file, whoever else
    has it. The zygote's part falls and rises with the forks that are there at the moment.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(kind + ":"))


def children(pid: int) -> list[int]:
    """Its processes: the zygote, and the helper of networks."""
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]


def shim_of(node: Ocirtd, container: str) -> int:
    """The pid of its shim."""
    return int(json.loads((node.place / "v/shims" / container / "state.json").read_text())["pid"])


class Held:
    """What a daemon holds: memory in KiB, and numbers of everything else."""

    def __init__(self, node: Ocirtd, cgroups: list[Path]) -> None:
        assert node.process is not None
        pid = node.process.pid
        processes = {"ocirtd": pid} | {f"child {number}": one for number, one in enumerate(sorted(children(pid)))}
        self.memory = {name: memory(one, "Anonymous") for name, one in processes.items()}
        self.pss = sum(memory(one, "Pss") for one in processes.values())
        with sqlite3.connect(f"file:{node.place}/r/node.db?mode=ro", uri=True) as store:
            rows = sum(store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("pods", "containers"))
        store.close()
        self.numbers = {
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "descriptors of children": sum(len(os.listdir(f"/proc/{one}/fd")) for one in children(pid)),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "mounts": len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()),
            "cgroups": sum(1 for place in cgroups for _, names, _ in os.walk(place) for _ in names),
            "rows": rows,
        }

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in {**self.memory, "PSS": self.pss, **self.numbers}.items())


def cgroup_parents(node: Ocirtd) -> list[Path]:
    """The folders of the pods' parent, in each hierarchy."""
    places = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    return [place / node.cgroup_parent[1:] for place in places if (place / node.cgroup_parent[1:]).is_dir()]


def test_cycles(node: Ocirtd, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole lives of pods, four at a time. Neither memory nor anything else grows."""

    def live(_: int) -> None:
        pod = node.run_pod()
        box = node.run(pod, "sleep", "1000")
        assert node.exec(box, "true").exit_code == 0
        node.stop_container(box)
        node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=PATIENCE)
        node.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=PATIENCE)

    # More at a time than the daemon has threads: each of them is there afterwards, with what it keeps open.
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(live, range(FROM)))
    time.sleep(0.5)
    with ThreadPoolExecutor(4) as threads:
        before = Held(node, cgroup_parents(node))
        begin = time.monotonic()
        list(threads.map(live, range(CYCLES - FROM)))
    seconds = time.monotonic() - begin
    time.sleep(0.5)
    after = Held(node, cgroup_parents(node))
    with capsys.disabled():
        print(
            f"\n  after {FROM} cycles: {before}\n  after {CYCLES}, at {(CYCLES - FROM) / seconds:.1f} a second: {after}", end=""
        )
    for name, value in before.numbers.items():
        # After a few cycles not every thread has been there yet.
        few = 0 if FULL or name in ("mounts", "cgroups", "rows") else 4
        assert value <= after.numbers[name] <= value + few, name
    assert sum(after.memory.values()) - sum(before.memory.values()) <= GROWTH


def test_many_pods(node: Ocirtd, capsys: pytest.CaptureFixture[str]) -> None:
    """They run side by side, are asked about again and again, and are found by the next daemon; in the end nothing is left."""
    before = Held(node, cgroup_parents(node))
    starts = []

    def make(_: int) -> tuple[str, str]:
        begin = time.monotonic()
        pod = node.run_pod()
        box = node.run(pod, "sleep", "100000")
        starts.append(time.monotonic() - begin)
        return pod, box

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(make, range(PODS)))
    first = Held(node, cgroup_parents(node))
    until, lists = time.monotonic() + SECONDS, []
    while True:
        begin = time.monotonic()
        assert len(node.runtime.ListContainers(cri.ListContainersRequest(), timeout=PATIENCE).containers) == PODS
        lists.append(time.monotonic() - begin)
        assert len(node.runtime.ListContainerStats(cri.ListContainerStatsRequest(), timeout=PATIENCE).stats) == PODS
        assert node.exec(made[len(lists) % PODS][1], "true").exit_code == 0
        if time.monotonic() > until:
            break
        time.sleep(1)
    last = Held(node, cgroup_parents(node))
    shims = [memory(shim_of(node, box), "Pss") for _, box in made]
    node.kill()
    begin = time.monotonic()
    node.start()
    recovered = time.monotonic() - begin
    for _, box in made:
        assert node.status(box).state == cri.CONTAINER_RUNNING
    with ThreadPoolExecutor(4) as threads:
        for pod, _ in made:
            threads.submit(node.runtime.RemovePodSandbox, cri.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=2 * PATIENCE)
    end = Held(node, cgroup_parents(node))
    with capsys.disabled():
        print(f"\n  before: {before}\n  with {PODS} pods: {first}\n  {SECONDS} seconds later: {last}\n  removed: {end}")
        print(f"  a start: {statistics.median(starts) * 1000:.0f} ms; a list: {statistics.median(lists) * 1000:.1f} ms", end="")
        print(f"; a shim: {statistics.median(shims)} KiB; the next daemon was ready after {recovered:.2f} s", end="")
    assert sum(last.memory.values()) - sum(first.memory.values()) <= GROWTH
    assert {name: last.numbers[name] for name in ("mounts", "cgroups", "rows")} == {
        name: first.numbers[name] for name in ("mounts", "cgroups", "rows")
    }
    for name in ("mounts", "cgroups", "rows"):
        assert end.numbers[name] == before.numbers[name]


def test_many_execs(node: Ocirtd, capsys: pytest.CaptureFixture[str]) -> None:
    """A shim after so many is what it was after the first few."""
    box = node.run(node.run_pod(), "sleep", "1000")
    shim = shim_of(node, box)
    for _ in range(3):
        node.exec(box, "true")
    before, files = memory(shim, "Pss"), len(os.listdir(f"/proc/{shim}/fd"))
    for number in range(EXECS):
        assert node.exec(box, "sh", "-c", f"echo {number}").stdout == b"%d\n" % number
    after = memory(shim, "Pss")
    with capsys.disabled():
        print(f"\n  a shim's PSS: {before} KiB; after {EXECS} execs {after} KiB", end="")
    assert after - before <= GROWTH_OF_A_SHIM
    assert len(os.listdir(f"/proc/{shim}/fd")) == files
