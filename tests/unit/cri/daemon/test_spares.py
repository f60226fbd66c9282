"""Shims that are made before there is a container for them."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from ocirt.errors import Error
from ocirt_cri import spares
from ocirt_cri.shims import Shim
from ocirt_cri.spares import Spares


class Made:
    """In the place of a shim."""

    def __init__(self) -> None:
        self.id = ""
        self.is_connected = True

    def close(self) -> None:
        self.is_connected = False


class Maker:
    def __init__(self) -> None:
        self.made: list[Made] = []
        self.go = asyncio.Event()
        self.fails = False

    async def make(self) -> Shim:
        await self.go.wait()
        if self.fails:
            raise Error("kernel", "cannot fork")
        self.made.append(Made())
        return cast("Shim", self.made[-1])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "_PAUSE", 0.01)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_is_there_before_it_is_needed() -> None:
    async def main() -> None:
        maker = Maker()
        maker.go.set()
        kept = Spares(maker.make)
        kept.expect()
        await settled()
        taken = await kept.take("a")
        assert taken.id == "a"
        assert cast("object", taken) is maker.made[0]
        await asyncio.sleep(0.05)
        assert len(maker.made) == 2  # the next, though nobody has asked
        kept.close()
        assert [one.is_connected for one in maker.made] == [True, False]

    asyncio.run(main())


def test_who_comes_while_one_is_made_waits_for_it() -> None:
    async def main() -> None:
        maker = Maker()
        kept = Spares(maker.make)
        kept.expect()
        taking = asyncio.create_task(kept.take("a"))
        await settled()
        assert not taking.done()
        maker.go.set()
        assert (await taking).id == "a"
        assert len(maker.made) == 1
        kept.close()

    asyncio.run(main())


def test_one_that_was_killed_is_not_given_away() -> None:
    async def main() -> None:
        maker = Maker()
        maker.go.set()
        kept = Spares(maker.make)
        kept.expect()
        await settled()
        maker.made[0].close()
        assert cast("object", await kept.take("a")) is maker.made[1]
        kept.close()

    asyncio.run(main())


def test_a_failure_is_told_to_who_needs_one() -> None:
    async def main() -> None:
        maker = Maker()
        maker.go.set()
        maker.fails = True
        kept = Spares(maker.make)
        kept.expect()
        await settled()
        with pytest.raises(Error, match="cannot fork"):
            await kept.take("a")
        maker.fails = False
        assert (await kept.take("b")).id == "b"
        kept.close()

    asyncio.run(main())
