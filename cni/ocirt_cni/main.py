"""Where the launcher hands over: `ocirt-cni`, or a plugin by the name that it was called by.

Nothing is imported here before `preload`, which loads all that the call needs at once.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import posix
import sys


def main(name: str, args: list[str]) -> None:
    """Run what `name` (the last part of argv[0]) stands for."""
    if name == "dhcp" and args[:1] == ["daemon"]:  # as the reference's is started
        from ocirt_cni.ipam import dhcp_daemon

        sys.exit(dhcp_daemon.main(args[1:]))
    command = posix.environ.get(b"CNI_COMMAND", b"").decode(errors="replace")
    if name != "ocirt-cni":
        import gc

        gc.disable()  # all that is made is kept until the end, a moment later
        preload(f"{name} {command}")
    from ocirt_cni.plugins import PLUGINS

    if name in PLUGINS:
        from ocirt_cni import skeleton

        try:
            skeleton.main(name)
        except SystemExit as end:
            kept = sys.modules.get("ocirt_cni.nft.kept")
            if kept is not None:
                kept.abandon()
            # Nothing else is open, nor buffered, and to take the interpreter apart takes 2 ms.
            posix._exit(end.code if isinstance(end.code, int) else 0)
    else:
        from ocirt_cni.cli import main as cli

        sys.exit(cli.main(args))


def preload(group: str) -> None:
    """Have the launcher's loader load what a plugin needs for a command (launcher/build.py), if there is one."""
    load = getattr(sys.meta_path[0], "preload", None) if sys.meta_path else None
    if load is not None:
        load(group)
