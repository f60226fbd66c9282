"""The channels of exec and attach over WebSocket, by number."""

from __future__ import annotations

from ocirt_shim.remote import websocket
from ocirt_shim.remote.channels import STDERR, STDOUT, Sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_shim.remote.channels import Listener, Outcome, Wanted

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_CLOSE = 255  # v5: the byte after it is a channel on which nothing more comes


class OverWebSocket:
    """See `Channels`. `protocol` is one of those that `ocirt_cri.streams.upgrade` knows."""

    def __init__(self, wanted: Wanted, protocol: str, listener: Listener) -> None:
        self._listener = listener
        self._channels = websocket.Channels(in_text="base64" in protocol)
        self.outgoing = self._channels.outgoing
        self._with_status = protocol.startswith(("v4.", "v5."))
        self._with_close = protocol.startswith("v5.")
        self._sizes = Sizes()
        self._stdin = wanted.stdin
        self._numbers = {STDOUT: _STDOUT} if wanted.stdout else {}
        if wanted.stderr:
            self._numbers[STDERR] = _STDERR

    def begin(self) -> None:
        """There is nothing to wait for. An empty message tells the client that it can begin."""
        self._channels.send(min(self._numbers.values(), default=_ERROR), b"")
        self._listener.on_ready()

    def receive(self, data: bytes) -> None:
        """Bytes of the client. Raises FaultError."""
        for channel, part in self._channels.receive(data):
            self._take(channel, part)
        if self._channels.is_closed:
            self._listener.on_gone()

    def _take(self, channel: int, data: bytes) -> None:
        if channel == _STDIN and self._stdin:
            self._listener.on_input(data)
        elif channel == _RESIZE:
            for rows, columns in self._sizes.feed(data):
                self._listener.on_resize(rows, columns)
        elif channel == _CLOSE and self._with_close and self._stdin and data[0] == _STDIN:
            self._listener.on_input_end()

    def write(self, name: str, data: bytes) -> None:
        """Bytes of an output."""
        if name in self._numbers:
            self._channels.send(self._numbers[name], data)

    def finish(self, outcome: Outcome) -> None:
        """Tell the outcome, then go."""
        text = outcome.status() if self._with_status else outcome.text().encode()
        if text:
            self._channels.send(_ERROR, text)
        self._channels.close()
