"""Bytes from one descriptor to another: none is lost, and nobody is waited for who reads no more."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_shim.loop import Loop
from ocirt_shim.task.relay import Relay


class Pair:
    """A relay between two pipes: `source` is to be written to, `target` to be read."""

    def __init__(self, *, stops: bool = False) -> None:
        self.loop = Loop()
        reader, self.source = os.pipe()
        self.target, writer = os.pipe()
        self.over = 0
        self.relay = Relay(self.loop, reader, writer, self._end, stops=stops)
        os.set_blocking(self.target, False)

    def _end(self) -> None:
        self.over += 1

    def turn(self, seconds: float = 0.0) -> None:
        """Let the loop do what there is to do."""
        self.loop._stopped = False
        self.loop.after(int(seconds * 1e9), self.loop.stop)
        self.loop.run()

    def read(self) -> bytes:
        try:
            return os.read(self.target, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.relay.close()
        for fd in (self.source, self.target):
            if fd >= 0:
                os.close(fd)


@given(st.lists(st.tuples(st.integers(0, 60000), st.booleans()), max_size=12))
def test_nothing_is_lost(steps: list[tuple[int, bool]]) -> None:
    """Whoever is faster."""
    pair = Pair()
    os.set_blocking(pair.source, False)
    sent = got = b""
    for size, reads in steps:
        data = os.urandom(size)
        try:
            sent += data[: os.write(pair.source, data)] if size else b""
        except BlockingIOError:
            pass
        pair.turn()
        if reads:
            got += pair.read()
    os.close(pair.source)
    pair.source = -1
    for _ in range(100):
        pair.turn()
        got += pair.read()
    assert (got, pair.over, pair.relay.open) == (sent, 1, False)
    pair.close()
    assert pair.over == 1


def test_the_writer_has_ended_but_others_have_not() -> None:
    """`settle`: what is there goes on, and then it is over, with the source still open."""
    pair = Pair()
    os.write(pair.source, b"last")
    pair.relay.settle()
    assert (pair.read(), pair.over) == (b"last", 1)
    with pytest.raises(BrokenPipeError):
        os.write(pair.source, b"more")
    pair.close()


def test_settled_while_the_target_is_full() -> None:
    pair = Pair()
    sent = b"x" * 65536 + b"y" * 65536
    os.write(pair.source, sent[:65536])
    pair.turn()
    os.write(pair.source, sent[65536:])
    pair.turn()
    pair.relay.settle()
    assert pair.relay.open
    got = b""
    for _ in range(50):
        got += pair.read()
        pair.turn()
    assert (got, pair.over) == (sent, 1)
    pair.close()


@pytest.mark.parametrize("stops", [False, True])
def test_who_reads_has_gone(stops: bool) -> None:  # noqa: FBT001
    """An output is dropped and counted; an input ends, and its writer sees that."""
    pair = Pair(stops=stops)
    os.close(pair.target)
    pair.target = -1
    os.write(pair.source, b"abc")
    pair.turn()
    assert (pair.relay.lost, pair.relay.open, pair.over) == (3, not stops, int(stops))
    pair.close()
