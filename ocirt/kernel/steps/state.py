"""What the runtime keeps about a container."""

from __future__ import annotations

from ocirt.kernel.run import Run


def prepare(run: Run) -> None:
    """While init is at work, write what `commit` will put in its place."""
    run.prepare()


def commit(run: Run) -> None:
    """Write down that the container is created: from here on it exists without us."""
    run.commit()
