"""SPDY/3.1 without I/O: both sides talk to each other, cut in any way, and what breaks a rule is answered or refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_shim.remote.spdy import (
    Connection,
    Event,
    HeadersReceived,
    Opened,
    ProtocolError,
    Received,
    Replied,
    WasReset,
    WentAway,
)
from ocirt_shim.remote.spdywords import DICTIONARY

SIZES = st.lists(st.integers(1, 40), max_size=60)


def taken(connection: Connection) -> bytes:
    """What it wants to send."""
    data = b"".join(connection.outgoing)
    connection.outgoing.clear()
    return data


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Bytes cut into these sizes, and the rest."""
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def control(kind: int, body: bytes, flags: int = 0, version: int = 3) -> bytes:
    """A control frame, as section 2.2.1 draws it."""
    head = 0x80000000 | version << 16 | kind
    return head.to_bytes(4, "big") + bytes([flags]) + len(body).to_bytes(3, "big") + body


def block(count: int, *texts: bytes) -> bytes:
    """A block of headers before its compression."""
    return count.to_bytes(4, "big") + b"".join(len(text).to_bytes(4, "big") + text for text in texts)


def packed(data: bytes) -> bytes:
    """And after."""
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)


def syn_stream(stream: int, data: bytes) -> bytes:
    """The body of a SYN_STREAM."""
    return stream.to_bytes(4, "big") + bytes(6) + data


def test_the_dictionary_is_that_of_the_draft() -> None:
    """zlib names a dictionary by its checksum; this one is in every SPDY/3 header block."""
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_conversation() -> None:
    client, server = Connection(server=False), Connection(server=True)
    stream = client.open({"StreamType": "stdin", "port": "80"})
    assert stream == 1
    assert server.receive(taken(client)) == [Opened(1, {"streamtype": "stdin", "port": "80"}, last=False)]
    server.reply(1)
    server.send(1, b"out")
    assert client.receive(taken(server)) == [Replied(1, {}, last=False), Received(1, b"out", last=False)]
    client.send(1, b"in", last=True)
    client.send(1, b"never")
    assert server.receive(taken(client)) == [Received(1, b"in", last=True)]
    server.send(1, b"", last=True)
    assert client.receive(taken(server)) == [Received(1, b"", last=True)]
    assert client.open({}) == 3
    assert server.open({}) == 2
    server.go_away()
    assert client.receive(taken(server)) == [Opened(2, {}, last=False), WentAway(1)]


def test_a_stream_is_given_up() -> None:
    client, server = Connection(server=False), Connection(server=True)
    stream = client.open({})
    server.receive(taken(client))
    client.send(stream, b"on its way")
    server.reset(stream)
    assert server.receive(taken(client)) == []
    assert client.receive(taken(server)) == [WasReset(stream, 5)]
    client.send(stream, b"more")
    assert taken(client) == b""


def test_pings_are_answered_by_the_other_side() -> None:
    client, server = Connection(server=False), Connection(server=True)
    client.ping(1)
    asked = taken(client)
    assert server.receive(asked) == []
    assert taken(server) == asked
    assert client.receive(asked) == []
    assert taken(client) == b""  # the answer is not answered


def test_headers_later() -> None:
    client, server = Connection(server=False), Connection(server=True)
    client.open({"a": "b"})
    server.receive(taken(client))
    deflate = client._deflate
    body = (1).to_bytes(4, "big") + deflate.compress(block(1, b"c", b"d")) + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert server.receive(control(8, body, flags=1)) == [HeadersReceived(1, {"c": "d"}, last=True)]


def test_what_nobody_needs_is_passed_over() -> None:
    server = Connection(server=True)
    for kind in (4, 9, 77):  # SETTINGS, WINDOW_UPDATE, none
        assert server.receive(control(kind, bytes(8))) == []
    assert taken(server) == b""


def test_data_of_no_stream_is_answered() -> None:
    server = Connection(server=True)
    assert server.receive((5).to_bytes(4, "big") + b"\0\0\0\2xy") == []
    assert taken(server) == control(3, (5).to_bytes(4, "big") + (2).to_bytes(4, "big"))


