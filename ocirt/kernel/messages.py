"""What parent and child say to each other: one datagram a message on a socketpair(2), whose first byte tells its kind.

`t` and a name: a point of the plan is reached. `p` and a pid: the stage has cloned init. `d`: a descriptor comes along. `l`:
so do the listener of init's filter, and what lets init go on (ocirt.kernel.steps.listener). `f`: a step failed; its index, the
errno, the name of the call and a detail follow.
"""

from __future__ import annotations

import posix
from _struct import pack, unpack_from
from errno import ECONNRESET

from ocirt.kernel.ffi import Buffer, CallError, address_of, syscall

_AF_UNIX = 1
_SOCK_SEQPACKET = 5
_SOCK_CLOEXEC = 0o2000000
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_CMSG_CLOEXEC = 0x40000000
_MSG_NOSIGNAL = 0x4000
_HEADER = 16  # struct cmsghdr
_LARGEST = 8192


def socket_pair() -> tuple[int, int]:
    """Two connected sockets that keep the bounds of messages; close-on-exec."""
    buffer = Buffer(8)
    syscall("socketpair", _AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0, buffer.address)
    first, second = unpack_from("ii", buffer.bytes())
    return first, second


def send(fd: int, kind: bytes, text: bytes = b"") -> None:
    """Send one message. Raises OSError: EPIPE when the other side is gone."""
    posix.write(fd, kind + text)


def send_failure(fd: int, index: int, errno: int, call: str, detail: str) -> None:
    """Send a failure; the detail is cut where a message ends."""
    text = call.encode("utf-8", "surrogateescape") + b"\0" + detail.encode("utf-8", "surrogateescape")
    posix.write(fd, b"f" + pack("Ii", index, errno) + text[: _LARGEST // 2])


def receive(fd: int) -> bytes:
    """The next message, b"" when the other side is gone."""
    try:
        return posix.read(fd, _LARGEST)
    except ConnectionResetError:
        return b""


def failure_of(message: bytes) -> tuple[int, int, str, str]:
    """Index, errno, call and detail of a message of kind `f`."""
    index, errno = unpack_from("Ii", message, 1)
    call, _, detail = message[9:].partition(b"\0")
    return index, errno, call.decode("utf-8", "surrogateescape"), detail.decode("utf-8", "surrogateescape")


def send_descriptors(socket_fd: int, data: bytes, *fds: int) -> None:
    """sendmsg(2) of `data` with descriptors (SCM_RIGHTS). Raises CallError: EPIPE when the other side is gone."""
    length = _HEADER + 4 * len(fds)
    control = pack(f"Nii{len(fds)}i", length, _SOL_SOCKET, _SCM_RIGHTS, *fds) + bytes(-length % 8)
    vector = pack("PN", address_of(data), len(data))
    head = pack("PI4xPNPNi4x", 0, 0, address_of(vector), 1, address_of(control), len(control), 0)
    syscall("sendmsg", socket_fd, head, _MSG_NOSIGNAL)


def receive_descriptors(socket_fd: int) -> tuple[bytes, tuple[int, ...]]:
    """One message and the descriptors that came with it (close-on-exec, at most three); b"" when the other side is gone.

    Raises CallError.
    """
    data, control = Buffer(_LARGEST), Buffer(_HEADER + 16)
    vector = pack("PN", data.address, data.size)
    head = Buffer(56)
    head.write(memoryview(pack("PI4xPNPNi4x", 0, 0, address_of(vector), 1, control.address, control.size, 0)))
    try:
        size = syscall("recvmsg", socket_fd, head.address, _MSG_CMSG_CLOEXEC)
    except CallError as err:
        if err.errno != ECONNRESET:
            raise
        return b"", ()  # the other side is gone, and has left something unread
    length, level, kind = unpack_from("Nii", control.bytes())
    if length <= _HEADER or level != _SOL_SOCKET or kind != _SCM_RIGHTS:
        return data.bytes()[:size], ()
    return data.bytes()[:size], unpack_from(f"{(length - _HEADER) // 4}i", control.bytes(), _HEADER)
