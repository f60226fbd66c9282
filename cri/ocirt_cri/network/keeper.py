"""A mount namespace that holds what no process has to hold: the IPC and UTS namespaces of pods.

A namespace lives as long as somebody is in it, has it open, or has it mounted. Mounted in the host's tree each would make every
start of a container slower. So they are mounted in a mount namespace of their own, whose root is a tmpfs with nothing else in it;
and that is mounted once, in a private mount of the host's. It outlives all processes of a node, and not the machine's restart.

    STATE/keeper/      a bind of itself, private
    STATE/keeper/mnt   the mount namespace, whose root is /POD/ipc, /POD/uts, ...
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import messages
from ocirt.kernel.ffi import syscall
from ocirt_cri.network.forks import Holder

_MS_BIND, _MS_REC = 0x1000, 0x4000
_NS_GET_NSTYPE = 0xB703
_O_PATH = 0o10000000


class Keeper:
    """The keeper of a state directory."""

    def __init__(self, state: str) -> None:
        self._place = f"{state}/keeper"
        self._file = f"{self._place}/mnt"
        self.root = -1  # a descriptor of its root, through which its mounts are reached from anywhere

    def open(self) -> None:
        """Find it, or make it. Raises OSError, Error."""
        if self.root >= 0:
            return
        os.makedirs(self._place, 0o700, exist_ok=True)
        lock = os.open(f"{self._place}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._is_there():
                self._make()
        finally:
            os.close(lock)
        self.root = self._open_root()

    def _is_there(self) -> bool:
        try:
            fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return fcntl.ioctl(fd, _NS_GET_NSTYPE) == k.CLONE_NEWNS
        except OSError:
            return False  # the file of one that ended with the machine's last run
        finally:
            os.close(fd)

    def _make(self) -> None:
        if not _is_mount(self._place):
            mount(self._place, self._place, "", _MS_BIND)
        mount("", self._place, "", k.MS_PRIVATE)  # or every copy of the tree would have a copy of the namespace: EINVAL
        os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # A namespace may be mounted only in one with a lower number, so that there are no loops; and Linux 6.18 gives each
        # processor a range of numbers, so a newer one may be lower. (The machine's first has the lowest of all.)
        processors = sorted(os.sched_getaffinity(0))
        for processor in processors:
            try:
                self._make_on(processor)
            except OSError as err:
                if err.errno != EINVAL or processor == processors[-1]:
                    raise
            else:
                return

    def _make_on(self, processor: int) -> None:
        def work() -> None:
            os.sched_setaffinity(0, {processor})
            syscall("unshare", k.CLONE_NEWNS)
            mount("", "/", "", _MS_REC | k.MS_PRIVATE)
            mount("keeper", self._place, "tmpfs", 0, "mode=700")
            os.chdir(self._place)
            # Nothing of the host's stays in it: what is mounted somewhere cannot be unmounted for good.
            syscall("pivot_root", b".", b".")
            syscall("umount2", b".", k.MNT_DETACH)

        with Holder(work, "make the mount namespace that keeps those of pods") as pid:
            mount(f"/proc/{pid}/ns/mnt", self._file, "", _MS_BIND)

    def _open_root(self) -> int:
        """By a fork that goes in, and passes it out."""
        mine, theirs = messages.socket_pair()
        pid = os.fork()
        if not pid:
            try:
                self.enter()
                messages.send_descriptors(theirs, b"d", os.open("/", _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            finally:
                os._exit(0)
        os.close(theirs)
        try:
            _, came = messages.receive_descriptors(mine)
        finally:
            os.close(mine)
            os.waitpid(pid, 0)
        if not came:
            raise Error("kernel", "the mount namespace that keeps those of pods cannot be entered", subject=self._file)
        return came[0]

    def enter(self) -> None:
        """Move this process, which has one thread and shares nothing, into it. There is no way back. Raises OSError."""
        fd = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscall("setns", fd, k.CLONE_NEWNS)
        finally:
            os.close(fd)

    def path(self, pod: str, kind: str) -> str:
        """Where a namespace of a pod is found, as long as this process lives; "" if it has none."""
        try:
            os.stat(f"{pod}/{kind}", dir_fd=self.root)
        except FileNotFoundError:
            return ""
        return f"/proc/{os.getppid()}/fd/{self.root}/{pod}/{kind}"

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """For a block: this process is in it, and then back again. A fork would cost more. Raises OSError."""
        here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        root = os.open("/", _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.enter()
            try:
                yield
            finally:
                syscall("setns", here, k.CLONE_NEWNS)
                # It is now at the root of that tree, which need not be what it had as its root.
                os.fchdir(root)
                os.chroot(".")
                os.chdir("/")
        finally:
            os.close(here)
            os.close(root)

    def keep(self, pod: str, namespaces: dict[str, int]) -> None:
        """Mount namespaces (descriptors, by kind) for a pod. In a fork of the helper. Raises OSError."""
        trees = {
            kind: syscall("open_tree", fd, b"", k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_EMPTY_PATH)
            for kind, fd in namespaces.items()
        }
        with self._inside():
            os.makedirs(f"/{pod}", 0o700, exist_ok=True)
            for kind, tree in trees.items():
                target = os.open(f"/{pod}/{kind}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                syscall("move_mount", tree, b"", target, b"", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH)
                os.close(target)
        for fd in trees.values():
            os.close(fd)

    def drop(self, pod: str) -> None:
        """Let go of the namespaces of a pod; nothing if there are none. Raises OSError, Error."""
        if not os.access(pod, os.F_OK, dir_fd=self.root):
            return
        with self._inside():
            for name in os.listdir(f"/{pod}"):
                try:
                    syscall("umount2", f"/{pod}/{name}".encode(), k.MNT_DETACH)
                except OSError:
                    pass  # a file that was made for one
                os.unlink(f"/{pod}/{name}")
            os.rmdir(f"/{pod}")

    def pods(self) -> list[str]:
        """All that it keeps something for."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError."""
    syscall("mount", source.encode() or b"none", target.encode(), kind.encode() or None, flags, data.encode() or None)


def _is_mount(directory: str) -> bool:
    """Whether something is mounted there: also a bind within a file system, which os.path.ismount does not see."""
    return _mount_id(directory) != _mount_id(os.path.dirname(directory))


def _mount_id(path: str) -> str:
    """Of the mount that a path leads to (proc(5), fdinfo)."""
    fd = os.open(path, _O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(line for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
