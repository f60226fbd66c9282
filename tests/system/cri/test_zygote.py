"""A zygote that does not start: ocirtd says what became of it."""

from __future__ import annotations

import asyncio

import pytest

from ocirt.errors import Error
from ocirt_cri.zygote import Zygote


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("kill -9 $$", "it was killed by signal 9"),
        ("exit 3", "it ended with exit code 3 and said nothing"),
        ("echo a; echo what is wrong >&2; exit 1", "what is wrong"),
    ],
)
def test_it_does_not_start(script: str, cause: str) -> None:
    async def start() -> None:
        async with Zygote(lambda: ["/bin/sh", "-c", script]):
            pass

    with pytest.raises(Error, match="the zygote did not start") as caught:
        asyncio.run(start())
    assert caught.value.cause == cause
