"""Processor time by looks at it."""

from __future__ import annotations

from ocirt_cri.stats.rates import Rates

SECOND = 1_000_000_000


def test_a_rate_takes_two_looks() -> None:
    rates = Rates()
    assert rates.see("a", 0, 100) is None
    assert rates.see("a", 2 * SECOND, 100 + SECOND) == SECOND // 2
    assert rates.see("a", 3 * SECOND, 100 + 2 * SECOND) == SECOND  # over the last one


def test_looks_that_follow_at_once_are_no_base() -> None:
    """Or a client who asks twice would get a rate over a millisecond."""
    rates = Rates()
    rates.see("a", 0, 0)
    assert rates.see("a", SECOND // 10, 50) is None
    assert rates.see("a", 10 * SECOND, 10 * SECOND) == SECOND
    assert rates.see("a", 10 * SECOND + 1000, 10 * SECOND) == 999_999_900


def test_another_cgroup_of_the_same_name() -> None:
    rates = Rates()
    rates.see("a", 0, 500)
    rates.see("a", SECOND, 1000)
    assert rates.see("a", 2 * SECOND, 10) is None
    assert rates.see("a", 3 * SECOND, 20) == 10


def test_what_is_forgotten() -> None:
    rates = Rates()
    for name in "ab":
        rates.see(name, 0, 0)
    rates.keep({"b"})
    assert rates.see("a", 5 * SECOND, 5) is None
    assert rates.see("b", 5 * SECOND, 5) == 1
