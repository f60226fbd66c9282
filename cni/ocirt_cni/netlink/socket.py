"""A netlink socket: requests, several at a time, and dumps."""

from __future__ import annotations

from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from _struct import unpack_from
from errno import EINTR, ENOBUFS, errorcode
from posix import strerror

from ocirt_cni.errors import KERNEL, Error
from ocirt_cni.netlink import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_LARGEST = 1 << 17
_TRIES = 5  # for a dump that something changed meanwhile


class KernelError(Error):
    """A request that the kernel refused: `errno`, and its own words as the cause. `what` says which one: "RTM_NEWLINK eth0"."""

    def __init__(self, errno: int, what: str, said: str = "") -> None:
        name = errorcode.get(errno, str(errno))
        super().__init__(KERNEL, what, cause=f"{name}: {said or strerror(errno)}")
        self.errno = errno


class Request:
    """One message to the kernel. `what`: how an error names it."""

    __slots__ = ("contents", "flags", "kind", "what")

    def __init__(self, kind: int, flags: int, contents: bytes, what: str) -> None:
        self.kind = kind
        self.flags = flags
        self.contents = contents
        self.what = what


class Netlink:
    """A socket to the network namespace that the thread is in when it is made; it stays there. Not for several threads."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Raises KernelError."""
        try:
            self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
            for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError as err:
            raise KernelError(err.errno or 0, "socket(AF_NETLINK)") from None
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def join(self, group: int) -> None:
        """Hear of changes from now on, which are one group of those that rtnetlink(7) lists (RTNLGRP_*). Raises KernelError."""
        try:
            self._socket.bind((0, 0))  # one without an address hears nothing
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError as err:
            raise KernelError(err.errno or 0, "setsockopt(NETLINK_ADD_MEMBERSHIP)") from None

    def wait(self, seconds: float) -> bool:
        """Whether a change comes within this time; what changed has to be asked for. Only for a socket that joined a group."""
        self._socket.settimeout(max(seconds, 0.0))
        try:
            self._socket.recv(_LARGEST)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as err:
            if err.errno != ENOBUFS:  # more came than the socket holds
                raise KernelError(err.errno or 0, "recv(AF_NETLINK)") from None
        return True

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def execute(self, *requests: Request, but: Collection[int] = ()) -> None:
        """Send requests in one go; the kernel does each in turn. Raises KernelError for the first that fails.

        Those after it were done all the same: a batch of rtnetlink is no transaction. `but`: errors that are none here.
        """
        for error in self.attempt(*requests):
            if error is not None and error.errno not in but:
                raise error

    def attempt(self, *requests: Request) -> list[KernelError | None]:
        """The same, with the error of each request in its place."""
        first = self._sequence + 1
        self._send(requests, codec.NLM_F_ACK)
        errors: list[KernelError | None] = [None] * len(requests)
        missing = len(requests)
        while missing:
            for kind, flags, sequence, contents in self._receive():
                if kind == _NLMSG_ERROR and first <= sequence <= self._sequence:
                    missing -= 1
                    errors[sequence - first] = refusal(flags, contents, requests[sequence - first].what)
        return errors

    def get(self, request: Request) -> bytes:
        """The contents of the one message that answers a request. Raises KernelError."""
        (found,) = self.gather(request)
        if isinstance(found, KernelError):
            raise found
        return found

    def gather(self, *requests: Request) -> list[bytes | KernelError]:
        """Send requests that are answered by one message each, in one go; each answer's contents, or error, in its place."""
        first = self._sequence + 1
        self._send(requests, 0)
        answers: dict[int, bytes | KernelError] = {}
        while len(answers) < len(requests):
            for kind, flags, sequence, contents in self._receive():
                if not first <= sequence <= self._sequence:
                    continue
                if kind != _NLMSG_ERROR:
                    answers[sequence] = contents
                else:
                    error = refusal(flags, contents, requests[sequence - first].what)
                    if error is not None:
                        answers[sequence] = error
        return [answers[sequence] for sequence in sorted(answers)]

    def dump(self, request: Request) -> list[bytes]:
        """The contents of all messages that answer a request. Raises KernelError."""
        for _ in range(_TRIES):
            found, whole = self._dumped(request)
            if whole:
                return found
        raise KernelError(EINTR, request.what, "it changes all the time")

    def _dumped(self, request: Request) -> tuple[list[bytes], bool]:
        self._send((request,), codec.NLM_F_DUMP)
        found: list[bytes] = []
        whole = True
        while True:
            for kind, flags, sequence, contents in self._receive():
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & codec.NLM_F_DUMP_INTR
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    error = refusal(flags, contents, request.what) if len(contents) > 3 else None
                    if error is not None:
                        raise error
                    return found, whole
                found.append(contents)

    def _send(self, requests: Sequence[Request], flags: int) -> None:
        data = []
        if not requests:
            return  # the kernel takes no empty message (ENODATA)
        for one in requests:
            self._sequence += 1
            data.append(codec.message(one.kind, one.flags | flags, self._sequence, one.contents))
        try:
            self._socket.send(b"".join(data))
        except OSError as err:
            raise KernelError(err.errno or 0, "send(AF_NETLINK)") from None

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        try:
            return list(codec.messages(self._socket.recv(_LARGEST)))
        except OSError as err:
            raise KernelError(err.errno or 0, "recv(AF_NETLINK)") from None


def refusal(flags: int, contents: bytes, what: str) -> KernelError | None:
    """What an answer says, with the kernel's own words, where it has any: they follow the header that was refused."""
    errno = -unpack_from("i", contents)[0]
    if not errno:
        return None
    said = codec.parse(contents, 20).get(_NLMSGERR_ATTR_MSG, b"") if flags & codec.NLM_F_ACK_TLVS else b""
    return KernelError(errno, what, codec.text(said))
