"""The bench's arithmetic and its tables."""

from __future__ import annotations

import pytest

from bench.measure import Sample
from bench.report import BUDGETS, Results, percentile, ratios, table, times


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([3, 1, 2], 50, 2), ([1], 99, 1), (range(1, 101), 99, 99), ([1, 2], 99, 2)]
)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_table_lines_up() -> None:
    assert table(["a", "b"], [["long", "1"], ["x", "22.5"]]).splitlines() == [
        "| a    |    b |",
        "| ---- | ---: |",
        "| long |    1 |",
        "| x    | 22.5 |",
    ]


def results(ours: float, theirs: float) -> Results:
    made = Results()
    for name, wall in (("ocirt", ours), ("runc", theirs)):
        for factor in (1, 2, 30):
            made.add("run", name, Sample(wall * factor, wall, 10))
    return made


def test_a_ratio_is_that_of_medians() -> None:
    budgets = {("run", "wall", "runc"): 0.5}
    assert " 0.50 |" in ratios(results(5, 10), budgets=budgets)
    assert "| met |" in ratios(results(5, 10), budgets=budgets)
    assert "MISSED" in ratios(results(6, 10), budgets=budgets)


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratios(results(5, 10), budgets={("exec", "wall", "runc"): 0.5}).startswith("No ratios")


def test_of_memory_the_largest_counts() -> None:
    made = results(5, 10)
    made.add("run", "ocirt", Sample(1, 1, 99))
    assert made.value("run", "memory", "ocirt") == 99
    made.note("held", "memory", "runc", 7)
    assert made.value("held", "memory", "runc") == 7
    assert made.value("held", "memory", "crun") is None


def test_times_name_every_runtime() -> None:
    text = times(results(5, 10))
    assert "| run       |   ocirt | 3 |    5.0 |   10.0 | 150.0 |      5.0 |     10.0 |" in text


def test_samples_add_up() -> None:
    assert Sample(1, 2, 3) + Sample(10, 20, 1) == Sample(11, 22, 3)


def test_budgets_are_those_of_known_measures() -> None:
    assert {measure for _, measure, _ in BUDGETS} <= {"wall", "cpu", "memory"}
