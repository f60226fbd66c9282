"""Operations that outlive who asked for them, and that a second caller joins.

A handler of gRPC is cancelled at its client's deadline. What it asked for goes on, so that a retry finds it: one with the same
configuration gets the same result, one with another is told which field differs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from google.protobuf.message import Message

from ocirt.errors import Error

T = TypeVar("T")
Key = tuple[str, Hashable]
_log = logging.getLogger(__name__)


class Operations:
    """What is under way."""

    def __init__(self) -> None:
        self._running: dict[Key, tuple[asyncio.Task[Any], Message | None]] = {}
        self._loose: set[asyncio.Task[Any]] = set()

    async def run(self, key: Key, start: Callable[[], Awaitable[T]], request: Message | None = None) -> T:
        """The result of the operation with this key: one that runs, or a new one. It is not cancelled with the caller.

        request: its configuration, by which a second caller is judged. Raises what the operation raises; Error("exists") if
        one that runs has another.
        """
        task, wanted = self._running.get(key, (None, None))
        if task is None:
            task = asyncio.create_task(_call(start), name=f"{key[0]} {key[1]}")
            self._running[key] = task, request
            task.add_done_callback(lambda done: self._ended(key, done))
        elif request is not None and wanted is not None:
            refuse_other(key[0], wanted, request)
        result: T = await asyncio.shield(task)
        return result

    async def shielded(self, name: str, what: Awaitable[T]) -> T:
        """The result of something that nobody else joins, and that goes on without the caller."""
        task = asyncio.create_task(_wait(what), name=name)
        self._loose.add(task)
        task.add_done_callback(self._loosed)
        return await asyncio.shield(task)

    @property
    def count(self) -> int:
        """How many are under way."""
        return len(self._running) + len(self._loose)

    async def settle(self, seconds: float) -> None:
        """Wait for what runs, but not for longer. What has not ended then goes on until the process ends, and is undone later."""
        tasks = [task for task, _ in self._running.values()] + list(self._loose)
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _ended(self, key: Key, task: asyncio.Task[Any]) -> None:
        if self._running.get(key, (None,))[0] is task:
            del self._running[key]
        _seen(task)

    def _loosed(self, task: asyncio.Task[Any]) -> None:
        self._loose.discard(task)
        _seen(task)


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody may wait for its failure any more: it is logged then."""
    if not task.cancelled() and (err := task.exception()) is not None:
        _log.debug("%s failed: %s", task.get_name(), err)


async def _call(start: Callable[[], Awaitable[T]]) -> T:
    return await start()


async def _wait(what: Awaitable[T]) -> T:
    return await what


def refuse_other(what: str, had: Message, asked: Message) -> None:
    """Raise Error("exists") if two requests differ, with the first field in which they do."""
    field = difference(had, asked)
    if field is not None:
        words = f"there is a {what} with this metadata, whose {field or 'configuration'} is another"
        raise Error("exists", words, subject=field, hint="remove it first, or ask with another attempt")


def difference(one: Message, other: Message, path: str = "") -> str | None:
    """The path of the first field in which two messages of one type differ; None if they are equal."""
    if one == other:
        return None
    for field in one.DESCRIPTOR.fields:
        place = f"{path}.{field.name}" if path else field.name
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            if mine != theirs:
                return place + _differing_key(mine, theirs)
        elif field.is_repeated:
            for number, pair in enumerate(zip(mine, theirs, strict=False)):
                if (found := difference(*pair, f"{place}[{number}]")) is not None:
                    return found
            if len(mine) != len(theirs):
                return place
        elif one.HasField(field.name) != other.HasField(field.name):
            return place
        elif (found := difference(mine, theirs, place)) is not None:
            return found
    return path  # fields that this version does not know


def _differing_key(mine: Any, theirs: Any) -> str:
    """Of two maps: an entry that differs."""
    if not hasattr(mine, "items"):
        return ""
    for key in (*mine, *theirs):
        if key not in mine or key not in theirs or mine[key] != theirs[key]:
            return f'["{key}"]'
    return ""
