"""Streams, time-outs and results of a process in a container, with the words and the meaning that `subprocess` gives them."""

from __future__ import annotations

import locale
import os
import select
import signal
import subprocess
import time
import warnings
from typing import IO, Any

from ocirt.errors import Error
from ocirt.zygote.client import Conversation, NoAnswerError, ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.zygote.wire import Message

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL
CalledProcessError = subprocess.CalledProcessError
TimeoutExpired = subprocess.TimeoutExpired

Stream = int | IO[Any] | None
_CHUNK = 1 << 18


class CompletedProcess(subprocess.CompletedProcess[Any]):
    """How a process ended: `args`, `returncode` (-N for signal N), `stdout`, `stderr` as in `subprocess`, and more.

    id: the container's. oom_killed: the kernel has killed a process of the container because of its memory limit.
    truncated: the process wrote more than `output_limit`.
    """

    id: str = ""
    oom_killed: bool = False
    truncated: bool = False

    def __repr__(self) -> str:
        marks = "".join(f", {name}=True" for name in ("oom_killed", "truncated") if getattr(self, name))
        return f"{super().__repr__()[:-1]}{marks})"


class Text:
    """Whether and how bytes become text. Raises LookupError for an unknown encoding."""

    def __init__(self, text: bool, encoding: str | None, errors: str | None) -> None:  # noqa: FBT001
        self.wanted = text or encoding is not None or errors is not None
        self._encoding = encoding or locale.getencoding()
        self._errors = errors or "strict"
        "".encode(self._encoding)

    def encode(self, data: str | bytes) -> bytes:
        """What goes to standard input."""
        return data.encode(self._encoding, self._errors) if isinstance(data, str) else bytes(data)

    def decode(self, data: bytes | None) -> Any:
        """What came from a stream, with line ends as in Python; bytes stay bytes."""
        if data is None or not self.wanted:
            return data
        return data.decode(self._encoding, self._errors).replace("\r\n", "\n").replace("\r", "\n")


class Streams:
    """The three streams of a process: `inner` for the process, and of the pipes the ends that stay here, by number, `outer`."""

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self.inner: list[int] = []
        self._mine: list[int] = []  # those of `inner` that are to be closed
        self.outer: dict[int, int] = {}
        try:
            for number, stream in enumerate((stdin, stdout, stderr)):
                self.inner.append(self._end(number, stream))
        except BaseException:
            self.close()
            raise

    def _end(self, number: int, stream: Stream) -> int:
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                stream = DEVNULL  # a daemon has closed its own
            else:
                return number
        if stream == STDOUT:
            if number != 2:
                raise ValueError("only stderr can go where stdout goes")
            return self.inner[1]
        if stream == DEVNULL:
            self._mine.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            return self._mine[-1]
        if stream != PIPE:
            return stream if isinstance(stream, int) else stream.fileno()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        inner, self.outer[number] = (reader, writer) if number == 0 else (writer, reader)
        self._mine.append(inner)
        return inner

    def sent(self) -> None:
        """The process has its ends."""
        for fd in self._mine:
            os.close(fd)
        self._mine.clear()

    def close(self) -> None:
        """Close what is open."""
        self.sent()
        for fd in self.outer.values():
            os.close(fd)
        self.outer.clear()


