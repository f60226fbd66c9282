"""The D-Bus codec: what is written is read again, whatever it is; what is no message is refused. And a connection's manners."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import dbus
from ocirt.errors import Error

# -- values of all types -------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXT,
    "o": TEXT,
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)", "aas"]),
}


def _deeper(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        kinds.map(lambda kind: "a" + kind),
        st.lists(kinds, min_size=1, max_size=3).map(lambda members: "(" + "".join(members) + ")"),
        st.tuples(st.sampled_from("ysut"), kinds).map(lambda pair: "a{" + "".join(pair) + "}"),
    )


KINDS = st.recursive(st.sampled_from([*BASIC, "v", "ay"]), _deeper, max_leaves=4)


def values(kind: str) -> st.SearchStrategy[Any]:
    """Values of one type."""
    if kind in BASIC:
        return BASIC[kind]
    if kind == "v":
        return KINDS.filter(lambda inner: "v" not in inner).flatmap(lambda inner: st.tuples(st.just(inner), values(inner)))
    if kind == "ay":
        return st.binary(max_size=20)
    if kind[0] == "a":
        return st.lists(values(kind[1:]), max_size=3)
    return st.tuples(*[values(member) for member in dbus.types_of(kind[1:-1])])


BODIES = st.lists(KINDS, max_size=4).flatmap(
    lambda kinds: st.tuples(st.just("".join(kinds)), st.tuples(*[values(kind) for kind in kinds]).map(list))
)


@given(BODIES)
def test_what_is_written_is_read(body: tuple[str, list[Any]]) -> None:
    signature, expected = body
    assert dbus.decode(signature, dbus.encode(signature, expected)) == expected


@given(BODIES, st.integers(1, (1 << 32) - 1))
def test_messages(body: tuple[str, list[Any]], serial: int) -> None:
    signature, expected = body
    data = dbus.message(dbus.CALL, serial, [(1, ("o", "/x")), (8, ("g", signature))], dbus.encode(signature, expected))
    assert dbus.size_of(data[:16]) == len(data)
    found = dbus.parse(data)
    assert (found.kind, found.serial, found.fields[1], found.body) == (dbus.CALL, serial, "/x", expected)


@given(BODIES, st.data())
def test_a_part_is_no_message(body: tuple[str, list[Any]], data: st.DataObject) -> None:
    signature, expected = body
    encoded = dbus.encode(signature, expected)
    cut = data.draw(st.integers(0, len(encoded)))
    if cut < len(encoded):
        with pytest.raises(ValueError, match=r"."):
            dbus.decode(signature, encoded[:cut])


@given(KINDS, st.binary(max_size=64))
def test_garbage_is_refused_or_read_but_nothing_else(kind: str, data: bytes) -> None:
    try:
        found = dbus.decode(kind, data)
    except ValueError:
        return
    assert len(found) == 1


@given(st.binary(min_size=16, max_size=200))
def test_garbage_is_no_message(data: bytes) -> None:
    try:
        dbus.size_of(data)
        dbus.parse(data)
    except ValueError:
        pass


@given(st.text("ybnqiuxtdsogva(){}h", max_size=10))
def test_signatures(text: str) -> None:
    try:
        kinds = dbus.types_of(text)
    except ValueError:
        return
    assert "".join(kinds) == text


@pytest.mark.parametrize(
    "signature", ["a", "(", "()", ")", "a{s}", "a{vs}", "a{(s)s}", "{ss}", "a{sss}", "z", "s)", "a" * 80 + "s", "y" * 256]
)
def test_no_signatures(signature: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        dbus.types_of(signature)


def test_by_the_letter() -> None:
    """Against the specification's own layout: padding, lengths, NULs."""
    assert dbus.encode("yu", [1, 2]) == b"\1\0\0\0\2\0\0\0"
    assert dbus.encode("s", ["ab"]) == b"\2\0\0\0ab\0"
    assert dbus.encode("ax", [[]]) == b"\0\0\0\0\0\0\0\0"
    assert dbus.encode("v", [("b", True)]) == b"\1b\0\0\1\0\0\0"
    assert dbus.encode("(y)a(y)", [(1,), [(2,)]]) == b"\1\0\0\0\1\0\0\0\2"
    assert dbus.decode("u", struct.pack(">I", 7), ">") == [7]


@pytest.mark.parametrize(
    ("signature", "value"),
    [("u", -1), ("y", 256), ("s", "a\0b"), ("s", "\udc80"), ("i", "x"), ("g", "("), ("v", ("ss", ["a"])), ("(ss)", ("a",))],
)
def test_what_does_not_fit(signature: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        dbus.encode(signature, [value])


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("b", b"\2\0\0\0"),
        ("s", b"\1\0\0\0a"),
        ("s", b"\1\0\0\0aa"),
        ("s", b"\1\0\0\0\xff\0"),
        ("s", b"\3\0\0\0a\0b\0"),
        ("yu", b"\1\1\0\0\2\0\0\0"),
        ("au", b"\5\0\0\0\0\0\0\0\0\0\0\0"),
        ("ay", b"\xff\xff\xff\xff"),
        ("v", b"\2ss\0"),
        ("y", b"\1\1"),
    ],
)
def test_data_that_is_not_valid(signature: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        dbus.decode(signature, data)


# -- addresses -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:path=/run/user/1000/bus", ["/run/user/1000/bus"]),
        ("unix:abstract=/tmp/dbus-x,guid=00ff", [b"\0/tmp/dbus-x"]),
        ("unix:path=/a%20b%2cc", ["/a b,c"]),
        ("tcp:host=localhost,port=1;unix:guid=1,path=/x;unix:path=/y", ["/x", "/y"]),
    ],
)
def test_addresses(text: str, expected: list[str | bytes]) -> None:
    assert dbus.addresses(text) == expected


