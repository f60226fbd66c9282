"""The way into the verbs: `ocirt` calls `main` with the command line that it has read by `tables`."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from ocirt_images.cli.command import Command
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from ocirt_images.cli.command import Given


def main(given: Given, args: list[str]) -> int:
    """Run the verb and return the exit status. Raises Error, OSError, KeyboardInterrupt, which the caller reports."""
    module = importlib.import_module(f"ocirt_images.cli.{given.verb}")
    try:
        status: int = module.run(Command(given), args)
    except Error as err:
        if given.debug and err.__cause__ is not None:
            os.write(2, f"debug: {err.__cause__!r}\n".encode())
        raise
    return status
