"""One CRIU process that is spoken to over a socket (`criu swrk`): it does what it is asked for once, and ends."""

from __future__ import annotations

import fcntl
import posix
import select
from errno import ENOENT

from ocirt import paths
from ocirt.criu import protobuf, rpc
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import messages, mount, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # What CRIU reports (its name, a pid, a descriptor that came along or -1): an exception of it ends CRIU's work.
    Notified = Callable[[str, int, int], None]

# Of 2021: network and pid namespaces from outside, frozen cgroups of version 2, news of lazy pages, security labels.
_OLDEST = 31600
_SOCKET = 3  # CRIU's end, the first descriptor after the standard streams
_LOG_LIMIT = 64 << 20
# What it writes as an error and goes on after.
_HARMLESS = ("rlimit: Can't setup RLIMIT_NOFILE",)


class CriuError(Error):
    """CRIU could not do it."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__("kernel", message, cause=cause)


class Service:
    """A CRIU that waits for a request, with no other descriptors than those given to it.

    It is not killed with this process: it sees the end of the socket, and puts things back itself (a process that it was about to
    dump would be lost otherwise).
    """

    def __init__(
        self,
        streams: tuple[int, ...] = (-1, -1, -1),
        extra: tuple[int, ...] = (),
        *,
        cgroup_fd: int = -1,
        join_fds: tuple[int, ...] = (),
        root: tuple[str, str] | None = None,
        directories: tuple[str, ...] = (),
    ) -> None:
        """Start it, with `streams` as its standard ones (-1: /dev/null) and `extra` as descriptors 4 and following.

        cgroup_fd, join_fds: the cgroups to start it in, as `cgroup.open` opens them. root: (source, target), for which it gets a
        mount namespace where the tree `source` is mounted at `target`. directories: those for images and work, opened where it
        is, as it mounts in them; `options` has their descriptors.
        Raises Error("unsupported") without a criu in PATH, OSError.
        """
        program = _find()
        self.socket, theirs = messages.socket_pair()
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        ends = [fd if fd >= 0 else null for fd in streams] + [theirs, *extra]
        # Above all numbers that they get: none is overwritten before it was copied.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(ends)) for fd in ends]
        failed, failure = posix.pipe2(posix.O_CLOEXEC)
        self.pid = process.clone3(k.CLONE_NEWNS if root else 0, cgroup_fd)
        if self.pid == 0:
            _become(program, copies, failure, join_fds, root, directories)
        for fd in (null, theirs, failure, *copies):
            posix.close(fd)
        errno = posix.read(failed, 16)
        posix.close(failed)
        if errno:
            self.end()
            raise OSError(int(errno), posix.strerror(int(errno)), program)
        self.directories = [messages.receive_descriptors(self.socket)[1][0] for _ in directories]

    def options(self) -> dict[str, int]:
        """The part of a request's options that names its directories: descriptors of this process, where CRIU opens them."""
        return dict(zip(("images_dir_fd", "work_dir_fd"), self.directories, strict=False))

    def ask(self, kind: str, content: dict[str, Any], notified: Notified | None = None) -> dict[str, Any]:
        """Send a request and return the answer to it. Raises CriuError, and what `notified` raises."""
        self._send({"type": rpc.TYPES[kind], **content}, kind)
        failure: BaseException | None = None
        while True:
            try:
                data, fds = messages.receive_descriptors(self.socket) if self._speaks() else (b"", ())
                answer = protobuf.decode(data, rpc.RESPONSE) if data else {}
            except Error as err:
                raise failure or err from None
            if not answer:
                raise failure or CriuError(f"criu failed: type {kind}: {self._last_words()}")
            if not answer.get("success"):
                text = f"criu failed: type {kind} errno {answer.get('cr_errno', 0)}"
                raise failure or CriuError(text, answer.get("cr_errmsg", "").strip())
            if answer["type"] != rpc.TYPES["NOTIFY"]:
                break
            said = answer.get("notify", {})
            try:
                if notified is not None:
                    notified(said.get("script", ""), said.get("pid", 0), fds[0] if fds else -1)
            except BaseException as err:  # noqa: BLE001  (raised once CRIU has undone what it did)
                failure = failure or err
            self._send({"type": answer["type"], "notify_success": failure is None}, kind)
        if failure is not None:
            raise failure
        return answer

    def _speaks(self) -> bool:
        """Wait for a message, or the end of the process: what it has restored by then holds its end of the socket too."""
        pidfd = posix.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        posix.close(pidfd)
        return self.socket in ready

    def _send(self, message: dict[str, Any], kind: str) -> None:
        try:
            posix.write(self.socket, protobuf.encode(message, rpc.REQUEST))
        except BrokenPipeError:
            raise CriuError(f"criu failed: type {kind}: {self._last_words()}") from None

    def _last_words(self) -> str:
        code = self.end()
        return f"killed by signal {-code}" if code < 0 else f"ended with exit status {code}"

    def end(self) -> int:
        """Have it end and wait for that; its exit status, -N for signal N. Once only; then 0."""
        if self.socket >= 0:
            posix.close(self.socket)
            self.socket = -1
        pid, self.pid = self.pid, 0
        try:
            return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]) if pid else 0
        except ChildProcessError:
            return 0


