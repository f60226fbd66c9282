"""`ocirt-cni status`."""

from __future__ import annotations

from ocirt_cni.cli import target
from ocirt_cni.cli.options import Options


def run(given: Options) -> int:
    """Ask a network's plugins whether they could work. Raises Error."""
    target.runner(given).status(target.network(given))
    return 0
