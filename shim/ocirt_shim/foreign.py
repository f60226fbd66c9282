"""A container that another OCI runtime makes, such as runc: it is called by its command line, each time by a worker.

The rest is as with our own. The runtime ends when it has done what it was told, and this process, a subreaper, inherits init; so
streams, log and exit status are the shim's. The root is mounted where the runtime looks for it, `rootfs` in the bundle, and taken
away with the container.
"""

from __future__ import annotations

import _socket
import posix

from ocirt import jsonlite
from ocirt.cgroups import oom
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import messages
from ocirt.kernel.process import prctl
from ocirt_shim import record as notes
from ocirt_shim.command import Command
from ocirt_shim.container import Container, Later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ocirt_api.messages.shim import CreateRequest, Overlay
    from ocirt_shim.container import Employ, Fail
    from ocirt_shim.loop import Loop
    from ocirt_shim.worker import Word

ROOT = "rootfs"  # in the bundle
_SIGKILL = 9
_O_PATH = 0o10000000
# How runtimes say that they have no `exec --cgroup`.
_UNKNOWN_FLAG = ("not defined", "unrecognized", "unknown", "unexpected")


class Foreign(Container):
    """words: the program and its global options."""

    def __init__(self, loop: Loop, runtime: str, record: notes.Record, words: Sequence[str], directory: str) -> None:
        super().__init__(loop, runtime, record)
        self._command = Command(words, directory)
        self._bundle = ""

    # -- its life --

    def _make(self, request: CreateRequest, document: dict[str, Any], stdio: Sequence[int], console: int) -> Word:
        if request.root is None or request.root.uids or not request.bundle:
            raise Error("invalid", "another runtime needs a bundle, and a root whose ids are not mapped", subject=request.id)
        root = f"{request.bundle}/{ROOT}"
        call = self._command.call
        try:
            _mount(request.root, root)
            place = f"{self._command.directory}/init.pid"
            words = ["--bundle", request.bundle, "--pid-file", place]
            if console >= 0:
                with Console(self._command.directory) as one:
                    call("create", *words, "--console-socket", one.path, request.id)
                    messages.send_descriptors(console, b"c", one.master())
            else:
                call("create", *words, request.id, stdio=(stdio[0], stdio[1], stdio[2]))
            pid = _pid(place)
            spaces = (document.get("linux") or {}).get("namespaces") or []
            own = any(one.get("type") == "pid" and not one.get("path") for one in spaces)
            return {"pid": pid, "cgroup": {"paths": cgroup_of(pid)}, "own_pids": own}
        except BaseException:
            try:
                self._remove(request.id, root, _cgroups(document, request.id), made=False)
            except (Error, OSError):
                pass  # what went wrong before says more; the removal tries again
            raise

    def _made(self, word: Word) -> None:
        # Who looks for its cgroup has no record of our own library's.
        self._record.values["cgroup"] = word["cgroup"]["paths"]
        super()._made(word)

    def create(self, request: CreateRequest, employ: Any, answer: Any, fail: Any) -> None:
        """Make it, as `Container.create` does."""
        self._bundle = request.bundle
        super().create(request, employ, answer, fail)

    def _take_back(self, container: str, then: Callable[[], object]) -> None:
        """The worker has done so; what it could not, the removal can."""
        then()

    def start(self, employ: Employ, answer: Callable[[], object], fail: Fail) -> None:
        """Let init go on to its program."""
        self._need()

        def hear(word: Word | Exception) -> None:
            if isinstance(word, Exception):
                fail(word)
                return
            self.started_at = notes.now()
            self._record.save(status="stopped" if self.exited_at else "running", started_at=self.started_at)
            answer()

        employ(self._work("start", self.id), hear, [])

    def delete(self, *, waits: bool) -> Later | None:
        """Remove it, whatever it does, and its root."""
        del waits
        if self.init:
            self._oom_before = oom.kills(self.cgroup)
        container, made = self.id or self._record.values["id"], bool(self.init)
        root = f"{self._bundle}/{ROOT}" if self._bundle else ""
        groups = list(self.cgroup["paths"].values())

        def work() -> Word:
            prctl(k.PR_SET_PDEATHSIG, _SIGKILL)
            self._remove(container, root, groups, made=made)
            return {}

        return Later(work, self._end_streams)

    def _remove(self, container: str, root: str, groups: list[str], *, made: bool) -> None:
        """In a worker. made: whether there is one, as far as is known: else the runtime may not even be there.

        groups: directories of its cgroup, which a runtime that has failed may leave.
        """
        from ocirt_shim.task.mounts import unmount_all  # noqa: PLC0415  (in a fork)

        try:
            self._command.call("delete", "--force", container)
        except Error as err:
            if made and err.code != "not-found":
                raise
        for directory in dict.fromkeys(groups):
            try:
                posix.rmdir(directory)
            except OSError:
                pass  # it is gone, as it should be; or not empty, and then it is no leftover
        if root:
            unmount_all(root)

    # -- while it is there --

    def kills_all(self, signal: int, *, everybody: bool) -> bool:
        """The runtime does it."""
        del signal, everybody
        return False

    def kill(self, signal: int, *, everybody: bool) -> Later | None:
        """Send a signal. Raises Error("state") if init has ended (without `everybody`)."""
        self._need()
        everybody = everybody or (signal == _SIGKILL and not self._own_pids)
        if signal == _SIGKILL:
            self._oom_before = oom.kills(self.cgroup)
        if self.exited_at and not everybody:
            raise Error("state", "the container has stopped", subject=self.id)
        return Later(self._work("kill", *(["--all"] if everybody else []), self.id, str(signal)), _nothing)

    def pause(self) -> Later | None:
        """Freeze it."""
        self._need()
        return Later(self._work("pause", self.id), _nothing)

    def resume(self) -> Later | None:
        """Thaw it."""
        self._need()
        return Later(self._work("resume", self.id), _nothing)

    def update(self, resources: bytes) -> Later | None:
        """Change limits, given as config.json's `linux.resources`."""
        self._need()
        return Later(self._work("update", "--resources", "-", self.id, stdin=resources), _nothing)

    def _work(self, verb: str, *rest: str, stdin: bytes = b"") -> Callable[[], Word]:
        def work() -> Word:
            prctl(k.PR_SET_PDEATHSIG, _SIGKILL)
            self._command.call(verb, *rest, stdin=stdin)
            return {}

        return work

    # -- one more program in it; in a fork --

    def run_more(self, process: dict[str, Any], stdio: tuple[int, int, int], group: list[str], *, ours: bool) -> int:
        """Its pid; `ours`: it becomes this process's child, else the shim's."""
        if ours:
            prctl(k.PR_SET_CHILD_SUBREAPER, 1)
        else:
            prctl(k.PR_SET_PDEATHSIG, _SIGKILL)
        cgroup = [f"--cgroup={name.removeprefix(':')}" for name in group]
        try:
            return self._execute(process, cgroup, stdio=stdio)
        except Error as err:
            if not group or not any(words in err.cause for words in _UNKNOWN_FLAG):
                raise
        pid = self._execute(process, [], stdio=stdio)
        self._move(pid, group)
        return pid

    def run_more_in_terminal(self, process: dict[str, Any]) -> tuple[int, int]:
        """The pid of what becomes this process's child, and its terminal's master."""
        prctl(k.PR_SET_CHILD_SUBREAPER, 1)
        with Console(self._command.directory) as one:
            pid = self._execute({**process, "terminal": True}, ["--console-socket", one.path])
            return pid, one.master()

    def _execute(self, process: dict[str, Any], more: list[str], *, stdio: tuple[int, int, int] | None = None) -> int:
        name = f"{self._command.directory}/process-{posix.getpid()}"
        fd = posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            data = jsonlite.dumps(process).encode()
            while data:
                data = data[posix.write(fd, data) :]
            words = ["--process", name, "--detach", "--pid-file", f"{name}.pid", *more, self.id]
            self._command.call("exec", *words, stdio=stdio)
            return _pid(f"{name}.pid")
        finally:
            posix.close(fd)
            posix.unlink(name)

    def _move(self, pid: int, group: list[str]) -> None:
        """Into a cgroup below the container's, where `exec` cannot do so. What it has started before is not moved."""
        from ocirt.cgroups.files import write  # noqa: PLC0415  (in a fork)

        for words in group:
            controller, _, name = words.partition(":")
            try:
                write(f"{self.cgroup['paths'][controller]}/{name}/cgroup.procs", str(pid).encode())
            except ProcessLookupError:
                pass  # it has ended


