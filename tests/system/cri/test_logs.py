"""Logs of many containers, whatever becomes of the daemon, and whoever rotates them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

CONTAINERS = int(os.environ.get("OCIRT_TEST_CONTAINERS", "12"))
FULL = os.environ.get("OCIRT_TEST_ENDURANCE") == "1"
KILLS = 10
CHANCE = random.Random(os.environ.get("OCIRT_TEST_SEED", "1"))
_PAUSE = max(0.1, CONTAINERS / 200)  # seconds between two lines of each
_COUNT = f"i=0; while test ! -e /stop; do i=$((i+1)); echo $i; sleep {_PAUSE}; done; echo end"


def test_no_line_is_lost_and_none_comes_twice(node: Ocirtd) -> None:
    """The daemon is killed ten times, and between the kills each log is rotated as the kubelet does it."""
    with ThreadPoolExecutor(4) as threads:
        pods = [node.run_pod() for _ in range(-(-CONTAINERS // 10))]
        places = [pods[number % len(pods)] for number in range(CONTAINERS)]
        boxes = list(threads.map(lambda pod: node.run(pod, "sh", "-c", _COUNT), places))
    logs = {box: Path(node.status(box).log_path) for box in boxes}
    for turn in range(KILLS):
        # Some are renamed before the daemon dies, and reopened by the next one.
        early = {box for box in boxes if CHANCE.random() < 0.5}
        for box in early:
            logs[box].rename(f"{logs[box]}.{turn:02}")
        time.sleep(CHANCE.uniform(0, 0.3))
        node.kill()
        for box in boxes:
            if box not in early:
                logs[box].rename(f"{logs[box]}.{turn:02}")
        node.start()
        for box in boxes:
            node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=box), timeout=PATIENCE)
    for box in boxes:
        assert node.exec(box, "touch", "/stop").exit_code in (0, 137)  # what sees the file may end first, and the program with it
    for box in boxes:
        assert node.wait(box).exit_code == 0
        files = sorted(logs[box].parent.glob(logs[box].name + ".*"))
        assert len(files) == KILLS
        lines = [line.split(" ", 3) for path in (*files, logs[box]) for line in path.read_text().splitlines()]
        assert [line[1:3] for line in lines] == [["stdout", "F"]] * len(lines)
        texts = [line[3] for line in lines]
        assert texts == [*map(str, range(1, len(texts))), "end"]
        assert len(texts) > KILLS


def shim_of(node: Ocirtd, container: str) -> int:
    """The pid of its shim."""
    return int(json.loads((node.place / "v/shims" / container / "state.json").read_text())["pid"])


def resident(process: Path) -> int:
    """KiB."""
    return int(next(line.split()[1] for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS:")))


def wrote(process: Path) -> int:
    """Bytes, to whatever."""
    return int(next(line.split()[1] for line in (process / "io").read_text().splitlines() if line.startswith("wchar:")))


def test_bounds_of_a_log(node: Ocirtd) -> None:
    """By the configuration, for containers that are made from then on."""
    node.stop()
    node.config.write_text(node.config.read_text() + "[containers]\nlog_size_limit = 5000\nlog_rate_limit = 20000\n")
    node.start()
    pod = node.run_pod()
    box = node.run(pod, "seq", "1", "100000")
    assert node.wait(box).exit_code == 0
    log = Path(node.status(box).log_path)
    old = Path(f"{log}.1")
    assert log.stat().st_size <= 5000 + 200  # and the line that counts
    assert old.stat().st_size <= 5000
    lines = [line.split(" ", 3) for path in (old, log) for line in path.read_text().splitlines()]
    assert "lines were dropped: more than 20000 bytes in a second" in lines[-1][3]
    numbers = [int(line[3]) for line in lines if line[1] == "stdout"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_log_whose_folder_was_removed(node: Ocirtd) -> None:
    """The container goes on, and so does its log once the folder is there again."""
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "while :; do echo line; sleep 0.02; done")
    log = Path(node.status(box).log_path)
    node.until(lambda: log.stat().st_size, "a line")
    log.unlink()
    log.parent.rmdir()
    assert node.exec(box, "true").exit_code == 0
    assert node.status(box).state == cri.CONTAINER_RUNNING
    log.parent.mkdir()
    node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=box), timeout=PATIENCE)
    node.until(lambda: log.stat().st_size, "a line in the new log")
    node.stop_container(box)


@pytest.mark.parametrize("length", [80, 16384])
def test_a_flood(node: Ocirtd, length: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As fast as it goes, into a log of bounded size: programs are run meanwhile, and the last lines are in order.

    With OCIRT_TEST_ENDURANCE=1, on a machine that does nothing else, within the times that are promised.
    """
    node.stop()
    node.config.write_text(node.config.read_text() + "[containers]\nlog_size_limit = 8388608\n")
    node.start()
    flood = node.place / "flood"
    count = (16 << 20) // length
    flood.write_text("".join(f"{number:012d}".ljust(length - 1, "x") + "\n" for number in range(count)))
    pod = node.run_pod()
    mount = cri.Mount(container_path="/flood", host_path=str(flood), readonly=True)
    box = node.run(pod, "sh", "-c", "trap 'exit 7' TERM; while :; do cat /flood & wait; done", mounts=[mount])
    log = Path(node.status(box).log_path)
    old = Path(f"{log}.1")
    node.until(old.exists, "the log to be full")
    shim = Path(f"/proc/{shim_of(node, box)}")
    memory, written, begin, times = resident(shim), wrote(shim), time.monotonic(), []
    for _ in range(200 if FULL else 30):
        before = time.monotonic()
        assert node.exec(box, "echo", "here").stdout == b"here\n"
        times.append(time.monotonic() - before)
        with contextlib.suppress(FileNotFoundError):  # it is being rotated
            assert log.stat().st_size <= 8 << 20
    rate = (wrote(shim) - written) / (time.monotonic() - begin) / 1e6
    grown = resident(shim) - memory
    begin = time.monotonic()
    node.stop_container(box, 20)
    stopped = time.monotonic() - begin
    slowest = sorted(times)[len(times) * 99 // 100] * 1000
    with capsys.disabled():
        print(f"\n  {rate:.0f} MB/s in lines of {length} bytes: the slowest of 100 execs {slowest:.0f} ms,", end="")
        print(f" stopped in {stopped * 1000:.0f} ms, the shim {grown:+} KiB", end="")
    assert grown <= 4 << 10
    if FULL:
        assert slowest <= 100
        assert stopped <= 1
    assert node.status(box).exit_code == 7
    numbers = [int(line.split(b" ", 3)[3][:12]) for path in (old, log) for line in path.read_bytes().splitlines()]
    assert all(after in (before + 1, 0) for before, after in itertools.pairwise(numbers))
    assert len(numbers) > 8_000_000 // (length + 60)
    log.unlink()
    old.unlink()
