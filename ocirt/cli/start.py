"""`ocirt start`: let the process of a created container begin."""

from __future__ import annotations

import posix

from ocirt.containers.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Start container args[0]. Raises Error."""
    if posix.environ.get(b"NOTIFY_SOCKET"):
        from ocirt.containers.notify import start_and_wait  # noqa: PLC0415  (only for services of systemd)

        start_and_wait(options.root, args[0])
    else:
        start(options.root, args[0])
    return 0
