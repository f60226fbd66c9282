"""Work that many wait for."""

from __future__ import annotations

import asyncio

import pytest

from ocirt_cri.images.joined import Joined


class Work:
    """Something that takes until it is let go."""

    def __init__(self) -> None:
        self.begun = self.given_up = 0
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.failure is not None:
            raise self.failure
        return self.begun


async def waiting(joined: Joined[str, int], work: Work, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(joined.run("key", work)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_it_is_done_once() -> None:
    async def run() -> None:
        joined: Joined[str, int] = Joined()
        work = Work()
        tasks = await waiting(joined, work, 3)
        other = asyncio.create_task(joined.run("other", work))
        await asyncio.sleep(0)
        work.go.set()
        assert [await task for task in tasks] == [2, 2, 2]
        assert await other == 2
        assert len(joined) == 0
        assert await joined.run("key", work) == 3

    asyncio.run(run())


def test_the_last_who_leaves_ends_it() -> None:
    async def run() -> None:
        joined: Joined[str, int] = Joined()
        work = Work()
        tasks = await waiting(joined, work, 3)
        for number, task in enumerate(tasks):
            assert work.given_up == 0, number
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert (work.begun, work.given_up, len(joined)) == (1, 1, 0)

    asyncio.run(run())


def test_who_comes_after_the_last_has_left_begins_anew() -> None:
    """Also while the work that was given up has not ended yet."""

    async def run() -> None:
        joined: Joined[str, int] = Joined()
        work = Work()
        (task,) = await waiting(joined, work, 1)
        task.cancel()
        (other,) = await waiting(joined, work, 1)
        work.go.set()
        assert await other == 2
        assert (work.begun, work.given_up) == (2, 1)

    asyncio.run(run())


def test_all_hear_of_a_failure() -> None:
    async def run() -> None:
        joined: Joined[str, int] = Joined()
        work = Work()
        work.failure = ValueError("why")
        tasks = await waiting(joined, work, 2)
        work.go.set()
        for task in tasks:
            with pytest.raises(ValueError, match="why"):
                await task
        assert len(joined) == 0

    asyncio.run(run())
