"""ocirtd's log, on its standard error: lines for a person, or JSON for a machine."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocirt_cri.model import Container, Sandbox

_FORMATS = ("text", "json")
_FIELDS = ("pod", "container", "rpc")


class _Lines(logging.Formatter):
    """`2026-11-29T06:13:53.123456Z info pods: what happened`, without anything that moves a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.rpartition(".")[2]
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        plain = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
        return f"{_time(record)} {record.levelname.lower()} {name}: {plain}"


class _Json(logging.Formatter):
    """One object a line: time, level, part, msg; pod, container and rpc where it is about one; and error with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "part": record.name.rpartition(".")[2],
            "msg": record.getMessage(),
        }
        found |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found)


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def set_up(level: str, form: str) -> None:
    """Log from now on at this level, in this form. It may be called again."""
    assert form in _FORMATS
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("asyncio", "cygrpc", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)


def of_pod(sandbox: Sandbox) -> dict[str, str]:
    """What a line about a pod has besides, for `extra`."""
    return {"pod": sandbox.id}


def of_container(container: Container) -> dict[str, str]:
    """The same, about a container."""
    return {"pod": container.pod_id, "container": container.id}
