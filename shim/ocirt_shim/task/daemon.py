"""The shim itself: a process that listens, and outlives who has started it, and containerd."""

from __future__ import annotations

import _socket
import posix
from errno import EADDRINUSE

from ocirt import paths
from ocirt_shim.children import Children, become, watch
from ocirt_shim.loop import Loop
from ocirt_shim.server import Listener
from ocirt_shim.task.host import Host
from ocirt_shim.task.journal import Journal
from ocirt_shim.task.publisher import Publisher
from ocirt_shim.task.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_shim.task.bootstrap import Asked

RUNTIME = "io.containerd.ocirt.v2"
_FAREWELL = 2_000_000_000  # nanoseconds that the last events may take
_WORST = 1000  # of oom_score_adj
# What workers would load, each time. What is missing here is loaded when it is needed.
_PRELOADED = (
    *("ocirt.cgroups." + name for name in ("apply", "bpf", "control", "devices", "limits", "oom", "stats", "unified")),
    *("ocirt.containers." + name for name in ("create", "delete", "events", "execute", "failures", "start")),
    *("ocirt.plan." + name for name in ("execute",)),
    *(
        "ocirt.kernel.steps." + name
        for name in (
            *("barrier", "cgroup", "console", "device", "hooks", "idmap", "mount", "namespace", "overlay", "process", "program"),
            *("state", "stdio", "sync", "tree", "user", "waiter"),
        )
    ),
    *("ocirt.seccomp." + name for name in ("cache", "front")),
    *("ocirt.spec." + name for name in ("check", "mountoptions", "mounts", "process", "resources", "rlimits", "seccomp")),
    *("ocirt.spec." + name for name in ("signals", "sysctl", "whole")),
    *("ocirt.cli.log", "ocirt_shim.task.metrics", "fcntl"),
)


class Daemon:
    """`asked` as the command line says; `path`: of the socket, which is there once this is made; `bundle`: the first."""

    def __init__(self, asked: Asked, path: str, bundle: str) -> None:
        """Raises OSError: EADDRINUSE if another has the socket."""
        self.loop = Loop()
        fields = {"runtime": RUNTIME, "namespace": asked.namespace, "id": asked.id}
        self.journal = Journal(f"{bundle}/log", fields, debug=asked.debug)
        self.publisher = Publisher(self.loop, asked.events, asked.namespace, self.journal)
        self.children = Children(self.loop)
        host = Host(self.loop, self.children, self.publisher, self.journal, asked.namespace)
        self.service = Service(host, self.children.reap, self._end)
        methods = self.service.methods()
        self.listener = Listener(self.loop, path, lambda *name: methods.get(name))
        self._ending = False

    def fork(self) -> int:
        """Become a process of its own: its pid for who calls, and in it this never returns. Raises OSError."""
        pid = posix.fork()
        if pid:
            return pid
        try:
            self._settle()
            self.journal.say("info", "the shim is there")
            self.loop.run()
        except BaseException as err:  # noqa: BLE001  (whatever it is, one line says so, and containerd sees the connection's end)
            place = err.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})" if place is not None else ""
            self.journal.say("error", f"the shim ends: {type(err).__name__}: {err}{where}; this is a bug in ocirt")
        finally:
            posix._exit(0)

    def _settle(self) -> None:
        become(b"ocirt-shim")
        null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        for fd in range(3):
            posix.dup2(null, fd, inheritable=True)
        posix.close(null)
        posix.chdir("/")
        watch(self.loop, self.children.reap)
        self._spare_containerd()
        _load()

    def _spare_containerd(self) -> None:
        """When memory runs out, the kernel is to take a shim before it takes containerd."""
        path = "/proc/self/oom_score_adj"
        try:
            score = int(paths.read_text(path))
            paths.write_text(path, str(min(score + 1, _WORST)))
        except OSError as err:
            self.journal.say("debug", f"{path}: {err.strerror}")

    def _end(self) -> None:
        """Nothing is left to do, but to let containerd hear of it."""
        if self._ending:
            return
        self._ending = True
        self.listener.close()
        self.publisher.finish(_FAREWELL, self.loop.stop)


def listen(asked: Asked, path: str, bundle: str) -> Daemon | None:
    """A shim that listens at `path`; None if there is one already. Raises OSError."""
    paths.make_directories(paths.parent(path), 0o711)
    for attempt in range(2):
        try:
            return Daemon(asked, path, bundle)
        except OSError as err:
            if err.errno != EADDRINUSE or attempt:
                raise
        if _answers(path):
            return None
        posix.unlink(path)  # of one that was killed
    return None


def _answers(path: str) -> bool:
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        probe.connect(path)
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _load() -> None:
    """What forks need is loaded once, and the collector leaves it alone: it would copy every page that they share."""
    import gc  # noqa: PLC0415

    gc.disable()
    for name in _PRELOADED:
        __import__(name)
    gc.freeze()
