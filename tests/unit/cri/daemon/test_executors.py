"""Processes that run programs for all containers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, cast

import pytest

from ocirt.errors import Error
from ocirt_api.messages import shim as messages
from ocirt_cri import executors
from ocirt_cri.executors import Executor, Executors
from ocirt_cri.shims import LostError, Shim

DONE = messages.ExecResponse(exit_code=3)


class Connection:
    """In the place of a shim's: each call waits for what is put in here, and raises or returns it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.words: asyncio.Queue[messages.ExecResponse | Exception] = asyncio.Queue()

    async def call(self, method: str, request: Any, answer: Any, seconds: float | None) -> messages.ExecResponse:
        del request, answer
        assert method == "Exec"
        async with asyncio.timeout(seconds):
            word = await self.words.get()
        if isinstance(word, Exception):
            raise word
        return word

    def close(self) -> None:
        self.is_connected = False


def _nobody() -> int:
    return os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})


class Maker:
    """Makes them, of processes that do nothing."""

    def __init__(self) -> None:
        self.made: list[Executor] = []
        self.cleaned: list[tuple[str, int]] = []
        self.kept = Executors(self.make, self.clean)

    async def make(self) -> Executor:
        pid = _nobody()
        self.made.append(Executor(cast("Shim", Connection()), pid))
        return self.made[-1]

    async def clean(self, container_id: str, pid: int) -> None:
        self.cleaned.append((container_id, pid))

    def begin(self, seconds: float | None = None) -> asyncio.Task[messages.ExecResponse]:
        return asyncio.create_task(self.kept.run(messages.ExecRequest(id="c"), seconds))

    def say(self, number: int, word: messages.ExecResponse | Exception) -> None:
        cast("Connection", self.made[number].shim).words.put_nowait(word)


@pytest.fixture
def maker() -> Iterator[Maker]:
    made = Maker()
    yield made
    for one in made.made:
        os.kill(one.pid, signal.SIGKILL)
        os.waitpid(one.pid, 0)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_one_is_enough_for_one_after_the_other(maker: Maker) -> None:
    async def main() -> None:
        for _ in range(3):
            task = maker.begin()
            await settled()
            maker.say(0, DONE)
            assert (await task).exit_code == 3
        assert len(maker.made) == 1
        maker.kept.close()
        assert not maker.made[0].shim.is_connected

    run(main())


def test_each_runs_one_at_a_time(maker: Maker) -> None:
    async def main() -> None:
        tasks = [maker.begin() for _ in range(executors.MOST)]
        await settled()
        assert len(maker.made) == executors.MOST
        assert maker.kept.is_full
        maker.say(1, DONE)
        await tasks[1]
        assert not maker.kept.is_full
        for number in {*range(executors.MOST)} - {1}:
            maker.say(number, DONE)
        await asyncio.gather(*tasks)
        maker.kept.close()

    run(main())


def test_one_that_nobody_needs_ends(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_IDLE", 0.02)

    async def main() -> None:
        task = maker.begin()
        await settled()
        maker.say(0, DONE)
        await task
        assert maker.made[0].shim.is_connected
        await asyncio.sleep(0.1)
        assert not maker.made[0].shim.is_connected
        task = maker.begin()
        await settled()
        assert len(maker.made) == 2
        maker.say(1, DONE)
        await task
        maker.kept.close()

    run(main())


def test_one_that_has_run_many_ends(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_PROGRAMS", 2)

    async def main() -> None:
        for number in (0, 0, 1):
            task = maker.begin()
            await settled()
            maker.say(number, DONE)
            await task
        assert len(maker.made) == 2
        maker.kept.close()

    run(main())


def test_a_refusal_costs_nobody_his_place(maker: Maker) -> None:
    async def main() -> None:
        task = maker.begin()
        await settled()
        maker.say(0, Error("not-found", "no such file", subject="/no/such"))
        with pytest.raises(Error, match="no such file"):
            await task
        assert not maker.kept.is_full
        task = maker.begin()
        await settled()
        maker.say(0, DONE)
        await task
        assert not maker.cleaned
        maker.kept.close()

    run(main())


def test_one_that_hangs_is_killed(maker: Maker) -> None:
    """With all that it was running."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await maker.begin(0.02)
        await settled()
        assert maker.cleaned == [("c", maker.made[0].pid)]
        found = await asyncio.to_thread(os.waitid, os.P_PID, maker.made[0].pid, os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_status == signal.SIGKILL

    run(main())


def test_one_that_was_killed(maker: Maker) -> None:
    """While it ran something that is told; one that was idle is not missed."""

    async def main() -> None:
        task = maker.begin()
        await settled()
        maker.say(0, LostError(""))
        with pytest.raises(Error, match="the process that ran the program was lost") as caught:
            await task
        assert (caught.value.code, caught.value.subject) == ("unavailable", "c")
        task = maker.begin()
        await settled()
        maker.say(1, DONE)
        await task
        maker.made[1].shim.close()
        task = maker.begin()
        await settled()
        maker.say(2, DONE)
        assert (await task).exit_code == 3
        await settled()
        assert maker.cleaned == [("c", maker.made[0].pid)]
        maker.kept.close()

    run(main())


def test_the_end_while_one_runs_something(maker: Maker) -> None:
    """Its program goes on, and it with that: nobody kills them."""

    async def main() -> None:
        task = maker.begin()
        await settled()
        maker.kept.close()
        maker.say(0, LostError(""))
        with pytest.raises(Error, match="was lost"):
            await task
        await settled()
        assert not maker.cleaned

    run(main())
    assert os.waitid(os.P_PID, maker.made[0].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_one_that_cannot_be_made(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> Executor:
        raise Error("kernel", "cannot fork")

    monkeypatch.setattr(maker.kept, "_make", fail)

    async def main() -> None:
        for _ in range(executors.MOST + 1):
            with pytest.raises(Error, match="cannot fork"):
                await maker.begin()
        assert not maker.kept.is_full

    run(main())
