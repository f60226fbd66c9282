"""Room that is kept for when there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_cri.reserve import Reserve


def size(place: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in (place / "reserve").iterdir())


def test_it_is_given_up_for_a_removal_and_made_again(tmp_path: Path) -> None:
    reserve = Reserve([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")])
    reserve.make()
    reserve.make()
    assert size(tmp_path / "a") == size(tmp_path / "b") == 1 << 20
    seen: list[int] = []

    async def remove() -> str:
        seen.append(size(tmp_path / "a") + size(tmp_path / "b"))
        if len(seen) == 1:
            raise Error("exhausted", "no room")
        return "done"

    assert asyncio.run(reserve.spend(remove)) == "done"
    assert seen == [2 << 20, 0]
    assert size(tmp_path / "a") == 1 << 20


@pytest.mark.parametrize("err", [Error("state", "no"), OSError(5, "no")])
def test_other_failures_are_no_reason(tmp_path: Path, err: Exception) -> None:
    reserve = Reserve([str(tmp_path)])
    reserve.make()
    count = 0

    async def remove() -> None:
        nonlocal count
        count += 1
        raise err

    with pytest.raises(type(err)):
        asyncio.run(reserve.spend(remove))
    assert (count, size(tmp_path)) == (1, 1 << 20)