@pytest.mark.parametrize("text", ["", "tcp:host=x", "unix:tmpdir=/tmp", "unix:path=/%zz", "nonsense"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(Error):
        dbus.addresses(text)


# -- connections ---------------------------------------------------------------------------------------------------------------

Serve = Callable[[socket.socket], None]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[Serve], str]]:
    """Serve one connection by a function, in a thread; the socket's path."""
    threads = []
    listeners = []

    def start(serve: Serve) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        listeners.append(listener)

        def work() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5)
                serve(peer)

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        return str(tmp_path / "socket")

    yield start
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


def let_in(peer: socket.socket, expected: bytes = b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode()) -> None:
    """The server's side of the authentication."""
    data = b""
    while not data.endswith(b"BEGIN\r\n"):
        data += peer.recv(1000)
    assert data == expected + b"\r\nBEGIN\r\n"
    peer.sendall(b"OK 1234\r\n")


def take(peer: socket.socket) -> dbus.Message:
    """A whole message."""
    data = b""
    while not (size := dbus.size_of(data)) or len(data) < size:
        data += peer.recv(1000)
    return dbus.parse(data)


def reply(to: dbus.Message, signature: str, *body: Any, kind: int = dbus.RETURN, name: str = "") -> bytes:
    """An answer."""
    fields: list[tuple[int, tuple[str, Any]]] = [(5, ("u", to.serial)), (8, ("g", signature))]
    if name:
        fields.append((4, ("s", name)))
    return dbus.message(kind, 77, fields, dbus.encode(signature, body))


def signal(member: str, signature: str, *body: Any) -> bytes:
    """A signal."""
    return dbus.message(dbus.SIGNAL, 78, [(3, ("s", member)), (8, ("g", signature))], dbus.encode(signature, body))


def connect(path: str, seconds: float = 5, uid: int | None = os.getuid()) -> dbus.Connection:
    """A connection to a server of a test."""
    return dbus.Connection(path, bus=False, uid=uid, seconds=seconds)


def test_a_call(served: Callable[[Serve], str]) -> None:
    """The answer is known by its number; what comes in between, and in pieces, is kept."""

    def serve(peer: socket.socket) -> None:
        let_in(peer)
        call = take(peer)
        assert (call.fields[1], call.fields[3], call.fields[6], call.body) == ("/path", "Do", "dest", ["x"])
        data = signal("JobRemoved", "uoss", 1, "/job/1", "u", "done") + reply(call, "s", "yes")
        for byte in data:
            peer.sendall(bytes((byte,)))
        peer.sendall(signal("Other", "s", "x") + signal("JobRemoved", "uoss", 2, "/job/2", "u", "failed"))

    with connect(served(serve)) as connection:
        assert connection.call("dest", "/path", "interface", "Do", "s", ["x"]) == ["yes"]
        assert connection.wait_signal("JobRemoved", 1, "/job/2") == [2, "/job/2", "u", "failed"]


def test_a_refusal(served: Callable[[Serve], str]) -> None:
    def serve(peer: socket.socket) -> None:
        let_in(peer)
        peer.sendall(reply(take(peer), "s", "No.", kind=dbus.FAILURE, name="a.b.NoSuchUnit"))

    with connect(served(serve)) as connection, pytest.raises(dbus.RemoteError) as caught:
        connection.call("dest", "/path", "interface", "Do")
    assert (caught.value.name, caught.value.text) == ("a.b.NoSuchUnit", "No.")


def test_who_we_are_is_for_the_peer_to_find_out(served: Callable[[Serve], str]) -> None:
    def serve(peer: socket.socket) -> None:
        let_in(peer, b"\0AUTH EXTERNAL\r\nDATA")

    connect(served(serve), uid=None).close()


def test_a_peer_that_does_not_want_us(served: Callable[[Serve], str]) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"REJECTED EXTERNAL\r\n")

    with pytest.raises(Error, match="does not let us in: REJECTED EXTERNAL"):
        connect(served(serve))


def test_a_peer_that_speaks_something_else(served: Callable[[Serve], str]) -> None:
    def serve(peer: socket.socket) -> None:
        let_in(peer)
        take(peer)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")

    with connect(served(serve)) as connection, pytest.raises(Error, match="does not speak D-Bus"):
        connection.call("dest", "/path", "interface", "Do")


def test_a_peer_that_says_nothing(served: Callable[[Serve], str]) -> None:
    done = threading.Event()

    def serve(peer: socket.socket) -> None:
        let_in(peer)
        done.wait(5)

    with connect(served(serve), seconds=0.05) as connection:
        with pytest.raises(Error, match=r"waited 0.05 s in vain for an answer to Do"):
            connection.call("dest", "/path", "interface", "Do")
        with pytest.raises(Error, match=r"in vain for the signal JobRemoved"):
            connection.wait_signal("JobRemoved", 1, "x")
    done.set()


def test_a_peer_that_goes_away(served: Callable[[Serve], str]) -> None:
    def serve(peer: socket.socket) -> None:
        let_in(peer)
        take(peer)

    with connect(served(serve)) as connection, pytest.raises(ConnectionResetError):
        connection.call("dest", "/path", "interface", "Do")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / "nothing"))
