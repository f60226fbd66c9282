"""A daemon that starts anew, where the shims that it finds are made up: slow ones, and ones that are gone."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt import state
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages import shim as messages
from ocirt_cri import podcgroup, recovery
from ocirt_cri.shims import LostError
from tests.unit.cri.daemon.fakes import FakeShim, serving

_QUICK = "[limits]\nrecovery = 1\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """Of a short path: sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="o") as found:
        yield Path(found) / "d"


async def started(place: Path) -> str:
    """The id of a container that runs, whose daemon is gone."""
    async with serving(place) as daemon:
        made = await daemon.create(await daemon.run_pod())
        await daemon.start(made)
        shim = daemon.zygote.shims.pop(made)  # it lives longer than its daemon
    shim.die()
    return made


def listening(place: Path, identifier: str, pid: int) -> socket.socket:
    """A shim's directory with its socket, and the record of a process."""
    directory = place / "v/shims" / identifier
    directory.mkdir(parents=True)
    values = {"pid": pid, "start_time": state.process_start_time(os.getpid()), "boot_id": state.boot_id()}
    (directory / "state.json").write_text(json.dumps(values))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "socket"))
    listener.listen()
    listener.setblocking(False)
    return listener


def test_a_shim_that_is_slow_keeps_its_container(place: Path) -> None:
    """It is asked again, and once it answers the container's end is seen."""

    async def main() -> None:
        made = await started(place)
        with listening(place, made, os.getpid()) as listener:
            async with serving(place, _QUICK) as daemon, asyncio.timeout(20):
                assert (await daemon.status(made)).state == cri.CONTAINER_RUNNING
                assert len(daemon.node.store.containers()) == 1
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                shim = daemon.zygote.shims[made] = FakeShim(connection, {"id": made})
                shim.state.status = messages.RUNNING
                for _ in range(1000):
                    if "Wait" in shim.calls:
                        break
                    await asyncio.sleep(0.01)
                shim.end(3)
                assert (await daemon.until_ended(made)).exit_code == 3

    asyncio.run(main())


def test_a_shim_that_is_gone_while_its_socket_is_not(place: Path) -> None:
    async def main() -> None:
        made = await started(place)
        with listening(place, made, 1 << 30):
            async with serving(place, _QUICK) as daemon:
                assert (await daemon.status(made)).reason == "Unknown"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("err", "record", "gone"),
    [
        (FileNotFoundError(), True, True),
        (ConnectionRefusedError(), True, True),
        (LostError("x"), False, True),
        (LostError("x"), True, False),
        (LostError("x"), None, True),
        (OSError(errno.EMFILE, "too many"), True, False),
        (OSError(errno.EMFILE, "too many"), False, True),
        (TimeoutError(), None, False),
        (Error("internal", "no"), True, False),
    ],
)
def test_what_counts_as_gone(place: Path, err: Exception, record: bool | None, gone: bool) -> None:
    """record: whether the process that is written down lives; None: nothing is."""
    if record is not None:
        listening(place, "x", os.getpid() if record else 1 << 30).close()
    assert recovery.is_gone(str(place / "v/shims/x"), err) is gone


def test_a_pod_whose_cgroup_cannot_be_named_any_more(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a change of cgroups.manager: the daemon starts all the same."""

    def refuse(*_: object) -> dict[str, str]:
        raise Error("invalid", "is no slice", subject="config.linux.cgroup_parent")

    async def main() -> None:
        async with serving(place) as daemon:
            pod = await daemon.run_pod()
        monkeypatch.setattr(podcgroup, "of", refuse)
        async with serving(place) as daemon:
            assert daemon.node.sandboxes[pod].cgroup == {}

    asyncio.run(main())
    assert "is no slice" in caplog.text
