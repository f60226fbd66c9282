"""Network namespaces, as a plugin meets them: a path, which may be gone or be none."""

from __future__ import annotations

import posix
from errno import EINVAL, ENOENT

from ocirt_cni import libc
from ocirt_cni.errors import INVALID_NETNS, KERNEL, Error
from ocirt_cni.netlink.socket import Netlink

_OWN = "/proc/thread-self/ns/net"


class Namespace:
    """An open network namespace, with a netlink socket that stays in it. A context manager.

    What follows the calling thread and not a socket (sysctls, sockets that are made) has to be done `inside`.
    """

    def __init__(self, fd: int, path: str = "") -> None:
        """Takes over `fd`. Raises Error(INVALID_NETNS) if it is no network namespace."""
        self.fd = fd
        self.path = path
        try:
            self.netlink = self.open_netlink()
        except BaseException:
            posix.close(fd)
            raise

    @classmethod
    def open(cls, path: str) -> Namespace:
        """Open one by its path. Raises Error(INVALID_NETNS); with the cause ENOENT if nothing is there."""
        try:
            fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as err:
            raise Error(INVALID_NETNS, "the network namespace cannot be opened", subject=path, cause=err.strerror or "") from None
        return cls(fd, path)

    @classmethod
    def find(cls, path: str) -> Namespace | None:
        """The same for DEL, for which a namespace that is gone is no error: None."""
        if not path:
            return None
        try:
            fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as err:
            if err.errno == ENOENT:
                return None
            raise Error(INVALID_NETNS, "the network namespace cannot be opened", subject=path, cause=err.strerror or "") from None
        try:
            return cls(fd, path)
        except NotANamespaceError:
            return None  # the file that it was bound to is there still, as after a reboot

    @classmethod
    def own(cls) -> Namespace:
        """The one that this thread is in."""
        return cls(posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC))

    def inside(self) -> Inside:
        """This thread in the namespace, for as long as the context that it returns lasts. Raises Error on entering it."""
        return Inside(self)

    def open_netlink(self) -> Netlink:
        """Another netlink socket in it. Raises Error."""
        with self.inside():
            return Netlink()

    def is_own(self) -> bool:
        """Whether it is the one that this thread is in."""
        own, other = posix.stat(_OWN), posix.fstat(self.fd)
        return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)

    def close(self) -> None:
        """Let go of it."""
        self.netlink.close()
        posix.close(self.fd)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Inside:
    """The context of `Namespace.inside` (a generator's would load contextlib, which takes 4 ms)."""

    __slots__ = ("_back", "_namespace")

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._back = -1

    def __enter__(self) -> None:
        self._back = posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            libc.setns(self._namespace.fd)
        except OSError as err:
            posix.close(self._back)
            path = self._namespace.path
            if err.errno == EINVAL:
                raise NotANamespaceError(INVALID_NETNS, "this is not a network namespace", subject=path) from None
            raise Error(KERNEL, "the network namespace cannot be entered", subject=path, cause=err.strerror or "") from None

    def __exit__(self, *_: object) -> None:
        try:
            libc.setns(self._back)
        finally:
            posix.close(self._back)


class NotANamespaceError(Error):
    """The file is there and is no network namespace."""
