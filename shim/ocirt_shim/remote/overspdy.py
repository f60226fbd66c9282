"""The channels of exec and attach over SPDY/3.1: a stream for each, opened by the client, named by the header `streamtype`."""

from __future__ import annotations

from ocirt_shim.remote import spdy
from ocirt_shim.remote.channels import STDERR, STDOUT, Sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_shim.remote.channels import Listener, Outcome, Wanted

_ERROR, _STDIN, _RESIZE = "error", "stdin", "resize"
_VERSIONS = {"channel.k8s.io": 1, "v2.channel.k8s.io": 2, "v3.channel.k8s.io": 3, "v4.channel.k8s.io": 4}
_SIZES_SINCE, _STATUS_SINCE = 3, 4


class OverSpdy:
    """See `Channels`. `protocol` is one of those that `ocirt_cri.streams.upgrade` knows."""

    def __init__(self, wanted: Wanted, protocol: str, listener: Listener) -> None:
        self._version = _VERSIONS[protocol]
        self._listener = listener
        self._connection = spdy.Connection(server=True)
        self.outgoing = self._connection.outgoing
        self._sizes = Sizes()
        self._streams: dict[str, int] = {}
        self._names: dict[int, str] = {}
        with_sizes = wanted.terminal and self._version >= _SIZES_SINCE
        given = (True, wanted.stdin, wanted.stdout, wanted.stderr, with_sizes)
        self._missing = {
            name for name, is_there in zip((_ERROR, _STDIN, STDOUT, STDERR, _RESIZE), given, strict=True) if is_there
        }

    def begin(self) -> None:
        """The client opens its streams."""

    def receive(self, data: bytes) -> None:
        """Bytes of the client. Raises FaultError."""
        for event in self._connection.receive(data):
            if isinstance(event, spdy.Opened):
                self._open(event)
            elif isinstance(event, spdy.Received):
                self._take(event)
            elif isinstance(event, spdy.WasReset) and self._names.get(event.stream) == _STDIN:
                self._listener.on_input_end()

    def _open(self, event: spdy.Opened) -> None:
        name = event.headers.get("streamtype", "")
        if name not in self._missing:
            self._connection.reset(event.stream, spdy.REFUSED_STREAM)
            return
        self._missing.remove(name)
        self._streams[name] = event.stream
        self._names[event.stream] = name
        self._connection.reply(event.stream)
        if not self._missing:
            self._listener.on_ready()
        if event.last and name == _STDIN:
            self._listener.on_input_end()

    def _take(self, event: spdy.Received) -> None:
        name = self._names.get(event.stream)
        if name == _STDIN:
            if event.data:
                self._listener.on_input(event.data)
            if event.last:
                self._listener.on_input_end()
        elif name == _RESIZE:
            for rows, columns in self._sizes.feed(event.data):
                self._listener.on_resize(rows, columns)

    def write(self, name: str, data: bytes) -> None:
        """Bytes of an output."""
        if name in self._streams:
            self._connection.send(self._streams[name], data)

    def finish(self, outcome: Outcome) -> None:
        """End the outputs, then tell the outcome, then go."""
        for name in (STDOUT, STDERR):
            if name in self._streams:
                self._connection.send(self._streams[name], b"", last=True)
        if _ERROR in self._streams:
            text = outcome.status() if self._version >= _STATUS_SINCE else outcome.text().encode()
            self._connection.send(self._streams[_ERROR], text, last=True)
        self._connection.go_away()
