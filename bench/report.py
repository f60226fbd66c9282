"""Figures, the budgets beside them, and the tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure import Sample

# DESIGN's table: (operation, measure, peer) → the largest ratio of ocirt to that peer.
BUDGETS: dict[tuple[str, str, str], float] = {
    ("run", "wall", "runc"): 0.5,
    ("run", "cpu", "runc"): 0.6,
    ("create", "wall", "runc"): 0.5,
    ("create", "cpu", "runc"): 0.6,
    ("exec", "wall", "runc"): 0.7,
    ("exec", "cpu", "runc"): 0.9,
    ("run", "wall", "crun"): 3.0,
    ("create + start + delete", "wall", "runc"): 0.7,
    ("state", "wall", "runc"): 2.0,
    ("start", "wall", "runc"): 2.0,
    ("kill", "wall", "runc"): 2.0,
    ("delete", "wall", "runc"): 2.0,
    ("delete --force", "wall", "runc"): 0.2,
    ("4 GiB through a pipe", "wall", "runc"): 1.0,
    # The same with the filter that podman, docker and containerd put into every config.json.
    ("run, docker's profile", "wall", "runc"): 0.5,
    ("run, docker's profile", "cpu", "runc"): 0.6,
    ("create, docker's profile", "wall", "runc"): 0.5,
    ("create, docker's profile", "cpu", "runc"): 0.6,
    ("exec, docker's profile", "wall", "runc"): 0.7,
    ("exec, docker's profile", "cpu", "runc"): 0.9,
    ("run, docker's profile", "wall", "crun"): 3.0,
    ("create + start + delete, docker's profile", "wall", "runc"): 0.7,
    ("run", "memory", "runc"): 1.0,
    ("held by an attached run", "memory", "runc"): 1.0,
    ("smallest memory limit", "memory", "runc"): 1.0,
}
UNITS = {"wall": "ms", "cpu": "ms", "memory": "MiB"}


@dataclass
class Results:
    """All samples of one session: operation → runtime → samples, and single figures: (operation, measure) → runtime → value."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    single: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, operation: str, runtime: str, sample: Sample) -> None:
        """One more sample."""
        self.samples.setdefault(operation, {}).setdefault(runtime, []).append(sample)

    def note(self, operation: str, measure: str, runtime: str, value: float) -> None:
        """A figure that is taken once."""
        self.single.setdefault((operation, measure), {})[runtime] = value

    def value(self, operation: str, measure: str, runtime: str) -> float | None:
        """The figure that a budget looks at: the median (of memory the largest)."""
        if (operation, measure) in self.single:
            return self.single[operation, measure].get(runtime)
        values: list[float] = [getattr(item, measure) for item in self.samples.get(operation, {}).get(runtime, [])]
        if not values:
            return None
        return max(values) if measure == "memory" else statistics.median(values)


def verdict(value: float, most: float) -> list[str]:
    """The last two cells of a row: a budget, and whether it is met."""
    return [f"≤ {most:g}", "met" if value <= most else "MISSED"]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100).__trunc__() - 1))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table whose columns line up, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if not index else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def times(results: Results) -> str:
    """Minimum, median, p99, CPU and peak memory of everything that was sampled."""
    rows = []
    for operation, runtimes in results.samples.items():
        for runtime, samples in runtimes.items():
            walls = [item.wall for item in samples]
            figures = (
                min(walls),
                statistics.median(walls),
                percentile(walls, 99),
                statistics.median(item.cpu for item in samples),
            )
            memory = max(item.memory for item in samples)
            rows.append([operation, runtime, str(len(samples)), *(f"{value:.1f}" for value in (*figures, memory))])
    return table(["operation", "runtime", "n", "min ms", "median", "p99", "user+sys", "peak MiB"], rows)


def singles(results: Results) -> str:
    """Figures that are taken once."""
    names = sorted({name for values in results.single.values() for name in values})
    rows = []
    for (operation, measure), values in results.single.items():
        unit = UNITS.get(measure, measure)
        rows.append([f"{operation} ({unit})", *(_number(values.get(name), measure) for name in names)])
    return table(["", *names], rows)


def _number(value: float | None, measure: str) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if measure == "calls" else f"{value:.2f}"


def ratios(results: Results, ours: str = "ocirt", budgets: Mapping[tuple[str, str, str], float] = BUDGETS) -> str:
    """ocirt against its peers, each ratio with its budget."""
    rows = []
    for (operation, measure, peer), budget in budgets.items():
        mine, theirs = results.value(operation, measure, ours), results.value(operation, measure, peer)
        if mine is None or not theirs:
            continue
        ratio = mine / theirs
        rows.append([f"{operation}: {measure}", peer, f"{mine:.1f}", f"{theirs:.1f}", f"{ratio:.2f}", *verdict(ratio, budget)])
    if not rows:
        return "No ratios: ocirt and a peer were not both measured."
    return table(["", "peer", "ocirt", "its", "ratio", "budget", ""], rows)
