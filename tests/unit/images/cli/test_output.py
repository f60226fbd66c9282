"""Sizes, ages and times as people read them."""

from __future__ import annotations

import pytest

from ocirt_images.cli import output


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (4270000, "4.27MB"), (999_600, "1MB"), (123456789, "123MB"), (7.5e12, "7.5TB")],
)
def test_size(number: float, text: str) -> None:
    assert output.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (125, "2 minutes ago"),
        (3600, "60 minutes ago"),
        (2 * 86400 + 5, "2 days ago"),
        (15 * 86400, "2 weeks ago"),
        (90 * 86400, "3 months ago"),
        (-5, "just now"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert output.age(1_000_000_000 - seconds, 1_000_000_000) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10),
        ("1970-01-01T01:00:00.123456789+01:00", 0.123456),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-02", 86400),
        ("", 0),
        ("yesterday", 0),
    ],
)
def test_time(text: str, seconds: float) -> None:
    assert output.time(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("1d12h", 129600), ("2w", 1209600), ("", None), ("5", None), ("5x", None), ("٣h", None)]
)
def test_seconds(text: str, seconds: float | None) -> None:
    assert output.seconds(text) == seconds


def test_table() -> None:
    assert output.table([("A", "LONG"), ("wide", "x")]) == "A      LONG\nwide   x\n"
