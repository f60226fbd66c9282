"""`ocirt apparmor`: the profile for containers that have none of their own, to read, or loaded into the kernel."""

from __future__ import annotations

from ocirt import apparmor
from ocirt.cli import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Print the profile, or load it. Raises Error."""
    name = args[0] if args else apparmor.NAME
    if options.get("load"):
        apparmor.load(name)
    else:
        out(apparmor.text(name))
    return 0
