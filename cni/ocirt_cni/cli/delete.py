"""`ocirt-cni del`."""

from __future__ import annotations

from ocirt_cni.cli import target
from ocirt_cni.cli.options import Options


def run(given: Options) -> int:
    """Undo an attachment. Raises Error."""
    runner, endpoint = target.runner(given), target.endpoint(given)
    runner.delete(target.network_or_cached(given, runner, endpoint), endpoint)
    return 0
