"""The channels of exec and attach, over both transports."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from ocirt_shim.remote import FaultError, spdy
from ocirt_shim.remote.channels import Outcome, Sizes, Wanted
from ocirt_shim.remote.overspdy import OverSpdy
from ocirt_shim.remote.overwebsocket import OverWebSocket
from tests.unit.shim.remote.test_spdy import pieces, taken

ALL = Wanted(stdin=True, stdout=True, stderr=True, terminal=False)
TERMINAL = Wanted(stdin=True, stdout=True, stderr=False, terminal=True)


class Heard:
    """What a client's words led to."""

    def __init__(self) -> None:
        self.words: list[Any] = []
        self.input = b""

    def on_ready(self) -> None:
        self.words.append("ready")

    def on_input(self, data: bytes) -> None:
        self.input += data

    def on_input_end(self) -> None:
        self.words.append("end")

    def on_resize(self, rows: int, columns: int) -> None:
        self.words.append((rows, columns))

    def on_gone(self) -> None:
        self.words.append("gone")


class TestSpdy:
    """A client that opens streams by name."""

    def start(self, wanted: Wanted, protocol: str, *names: str) -> None:
        self.heard = Heard()
        self.channels = OverSpdy(wanted, protocol, self.heard)
        self.client = spdy.Connection(server=False)
        self.channels.begin()
        self.streams = {name: self.client.open({"streamtype": name}) for name in names}
        self.say()

    def say(self) -> list[spdy.Event]:
        """Give the server what the client has; its answer."""
        self.channels.receive(taken(self.client))
        parts = self.channels.outgoing[:]
        self.channels.outgoing.clear()
        return self.client.receive(b"".join(parts))

    @pytest.mark.parametrize(
        ("wanted", "protocol", "names"),
        [
            (ALL, "v4.channel.k8s.io", "error stdin stdout stderr"),
            (ALL, "channel.k8s.io", "stderr stdout stdin error"),
            (TERMINAL, "v4.channel.k8s.io", "error stdin stdout resize"),
            (TERMINAL, "v3.channel.k8s.io", "error resize stdin stdout"),
            (TERMINAL, "v2.channel.k8s.io", "error stdin stdout"),
            (Wanted(stdin=False, stdout=True, stderr=False, terminal=False), "v4.channel.k8s.io", "error stdout"),
        ],
    )
    def test_it_is_ready_with_all_of_them(self, wanted: Wanted, protocol: str, names: str) -> None:
        *most, last = names.split()
        self.start(wanted, protocol, *most)
        assert self.heard.words == []
        self.client.open({"streamtype": last})
        self.say()
        assert self.heard.words == ["ready"]

    def test_what_is_not_wanted_is_refused(self) -> None:
        self.start(ALL, "v4.channel.k8s.io", "error", "stdin")
        again = self.client.open({"streamtype": "stdin"})
        other = self.client.open({"streamtype": "resize"})
        none = self.client.open({})
        assert self.say() == [spdy.WasReset(each, spdy.REFUSED_STREAM) for each in (again, other, none)]

    def test_input(self) -> None:
        self.start(TERMINAL, "v4.channel.k8s.io", "error", "stdin", "stdout", "resize")
        self.client.send(self.streams["stdin"], b"one")
        self.client.send(self.streams["resize"], b'{"Width":80,"Height":25}{"Width":0,"Height":1}{"Width":9')
        self.client.send(self.streams["resize"], b'0,"Height":30}\n')
        self.client.send(self.streams["stdin"], b"two", last=True)
        self.client.send(self.streams["stdout"], b"nonsense")
        self.say()
        assert (self.heard.input, self.heard.words) == (b"onetwo", ["ready", (25, 80), (30, 90), "end"])

    def test_input_is_given_up(self) -> None:
        self.start(ALL, "v4.channel.k8s.io", "error", "stdin", "stdout", "stderr")
        self.client.reset(self.streams["stdin"])
        self.client.reset(self.streams["stdout"])
        self.say()
        assert self.heard.words == ["ready", "end"]
        self.channels.write("stdout", b"lost")
        self.channels.write("stderr", b"err")
        assert self.say() == [spdy.Received(self.streams["stderr"], b"err", last=False)]

    @pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v2.channel.k8s.io"])
    def test_the_last_word(self, protocol: str) -> None:
        self.start(ALL, protocol, "error", "stdin", "stdout", "stderr")
        self.channels.write("stdout", b"out")
        self.channels.finish(Outcome(3))
        events = self.say()[-5:]
        names = {stream: name for name, stream in self.streams.items()}
        assert [names.get(event.stream) for event in events[:-1]] == ["stdout", "stdout", "stderr", "error"]
        assert isinstance(events[-1], spdy.WentAway)
        error = events[-2]
        assert isinstance(error, spdy.Received)
        assert error.last
        text = error.data.decode()
        if protocol.startswith("v4"):
            assert json.loads(text)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        else:
            assert text == "command terminated with non-zero exit code: exit status 3"

    def test_faults(self) -> None:
        self.start(TERMINAL, "v4.channel.k8s.io", "error", "stdin", "stdout", "resize")
        self.client.send(self.streams["resize"], b"{]}")
        with pytest.raises(FaultError, match="a size of the terminal cannot be read"):
            self.say()
        with pytest.raises(FaultError, match="version"):
            self.channels.receive(b"\x80\x07\0\0\0\0\0\0")


