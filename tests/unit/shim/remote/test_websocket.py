"""A server's WebSocket, held against wsproto's client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ocirt_shim.remote import FaultError
from ocirt_shim.remote.websocket import WebSocket
from tests.unit.shim.remote.test_spdy import pieces

KEY = b"\1\2\3\4"


def frame(first: int, data: bytes = b"", *, masked: bool = True, length: bytes = b"") -> bytes:
    """A frame with a head of one's own."""
    head = bytes([first]) + (length or bytes([len(data) | (0x80 if masked else 0)]))
    if not masked:
        return head + data
    return head + KEY + bytes(byte ^ KEY[number % 4] for number, byte in enumerate(data))


def answers(server: WebSocket, client: Connection) -> list[Any]:
    """What a client gets."""
    data = b"".join(server.outgoing)
    server.outgoing.clear()
    if data:
        client.receive_data(data)
    return list(client.events())


messages = st.lists(
    st.tuples(st.one_of(st.binary(max_size=300), st.text(max_size=40), st.binary(min_size=70000, max_size=70100)), st.booleans()),
    max_size=8,
)


@given(messages, st.lists(st.integers(1, 200), max_size=60))
def test_what_a_client_says(said: list[tuple[bytes | str, bool]], sizes: list[int]) -> None:
    """Whole or in fragments, cut anywhere, with pings between."""
    client, server = Connection(ConnectionType.CLIENT), WebSocket()
    sent = b""
    for data, halved in said:
        kind: Any = TextMessage if isinstance(data, str) else BytesMessage
        if halved:
            sent += client.send(kind(data[: len(data) // 2], message_finished=False)) + client.send(Ping(b"p"))
            sent += client.send(kind(data[len(data) // 2 :]))
        else:
            sent += client.send(kind(data))
    came: list[tuple[bytes, bool]] = []
    begun = b""
    for piece in pieces(sent, sizes):
        for part, is_text, last in server.receive(piece):
            begun += part
            if last:
                came.append((begun, is_text))
                begun = b""
    assert came == [(data.encode(), True) if isinstance(data, str) else (data, False) for data, _ in said]
    assert answers(server, client) == [Pong(b"p")] * sum(halved for _, halved in said)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100000])
def test_what_a_server_says(size: int) -> None:
    client, server = Connection(ConnectionType.CLIENT), WebSocket()
    server.send(b"x" * size)
    server.send(b"y" * size, text=True)
    found: dict[type, bytes] = {BytesMessage: b"", TextMessage: b""}
    for event in answers(server, client):
        found[type(event)] += event.data if isinstance(event.data, (bytes, bytearray)) else event.data.encode()
    assert found == {BytesMessage: b"x" * size, TextMessage: b"y" * size}


def test_the_client_goes() -> None:
    client, server = Connection(ConnectionType.CLIENT), WebSocket()
    list(server.receive(client.send(CloseConnection(code=1001, reason="away"))))
    assert server.is_closed
    server.send(b"late")
    server.close()
    (event,) = answers(server, client)
    assert (type(event), event.code) == (CloseConnection, 1001)
    assert list(server.receive(b"more")) == []


def test_the_server_goes() -> None:
    client, server = Connection(ConnectionType.CLIENT), WebSocket()
    server.close()
    server.close()
    server.send(b"late")
    (event,) = answers(server, client)
    assert (type(event), event.code) == (CloseConnection, 1000)
    list(server.receive(client.send(event.response())))
    assert server.is_closed
    assert server.outgoing == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame(0xC2), "0xc2"),
        (frame(0x83), "0x83"),
        (frame(0x8F), "0x8f"),
        (frame(0x82, masked=False), "has to be masked"),
        (frame(0x82, length=b"\xfe\0\x7d"), "given as 125"),
        (frame(0x82, length=b"\xff" + bytes(6) + b"\xff\xff"), "given as 65535"),
        (frame(0x82, length=b"\xff" + b"\xff" * 8), "given as"),
        (frame(0x80), "the rest of no message"),
        (frame(0x02) + frame(0x82), "a message within another"),
        (frame(0x09), "in parts"),
        (frame(0x89, length=b"\xfe\0\x7e"), "a long one"),
        (frame(0x88, b"x"), "half of a reason"),
    ],
)
def test_a_rule_is_broken(data: bytes, text: str) -> None:
    client, server = Connection(ConnectionType.CLIENT), WebSocket()
    with pytest.raises(FaultError, match=text):
        list(server.receive(data))
    (event,) = answers(server, client)
    assert (type(event), event.code) == (CloseConnection, 1002)


@given(st.binary(max_size=200), st.lists(st.integers(1, 20)))
def test_garbage(data: bytes, sizes: list[int]) -> None:
    server = WebSocket()
    try:
        for piece in pieces(data, sizes):
            list(server.receive(piece))
    except FaultError:
        pass
