"""ocirtd with one counted point at everything that it changes: `python -m tests.support.killpoints PLACE [ARGUMENTS]`.

A point is a file or directory that is made, renamed, removed or opened to be written, a mount, a statement of SQL, a process
that is started, and a message to the zygote, a shim, the network helper or the images' process: before it, and after its answer.
Points count from the beginning of a call of the CRI to its end, in all threads, if PLACE/arm names it: `METHOD NUMBER`. At the
point of that number the process kills itself before it does what it was about to do. When the call ends PLACE/points has the
names of all.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_FILES = "mkdir rename remove rmdir link symlink chmod chown truncate setxattr posix_spawn kill"
_EVENTS = frozenset([*(f"os.{name}" for name in _FILES.split()), "subprocess.Popen", "socket.bind", "socket.connect"])
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STATEMENTS = ("INSERT", "DELETE", "UPDATE", "COMMIT")
_MOUNTS = frozenset(["mount", "umount2", "move_mount", "mount_setattr", "setns", "unshare", "fsmount", "open_tree"])


class Points:
    """The count."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._target: int | None = None
        self._names: list[str] = []

    def begin(self, method: str) -> bool:
        """Whether the count begins."""
        try:
            wanted, number = (self._place / "arm").read_text().split()
        except FileNotFoundError:
            return False
        if wanted != method or self._target is not None:
            return False
        with self._lock:
            self._names = []
            self._target = int(number)
        return True

    def end(self) -> None:
        """It ends."""
        with self._lock:
            self._target = None
        (self._place / "points").write_text("\n".join(self._names))

    def at(self, name: str) -> None:
        """One point."""
        if self._target is None:
            return
        with self._lock:
            if self._target is None:
                return
            self._names.append(name)
            if len(self._names) == self._target:
                self._target = None  # os.kill is a point itself
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """For sys.addaudithook."""
        if self._target is None:
            return
        if event == "open":
            if isinstance(args[2], int) and args[2] & _WRITING and str(args[0]) != os.devnull:
                self.at(f"open {_name(args[0])}")
        elif event in _EVENTS:
            self.at(f"{event} {_name(args[0]) if args else ''}")


def _name(path: object) -> str:
    return os.path.basename(os.fsdecode(path)) if isinstance(path, str | bytes) else ""


def _patch(points: Points) -> None:
    """Before the daemon's own modules are loaded, as they take names from others."""
    from ocirt.kernel import ffi  # noqa: PLC0415
    from ocirt_images.snapshots import calls  # noqa: PLC0415

    inner, theirs = ffi.syscall, calls._call

    def syscall(name: str, *args: Any) -> Any:
        if name in _MOUNTS:
            points.at(name)
        return inner(name, *args)

    def call(number: int, name: str, *args: Any, **more: Any) -> int:
        points.at(name)
        return theirs(number, name, *args, **more)

    ffi.syscall = syscall  # type: ignore[assignment]
    calls._call = call

    class Connection(sqlite3.Connection):
        def execute(self, text: str, *args: Any) -> sqlite3.Cursor:
            word = text.split(maxsplit=1)[0].upper() if text.strip() else ""
            if word in _STATEMENTS:
                points.at(f"sql {word}")
            return super().execute(text, *args)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    from ocirt_cri import networks, server, shims, zygote  # noqa: PLC0415
    from ocirt_cri.images import process  # noqa: PLC0415

    _around(points, zygote.Zygote, "ask", lambda args: f"zygote {args[0].get('do')}")
    _around(points, shims.Shim, "call", lambda args: f"shim {args[0]}")
    _around(points, networks.Helper, "_ask", lambda args: f"helper {args[0]}")
    _around(points, process.Worker, "call", lambda args: f"images {args[0]}")
    take = process._Running._take

    def taken(self: process._Running, said: dict[str, Any]) -> None:
        points.at("images said")
        take(self, said)

    process._Running._take = taken  # type: ignore[method-assign]
    answered = server.answered

    def counted(name: str, method: Callable[..., Awaitable[Any]] | None, *args: Any) -> Any:
        async def run(request: Any) -> Any:
            assert method is not None
            begun = points.begin(name)
            try:
                return await method(request)
            finally:
                if begun:
                    points.end()

        return answered(name, run if method is not None else None, *args)

    server.answered = counted  # type: ignore[assignment]


def _around(points: Points, kind: type, name: str, said: Callable[[tuple[Any, ...]], str]) -> None:
    inner = getattr(kind, name)

    async def outer(self: Any, *args: Any, **more: Any) -> Any:
        points.at(f"{said(args)}: before")
        found = await inner(self, *args, **more)
        points.at(f"{said(args)}: after")
        return found

    setattr(kind, name, outer)


def main() -> int:
    """The daemon."""
    points = Points(Path(sys.argv[1]))
    _patch(points)
    sys.addaudithook(points.audit)
    from ocirt_cri.main import main as daemon  # noqa: PLC0415

    return daemon(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
