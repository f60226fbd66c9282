"""Where the launcher hands over: `ocirt-cni`, or a plugin by the name that it was called by."""

from __future__ import annotations

import gc
import os
import sys

from ocirt_cni.plugins import PLUGINS


def main(name: str, args: list[str]) -> None:
    """Run what `name` (the last part of argv[0]) stands for."""
    if name == "dhcp" and args[:1] == ["daemon"]:  # as the reference's is started
        from ocirt_cni.ipam import dhcp_daemon  # noqa: PLC0415

        sys.exit(dhcp_daemon.main(args[1:]))
    if name in PLUGINS:
        gc.disable()  # all that is made is kept until the end, a moment later
        from ocirt_cni import skeleton  # noqa: PLC0415

        try:
            skeleton.main(name)
        except SystemExit as end:
            # Nothing is open or buffered, and to take the interpreter apart takes 2 ms.
            os._exit(end.code if isinstance(end.code, int) else 0)
    else:
        from ocirt_cni.cli import main as cli  # noqa: PLC0415

        sys.exit(cli.main(args))
