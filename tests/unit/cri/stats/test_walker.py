"""The walker's budget, by a clock of the test's, and what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ocirt_cri.stats.walker import Budget, measure


class Machine:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = self.used = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds


@given(some.lists(some.floats(0.0001, 5), min_size=1, max_size=50))
def test_one_percent(pieces: list[float]) -> None:
    machine = Machine()
    budget = Budget(0.01, clock=lambda: machine.now, used=lambda: machine.used, sleep=machine.sleep)
    for seconds in pieces:
        machine.work(seconds)
        budget.pay()
        assert machine.used <= 0.0101 * machine.now + 1e-6
    assert machine.now == pytest.approx(machine.used * 100, rel=0.02)  # and no slower


def test_what_is_saved_up_is_little() -> None:
    """A walker that had nothing to do for an hour does not take a processor for half a minute then."""
    machine = Machine()
    budget = Budget(0.01, clock=lambda: machine.now, used=lambda: machine.used, sleep=machine.sleep)
    machine.sleep(3600)
    budget.pay()
    before = machine.now
    machine.work(1)
    budget.pay()
    assert machine.now - before > 85


def test_a_layer(tmp_path: Path) -> None:
    (tmp_path / "fs/a/b").mkdir(parents=True)
    (tmp_path / "fs/a/b/file").write_bytes(b"x" * 100_000)
    calls = []
    found = measure(tmp_path, lambda: calls.append(1))
    assert found is not None
    assert found.size >= 100_000
    assert found.inodes == 4
    assert len(calls) == 3


def test_a_layer_that_is_gone(tmp_path: Path) -> None:
    assert measure(tmp_path / "none") is None
