"""`ocirt-cni check`."""

from __future__ import annotations

from ocirt_cni.cli import target
from ocirt_cni.cli.options import Options


def run(given: Options) -> int:
    """Check an attachment. Raises Error."""
    target.runner(given).check(target.network(given), target.endpoint(given))
    return 0
