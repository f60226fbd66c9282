"""A client of exec or attach, and the program whose streams it has: a process of its own, which ends with either."""

from __future__ import annotations

import fcntl
import posix
import termios
from _struct import pack, unpack

from ocirt_shim.flow import Flow, shut
from ocirt_shim.loop import Loop
from ocirt_shim.remote import SPDY, FaultError
from ocirt_shim.remote.channels import Outcome, Wanted
from ocirt_shim.remote.overspdy import OverSpdy
from ocirt_shim.remote.overwebsocket import OverWebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ocirt_api.messages.shim import StreamRequest

_SECOND = 1_000_000_000  # nanoseconds
_CREATION = 30 * _SECOND  # until all channels are there
STUCK = 30 * _SECOND  # for one that is attached, takes nothing of what waits for it, and so keeps the container waiting
_IDLE = 4 * 3600 * _SECOND  # without a byte either way
_FAREWELL = 10 * _SECOND  # for the client to take the last word, and to close
_EARLY = 1 << 20  # bytes of input that may come before the program
_INPUT = 1 << 18  # bytes that wait for the program
_TERMINAL = 1 << 16  # bytes that a terminal may hold, of which FIONREAD counts only those in its last buffer


class Ends:
    """A program's streams, as whoever is outside has them: descriptors.

    stdin: -1 if there is none; outputs: by name; terminal: the master, for sizes, or -1.
    """

    __slots__ = ("outputs", "stdin", "terminal")

    def __init__(self, stdin: int, outputs: Mapping[str, int], terminal: int = -1) -> None:
        self.stdin = stdin
        self.outputs = outputs
        self.terminal = terminal


