"""The container's resctrl groups. The parent's, and loaded only if config.json has `linux.intelRdt`."""

from __future__ import annotations

from ocirt.cgroups import resctrl
from ocirt.kernel.run import Run


def make(run: Run, root: str, group: str, monitor: str, schemata: str, shared: bool) -> None:  # noqa: FBT001
    """Make the groups that are missing and set the schemata; in a `shared` group compare them, if it is there."""
    del run
    resctrl.make(root, group, monitor, schemata, shared=shared)


def join(run: Run, root: str, group: str, monitor: str) -> None:
    """Put init into its groups."""
    resctrl.join(root, group, monitor, run.pid)
