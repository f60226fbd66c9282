"""The command line of `ocirt-cni`."""

from __future__ import annotations


def main(args: list[str]) -> int:
    """Run a verb; the exit status."""
    raise NotImplementedError(args)