class Session:
    """The client at the descriptor `fd`.

    connect: called once the client's channels are there: the program's ends. What it raises, the client is told.
    buffer: bytes that may wait for the client before the program has to.
    patience: nanoseconds for a client that takes nothing of them.
    on_input_end: called when the client sends no more.
    """

    def __init__(
        self,
        fd: int,
        request: StreamRequest,
        connect: Callable[[Session], Ends],
        *,
        buffer: int = 1 << 20,
        patience: int = _IDLE,
        on_input_end: Callable[[], object] = lambda: None,
    ) -> None:
        self.loop = Loop()
        self._connect = connect
        self._tell_input_end = on_input_end
        self._ends: Ends | None = None
        self._early: list[bytes] = []
        self._input: Flow | None = None
        self._input_ended = False
        self._outputs: dict[str, Flow] = {}
        self._size = (0, 0)
        self._outcome: Outcome | None = None  # the program's
        self._left: dict[str, int] = {}  # bytes of each output that were there when it ended
        self._is_finished = False
        self._came = 0  # bytes
        self._marks = (0, 0)
        self._patience = patience
        self._quiet = self._stuck = 0  # nanoseconds
        wanted = Wanted(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal)
        kind = OverSpdy if request.transport == SPDY else OverWebSocket
        self._channels = kind(wanted, request.protocol, self)
        self._client = Flow(
            self.loop, fd, take=self._receive, writable=self._go_on, broken=self.on_gone, gone=self.on_gone, limit=buffer
        )
        self._creation = self.loop.after(_CREATION, lambda: self._finish(Outcome(failure="the client opens too few streams")))
        self.loop.after(STUCK, self._look)
        self._client.write([request.answer])
        self._channels.begin()
        if request.rest:
            self._receive(request.rest)
        self._send()

    def run(self) -> None:
        """Serve to the end."""
        self.loop.run()

    # -- the client --

    def _receive(self, data: bytes) -> None:
        if not data:
            self.on_gone()
            return
        self._came += len(data)
        if self._is_finished:
            return
        try:
            self._channels.receive(data)
        except FaultError as err:
            self._finish(Outcome(failure=f"the client broke the protocol: {err}"))
        self._send()

    def _send(self) -> None:
        parts = self._channels.outgoing[:]
        self._channels.outgoing.clear()
        self._client.write(parts)
        if self._client.is_full:
            for output in self._outputs.values():
                output.hold(back=True)

    def _go_on(self) -> None:
        """The client has taken what waited for it."""
        for output in self._outputs.values():
            output.hold(back=False)
        if self._outcome is not None:
            self._drain()

    def _look(self) -> None:
        """End what does not move."""
        marks = self._client.moved, self._came
        self._stuck = self._stuck + STUCK if self._client.queued and marks[0] == self._marks[0] else 0
        if self._stuck >= self._patience:
            self.on_gone()
            return
        self._quiet = 0 if marks != self._marks else self._quiet + STUCK
        self._marks = marks
        if self._quiet >= _IDLE:
            self._finish(Outcome(failure="nothing was said for four hours"))
        self.loop.after(STUCK, self._look)

    def _finish(self, outcome: Outcome) -> None:
        """Say the last word."""
        if self._is_finished:
            return
        self._is_finished = True
        self._channels.finish(outcome)
        self._let_go()
        self._client.hold(back=False)
        self._send()
        self._client.end(self._say_goodbye)

    def _say_goodbye(self, fd: int) -> None:
        """The client has taken everything, in its own time: let it see the end, and go first."""
        shut(fd)
        self.loop.after(_FAREWELL, self.loop.stop)

    def _let_go(self) -> None:
        """Of the program: its input ends, what it writes to is broken, its terminal hangs up."""
        for flow in (*self._outputs.values(), self._input):
            if flow is not None:
                flow.close()
        self._outputs = {}
        self._input = None

    # -- what the client says (`channels.Listener`) --

    def on_ready(self) -> None:
        """All channels are there: let the program come."""
        self.loop.cancel(self._creation)
        try:
            self._ends = ends = self._connect(self)
        except Exception as err:  # noqa: BLE001  (nobody else would hear of it)
            self._finish(Outcome(failure=str(err)))
            return
        if ends.stdin >= 0:
            self._input = Flow(self.loop, ends.stdin, writable=self._unblock, broken=self._unblock, limit=_INPUT)
        for name, fd in ends.outputs.items():
            self._outputs[name] = Flow(self.loop, fd, take=self._taker(name))
        if self._size != (0, 0):
            self.on_resize(*self._size)
        early, self._early = self._early, []
        self._unblock()
        for data in early:
            self.on_input(data)
        if self._input_ended:
            self._end_input()

    def on_input(self, data: bytes) -> None:
        """Bytes for the program."""
        if self._ends is None:
            self._early.append(data)
            if sum(map(len, self._early)) > _EARLY:
                self._client.hold(back=True)
        elif self._input is not None:
            self._input.write([data])
            if self._input.is_full:
                self._client.hold(back=True)

    def _unblock(self) -> None:
        self._client.hold(back=False)

    def on_input_end(self) -> None:
        """There will be no more of them."""
        self._input_ended = True
        if self._ends is not None:
            self._end_input()

    def _end_input(self) -> None:
        if self._input is not None and self._ends is not None and self._ends.terminal < 0:
            self._input.end(lambda _: self._close_input())

    def _close_input(self) -> None:
        if self._input is not None:
            self._input.close()
            self._tell_input_end()

    def on_resize(self, rows: int, columns: int) -> None:
        """The client's terminal has another size."""
        self._size = rows, columns
        if self._ends is not None and self._ends.terminal >= 0 and self._outputs:
            try:
                fcntl.ioctl(self._ends.terminal, termios.TIOCSWINSZ, pack("4H", rows, columns, 0, 0))
            except OSError:
                pass  # it has hung up

    def on_gone(self) -> None:
        """Nobody listens any more."""
        self._is_finished = True
        self._let_go()
        self._client.close()
        self.loop.stop()

    # -- the program --

    def _taker(self, name: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            if name in self._left:
                self._left[name] -= len(data) if data else self._left[name]
            if data:
                self._channels.write(name, data)
                self._send()

        return take

    def ended(self, outcome: Outcome) -> None:
        """The program has ended. What it wrote is sent; others may have its streams for longer, and are not waited for."""
        self._outcome = outcome
        for name, output in self._outputs.items():
            waiting: tuple[int] = unpack("i", fcntl.ioctl(output.fd, termios.FIONREAD, bytes(4)))
            self._left[name] = _TERMINAL if posix.isatty(output.fd) else waiting[0]
        self._drain()

    def _drain(self) -> None:
        for name, output in self._outputs.items():
            while self._left[name] > 0 and output.read():
                if self._client.is_full:
                    return  # `_go_on` comes back here
        if self._outcome is not None:
            self._finish(self._outcome)
