"""Clients of exec and attach: for each a fork of the shim that speaks with it (`ocirt_shim.remote`).

The shim has its memory for as long as its container lives, and a client's bytes are many. So it only forks, and copies to who is
attached what the container writes.
"""

from __future__ import annotations

import posix

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt_shim import streams
from ocirt_shim.attached import INPUT_ENDED
from ocirt_shim.children import exit_code
from ocirt_shim.execs import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ocirt_api.messages.shim import StreamRequest
    from ocirt_shim.container import Container
    from ocirt_shim.remote.session import Ends, Session

_DESCRIPTORS = 1 << 20  # the most that there can be
_BUFFER = 1 << 24  # bytes that wait for a client that is attached, before the container has to
_OUTPUTS = ("stdout", "stderr")


class Clients:
    """Who comes with a connection. Each method takes its descriptor, whatever happens, and raises Error, OSError."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def execute(self, request: StreamRequest, fd: int) -> None:
        """Run a program for the client."""
        try:
            process = jsonlite.loads(request.process, "process.json", any_bytes=True)
            if not isinstance(process, dict):
                raise Error("invalid", "an object is expected", subject="process.json")
            self._container.need_running()
            if not posix.fork():
                _become([fd], lambda: self._serve_exec(request, process, fd))
        finally:
            posix.close(fd)

    def attach(self, request: StreamRequest, fd: int) -> None:
        """Give the client the container's own streams."""
        container = self._container
        theirs = [fd]
        ours: list[int] = []
        try:
            container.need_running()
            terminal = container.terminal
            ways, outputs = {}, {}
            for name in _OUTPUTS[:1] if terminal >= 0 else _OUTPUTS:
                if getattr(request, name):
                    ways[name], outputs[name] = streams.pipe(outward=True)
                    ours.append(ways[name])
                    theirs.append(outputs[name])
            word, tell = streams.pair()
            ours.append(word)
            theirs.append(tell)
            stdin = -1
            if request.stdin:
                stdin = terminal if terminal >= 0 else container.stdin
            if not posix.fork():
                _become([*theirs, stdin, terminal], lambda: _serve_attach(request, fd, outputs, stdin, terminal, tell))
            container.attach(ways, word, stdin=request.stdin)
        except BaseException:
            for one in ours:
                posix.close(one)
            raise
        finally:
            for one in theirs:
                posix.close(one)

    # -- in the fork --

    def _serve_exec(self, request: StreamRequest, process: dict[str, Any], fd: int) -> None:
        from ocirt_shim.remote.session import Session  # noqa: PLC0415  (preloaded)

        Session(fd, request, lambda session: self._start(session, request, process)).run()

    def _start(self, session: Session, request: StreamRequest, process: dict[str, Any]) -> Ends:
        from ocirt_shim.remote.session import Ends  # noqa: PLC0415  (preloaded)

        check(process, "process")
        if request.terminal:
            pid, master = self._container.run_more_in_terminal(process)
            _watch(session, pid)
            return Ends(posix.dup(master), {"stdout": posix.dup(master)}, master)
        inner, outer = [], []
        for name, outward in (("stdin", False), ("stdout", True), ("stderr", True)):
            near, far = streams.pipe(outward=outward) if getattr(request, name) else (streams.null(), -1)
            inner.append(near)
            outer.append(far)
        _watch(session, self._container.run_more(process, (inner[0], inner[1], inner[2]), [], ours=True))
        for near in inner:
            posix.close(near)
        return Ends(outer[0], {name: far for name, far in zip(_OUTPUTS, outer[1:], strict=True) if far >= 0})


def _watch(session: Session, pid: int) -> None:
    """Tell the session of the end of a program, which is this process's child."""
    from ocirt_shim.remote.channels import Outcome  # noqa: PLC0415  (preloaded)

    fd = posix.pidfd_open(pid)

    def ended() -> None:
        session.loop.remove(fd)
        session.ended(Outcome(exit_code(posix.waitpid(pid, 0)[1])))

    session.loop.add(fd, ended)


def _serve_attach(request: StreamRequest, fd: int, outputs: dict[str, int], stdin: int, terminal: int, word: int) -> None:
    from ocirt_shim.remote.channels import Outcome  # noqa: PLC0415  (preloaded)
    from ocirt_shim.remote.session import STUCK, Ends, Session  # noqa: PLC0415

    def connect(session: Session) -> Ends:
        # The shim says nothing, and closes when the container has ended.
        def ended() -> None:
            session.loop.remove(word)
            session.ended(Outcome())

        session.loop.add(word, ended)
        return Ends(posix.dup(stdin) if stdin == terminal >= 0 else stdin, outputs, terminal)

    def tell() -> None:
        try:
            posix.write(word, INPUT_ENDED)
        except OSError:
            pass  # the container has ended

    Session(fd, request, connect, buffer=_BUFFER, patience=STUCK, on_input_end=tell).run()


def _become(kept: list[int], serve: Callable[[], object]) -> NoReturn:
    """In a fork: have nothing of the shim but these descriptors, serve, and end."""
    try:
        syscall("prctl", k.PR_SET_NAME, b"ocirt-stream")
        low = 3
        for fd in sorted(one for one in kept if one >= low):
            posix.closerange(low, fd)
            low = fd + 1
        posix.closerange(low, _DESCRIPTORS)
        serve()
    finally:
        posix._exit(0)
