"""The connections of a port-forward, by SPDY alone and in a WebSocket; the rest is in tests/system/cri."""

from __future__ import annotations

from typing import Any

import pytest
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from ocirt_shim.remote import FaultError, spdy
from ocirt_shim.remote.pairs import InTunnel, OverSpdy, OverWebSocket
from tests.unit.shim.remote.test_spdy import taken


class Heard:
    """What a client's words led to."""

    def __init__(self) -> None:
        self.words: list[Any] = []

    def on_open(self, key: int, port: int) -> None:
        self.words.append(("open", key, port))

    def on_data(self, key: int, data: bytes) -> None:
        self.words.append((key, data))

    def on_end(self, key: int) -> None:
        self.words.append(("end", key))

    def on_reset(self, key: int) -> None:
        self.words.append(("reset", key))

    def on_gone(self) -> None:
        self.words.append("gone")


def sent(pairs: Any) -> bytes:
    data = b"".join(pairs.outgoing)
    pairs.outgoing.clear()
    return data


def opened(client: spdy.Connection, port: int, **more: str) -> tuple[int, int]:
    """The streams of a connection: for errors, for data."""
    headers = {"port": str(port), **more}
    return client.open({"streamtype": "error", **headers}), client.open({"streamtype": "data", **headers})


def test_streams_are_paired_by_their_request() -> None:
    heard, client = Heard(), spdy.Connection(server=False)
    pairs = OverSpdy(heard)
    headers = {"port": "80", "requestid": "7"}
    data = client.open({"streamtype": "data", **headers})
    _, other = opened(client, 81, requestid="8")
    error = client.open({"streamtype": "error", **headers})
    client.send(data, b"x")
    client.send(other, b"y", last=True)
    client.reset(data)
    pairs.receive(taken(client))
    assert heard.words == [("open", other, 81), ("open", data, 80), (data, b"x"), (other, b"y"), ("end", other), ("reset", data)]
    pairs.write(other, b"z")
    pairs.end(other, "broken")
    client.receive(sent(pairs))
    assert error == 7


def test_old_clients_have_no_request() -> None:
    heard, client = Heard(), spdy.Connection(server=False)
    pairs = OverSpdy(heard)
    _, one = opened(client, 80)
    _, two = opened(client, 81)
    pairs.receive(taken(client))
    assert heard.words == [("open", one, 80), ("open", two, 81)]


def test_the_end_of_a_connection() -> None:
    heard, client = Heard(), spdy.Connection(server=False)
    pairs = OverSpdy(heard)
    error, data = opened(client, 80, requestid="1")
    pairs.receive(taken(client))
    client.receive(sent(pairs))
    pairs.end(data, "why")
    assert client.receive(sent(pairs)) == [spdy.Received(error, b"why", last=True), spdy.Received(data, b"", last=True)]
    pairs.forget(data)
    client.send(data, b"late")
    pairs.receive(taken(client))
    assert heard.words == [("open", data, 80)]


@pytest.mark.parametrize("headers", [{}, {"streamtype": "data"}, {"port": "1"}, {"streamtype": "data", "port": "65536"}])
def test_what_is_no_connection(headers: dict[str, str]) -> None:
    heard, client = Heard(), spdy.Connection(server=False)
    pairs = OverSpdy(heard)
    stream = client.open(headers)
    pairs.receive(taken(client))
    assert client.receive(sent(pairs)) == [spdy.WasReset(stream, spdy.REFUSED_STREAM)]
    assert heard.words == []


def test_a_tunnel() -> None:
    heard, client, outside = Heard(), spdy.Connection(server=False), WebSocket(ConnectionType.CLIENT)
    pairs = InTunnel(heard)
    _, data = opened(client, 80, requestid="1")
    client.send(data, b"hello")
    whole = taken(client)
    for part in (whole[:9], whole[9:]):
        for piece in outside.send(BytesMessage(part)):
            pairs.receive(bytes([piece]))
    assert heard.words[0] == ("open", data, 80)
    assert b"".join(word[1] for word in heard.words[1:]) == b"hello"
    pairs.write(data, b"there")
    pairs.end(data)
    outside.receive_data(sent(pairs))
    events = client.receive(b"".join(bytes(event.data) for event in outside.events() if isinstance(event, BytesMessage)))
    assert spdy.Received(data, b"there", last=False) in events
    pairs.receive(outside.send(CloseConnection(code=1000)))
    assert heard.words[-1] == "gone"


def test_a_tunnel_has_no_text() -> None:
    with pytest.raises(FaultError, match="text"):
        InTunnel(Heard()).receive(WebSocket(ConnectionType.CLIENT).send(TextMessage("hello")))


def test_channels_by_port() -> None:
    heard, outside = Heard(), WebSocket(ConnectionType.CLIENT)
    pairs = OverWebSocket(heard, "v4.channel.k8s.io", [80, 443])
    pairs.begin()
    outside.receive_data(sent(pairs))
    found = [bytes(event.data) for event in outside.events() if isinstance(event, BytesMessage)]
    assert found == [b"\0\x50\0", b"\1\x50\0", b"\2\xbb\1", b"\3\xbb\1"]
    pairs.receive(
        outside.send(BytesMessage(b"\2hello")) + outside.send(BytesMessage(b"\3no")) + outside.send(BytesMessage(b"\4no"))
    )
    assert heard.words == [("open", 0, 80), ("open", 1, 443), (1, b"hello")]
    pairs.end(0, "broken")
    pairs.end(1)
    outside.receive_data(sent(pairs))
    events = list(outside.events())
    assert isinstance(events[0], BytesMessage)
    assert bytes(events[0].data) == b"\1broken"
    assert isinstance(events[1], CloseConnection)
