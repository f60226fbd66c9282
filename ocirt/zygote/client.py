"""The caller's side: start a zygote, and talk to its forks. Safe to use from many threads, and after a fork of the caller.

There is one zygote a process. Each request has a socket of its own, so threads do not wait for each other, and what runs already
goes on if the zygote ends; the next request then starts a new one.
"""

from __future__ import annotations

import array
import atexit
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import ocirt
from ocirt.errors import Error
from ocirt.zygote import main, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.zygote.wire import Message

_PATIENCE = 60.0  # seconds that a zygote may take to start
_ATTEMPTS = 3
_CHUNK = 1 << 16


class NoAnswerError(Exception):
    """The conversation has ended without a last word: the fork was killed."""


class Conversation:
    """One request to a fork, and what it says. Closing it ends what `run` and `exec` started."""

    def __init__(self, mine: socket.socket) -> None:
        self._socket = mine
        self._decoder = wire.Decoder()
        self._owner = os.getpid()

    def fileno(self) -> int:
        """The descriptor, to be polled."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message, with descriptors. Raises ConnectionError."""
        data = memoryview(wire.encode(message))
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            data = data[self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL) :]
        if data:
            self._socket.sendall(data, socket.MSG_NOSIGNAL)

    def kill(self, number: int) -> None:
        """Send the process a signal. One that is gone already hears nothing."""
        try:
            self.send({"kill": number})
        except OSError:
            pass

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None if none comes within `timeout` seconds. Raises Error as the fork says, NoAnswerError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (message := self._decoder.next()) is None:
            if not _readable(self._socket, deadline):
                return None
            try:
                data = self._socket.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                raise NoAnswerError
            self._decoder.feed(data)
        if "error" in message:
            raise wire.to_error(message)
        return message

    def close(self) -> None:
        """End the conversation, unless it is one of the process that has forked this one."""
        if self._owner == os.getpid():
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # a fork of ours may hold it as well
            except OSError:
                pass
        self._socket.close()

    def __del__(self) -> None:
        self.close()  # a container whose object is dropped lives on: no warning of an open socket


def _readable(what: socket.socket, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(what, select.POLLIN)
    return bool(poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000))


class Zygote:
    """A zygote, started for this process and user. Raises Error if it does not start."""

    def __init__(self) -> None:
        self.identity = _identity()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said, errors = os.pipe2(os.O_CLOEXEC)
        me = os.pidfd_open(os.getpid())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.pid = _spawn({0: null, 1: null, 2: errors, main.CONTROL: theirs.fileno(), main.OWNER: me})
        except BaseException as err:
            self._control.close()
            os.close(said)
            if not isinstance(err, OSError):
                raise
            raise Error("kernel", "cannot start the zygote", subject=sys.executable, cause=err.strerror or "") from None
        finally:
            theirs.close()
            for fd in (errors, me, null):
                os.close(fd)
        try:
            self._await(said)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(said)

    def _await(self, said: int) -> None:
        if not _readable(self._control, time.monotonic() + _PATIENCE):
            os.kill(self.pid, signal.SIGKILL)
            raise Error("kernel", f"the zygote did not start within {_PATIENCE:g} seconds", subject=sys.executable)
        if self._control.recv(len(main.READY)) == main.READY:
            return
        os.set_blocking(said, False)
        try:
            words = os.read(said, _CHUNK).decode(errors="replace").strip()
        except BlockingIOError:
            words = ""
        cause = words.splitlines()[-1] if words else "it said nothing"
        raise Error("kernel", "the zygote did not start", subject=sys.executable, cause=cause)

    def pass_on(self, theirs: socket.socket) -> None:
        """Have a fork made for the other end of a conversation. Raises OSError if the zygote is gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        self._control.sendmsg([b"n"], rights, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """End the zygote, and wait for that; what its forks run goes on."""
        try:
            self._control.shutdown(socket.SHUT_RDWR)  # a fork of ours may hold it as well
        except OSError:
            pass
        self._control.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # the program waits for its children itself

    def forget(self) -> None:
        """In a fork of the owner: it is not ours."""
        self._control.close()


def _identity() -> tuple[int, int, int]:
    """Whom a zygote works for: after a change of user it would do what the caller may not do any more."""
    return os.getpid(), os.geteuid(), os.getegid()


def _spawn(descriptors: dict[int, int]) -> int:
    """Start the interpreter of this process, isolated, with `descriptors` (there: here). Raises Error, OSError.

    posix_spawn(3) runs no Python code in the child, so threads do not matter.
    """
    if not sys.executable:
        raise Error("unsupported", "sys.executable does not name this interpreter", hint="set it to a Python of this version")
    python = os.path.realpath(sys.executable)
    home = os.path.dirname(os.path.abspath(ocirt.__path__[0]))
    # By way of higher numbers, as a descriptor may have the number that another one is to get.
    high: dict[int, int] = {}
    try:
        for there, here in descriptors.items():
            high[there] = fcntl.fcntl(here, fcntl.F_DUPFD_CLOEXEC, max(descriptors) + 1)
        return os.posix_spawn(
            python,
            [python, *main.FLAGS, home, python, main.BARE],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, here, there) for there, here in high.items()],
            setsigmask=signal.valid_signals(),  # until it has left the terminal
        )
    finally:
        for fd in high.values():
            os.close(fd)


_lock = threading.Lock()
_zygote: Zygote | None = None


def _after_fork() -> None:
    global _lock, _zygote  # noqa: PLW0603
    _lock = threading.Lock()  # another thread may have held it
    if _zygote is not None:
        _zygote.forget()
        _zygote = None


os.register_at_fork(after_in_child=_after_fork)


def close() -> None:
    """End this process's zygote, if there is one. What runs goes on, and the next request starts another."""
    global _zygote  # noqa: PLW0603
    with _lock:
        if _zygote is not None:
            _zygote.close()
            _zygote = None


atexit.register(close)


def _pass_on(theirs: socket.socket) -> bool:
    """Hand a conversation's other end to the zygote, starting one if need be. False if that was gone at once. Raises Error."""
    global _zygote  # noqa: PLW0603
    with _lock:
        if _zygote is not None and _zygote.identity != _identity():
            _zygote.close()
            _zygote = None
        for _ in range(2):  # the first may have ended since the last request
            if _zygote is None:
                _zygote = Zygote()
            try:
                _zygote.pass_on(theirs)
            except OSError:
                _zygote.close()
                _zygote = None
            else:
                return True
    return False


def ask(request: Message, fds: Sequence[int] = ()) -> Conversation:
    """Begin a conversation with a fork of the zygote. Raises Error."""
    for _ in range(_ATTEMPTS):
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        conversation = Conversation(mine)
        try:
            with theirs:
                passed = _pass_on(theirs)
            if passed:
                conversation.send(request, fds)
                conversation.receive()  # it is at work
                return conversation
        except (NoAnswerError, ConnectionError):
            pass  # the zygote ended before it forked, and nothing was done
        except BaseException:
            conversation.close()
            raise
        conversation.close()
    raise Error("kernel", "the zygote does not answer", hint="was it killed? out of memory, or of processes?")


def tell(request: Message) -> object:
    """A request that is answered by one value. Raises Error."""
    conversation = ask(request)
    try:
        message = conversation.receive()
        return message and message["done"]
    except NoAnswerError:
        subject, hint = str(request.get("id", "")), "somebody killed the zygote's fork"
        raise Error("kernel", "the answer was lost", subject=subject, hint=hint) from None
    finally:
        conversation.close()
