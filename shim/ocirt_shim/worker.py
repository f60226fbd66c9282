"""A fork of the shim that does what waits or takes memory, says one word, and ends. What it has started is then the shim's child.

So a shim never plans a container itself: every page that this would write to would be its own for as long as it lives.
"""

from __future__ import annotations

import posix

from ocirt import spans
from ocirt.errors import Error
from ocirt.kernel.process import close_all_but
from ocirt.zygote import wire
from ocirt_shim.streams import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from ocirt_shim.loop import Loop
    from ocirt_shim.ready import Ready

    Word = dict[str, Any]


class Worker:
    """Runs `work` in a fork; what that returns, or raises, goes to `hear` here, as a dict or an exception.

    `kept`: descriptors that are the fork's alone, and closed here, whatever happens. common: it has no others but these, so that
    nobody waits for the end of one that it does not know of; None: all. Raises OSError if there can be no fork.
    """

    __slots__ = ("_hear", "_told", "_word", "pid")

    @classmethod
    def of(cls, loop: Loop, ready: Ready, hear: Callable[[Word | Exception], object]) -> Worker:
        """One that was there before its work, and has begun with that."""
        worker = cls.__new__(cls)
        worker._hear, worker._word, worker.pid = hear, b"", ready.pid
        worker._told = Output(loop, ready.told, worker._take)
        return worker

    def __init__(
        self,
        loop: Loop,
        work: Callable[[], Word],
        hear: Callable[[Word | Exception], object],
        kept: list[int],
        common: Sequence[int] | None = None,
    ) -> None:
        self._hear = hear
        self._word = b""
        try:
            told, tell = posix.pipe2(posix.O_CLOEXEC)
            try:
                self.pid = posix.fork()
            except OSError:
                posix.close(told)
                posix.close(tell)
                raise
            if not self.pid:
                run(work, tell, None if common is None else (*kept, *common))
            posix.close(tell)
        finally:
            for fd in kept:
                posix.close(fd)
        self._told = Output(loop, told, self._take)

    def ended(self) -> None:
        """It was reaped: hear its word, if it lies there yet."""
        self._told.drain()

    def _take(self, data: bytes) -> None:
        """Hear its word once it is whole: the end of the process takes longer."""
        self._word += data
        if data and not wire.is_whole(self._word):
            return
        hear, self._hear = self._hear, _nobody
        if not data:
            hear(Error("kernel", "the process that was to do it was killed", hint="out of memory, or of processes?"))
            return
        hear(heard(wire.decode(self._word)))


def _nobody(word: Word | Exception) -> None:
    del word


def said(work: Callable[[], Word]) -> Word:
    """Do it; its word, or that of what it has raised."""
    try:
        return work()
    except Error as err:
        return wire.from_error(err)
    except OSError as err:
        from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

        return wire.from_error(Error("kernel", describe(err)))
    except Exception as err:  # noqa: BLE001  (nobody else would hear of it)
        return wire.from_error(Error("internal", f"{type(err).__name__}: {err}", hint="this is a bug in ocirt"))


def heard(word: Word) -> Word | Exception:
    """What its maker is told."""
    return wire.to_error(word) if "error" in word else word


def run(work: Callable[[], Word], tell: int, kept: Sequence[int] | None = None) -> NoReturn:
    """In a fork: do it, and say how it went over a pipe. kept: the only other descriptors that it has; None: all."""
    try:
        if kept is not None:
            close_all_but((tell, *kept, *spans.descriptors()), 3)
        data = wire.encode(said(work))
        while data:
            data = data[posix.write(tell, data) :]
    finally:
        posix._exit(0)