class Console:
    """A socket to which a runtime sends the master of the terminal that it has made; for a `with`."""

    def __init__(self, directory: str) -> None:
        # By way of descriptors: the path of the directory may be too long for an address.
        self._directory = posix.open(directory, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        self._name = f"console-{posix.getpid()}"
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self.path = f"/proc/{posix.getpid()}/fd/{self._directory}/{self._name}"
        self._socket.bind(self.path)
        self._socket.listen(1)
        self._socket.settimeout(0)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        posix.unlink(self._name, dir_fd=self._directory)
        posix.close(self._directory)

    def master(self) -> int:
        """What the runtime, which has ended well, has sent. Raises Error if that is nothing."""
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # (typeshed has the class of `socket`)
            try:
                came = messages.receive_descriptors(fd)[1]
            finally:
                posix.close(fd)
        except OSError:
            came = ()
        if len(came) != 1:
            raise Error("kernel", "the runtime sent no terminal")
        return came[0]


def _mount(root: Overlay, target: str) -> None:
    """Mount a container's root at a directory of the host's. Raises Error, OSError."""
    from ocirt.kernel import mount  # noqa: PLC0415  (in a fork)
    from ocirt.kernel.ffi import CallError  # noqa: PLC0415
    from ocirt.kernel.run import Run  # noqa: PLC0415
    from ocirt.kernel.steps import overlay  # noqa: PLC0415
    from ocirt.plan.overlay import OPTIONS  # noqa: PLC0415

    run = Run([])
    data: tuple[tuple[str, str | None], ...] = OPTIONS
    if root.volatile:
        data += (("volatile", None),)
    try:
        overlay.open_lowers(run, tuple(root.lowers), "")
        overlay.open_upper(run, root.upper, root.work, "")
        try:
            overlay.new(run, "root", (), data)
        except CallError as err:
            if err.errno != 22:  # EINVAL: of a kernel that is older
                raise
            overlay.new_apart(run, "root", tuple(root.lowers), root.upper, root.work, "", (), data)
        place = posix.open(target, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            mount.move_mount(run.fds["root"], place)
        finally:
            posix.close(place)
    finally:
        run.close()


def cgroup_of(pid: int) -> dict[str, str]:
    """Controller to directory of the cgroup that a runtime has put a process into; nothing where that is the shim's own.

    Raises OSError.
    """
    from ocirt.cgroups.layout import detect, own_cgroups  # noqa: PLC0415  (in a fork)
    from ocirt.paths import read_text  # noqa: PLC0415

    layout = detect()
    found = {}
    for controllers, path in own_cgroups(read_text(f"/proc/{pid}/cgroup")):
        for controller in controllers:
            if controller in layout.mounts and path not in ("/", layout.own.get(controller, "/")):
                directory = layout.mounts[controller] + path
                try:
                    posix.stat(directory)
                except OSError:
                    continue  # in a container without a cgroup namespace: mounted is only a part
                found[controller] = directory
    return found


def _cgroups(document: dict[str, Any], container: str) -> list[str]:
    """Where a container's cgroup would be, if its name is a path. Raises OSError."""
    from ocirt.cgroups.layout import detect  # noqa: PLC0415  (in a fork)
    from ocirt.cgroups.paths import resolve  # noqa: PLC0415

    path = (document.get("linux") or {}).get("cgroupsPath") or ""
    return list(resolve(path, container, detect(), rootless=False).values()) if path.startswith("/") else []


def _pid(path: str) -> int:
    """What a runtime has written into its pid file, which is removed. Raises Error."""
    from ocirt.paths import read_text  # noqa: PLC0415  (in a fork)

    try:
        text = read_text(path)
        posix.unlink(path)
        return int(text)
    except (OSError, ValueError):
        raise Error("kernel", "the runtime wrote no pid into its --pid-file", subject=path) from None


def _nothing() -> None:
    pass
