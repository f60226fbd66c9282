"""One more program in a container: its process.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_cri.spec.inputs import Json


def exec_process(process: Json, command: Sequence[str], *, terminal: bool = False) -> Json:
    """What the container's own process is, with another program. Raises Error for none."""
    if not command or not command[0]:
        raise invalid("cmd", "no command", 'such as ["ls", "-l"]')
    for number, word in enumerate(command):
        if "\0" in word:
            raise invalid(f"cmd[{number}]", "a NUL character", "leave it out")
    found = dict(process) | {"args": list(command), "terminal": terminal}
    found.pop("consoleSize", None)
    names = {entry.partition("=")[0] for entry in found.get("env") or ()}
    if terminal and "TERM" not in names:
        found["env"] = [*(found.get("env") or ()), "TERM=xterm"]
    return found
