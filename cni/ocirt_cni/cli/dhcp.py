"""`ocirt-cni dhcp`: the same as `dhcp daemon` by the plugin's own executable."""

from __future__ import annotations

from ocirt_cni.cli.options import Options
from ocirt_cni.ipam import dhcp_daemon


def run(given: Options) -> int:
    """Run the daemon until it is told to end."""
    return dhcp_daemon.main(given.arguments[1:] if given.arguments[:1] == ["daemon"] else given.arguments)
