"""The command `ocirt` with what only the library can ask for: `python library_command.py FILE ARGUMENTS`.

The file is JSON: "overlay" with the arguments of `ocirt.plan.overlay.Overlay`, and "apart", with which that is made as older
kernels need it; anything else goes to every `ocirt.plan.Request`. For tests alone: the command itself has no flags for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ocirt.cli import create, main, plan
from ocirt.cli import exec as verb_exec
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
    """Give every request of the command line what the file says."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    overlay = given.pop("overlay", None)
    if given.pop("apart", False):
        vars(planned)["make"] = _apart

    def request(*args: Any, **words: Any) -> Request:
        return Request(*args, **{**words, **given}, overlay=planned.Overlay(**overlay) if overlay else None)

    for verb in (create, verb_exec, plan):
        vars(verb)["Request"] = request


begin()
main.main("ocirt", sys.argv[2:])
