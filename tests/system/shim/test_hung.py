"""A program on a file system whose server does not answer: whoever opens it waits, and nobody else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_api.messages.shim import CREATED, RUNNING, ExecRequest, KillRequest
from tests.support.bundle import default_config
from tests.support.hungfs import HungFileSystem
from tests.support.runtime import wait_for
from tests.system.shim.conftest import Box, Boxes

_SOON = 2.0  # seconds


@pytest.fixture
def mounts(tmp_path: Path) -> list[dict[str, object]]:
    """Those of a container that has it."""
    bind = {"destination": "/hung", "type": "bind", "source": str(tmp_path / "hung"), "options": ["rbind"]}
    return [*default_config()["mounts"], bind]


def until_it_hangs(pid: int) -> None:
    wait_for(lambda: Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer", "the open", 10)


def soon(box: Box, method: str, request: object = None) -> object:
    """A call that has to be answered soon."""
    begin = time.monotonic()
    try:
        return box.call(method, request)
    finally:
        assert time.monotonic() - begin < _SOON, method


def test_its_program(hung: HungFileSystem, boxes: Boxes, mounts: list[dict[str, object]]) -> None:
    """All others are answered while it is being started, and when it was killed; once the server is gone it ends."""
    box = boxes("/hung/program", mounts=mounts)
    init = box.call("State").pid
    start = box.shim.send("Start")
    until_it_hangs(init)
    assert soon(box, "State").status == CREATED  # type: ignore[attr-defined]
    with pytest.raises(Error, match="already running"):
        soon(box, "Start")
    assert soon(box, "Pids").pids == [init]  # type: ignore[attr-defined]
    wait = box.shim.send("Wait")
    soon(box, "Kill", KillRequest(signal=9))
    with pytest.raises(Error, match="does not end"):
        box.call("Delete")
    assert soon(box, "State").pid == init  # type: ignore[attr-defined]
    hung.free()
    box.shim.receive("Start", start)  # on its way into its program it is nobody's any more
    assert box.shim.receive("Wait", wait).exit_code == 137
    box.call("Delete")


def test_one_more_program(hung: HungFileSystem, boxes: Boxes, mounts: list[dict[str, object]]) -> None:
    """Its time runs out, and that is said although it cannot be killed."""
    box = boxes("sleep", "1000", mounts=mounts)
    box.call("Start")
    process = b'{"args": ["/hung/program"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}'
    begin = time.monotonic()
    call = box.shim.send("Exec", ExecRequest(process=process, timeout=300_000_000))
    assert box.execute("echo", "here").stdout == b"here\n"
    assert soon(box, "State").status == RUNNING  # type: ignore[attr-defined]
    assert box.shim.receive("Exec", call).timed_out
    assert time.monotonic() - begin < 10
    assert box.execute("echo", "here").stdout == b"here\n"
    soon(box, "Kill", KillRequest(signal=9))
    assert soon(box, "State").status == RUNNING  # type: ignore[attr-defined]
    hung.free()  # init, too, waits for all of its pid namespace
    assert box.call("Wait").exit_code == 137