class Over:
    """A WebSocket's client and server."""

    def __init__(self, wanted: Wanted, protocol: str) -> None:
        self.heard = Heard()
        self.channels = OverWebSocket(wanted, protocol, self.heard)
        self.client = WebSocket(ConnectionType.CLIENT)
        self.channels.begin()

    def say(self, *events: Any, sizes: tuple[int, ...] = ()) -> list[Any]:
        data = b"".join(self.client.send(event) for event in events)
        for piece in pieces(data, list(sizes)):
            self.channels.receive(piece)
        parts = self.channels.outgoing[:]
        self.channels.outgoing.clear()
        if parts:
            self.client.receive_data(b"".join(parts))
        return list(self.client.events())


def test_websocket_input() -> None:
    over = Over(TERMINAL, "v5.channel.k8s.io")
    answers = over.say(
        BytesMessage(b"\0one"),
        BytesMessage(b"\0t", message_finished=False),
        BytesMessage(b"wo", message_finished=True),
        BytesMessage(b'\4{"Width":80,"Height":25}'),
        BytesMessage(b"\0"),
        BytesMessage(b""),
        BytesMessage(b"\1nonsense"),
        Ping(b"p"),
        BytesMessage(b"\xff\1"),
        BytesMessage(b"\xff\0"),
    )
    assert (over.heard.input, over.heard.words) == (b"onetwo", ["ready", (25, 80), "end"])
    assert [type(one) for one in answers] == [BytesMessage, Pong]
    assert answers[0].data == b"\1"  # that it can begin


@given(st.lists(st.integers(1, 9), max_size=40))
def test_websocket_is_cut(sizes: list[int]) -> None:
    over = Over(ALL, "v5.channel.k8s.io")
    over.say(BytesMessage(b"\0hello"), BytesMessage(b"\0 there"), BytesMessage(b"\xff\0"), sizes=tuple(sizes))
    assert (over.heard.input, over.heard.words) == (b"hello there", ["ready", "end"])


def test_version_4_has_no_close() -> None:
    over = Over(ALL, "v4.channel.k8s.io")
    over.say(BytesMessage(b"\xff\0"))
    assert over.heard.words == ["ready"]


