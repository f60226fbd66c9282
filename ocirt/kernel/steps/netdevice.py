"""Network devices of the host, moved into the container's network namespace (config-linux.md, "Network Devices").

The parent's, and loaded only if config.json names some.
"""

from __future__ import annotations

import posix
from errno import EEXIST

from ocirt.kernel import constants as k
from ocirt.kernel import process
from ocirt.kernel.ffi import CallError
from ocirt.kernel.netlink import Netlink, free_name
from ocirt.kernel.run import Run


def check(run: Run, name: str, inside: str, slot: str) -> None:
    """See that the device is there and, in a namespace that is joined (`slot`), that its name is free, before anything is made.

    `inside` is the name there, "" for the one that it has.
    """
    here = Netlink()
    try:
        _, own_names = here.find(name)
        if not slot:
            return
        there = _in_namespace(run.fds[slot])
        try:
            _choose(there, inside, own_names, stays=_same(run.fds[slot], "/proc/self/ns/net"))
        finally:
            there.close()
    finally:
        here.close()


def move(run: Run, name: str, inside: str) -> None:
    """Move a device into init's network namespace, give it back its addresses, and bring it up.

    `inside` is its name there: "" for the one that it has; `%d` in it stands for the lowest number that is free there.
    """
    namespace = posix.open(f"/proc/{run.pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    here = Netlink()
    there = _in_namespace(namespace)
    try:
        index, own_names = here.find(name)
        addresses = here.addresses(index)  # with the move the kernel takes them all
        stays = _same(namespace, "/proc/self/ns/net")
        new_name = _choose(there, inside, own_names, stays=stays)
        if stays and new_name != own_names[0]:
            here.set_up(index, up=False)  # not on its way, a link that is up may not be renamed (Linux before 6.2)
        here.move(index, namespace, new_name)
        index, _ = there.find(new_name)
        for address in addresses:
            try:
                there.add(index, address)
            except CallError as err:
                if err.errno != EEXIST:
                    raise
        there.set_up(index)
    finally:
        here.close()
        there.close()
        posix.close(namespace)


def _choose(there: Netlink, inside: str, own_names: list[str], *, stays: bool) -> str:
    """The name for a device that has `own_names`. EEXIST if it is taken: the kernel would find that out after the move only.

    `stays`: it goes nowhere, as the namespace is the runtime's own.
    """
    taken = there.names()
    if stays:
        taken.discard(own_names[0])
    name = inside or own_names[0]
    if "%d" in name:
        return free_name(name, taken.union(own_names[1:]))
    if name in taken or name in own_names[1:]:
        raise CallError(EEXIST, "netlink")
    return name


def _in_namespace(fd: int) -> Netlink:
    """A socket to the network namespace `fd`; the process stays where it is."""
    own = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        process.setns(fd, k.CLONE_NEWNET)
        try:
            return Netlink()
        finally:
            process.setns(own, k.CLONE_NEWNET)
    finally:
        posix.close(own)


def _same(fd: int, path: str) -> bool:
    one, other = posix.fstat(fd), posix.stat(path)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
