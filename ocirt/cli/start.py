"""`ocirt start`: let the process of a created container begin."""

from __future__ import annotations

from ocirt.containers.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Start container args[0]. Raises Error."""
    start(options.root, args[0])
    return 0