def test_large_data_is_cut_into_frames() -> None:
    client, server = Connection(server=False), Connection(server=True)
    stream = client.open({})
    server.receive(taken(client))
    data = bytes((1 << 24) + 5)
    client.send(stream, data, last=True)
    events = [event for event in server.receive(taken(client)) if isinstance(event, Received)]
    assert b"".join(event.data for event in events) == data
    assert [event.last for event in events] == [False, True]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (control(1, bytes(10), version=2), "version 2, not 3"),
        (control(1, bytes(9)), "a control frame of type 1 with 9 bytes"),
        (control(3, bytes(7)), "a control frame of type 3 with 7 bytes"),
        (b"\x80\x03\x00\x01\x00\x01\x00\x01", "a control frame of 65537 bytes"),
        (control(1, syn_stream(2, packed(block(0)))), "stream 2 after 0"),
        (control(1, syn_stream(0, packed(block(0)))), "stream 0 after 0"),
        (control(1, syn_stream(1, b"garbage")), "headers that cannot be inflated"),
        (control(1, syn_stream(1, packed(b""))), "they end too early"),
        (control(1, syn_stream(1, packed(block(1, b"a")))), "they end too early"),
        (control(1, syn_stream(1, packed(block(1, b"a", b"b", b"c")))), "something comes after them"),
        (control(1, syn_stream(1, packed(block(0xFFFFFFFF, b"a", b"b")))), "they end too early"),
        (control(1, syn_stream(1, packed(block(1, b"a", b"\xff")))), "headers that cannot be read"),
        (control(1, syn_stream(1, packed(bytes(4) + (1 << 30).to_bytes(4, "big")))), "something comes after them"),
        (control(1, syn_stream(1, packed(block(1) + (1 << 30).to_bytes(4, "big")))), "one of them is too long"),
        (control(1, syn_stream(1, packed(block(1, b"a", bytes(1 << 18))))), "headers that are too large"),
    ],
)
def test_a_rule_is_broken(data: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        Connection(server=True).receive(data)


def test_a_number_is_used_again() -> None:
    client, server = Connection(server=False), Connection(server=True)
    client.open({})
    server.receive(taken(client))
    client._mine = 1
    client.open({})
    with pytest.raises(ProtocolError, match="stream 1 after 1"):
        server.receive(taken(client))


def test_there_are_only_so_many_streams() -> None:
    client, server = Connection(server=False), Connection(server=True)
    for _ in range(1 << 12):
        client.open({})
    server.receive(taken(client))
    client.open({})
    with pytest.raises(ProtocolError, match="more than 4096 streams"):
        server.receive(taken(client))


words = st.text(max_size=12)
commands = st.one_of(
    st.tuples(st.just("open"), st.dictionaries(words.map(str.lower), words, max_size=4), st.booleans()),
    st.tuples(st.just("send"), st.integers(0, 5), st.binary(max_size=50), st.booleans()),
    st.tuples(st.just("reply"), st.integers(0, 5)),
    st.tuples(st.just("reset"), st.integers(0, 5)),
    st.tuples(st.just("ping")),
)


@given(st.lists(st.tuples(st.booleans(), commands), max_size=30), SIZES)
def test_whatever_is_said_comes_across(talk: list[tuple[bool, tuple]], sizes: list[int]) -> None:  # type: ignore[type-arg]
    """However the bytes are cut, a side hears what the other says, in order; nobody breaks a rule."""
    sides = {False: Connection(server=False), True: Connection(server=True)}
    said: dict[bool, dict[int, bytes]] = {False: {}, True: {}}
    heard: dict[bool, dict[int, bytes]] = {False: {}, True: {}}
    streams: list[int] = []
    lost: set[int] = set()

    def deliver(by: bool) -> None:
        for piece in pieces(taken(sides[by]), sizes):
            for event in sides[not by].receive(piece):
                if isinstance(event, Received):
                    heard[by][event.stream] = heard[by].get(event.stream, b"") + event.data

    for by, (what, *how) in talk:
        side = sides[by]
        if what == "open":
            headers, last = how
            streams.append(side.open(headers, last=last))
        elif what == "ping":
            side.ping(2 if by else 1)
        elif streams:
            stream = streams[how[0] % len(streams)]
            if what == "send":
                may = side._open.get(stream, (False, False))[0]
                side.send(stream, how[1], last=how[2])
                if may:
                    said[by][stream] = said[by].get(stream, b"") + how[1]
            elif what == "reply" and stream % 2 == (1 if by else 0):
                side.reply(stream)
            elif what == "reset":
                side.reset(stream)
                lost.add(stream)
        deliver(by)
        deliver(not by)
    for by in (False, True):
        for stream, data in said[by].items():
            if stream not in lost:
                assert heard[by].get(stream, b"") == data


@given(st.binary(max_size=300), SIZES)
def test_garbage(data: bytes, sizes: list[int]) -> None:
    """It is refused or passed over, and nothing else happens."""
    server = Connection(server=True)
    try:
        for piece in pieces(data, sizes):
            for event in server.receive(piece):
                assert isinstance(event, Event)
    except ProtocolError:
        pass


@given(st.data())
def test_a_broken_conversation(data: st.DataObject) -> None:
    """The same for what is almost right."""
    client = Connection(server=False)
    for number in range(3):
        stream = client.open({"streamtype": "data", "port": str(number)})
        client.send(stream, b"some bytes", last=bool(number % 2))
        client.ping(1)
    sent = bytearray(taken(client))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    try:
        Connection(server=True).receive(bytes(sent))
    except ProtocolError:
        pass
