"""Plugins that others might have written: shell scripts that write down what they are told, and answer what a test wants."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPT = """#!/bin/sh
number=$(ls {log} | wc -l)
until call={log}/$(printf %03d "$number"); mkdir "$call" 2>/dev/null; do
    number=$((number + 1)) # another one runs at the same time
done
cat >"$call/stdin"
env >"$call/env"
echo {name} >"$call/name"
. {folder}/$CNI_COMMAND
"""


@dataclass(frozen=True)
class Told:
    """One call, as a plugin saw it."""

    name: str
    command: str
    env: dict[str, str]
    conf: dict[str, Any]


class Folder:
    """A folder of plugins, for CNI_PATH, and what they were told."""

    def __init__(self, place: Path) -> None:
        self.bin = place / "bin"
        self._log = place / "calls"
        self._place = place
        self.bin.mkdir(parents=True)
        self._log.mkdir()

    def make(self, name: str, result: dict[str, Any] | None = None, **bodies: str) -> Path:
        """A plugin that answers ADD with `result`, and each command by a body of shell (ADD, DEL …); by success without one."""
        folder = self._place / f"{name}.d"
        folder.mkdir(exist_ok=True)
        answers = dict.fromkeys(("DEL", "CHECK", "GC", "STATUS"), ":")
        answers["ADD"] = f"echo '{json.dumps(result if result is not None else {})}'"
        answers["VERSION"] = """echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}'"""
        for command, body in (answers | bodies).items():
            (folder / command).write_text(body + "\n")
        path = self.bin / name
        path.write_text(_SCRIPT.format(log=self._log, name=name, folder=folder))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def told(self) -> list[Told]:
        """The calls in their order."""
        found = []
        for call in sorted(self._log.iterdir()):
            env = dict(line.partition("=")[::2] for line in (call / "env").read_text().splitlines())
            text = (call / "stdin").read_text()
            name = (call / "name").read_text().strip()
            found.append(Told(name, env["CNI_COMMAND"], env, json.loads(text) if text else {}))
        return found

    def calls(self) -> list[str]:
        """The same in short: `COMMAND name`."""
        return [f"{one.command} {one.name}" for one in self.told()]


def failure(code: int, message: str, details: str = "") -> str:
    """A body of shell that fails as the specification has it."""
    text = json.dumps({"cniVersion": "1.1.0", "code": code, "msg": message, "details": details})
    return f"echo '{text}'; exit 1"
