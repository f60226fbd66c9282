"""Undoing in several steps, of which none is left out because another failed."""

from __future__ import annotations

from ocirt_cni.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], object]


def every(*steps: Step) -> None:
    """Take all steps, in their order. Raises the first Error, when all were taken."""
    first: Error | None = None
    for step in steps:
        try:
            step()
        except Error as err:
            first = first or err
    if first is not None:
        raise first


def attempt(*steps: Step) -> None:
    """The same without any error: for an ADD that has failed already, and has its own to report."""
    try:
        every(*steps)
    except Error:
        pass  # what is left belongs to the attachment, and the DEL that follows a failed ADD finds it
