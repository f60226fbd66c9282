"""`ocirt-cni reload`."""

from __future__ import annotations

from ocirt_cni import nft
from ocirt_cni.cli.options import Options


def run(given: Options) -> int:
    """Make the firewall's rules again from their records. Raises Error."""
    nft.reload()
    return 0
