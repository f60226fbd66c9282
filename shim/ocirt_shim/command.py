"""Another OCI runtime by its command line, as runc has it: for containers that ocirt's own library does not make.

All of this is for a worker, or another fork of the shim: the runtime may wait for whatever it likes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.process import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGKILL = 9
_FAILED = 127  # of a child that could not execute it
_MOST = 1 << 16  # bytes of what it says that are read
_LONGEST = 2000  # characters of that which an error has
_ALL = range(1, 65)
# What it must not take for its own: it would forward the readiness of ocirtd's own unit, and pass on descriptors.
_NOT_PASSED = (b"NOTIFY_SOCKET", b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES")
# What runtimes say, in lower case, and which of our errors that is.
_MEANINGS = (
    ("does not exist", "not-found"),
    ("not running", "state"),
    ("already finished", "state"),
    ("no such process", "state"),
    ("has stopped", "state"),
    ("is stopped", "state"),
    ("stopped container", "state"),
    ("not supported", "unsupported"),
)


class Command:
    """words: the program, and its global options; directory: the shim's, for files that are read at once and removed."""

    def __init__(self, words: Sequence[str], directory: str) -> None:
        self.words = list(words)
        self.directory = directory

    @property
    def name(self) -> str:
        """The program's path."""
        return self.words[0]

    def call(self, verb: str, *rest: str, stdio: tuple[int, int, int] | None = None, stdin: bytes = b"") -> None:
        """Run it to its end.

        stdio: descriptors that a process of the container gets, which it then inherits; without, `stdin` is what it reads.
        Raises Error with the runtime's own words: "not-found", "state", "unsupported" where these mean that, else "kernel".
        """
        log = f"{self.directory}/log-{posix.getpid()}"
        said = posix.memfd_create("said", posix.MFD_CLOEXEC)
        given = -1
        try:
            if stdio is None:
                given = posix.memfd_create("given", posix.MFD_CLOEXEC)
                _fill(given, stdin)
                stdio = given, said, said
            argv = [*self.words, "--log", log, "--log-format", "json", verb, *rest]
            status = self._run(argv, stdio)
            if status:
                raise self._error(verb, status, _last_error(log) or _last_line(said))
        finally:
            for fd in (said, given):
                if fd >= 0:
                    posix.close(fd)
            try:
                posix.unlink(log)
            except FileNotFoundError:
                pass

    def _run(self, argv: list[str], stdio: tuple[int, int, int]) -> int:
        """Its status, as waitpid(2) gives it. Raises Error if it cannot be executed."""
        told, tell = posix.pipe2(posix.O_CLOEXEC)
        parent = posix.getpid()
        pid = posix.fork()
        if not pid:
            _execute(argv, stdio, tell, parent)
        posix.close(tell)
        try:
            number = posix.read(told, 16)
        finally:
            posix.close(told)
        status = posix.waitpid(pid, 0)[1]
        if number:
            hint = "is it installed? `runtime.path` of the handler, in ocirtd.toml, says where it is looked for"
            raise Error("kernel", "cannot be executed", subject=self.name, cause=posix.strerror(int(number)), hint=hint)
        return status

    def _error(self, verb: str, status: int, words: str) -> Error:
        code = posix.waitstatus_to_exitcode(status)
        ended = f"was killed by signal {-code}" if code < 0 else f"failed with exit status {code}"
        low = words.lower()
        meaning = next((meaning for text, meaning in _MEANINGS if text in low), "kernel")
        return Error(meaning, ended, subject=f"{self.name} {verb}", cause=words[:_LONGEST] or "it said nothing")


def _execute(argv: list[str], stdio: tuple[int, int, int], tell: int, parent: int) -> None:
    """In the child; never returns. The container inherits how it treats signals."""
    try:
        prctl(k.PR_SET_PDEATHSIG, _SIGKILL)  # what is half done is undone by who comes next, and not continued meanwhile
        if posix.getppid() != parent:
            posix._exit(_FAILED)
        for number in _ALL:
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # SIGKILL, SIGSTOP, those that libc keeps for itself
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        for target, fd in enumerate(stdio):
            posix.dup2(fd, target, True)
        posix.execve(argv[0], argv, {name: value for name, value in posix.environ.items() if name not in _NOT_PASSED})
    except OSError as err:
        posix.write(tell, str(err.errno).encode())
    finally:
        posix._exit(_FAILED)


def _fill(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]
    posix.lseek(fd, 0, 0)


def _last_error(path: str) -> str:
    """The last error of a log in JSON, one object a line."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        lines = _tail(fd).splitlines()
    finally:
        posix.close(fd)
    for line in reversed(lines):
        try:
            found = jsonlite.loads(line.encode(), path)
        except Error:
            continue
        if isinstance(found, dict) and found.get("level") in ("error", "fatal") and found.get("msg"):
            return str(found["msg"])
    return ""


def _last_line(fd: int) -> str:
    lines = [line.strip() for line in _tail(fd).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _tail(fd: int) -> str:
    size = posix.fstat(fd).st_size
    return posix.pread(fd, _MOST, max(0, size - _MOST)).decode(errors="replace")
