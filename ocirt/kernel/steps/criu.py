"""CRIU, before a restore: the parent's side."""

from __future__ import annotations

from ocirt.kernel.run import Run


def start(run: Run) -> None:
    """Start CRIU in the container's cgroups; it waits, and stands for the container's init until that is there."""
    run.launch()
