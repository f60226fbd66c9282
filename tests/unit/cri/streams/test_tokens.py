"""Tokens are good once, and for a minute."""

from __future__ import annotations

import pytest

from ocirt.errors import Error
from ocirt_cri.streams.tokens import MOST, SECONDS, Tokens, Wish

WISH = Wish("exec", "c", None)


class Clock:
    """One that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_once() -> None:
    tokens = Tokens()
    token = tokens.issue(WISH)
    assert tokens.take("other", "exec") is None
    assert tokens.take(token, "attach") is None
    assert tokens.take(token, "exec") is WISH
    assert tokens.take(token, "exec") is None


def test_for_a_minute() -> None:
    clock = Clock()
    tokens = Tokens(clock)
    early, late = tokens.issue(WISH), ""
    clock.now += SECONDS - 1
    late = tokens.issue(WISH)
    clock.now += 1
    assert tokens.take(early, "exec") is None
    assert tokens.take(late, "exec") is WISH


def test_only_so_many() -> None:
    clock = Clock()
    tokens = Tokens(clock)
    given = [tokens.issue(WISH) for _ in range(MOST)]
    assert len(set(given)) == MOST
    with pytest.raises(Error, match="1000 streams were asked for") as said:
        tokens.issue(WISH)
    assert said.value.code == "exhausted"
    assert tokens.take(given[0], "exec")
    tokens.issue(WISH)
    clock.now += SECONDS
    tokens.issue(WISH)
