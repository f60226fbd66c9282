"""The streams of a process: what containerd names (FIFOs, file://, binary://), pipes or a terminal, and what moves between."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.errors import Error
from ocirt_shim import streams
from ocirt_shim.task.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_shim.loop import Loop

_S_IFMT, _S_IFIFO = 0o170000, 0o010000
_FILE = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
_FIFO = posix.O_NONBLOCK | posix.O_CLOEXEC
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_OUTPUTS = ("stdout", "stderr")


class Named:
    """stdin, stdout, stderr as containerd names them, "" for none; and whether there is a terminal, which has no stderr."""

    __slots__ = ("stderr", "stdin", "stdout", "terminal")

    def __init__(self, stdin: str, stdout: str, stderr: str, *, terminal: bool) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = "" if terminal else stderr
        self.terminal = terminal


class Streams:
    """The outer side of one process's streams.

    `open` makes it; what is behind binary:// is started by the worker that makes the process (`begin_logger`), as it may take its
    time. With a terminal, `connect` gives its master. A FIFO is opened for both reading and writing: so that it can be opened
    before its reader has it, is not broken when that goes, and goes on with the next.
    """

    def __init__(self, loop: Loop, named: Named, owner: tuple[int, int] = (0, 0)) -> None:
        """`owner`: uid and gid of the pipes (io_uid, io_gid); a process of another user gets them by the plan."""
        self.named = named
        self._loop = loop
        self._owner = owner
        self._relays: list[Relay] = []
        self._input: Relay | None = None
        self._held = -1  # the writing end of the FIFO for standard input: without it that ends with whoever else writes
        self._master = -1
        self._targets: dict[str, int] = {}  # for the output of a terminal that is not there yet
        self._source = -1  # for its input
        self._then: Callable[[], object] | None = None
        self._logger: list[int] = []  # what the logger is to have as descriptors 3 and 4
        self._arguments: list[str] = []

    def open(self) -> list[int]:
        """Descriptors for the process: three, or with a terminal none. Then those that are for the worker alone.

        All are to be closed here once the worker is there. Raises Error("invalid"), OSError, and then nothing is open.
        """
        inner: list[int] = []
        try:
            if self.named.terminal:
                self._open_terminal()
            else:
                self._open_pipes(inner)
        except (Error, OSError):
            for fd in (*inner, *self._logger):
                posix.close(fd)
            self._logger = []
            self.close()
            raise
        return inner + self._logger

    def _open_pipes(self, inner: list[int]) -> None:
        if self.named.stdin:
            source = self._open_input()
            near, far = streams.pipe(outward=False)
            inner.append(near)
            self._input = Relay(self._loop, source, far, stops=True)
            self._give(near)
        else:
            inner.append(streams.null())
        for name in _OUTPUTS:
            inner.append(self._open_output(name))

    def _open_output(self, name: str) -> int:
        """What the process writes to."""
        scheme, _ = self._target_of(name)
        if scheme == "":
            return streams.null()
        if scheme.startswith("binary"):
            near, far = streams.pipe(outward=True)
            self._logger.append(far)
        else:
            target = self._open_target(name)
            try:
                near, far = streams.pipe(outward=True)
            except OSError:
                posix.close(target)
                raise
            self._relays.append(Relay(self._loop, far, target, self._one_less))
        self._give(near)
        return near

    def _open_terminal(self) -> None:
        if self.named.stdin:
            self._source = self._open_input()
        scheme, _ = self._target_of("stdout")
        if scheme.startswith("binary"):
            near, far = streams.pipe(outward=True)
            self._targets["stdout"] = near
            # A terminal has one output; the other one's end comes at once.
            other, empty = streams.pipe(outward=True)
            posix.close(other)
            self._logger += [far, empty]
        elif scheme:
            self._targets["stdout"] = self._open_target("stdout")

    def _target_of(self, name: str) -> tuple[str, str]:
        """Scheme and path: file and binary are said of stdout, for both. Raises Error("invalid")."""
        text: str = self.named.stdout
        scheme, colon, path = text.partition("://")
        if colon and scheme in ("file", "binary", "binary-v2"):
            path, _, query = path.partition("?")
            self._arguments = _arguments(query)
            return scheme, _unescape(path)
        text = getattr(self.named, name)
        scheme, colon, path = text.partition("://")
        if colon and scheme != "fifo":
            raise Error("invalid", f"unknown scheme {scheme}", subject=name, hint="fifo, file or binary, or a path alone")
        path = _unescape(path) if colon else text
        return ("fifo", path) if path else ("", "")

    def _open_target(self, name: str) -> int:
        scheme, path = self._target_of(name)
        if scheme == "file":
            paths.make_directories(paths.parent(path))
            return posix.open(path, _FILE, 0o644)
        fd = posix.open(path, posix.O_RDWR | _FIFO) if _is_fifo(path) else posix.open(path, _FILE & ~posix.O_CREAT)
        posix.set_inheritable(fd, False)
        return fd

    def _open_input(self) -> int:
        source = posix.open(self.named.stdin, posix.O_RDONLY | _FIFO)
        if _is_fifo(self.named.stdin):
            try:
                self._held = posix.open(self.named.stdin, posix.O_WRONLY | _FIFO)
            except OSError:
                posix.close(source)
                raise
        return source

    def _give(self, fd: int) -> None:
        if self._owner != (0, 0):
            posix.fchown(fd, *self._owner)

    def begin_logger(self, container: str, namespace: str) -> None:
        """In the worker: start what is behind binary://, if anything is, and wait until it is ready. Raises Error, OSError.

        It reads from descriptors 3 and 4, and closes 5 when it is ready (binary-v2: after it has written a byte there). It has to
        end when both do.
        """
        if not self._logger:
            return
        import _signal  # type: ignore[import-not-found]  # noqa: PLC0415  (typeshed has none)

        scheme, path = self._target_of("stdout")
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        # Moved up first: one of these may have the number that another is to get.
        high = [_above(fd, 10) for fd in (*self._logger, writer)]
        actions = [(posix.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, 3)]
        posix.posix_spawn(
            path,
            [path, *self._arguments],
            {"CONTAINER_ID": container, "CONTAINER_NAMESPACE": namespace},
            file_actions=actions,
            setsigmask=(),
            setsigdef=tuple(number for number in range(1, 32) if number not in (_signal.SIGKILL, _signal.SIGSTOP)),
        )
        for fd in (*high, writer):
            posix.close(fd)
        said = posix.read(reader, 1)
        posix.close(reader)
        if scheme == "binary-v2" and not said:
            raise Error("kernel", "the logging program has ended before it was ready", subject=path)

    def take_console(self, way: int) -> None:
        """The terminal's master, if the worker has come that far."""
        for master in streams.consoles(way):
            self.connect(master)

    def connect(self, master: int) -> None:
        """The terminal's master is there."""
        self._master = master
        for target in self._targets.values():
            self._relays.append(Relay(self._loop, posix.dup(master), target, self._one_less))
        self._targets.clear()
        if self._source >= 0:
            self._input = Relay(self._loop, self._source, posix.dup(master), stops=True)
            self._source = -1

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters. Raises Error("state") without one, OSError."""
        if self._master < 0:
            raise Error("state", "this process has no terminal")
        import fcntl  # noqa: PLC0415  (preloaded)
        from _struct import pack  # noqa: PLC0415

        from ocirt.kernel import constants as k  # noqa: PLC0415

        fcntl.ioctl(self._master, k.TIOCSWINSZ, pack("4H", height, width, 0, 0))

    def close_input(self) -> None:
        """Let standard input end once all that was written to it was read, and nobody else writes."""
        if self._held >= 0:
            posix.close(self._held)
            self._held = -1

    def settle(self) -> None:
        """The process has ended: pass on what it has written, and end the streams."""
        self._close_inner()
        for relay in self._relays:
            relay.settle()

    def _busy(self) -> bool:
        return any(relay.open for relay in self._relays)

    def _one_less(self) -> None:
        if self._then is not None and not self._busy():
            then, self._then = self._then, None
            then()

    def finish(self, patience: int, then: Callable[[], object]) -> None:
        """Close all and call `then`, once what the process has written was taken, or after so many nanoseconds."""
        if self._busy():
            self._then = then
            self._loop.after(patience, self.close)
        else:
            self.close()
            then()

    def _close_inner(self) -> None:
        self.close_input()
        if self._input is not None:
            self._input.close()
            self._input = None
        for fd in (*self._targets.values(), self._source, self._master):
            if fd >= 0:
                posix.close(fd)
        self._targets.clear()
        self._source = self._master = -1

    def close(self) -> None:
        """Close all, whatever is on its way."""
        self._close_inner()
        for relay in self._relays:
            relay.close()
        self._relays.clear()


def _is_fifo(path: str) -> bool:
    return posix.stat(path).st_mode & _S_IFMT == _S_IFIFO


def _above(fd: int, least: int) -> int:
    """A copy of the descriptor with a number from `least` on."""
    import fcntl  # noqa: PLC0415  (preloaded)

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)


def _arguments(query: str) -> list[str]:
    """The words of a URL's query, names and values in turn, as a program's arguments."""
    found: list[str] = []
    seen: set[str] = set()
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in seen:
            seen.add(name)
            found += [_unescape(name.replace("+", " ")), _unescape(value.replace("+", " "))]
    return found


def _unescape(text: str) -> str:
    """Undo %XX. Raises Error("invalid")."""
    if "%" not in text:
        return text
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    out = first
    for part in rest:
        digits = part[:2].decode("ascii", "replace")
        if len(digits) != 2 or not _HEXADECIMAL.issuperset(digits):
            raise Error("invalid", f"{text!r}: % is not followed by two hexadecimal digits")
        out += bytes.fromhex(digits) + part[2:]
    return out.decode("utf-8", "surrogateescape")
