"""The daemon's side of the process that brings images: started when there is something to do, ended when there is nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ocirt_cri.spawn import spawn
from ocirt_images.errors import CODES, Error

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from ocirt_cri.images.settings import Settings

    Json = dict[str, Any]
    OnProgress = Callable[[int, int], None]

UNREACHABLE = "RegistryUnavailable"  # how the kubelet has such errors begin
UNTRUSTED = "SignatureValidationFailed"
_MEANT = {"invalid": "kernel", "usage": "kernel", "unsupported": "not-found"}
_log = logging.getLogger(__name__)


class _Call:
    """An order that is under way."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.on_progress = on_progress


class _Running:
    """One process. calls: what it is at work with."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.writer = writer
        self.calls: dict[int, _Call] = {}
        self.reading = asyncio.create_task(self._read(reader), name="images' process")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError) as err:
            _log.error("the images' process said what cannot be read: %s", err)
        self.writer.close()
        code = await asyncio.to_thread(self.process.wait)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        for call in self.calls.values():
            if not call.answer.done():
                hint = (
                    "what came is kept; perhaps the kernel ran out of memory" if code == -signal.SIGKILL else "what came is kept"
                )
                call.answer.set_exception(Error("kernel", f"the process that brings images died of {how}", hint=hint))

    def _take(self, said: Json) -> None:
        call = self.calls.get(said["n"])
        if call is None or call.answer.done():
            return  # nobody waits for it any more
        if "done" in said:
            call.answer.set_result(said["done"])
        elif "error" in said:
            call.answer.set_exception(_error(*said["error"]))
        else:
            call.on_progress(said["moved"], said["size"])


class Worker:
    """The process, there or not. idle: seconds without work after which it is ended."""

    def __init__(self, settings: Settings, *, idle: float = 60.0) -> None:
        self._settings = settings
        self._idle = idle
        self._numbers = 0
        self._running: _Running | None = None
        self._starting: asyncio.Task[_Running] | None = None
        self._ending: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if it is there."""
        return self._running.process.pid if self._running is not None else None

    async def call(self, do: str, on_progress: OnProgress, **more: object) -> Json:
        """Have something done. A caller that is cancelled has it given up. Raises Error."""
        running = await self._there()
        self._stay()
        number = self._numbers = self._numbers + 1
        call = running.calls[number] = _Call(on_progress)
        try:
            running.writer.write(_line(number, do, **more))
            return await call.answer
        except asyncio.CancelledError:
            if not running.writer.is_closing():
                running.writer.write(_line(0, "cancel", of=number))
            raise
        finally:
            del running.calls[number]
            self._rest(running)

    async def close(self) -> None:
        """End the process, and what it is at work with."""
        self._stay()
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        running, self._running = self._running, None
        if running is not None:
            running.writer.close()
            await running.reading

    async def _there(self) -> _Running:
        self._stay()
        if self._running is not None and not self._running.writer.is_closing():
            return self._running
        if self._starting is None:
            # It is everybody's, and goes on when the caller who needed it first gives up.
            self._starting = asyncio.create_task(self._start(), name="start of the images' process")
        return await asyncio.shield(self._starting)

    async def _start(self) -> _Running:
        try:
            process, reader, writer = await spawn("ocirt_cri.images.worker")
            writer.write(_line(0, "open", **asdict(self._settings)))
            self._running = _Running(process, reader, writer)
            self._rest(self._running)
            return self._running
        finally:
            self._starting = None

    def _rest(self, running: _Running) -> None:
        """Let it end in a while, if it has nothing to do."""
        self._stay()
        if not running.calls and running is self._running:
            self._ending = asyncio.get_running_loop().call_later(self._idle, running.writer.close)

    def _stay(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


def _line(number: int, do: str, **more: object) -> bytes:
    return json.dumps({"n": number, "do": do, **more}).encode() + b"\n"


def _error(code: str, message: str, subject: str, cause: str, hint: str) -> Error:
    """What the process says went wrong, as the kubelet wants to hear it.

    It takes the text's first word for a reason only where the status is UNKNOWN ("kernel"), which it leaves out of the text.
    The request has been read by then: what is invalid is what a registry sent, or a file of this machine. An image that this
    machine cannot use is one that is not there; nobody is to think that the daemon knows no pulls.
    """
    code = _MEANT.get(code, code)
    found = Error(code if code in CODES else "unavailable", message, subject=subject, cause=cause, hint=hint)
    if code == "unreachable":
        return Error("kernel", f"{UNREACHABLE}: {found}")
    if code == "untrusted":
        text = str(found)
        return Error("kernel", text if text.startswith(UNTRUSTED) else f"{UNTRUSTED}: {text}")
    return found
