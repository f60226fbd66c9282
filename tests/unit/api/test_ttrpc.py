"""ttrpc without I/O: both sides talk to each other, in pieces of any size, and broken rules are answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_api import status
from ocirt_api.ttrpc import (
    HALF,
    LIMIT,
    OPEN,
    UNARY,
    Client,
    DataReceived,
    KeyValue,
    ProtocolError,
    Refused,
    Request,
    RequestReceived,
    Response,
    ResponseReceived,
    Server,
    StateError,
    Status,
    TooLargeError,
    frames,
)

KINDS = [UNARY, HALF, OPEN]


def frame(stream: int, kind: int, flags: int, data: bytes = b"") -> bytes:
    """As PROTOCOL.md draws it."""
    return len(data).to_bytes(4, "big") + stream.to_bytes(4, "big") + bytes((kind, flags)) + data


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`data` cut into pieces of these sizes, and the rest."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def test_a_call_byte_by_byte() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s.Task", "Kill", b"\x08\x01", timeout=5, metadata=[("k", "1"), ("k", "2")])
    assert stream == 1
    request = Request(
        service="s.Task",
        method="Kill",
        payload=b"\x08\x01",
        timeout_nano=5,
        metadata=[KeyValue(key="k", value="1"), KeyValue(key="k", value="2")],
    )
    assert sent == frame(1, 1, 0, request.encode())
    events = [event for byte in sent for event in server.receive(bytes((byte,)))]
    assert events == [RequestReceived(1, request, UNARY)]
    assert server.active == 1
    answer = server.respond(1, b"done")
    assert answer == frame(1, 2, 0, Response(payload=b"done").encode())
    assert server.active == 0
    assert [event for byte in answer for event in client.receive(bytes((byte,)))] == [ResponseReceived(1, b"done", Status())]
    assert client.active == 0
    client.end()
    server.end()


def test_a_call_that_fails() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s", "m")
    server.receive(sent)
    events = client.receive(server.respond(stream, code=status.NOT_FOUND, text="no container abc"))
    assert events == [ResponseReceived(stream, b"", Status(code=5, message="no container abc"))]


def test_answers_come_in_any_order_and_streams_are_odd() -> None:
    client, server = Client(), Server()
    calls = [client.request("s", f"m{number}") for number in range(3)]
    assert [stream for stream, _ in calls] == [1, 3, 5]
    server.receive(b"".join(sent for _, sent in calls))
    sent = b"".join(server.respond(stream, bytes((stream,))) for stream in (5, 1, 3))
    assert [(event.stream, event.payload) for event in client.receive(sent)] == [(5, b"\5"), (1, b"\1"), (3, b"\3")]


def test_streams_of_both_sides() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s", "both", kind=OPEN)
    assert sent[9] == frames.REMOTE_OPEN
    sent += client.send(stream, b"one") + client.send(stream, b"") + client.finish(stream)
    assert server.receive(sent)[1:] == [
        DataReceived(stream, b"one", last=False),
        DataReceived(stream, b"", last=False),
        DataReceived(stream, None, last=True),
    ]
    answer = server.send(stream, b"two") + server.send(stream, None, last=True)
    assert client.receive(answer) == [DataReceived(stream, b"two", last=False), DataReceived(stream, None, last=True)]
    assert (client.active, server.active) == (0, 0)


def test_a_stream_of_the_server_alone() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s", "list", kind=HALF)
    [begun] = server.receive(sent)
    assert isinstance(begun, RequestReceived)
    assert begun.kind == HALF
    with pytest.raises(StateError, match="stream 1 is half: no client-data"):
        client.send(stream, b"")
    assert client.receive(server.send(stream, b"x", last=True)) == [DataReceived(stream, b"x", last=True)]


def test_a_stream_that_ends_with_a_response() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s", "both", kind=OPEN)
    server.receive(sent)
    assert client.receive(server.respond(stream, code=status.INTERNAL)) == [ResponseReceived(stream, b"", Status(code=13))]
    # What the client had sent on before it knew: the stream is no more, and the client does not mind the answer.
    [late] = server.receive(frame(stream, 3, 0, b"late"))
    assert isinstance(late, Refused)
    assert late.status.message == "this stream is no longer active"
    assert client.receive(late.answer) == []


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (frame(2, 1, 0), status.INVALID_ARGUMENT, "odd"),
        (frame(0, 3, 0), status.INVALID_ARGUMENT, "odd"),
        (frame(1, 1, 0), status.INVALID_ARGUMENT, "above all before"),
        (frame(5, 1, 3), status.INVALID_ARGUMENT, "open or closed"),
        (frame(5, 1, 0, b"\x0a\x09x"), status.INVALID_ARGUMENT, "Request: ends within field 1"),
        (frame(3, 3, 0, b"x"), status.INVALID_ARGUMENT, "no data may follow"),
        (frame(9, 3, 1), status.INVALID_ARGUMENT, "no longer active"),
        (frame(5, 1, 0, bytes(LIMIT + 1)), status.RESOURCE_EXHAUSTED, "at most 4194304 bytes"),
    ],
)
def test_a_broken_rule_is_answered_and_the_connection_goes_on(sent: bytes, code: int, words: str) -> None:
    server = Server()
    server.receive(frame(1, 1, 0) + frame(3, 1, 0))
    first, second = server.receive(sent + frame(7, 1, 0))
    stream = int.from_bytes(sent[4:8], "big")
    assert isinstance(first, Refused)
    assert (first.stream, first.status.code) == (stream, code)
    assert words in first.status.message
    assert first.answer == frame(stream, 2, 0, Response(status=first.status).encode())
    assert second == RequestReceived(7, Request(), UNARY)


def test_what_is_too_large_is_not_kept() -> None:
    """A frame of 16 MiB less one byte: no more than one piece of it is held."""
    reader = frames.FrameReader()
    [dropped] = reader.feed(frames.HEADER.pack((1 << 24) - 1, 1, 1, 0))
    assert dropped.data is None
    for size in (100_000, (1 << 24) - 1 - 100_000):
        assert reader.feed(bytes(size)) == []
    reader.end()
    [after] = reader.feed(frame(3, 1, 0, b"x"))
    assert (after.stream, after.data) == (3, b"x")


def test_the_largest_message_fits_and_no_larger_one() -> None:
    assert len(frames.encode(1, 3, 0, bytes(LIMIT))) == LIMIT + 10
    client, server = Client(), Server()
    stream, sent = client.request("s", "m")
    server.receive(sent)
    with pytest.raises(TooLargeError, match="has at most 4194304"):
        server.respond(stream, bytes(LIMIT))
    # The call is not over: it can be told.
    [event] = client.receive(server.respond(stream, code=status.RESOURCE_EXHAUSTED, text="too large"))
    assert isinstance(event, ResponseReceived)
    with pytest.raises(TooLargeError):
        client.request("s", "m", bytes(LIMIT))
    assert client.active == 0
    assert client.request("s", "m")[0] == 3  # no number was lost


def test_an_answer_that_cannot_be_used_ends_its_call() -> None:
    client = Client()
    for _ in range(3):
        client.request("s", "m")
    sent = frame(1, 2, 0, b"\x0a\x09x") + frame(3, 3, 0, b"data") + frames.HEADER.pack(LIMIT + 1, 5, 2, 0)
    events = client.receive(sent)
    assert [event.status.code for event in events if isinstance(event, ResponseReceived)] == [13, 13, 8]
    assert client.active == 0


def test_frames_of_later_versions_are_passed_over() -> None:
    client, server = Client(), Server()
    assert server.receive(frame(1, 9, 0xFF, b"x")) == []
    client.request("s", "m")
    assert client.receive(frame(1, 9, 0xFF, b"x")) == []
    assert client.active == 1


def test_a_forgotten_call_is_not_heard_of_again() -> None:
    client, server = Client(), Server()
    stream, sent = client.request("s", "m")
    server.receive(sent)
    client.forget(stream)
    assert client.receive(server.respond(stream)) == []
    client.end()
    server.receive(client.request("s", "m")[1])
    server.forget(3)
    assert server.active == 0


@pytest.mark.parametrize("side", [Client, Server])
def test_what_is_not_ttrpc_ends_the_connection(side: type[Client | Server]) -> None:
    with pytest.raises(ProtocolError, match="begins with a zero byte"):
        side().receive(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("sent", [b"\0", frame(1, 2, 0, b"xyz")[:-1], frames.HEADER.pack(LIMIT + 1, 1, 2, 0)])
@pytest.mark.parametrize("side", [Client, Server])
def test_a_connection_that_ends_within_a_frame(side: type[Client | Server], sent: bytes) -> None:
    connection = side()
    connection.receive(sent)
    with pytest.raises(ProtocolError, match="within a frame"):
        connection.end()


def test_a_connection_that_ends_before_the_answer() -> None:
    client = Client()
    client.request("s", "m")
    with pytest.raises(ProtocolError, match="1 calls were not answered"):
        client.end()


@pytest.mark.parametrize(
    "act",
    [
        lambda server: server.respond(5),
        lambda server: server.send(1, b""),
        lambda server: (server.respond(1), server.respond(1)),
    ],
)
def test_what_the_state_does_not_allow_is_a_bug_and_says_so(act: Callable[[Server], object]) -> None:
    server = Server()
    server.receive(frame(1, 1, 0))
    with pytest.raises(StateError, match=re.compile("stream . is ")):
        act(server)


def test_a_connection_has_so_many_streams() -> None:
    client = Client()
    client._next = 0xFFFF_FFFF
    assert client.request("s", "m")[0] == 0xFFFF_FFFF
    with pytest.raises(StateError, match="all its streams"):
        client.request("s", "m")


# What either side does: (what, which of the open streams, a payload).
STEPS = st.lists(
    st.tuples(st.sampled_from(["request", "send", "finish", "answer", "stream", "last"]), st.integers(0, 9), st.binary())
)


@given(steps=STEPS, kinds=st.lists(st.sampled_from(KINDS), min_size=1), sizes=st.lists(st.integers(0, 40)))
def test_both_sides_agree_whatever_they_do(steps: list[tuple[str, int, bytes]], kinds: list[str], sizes: list[int]) -> None:
    """What is sent arrives as it was sent, however it is cut; what the states forbid is refused before it is sent."""
    client, server = Client(), Server()
    sent: dict[int, list[bytes | None]] = {}  # by the client, beyond its request
    answered: dict[int, list[bytes | None]] = {}
    to_server, to_client = b"", b""
    for what, which, payload in steps:
        stream = which * 2 + 1
        try:
            if what == "request":
                number, data = client.request("s", "m", payload, kind=kinds[which % len(kinds)])
                server.receive(data)  # at once: the server can only answer what it knows
                sent[number], answered[number] = [], []
            elif what in ("send", "finish"):
                to_server += client.send(stream, payload) if what == "send" else client.finish(stream)
                sent[stream].append(payload if what == "send" else None)
            elif what == "answer":
                to_client += server.respond(stream, payload)
                answered[stream].append(payload)
            else:
                to_client += server.send(stream, payload, last=what == "last")
                answered[stream].append(payload)
        except StateError:
            continue
    got: dict[int, list[bytes | None]] = {stream: [] for stream in sent}
    for piece in pieces(to_client, sizes):
        for event in client.receive(piece):
            got[event.stream].append(event.payload)
    assert got == answered
    heard: dict[int, list[bytes | None]] = {stream: [] for stream in sent}
    refused: set[int] = set()
    for piece in pieces(to_server, sizes):
        for received in server.receive(piece):
            if isinstance(received, Refused):
                refused.add(received.stream)
            else:
                assert isinstance(received, DataReceived)
                heard[received.stream].append(received.payload)
    # A stream that the server had ended already hears nothing more.
    assert {stream: data for stream, data in heard.items() if stream not in refused} == {
        stream: data for stream, data in sent.items() if stream not in refused
    }


@given(data=st.binary(max_size=200), sizes=st.lists(st.integers(0, 20)))
def test_any_bytes_are_events_or_the_end(data: bytes, sizes: list[int]) -> None:
    for side in (Client(), Server()):
        try:
            for piece in pieces(data, sizes):
                side.receive(piece)
            side.end()
        except ProtocolError:
            pass
