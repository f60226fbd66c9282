"""The command `ocirt` for containers whose root is an overlay: `python overlay_command.py FILE ARGUMENTS`.

The file holds the arguments of `ocirt.plan.overlay.Overlay` as JSON; with "apart" in it, what older kernels need is done at once.
For tests alone: the command itself has no flag for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ocirt.cli import create, main, plan
from ocirt.plan import Request
from ocirt.plan import overlay as planned

_make = planned.make


def _apart(*args: Any) -> Any:
    """The plan with the alternative in the place of what it stands in for."""
    steps = _make(*args)
    side, _, _, pointer, errors = steps.pop()
    assert errors
    (call,) = errors.values()
    assert call is not None
    return [*steps, (side, *call, pointer, None)]


def begin() -> None:
    """Give every request of the command line an overlay."""
    given = json.loads(Path(sys.argv[1]).read_text())
    if given.pop("apart", False):
        vars(planned)["make"] = _apart

    def request(*args: Any, **words: Any) -> Request:
        return Request(*args, **words, overlay=planned.Overlay(**given))

    for verb in (create, plan):
        vars(verb)["Request"] = request


begin()
main.main("ocirt", sys.argv[2:])
