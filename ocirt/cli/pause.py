"""`ocirt pause`: suspend all processes of a container by its cgroup's freezer."""

from __future__ import annotations

from ocirt import state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Freeze container args[0]. Raises Error("not-found"), Error("state") unless it is created or running."""
    pause(options.root, args[0])
    return 0


def pause(root: str, container_id: str) -> None:
    """Freeze a container. Raises Error("not-found"), Error("state") unless it is created or running."""
    from ocirt.cgroups import control  # noqa: PLC0415

    record = state.load(root, container_id)
    if state.status(record) not in ("created", "running"):
        raise Error("state", "container not running")
    control.freeze(record["cgroup"])
