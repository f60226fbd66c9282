"""`ocirt resume`: let the processes of a paused container go on."""

from __future__ import annotations

from ocirt import state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Thaw container args[0]. Raises Error("not-found"), Error("state") unless it is paused."""
    resume(options.root, args[0])
    return 0


def resume(root: str, container_id: str) -> None:
    """Thaw a container. Raises Error("not-found"), Error("state") unless it is paused."""
    from ocirt.cgroups import control  # noqa: PLC0415

    record = state.load(root, container_id)
    if state.status(record) != "paused":
        raise Error("state", "container not paused")
    control.thaw(record["cgroup"])