class Exchange:
    """One process from here: what goes in, what comes out, and its end.

    The bytes of each stream are in `came`, at most `limit` of each; `truncated` if there were more.
    """

    def __init__(self, conversation: Conversation, streams: Streams, data: bytes, limit: int | None) -> None:
        self._conversation = conversation
        self._streams = streams
        self._input = memoryview(data)
        self._limit = limit
        self.came: dict[int, bytearray] = {number: bytearray() for number in (1, 2) if number in streams.outer}
        self.truncated = False
        for fd in streams.outer.values():
            os.set_blocking(fd, False)

    def wait(self, timeout: float | None) -> Message:
        """The process's last message. Raises Error, NoAnswerError; TimeoutError and what interrupts, with the process killed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            return self._until_end(deadline)
        except (Error, NoAnswerError):
            raise
        except BaseException:
            self._conversation.kill(signal.SIGKILL)
            self._until_end(None)
            raise

    def _until_end(self, deadline: float | None) -> Message:
        poll = select.poll()
        poll.register(self._conversation.fileno(), select.POLLIN)
        names = {fd: number for number, fd in self._streams.outer.items()}
        for fd, number in names.items():
            poll.register(fd, select.POLLOUT if number == 0 else select.POLLIN)
        final: Message | None = None
        while final is None:
            # Time counts also while bytes come.
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            for fd, _ in poll.poll(None if left is None else left * 1000 + 1):
                number = names.get(fd, -1)
                if number < 0:
                    message = self._conversation.receive()
                    if message is not None and "status" in message:
                        final = message
                elif not (self._feed(fd) if number == 0 else self._take(number, fd)):
                    poll.unregister(fd)
                    os.close(self._streams.outer.pop(number))
        # Others may hold the streams for longer (of a process that `exec` started): they are not waited for.
        for number in self.came:
            while number in self._streams.outer and self._ready(number):
                if not self._take(number, self._streams.outer[number]):
                    break
        return final

    def _ready(self, number: int) -> bool:
        poll = select.poll()
        poll.register(self._streams.outer[number], select.POLLIN)
        return bool(poll.poll(0))

    def _feed(self, fd: int) -> bool:
        """Write some input; False when there is no more, or nobody wants it."""
        try:
            if self._input:
                self._input = self._input[os.write(fd, self._input[:_CHUNK]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return bool(self._input)

    def _take(self, number: int, fd: int) -> bool:
        """Read some output; False at its end."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        came = self.came[number]
        if self._limit is not None and len(came) + len(data) > self._limit:
            self.truncated = True
            came += data[: self._limit - len(came)]
        else:
            came += data
        return bool(data)


def complete(
    request: Message,
    args: Any,
    *,
    input: str | bytes | None,  # noqa: A002  (subprocess's word)
    stdin: Stream,
    stdout: Stream,
    stderr: Stream,
    capture_output: bool,
    timeout: float | None,
    check: bool,
    text: bool,
    encoding: str | None,
    errors: str | None,
    output_limit: int | None,
) -> CompletedProcess:
    """Have the process of a request run to its end. The other words are those of subprocess.run.

    Raises Error, NoAnswerError, TimeoutExpired, CalledProcessError.
    """
    if input is not None:
        if stdin is not None:
            raise ValueError("stdin and input may not both be used")
        stdin = PIPE
    elif stdin == PIPE:
        raise ValueError("stdin=PIPE needs input: nobody could write to the pipe")
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr may not be used with capture_output")
        stdout = stderr = PIPE
    how = Text(text, encoding, errors)
    data = how.encode(input if input is not None else b"")
    streams = Streams(stdin, stdout, stderr)
    try:
        conversation = ask(request, streams.inner)
        try:
            streams.sent()
            exchange = Exchange(conversation, streams, data, output_limit)
            try:
                message = exchange.wait(timeout)
            except TimeoutError:
                output = {number: bytes(came) for number, came in exchange.came.items()}
                assert timeout is not None
                raise TimeoutExpired(args, timeout, output.get(1), output.get(2)) from None
        finally:
            conversation.close()
    finally:
        streams.close()
    for words in message.get("warnings", ()):
        warnings.warn(words, RuntimeWarning, stacklevel=3)  # of a poststop hook
    out, err = (how.decode(bytes(exchange.came[number]) if number in exchange.came else None) for number in (1, 2))
    done = CompletedProcess(args, os.waitstatus_to_exitcode(message["status"]), out, err)
    done.id, done.oom_killed, done.truncated = request["id"], message["oom"] > 0, exchange.truncated
    if check:
        done.check_returncode()
    return done