def _find() -> str:
    for directory in posix.environ.get(b"PATH", b"").decode("utf-8", "surrogateescape").split(":"):
        path = paths.join(directory or ".", "criu")
        if posix.access(path, posix.X_OK) and paths.exists(path):
            return path
    raise Error("unsupported", 'exec: "criu": executable file not found in $PATH', hint="install criu, from https://criu.org")


def _become(
    program: str,
    copies: list[int],
    failure: int,
    join_fds: tuple[int, ...],
    root: tuple[str, str] | None,
    directories: tuple[str, ...],
) -> None:
    """In the child: execute CRIU, or tell the errno. Does not return."""
    try:
        for fd in join_fds:
            posix.write(fd, b"0")
        if root:
            _mount_root(*root)
        for path in directories:
            fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            messages.send_descriptors(copies[_SOCKET], b"d", fd)
        for number, fd in enumerate(copies):
            posix.dup2(fd, number, inheritable=True)
        process.reset_signals()
        posix.execve(program, ["criu", "swrk", str(_SOCKET)], posix.environ)
    except OSError as err:
        posix.write(failure, b"%d" % (err.errno or ENOENT))
    finally:
        posix._exit(127)


def _mount_root(source: str, target: str) -> None:
    """Mount a tree where CRIU wants it: its root has to be a mount, below a mount that nothing covers.

    Only this process and what it restores see it, and the host's tree goes on propagating into binds that ask for that.
    """
    mount.mount_setattr(k.AT_FDCWD, 0, 0, k.MS_SLAVE, recursive=True, path=b"/")
    tree = mount.open_tree(source, recursive=True)
    mount.move_mount_to(tree, posix.open(target, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC))


def check_version() -> None:
    """Raise Error("unsupported") if there is no criu, or one that is too old."""
    service = Service()
    try:
        said = service.ask("VERSION", {}).get("version", {})
    except Error as err:
        raise Error(err.code, f"CRIU version check failed: {err}") from None
    finally:
        service.end()
    number = said.get("major_number", 0) * 10000 + said.get("minor_number", 0) * 100 + said.get("sublevel", 0)
    if number < _OLDEST:
        raise Error("unsupported", f"CRIU version {number} must be {_OLDEST} or higher")


def check_feature(name: str) -> None:
    """Raise Error("unsupported") if CRIU cannot do `name` on this kernel: "mem_track" or "lazy_pages"."""
    service = Service()
    try:
        found = service.ask("FEATURE_CHECK", {"features": {name: True}}).get("features", {})
    except Error as err:
        raise Error(err.code, f"CRIU feature check failed: {err}") from None
    finally:
        service.end()
    if not found.get(name):
        raise Error("unsupported", f"criu is missing features: [{name.title().replace('_', '')}]")


def explain(failure: CriuError, log: str) -> CriuError:
    """The failure with the first line of the log file that is an error, which is what the others follow from."""
    try:
        lines = paths.read_text(log, _LOG_LIMIT).split("\n")
    except OSError:
        return failure
    for line in lines:
        at = line.find("Error (")
        if at >= 0 and not any(text in line for text in _HARMLESS):
            failure.cause = line[at:].strip()
            break
    failure.hint = f"see {log}"
    return failure
