"""What the runtime keeps about a container."""

from __future__ import annotations

from ocirt.kernel.run import Run


def commit(run: Run) -> None:
    """Write down that the container is created: from here on it exists without us."""
    run.commit()