def test_text() -> None:
    over = Over(ALL, "v4.base64.channel.k8s.io")
    first, *_ = over.say(TextMessage("0" + b64encode(b"hello").decode()), TextMessage(""), TextMessage("0"))
    assert over.heard.input == b"hello"
    assert first.data == "1"
    over.channels.write("stderr", b"\xff\0")
    over.channels.finish(Outcome())
    err, status, close = over.say()
    assert err.data == "2" + b64encode(b"\xff\0").decode()
    assert status.data == "3" + b64encode(b'{"metadata":{},"status":"Success"}').decode()
    assert isinstance(close, CloseConnection)


def test_the_client_goes() -> None:
    over = Over(ALL, "v5.channel.k8s.io")
    over.say(CloseConnection(code=1000))
    assert over.heard.words == ["ready", "gone"]
    over.channels.write("stdout", b"to nobody")
    over.channels.finish(Outcome())
    assert over.channels.outgoing == []


def test_without_outputs_the_channel_for_errors_begins() -> None:
    over = Over(Wanted(stdin=True, stdout=False, stderr=False, terminal=False), "channel.k8s.io")
    (first,) = over.say()
    assert first.data == b"\3"
    over.channels.write("stdout", b"not asked for")
    over.channels.finish(Outcome())
    (close,) = over.say()  # before version 4 there is nothing to say if all is well
    assert isinstance(close, CloseConnection)


@pytest.mark.parametrize(
    ("protocol", "message", "text"),
    [
        ("v5.channel.k8s.io", TextMessage("0hello"), "where the protocol has none"),
        ("base64.channel.k8s.io", BytesMessage(b"\0hello"), "a message that is no text"),
        ("base64.channel.k8s.io", TextMessage("x"), "not a digit"),
        ("base64.channel.k8s.io", TextMessage("0a"), "base64"),
        ("base64.channel.k8s.io", TextMessage("0" * ((1 << 20) + 1)), "more than 1048576 bytes"),
    ],
)
def test_websocket_faults(protocol: str, message: Any, text: str) -> None:
    with pytest.raises(FaultError, match=text):
        Over(ALL, protocol).say(message)


def test_a_frame_that_is_none() -> None:
    over = Over(ALL, "v5.channel.k8s.io")
    with pytest.raises(FaultError):
        over.channels.receive(b"\xc2\x80\0\0\0\0")


@given(st.binary(max_size=200))
def test_websocket_garbage(data: bytes) -> None:
    try:
        Over(ALL, "v5.channel.k8s.io").channels.receive(data)
    except FaultError:
        pass


def test_outcomes() -> None:
    assert Outcome().text() == ""
    assert json.loads(Outcome().status()) == {"metadata": {}, "status": "Success"}
    failure = Outcome(failure='no "x"')
    assert failure.text() == 'no "x"'
    assert json.loads(failure.status()) == {
        "metadata": {},
        "status": "Failure",
        "message": 'Internal error occurred: no "x"',
        "reason": "InternalError",
        "details": {"causes": [{"message": 'no "x"'}]},
        "code": 500,
    }


@given(st.lists(st.tuples(st.integers(1, 0xFFFF), st.integers(1, 0xFFFF)), max_size=5), st.lists(st.integers(1, 30)))
def test_sizes(wanted: list[tuple[int, int]], cuts: list[int]) -> None:
    data = b"\n".join(json.dumps({"Width": columns, "Height": rows}).encode() for rows, columns in wanted)
    sizes = Sizes()
    assert [found for piece in pieces(data, cuts) for found in sizes.feed(piece)] == wanted


@pytest.mark.parametrize("text", [b"{}", b'{"Width":1}', b'{"Width":"a","Height":1}', b'{"Width":[1],"Height":1}', b"1}"])
def test_what_is_no_size(text: bytes) -> None:
    with pytest.raises(FaultError, match="cannot be read"):
        Sizes().feed(text)


def test_a_size_without_end() -> None:
    with pytest.raises(FaultError, match="has no end"):
        Sizes().feed(bytes(70000))
