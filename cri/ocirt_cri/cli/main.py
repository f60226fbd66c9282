"""The way into the verbs: `ocirt` calls `main` with the command line that it has read by `tables`."""

from __future__ import annotations

import importlib
from typing import Any

from ocirt.errors import Error


def main(given: Any, args: list[str]) -> int:
    """Run the verb and return the exit status. Raises Error, OSError, KeyboardInterrupt, which the caller reports."""
    import grpc  # noqa: PLC0415  (missing in an installation of the runtime alone: the caller says so)

    module = importlib.import_module(f"ocirt_cri.cli.{given.verb}")
    try:
        status: int = module.run(given, args)
    except grpc.RpcError as err:
        from ocirt_cri.cli.client import words  # noqa: PLC0415  (only for a failure)

        raise words(given, err) from None
    return status


__all__ = ("Error", "main")
