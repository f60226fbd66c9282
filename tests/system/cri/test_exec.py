"""ExecSync: programs are run by processes that belong to no container, which may hang or be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.executors import MOST
from tests.support.hungfs import HungFileSystem
from tests.support.leaks import descendants
from tests.support.ocirtd import Ocirtd
from tests.support.runtime import wait_for


def executors() -> list[int]:
    """Those of the test's daemon."""
    return [pid for pid, said in descendants().items() if "ocirt-executor" in said and not said.startswith("Z")]


@pytest.fixture
def hung(node: Ocirtd, tmp_path: Path) -> Iterator[HungFileSystem]:
    assert node.process is not None
    made = HungFileSystem(tmp_path / "hung")
    yield made
    made.close()


def test_one_for_all_containers(node: Ocirtd) -> None:
    pod = node.run_pod()
    boxes = [node.run(pod, "sleep", "1000") for _ in range(3)]
    for _ in range(3):
        for box in boxes:
            assert node.exec(box, "echo", box).stdout.decode().strip() == box
    assert len(executors()) == 1


def test_more_than_there_may_be(node: Ocirtd) -> None:
    """The shims run the rest."""
    box = node.run(node.run_pod(), "sleep", "1000")
    number = MOST + 8
    with ThreadPoolExecutor(number) as threads:
        found = list(threads.map(lambda at: node.exec(box, "sh", "-c", f"sleep 2; echo {at}", timeout=60), range(number)))
    assert [int(one.stdout) for one in found] == list(range(number))
    assert 1 < len(executors()) <= MOST
    assert len(node.exec(box, "ps").stdout.splitlines()) == 3  # the title, init and itself


def test_one_is_killed(node: Ocirtd) -> None:
    """Who waits is told; what it ran is gone, and the next finds another."""
    box = node.run(node.run_pod(), "sleep", "1000")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(node.exec, box, "sleep", "500", timeout=100)
        wait_for(lambda: b"sleep 500" in node.exec(box, "ps").stdout, "the program", 10)
        busy = [pid for pid in executors() if Path(f"/proc/{pid}/task/{pid}/children").read_text()]
        os.kill(busy[0], signal.SIGKILL)
        with pytest.raises(grpc.RpcError, match="the process that ran the program was lost") as caught:
            waiting.result()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    wait_for(lambda: b"sleep 500" not in node.exec(box, "ps").stdout, "its end", 10)
    assert node.status(box).state == cri.CONTAINER_RUNNING


def test_one_hangs(node: Ocirtd, hung: HungFileSystem) -> None:
    """On its way into a program that cannot be read. Nobody else waits; its time runs out, and it never runs."""
    mount = cri.Mount(container_path="/hung", host_path=str(hung.directory))
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000", mounts=[mount])
    other = node.run(pod, "sleep", "1000")
    with ThreadPoolExecutor(1) as threads:
        begin = time.monotonic()
        waiting = threads.submit(node.exec, box, "/hung/program", timeout=1)
        time.sleep(0.3)
        for one in (box, other):
            assert node.exec(one, "echo", "here", timeout=5).stdout == b"here\n"
        with pytest.raises(grpc.RpcError) as caught:
            waiting.result()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < 15
    assert node.exec(box, "echo", "here", timeout=5).stdout == b"here\n"
    hung.free()
    # All that is left are the title, init and itself.
    wait_for(lambda: len(node.exec(box, "ps").stdout.splitlines()) == 3, "the end of what hung", 10)
