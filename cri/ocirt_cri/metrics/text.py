"""Prometheus's text format, version 0.0.4 (prometheus.io, "Exposition formats")."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class Family:
    """Samples of one name. kind: counter, gauge or histogram."""

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name = name
        self._head = f"# HELP {name} {_escaped(text)}\n# TYPE {name} {kind}\n"
        self._lines: list[str] = []

    def add(self, value: float, labels: Mapping[str, str] | Labels = (), suffix: str = "") -> Family:
        """One sample."""
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        inner = ",".join(f'{name}="{_escaped(text, quoted=True)}"' for name, text in pairs)
        self._lines.append(f"{self.name}{suffix}{{{inner}}} {value:.17g}\n" if inner else f"{self.name}{suffix} {value:.17g}\n")
        return self

    def __str__(self) -> str:
        return self._head + "".join(self._lines)


class Histogram:
    """How long things took, in seconds, by labels."""

    def __init__(self, name: str, text: str, bounds: Iterable[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._found: dict[Labels, tuple[list[int], float]] = {}

    def observe(self, seconds: float, labels: Labels = ()) -> None:
        """One thing has ended."""
        counts, total = self._found.get(labels) or ([0] * (len(self._bounds) + 1), 0.0)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._found[labels] = counts, total + seconds

    def family(self) -> Family:
        """All of it."""
        found = Family(self._name, "histogram", self._text)
        for labels, (counts, total) in sorted(self._found.items()):
            below = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                below += count
                end = "+Inf" if bound == float("inf") else f"{bound:g}"
                found.add(below, (*labels, ("le", end)), "_bucket")
            found.add(total, labels, "_sum")
            found.add(below, labels, "_count")
        return found


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text
