"""`ocirt state`: one container's state as JSON."""

from __future__ import annotations

from ocirt import jsonlite, state
from ocirt.cli import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Print the state of container args[0], as runc does: indented, no newline at the end."""
    out(jsonlite.dumps(state.public(state.load(options.root, args[0])), 2))
    return 0
