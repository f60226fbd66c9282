"""Checkpoints that fail, and daemons that die meanwhile: the container goes on, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.checkpoint import checkpoints
from ocirt_cri.spawn import _boot
from tests.unit.cri.daemon.fakes import Daemon, serving


@pytest.fixture
def place() -> Iterator[Path]:
    """Of a short path: sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="o") as found:
        yield Path(found) / "d"


class Failing(checkpoints.Checkpoints):
    """One whose process does not succeed."""

    async def _asked(self, container: Any, location: str) -> dict[str, Any]:
        os.makedirs(self._node.container_directory(container.id), exist_ok=True)
        return {"id": container.id, "work": f"{os.path.dirname(location)}/.checkpoint-1234"}

    async def _work(self, asked: dict[str, Any], seconds: int) -> None:
        os.mkdir(asked["work"])
        raise Error("kernel", "the first failure", subject=f"{seconds} s")


def mark_of(daemon: Daemon, identifier: str) -> Path:
    return Path(daemon.node.container_directory(identifier)) / "paused"


async def running(daemon: Daemon) -> str:
    made = await daemon.create(await daemon.run_pod())
    await daemon.start(made)
    return made


def test_what_cannot_be_resumed_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is told; a mark says that it stands still, until it does no more."""
    monkeypatch.setattr(checkpoints, "_AGAIN", 0.05)

    async def main() -> None:
        async with serving(place) as daemon:
            made = await running(daemon)
            shim = daemon.zygote.shims[made]
            shim.fail["Resume"] = (status.UNAVAILABLE, "not now")
            found = Failing(daemon.node, daemon.containers)
            with pytest.raises(Error, match="the first failure"):
                await found.container(cri.CheckpointContainerRequest(container_id=made, location=str(place / "c.tar")))
            assert mark_of(daemon, made).exists()
            assert shim.calls.count("Resume") == 1
            shim.fail.clear()
            async with asyncio.timeout(20):
                await asyncio.gather(*found._later)
            assert not mark_of(daemon, made).exists()
            found.close()

    asyncio.run(main())


def test_what_a_daemon_has_left_that_died_meanwhile(place: Path) -> None:
    """Its unfinished files are removed, also if the container is gone; nothing else is, whatever a mark says."""

    async def main() -> None:
        work, other = place / ".checkpoint-1234", place / "other"
        async with serving(place) as daemon:
            made = await running(daemon)
            work.mkdir()
            other.mkdir()
            (work / "archive").write_text("half")
            mark_of(daemon, made).parent.mkdir(exist_ok=True, parents=True)
            mark_of(daemon, made).write_text(str(work))
        async with serving(place) as daemon:
            assert not work.exists()
            mark_of(daemon, made).write_text(str(other))
        async with serving(place) as daemon:
            assert other.exists()

    asyncio.run(main())


def test_what_stands_still_goes_on(place: Path) -> None:
    """If it has a mark; one without was paused by somebody else."""

    async def main() -> None:
        async with serving(place) as daemon:
            made = await running(daemon)
            mark = mark_of(daemon, made)
            mark.parent.mkdir(exist_ok=True, parents=True)
            mark.touch()
            found = checkpoints.Checkpoints(daemon.node, daemon.containers)
            for _ in range(2):
                await found.recover(daemon.node.all_containers[made])
                assert not mark.exists()
            assert daemon.zygote.shims[made].calls.count("Resume") == 1

    asyncio.run(main())


_DAEMON = "import subprocess, sys, time; print(subprocess.Popen({command!r}, pass_fds=[{fd}]).pid, flush=True); time.sleep(60)"


@pytest.mark.parametrize("is_early", [False, True])
def test_the_process_ends_with_its_daemon(place: Path, is_early: bool) -> None:
    """Whether the daemon dies before the request is read, or with it in the socket: nothing is done for a dead one."""
    place.mkdir()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-c", _boot("ocirt_cri.checkpoint.worker", fd)]
            words = [sys.executable, "-c", _DAEMON.format(command=command, fd=fd)]
            daemon = subprocess.Popen(words, pass_fds=[fd], stdout=subprocess.PIPE, text=True)
        with daemon:
            assert daemon.stdout is not None
            worker = int(daemon.stdout.readline())
            if not is_early:
                _until_it_waits(worker)
            daemon.kill()
        asked = {"parent": daemon.pid, "spec": str(place / "nothing"), "to": str(place / "c.tar"), "work": str(place / "w")}
        if is_early:
            ours.sendall(json.dumps(asked).encode() + b"\n")
        ours.settimeout(20)
        try:
            assert ours.recv(1 << 16) == b""
        except ConnectionResetError:
            pass  # it was killed before it had read
    assert list(place.iterdir()) == []


def _until_it_waits(pid: int) -> None:
    """For its request: it has done all that it does first."""
    for _ in range(2000):
        adjusted = Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
        if adjusted and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S":
            return
        time.sleep(0.01)
    pytest.fail("it does not wait")
