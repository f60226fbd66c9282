"""`ocirt-cni add`."""

from __future__ import annotations

from ocirt_cni.cli import target
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import show_json


def run(given: Options) -> int:
    """Attach, and print the result. Raises Error."""
    network = target.network(given)
    show_json(target.runner(given).add(network, target.endpoint(given)).document(network.version))
    return 0
