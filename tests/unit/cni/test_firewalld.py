"""firewalld's bus: messages that another codec reads and writes, and peers that are none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import dbus
from ocirt_cni import firewalld
from ocirt_cni.errors import Error

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_BUS, _HAS_OWNER = "org.freedesktop.DBus", "NameHasOwner"


@given(_TEXT, _TEXT, st.lists(_TEXT, max_size=3), st.integers(1, 1 << 31))
def test_requests(interface: str, member: str, arguments: list[str], serial: int) -> None:
    data = firewalld.request(serial, "a.b", "/a/b", interface, member, arguments)
    assert dbus.size_of(data) == firewalld.size_of(data[:16]) == len(data)
    read = dbus.parse(data)
    assert (read.kind, read.serial, read.body) == (dbus.CALL, serial, arguments)
    assert [read.fields[number] for number in (1, 2, 3, 6)] == ["/a/b", interface, member, "a.b"]


@given(st.one_of(_TEXT, st.booleans()), st.integers(1, 1 << 31), st.booleans())
def test_answers(value: str | bool, serial: int, failed: bool) -> None:  # noqa: FBT001
    kind, signature = (dbus.FAILURE if failed else dbus.RETURN), "b" if isinstance(value, bool) else "s"
    data = _answer(kind, serial, signature, value)
    found, fields, body, order = firewalld.parse(data)
    assert (found, fields[5]) == (kind, serial)
    assert firewalld.first(fields[8], body, order) == (str(int(value)) if isinstance(value, bool) else value)


@given(st.binary(min_size=16, max_size=200))
def test_garbage_is_a_value_error(data: bytes) -> None:
    try:
        _, fields, body, order = firewalld.parse(data)
        firewalld.first(fields.get(8, ""), body, order)
    except ValueError:
        pass
    try:
        firewalld.size_of(data)
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:path=/a/b", "/a/b"),
        ("tcp:host=a;unix:abstract=x,guid=1", b"\0x"),
        ("unix:guid=1,path=/c;unix:path=/d", "/c"),
        ("tcp:host=a", ""),
        ("", ""),
    ],
)
def test_addresses(address: str, path: str | bytes) -> None:
    assert firewalld.path_of(address) == path


Peer = Callable[[Callable[[dbus.Message], bytes | None]], None]


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    """A bus of one connection, which answers as it is told to; None: it closes."""
    import posix  # noqa: PLC0415

    monkeypatch.setitem(posix.environ, b"DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}".encode())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()
    threads = []

    def serve(answer: Callable[[dbus.Message], bytes | None]) -> None:
        threads.append(threading.Thread(target=_serve, args=(listener, answer)))
        threads[0].start()

    yield serve
    listener.close()
    for one in threads:
        one.join(10)
        assert not one.is_alive()


def _serve(listener: socket.socket, answer: Callable[[dbus.Message], bytes | None]) -> None:
    with listener.accept()[0] as connection:
        data = b""
        while b"BEGIN\r\n" not in data:
            data += connection.recv(4096)
            if data.endswith(b"\r\n") and b"BEGIN" not in data:
                connection.sendall(b"OK 0123\r\n")
        data = data.partition(b"BEGIN\r\n")[2]
        while True:
            size = dbus.size_of(data) if len(data) >= 16 else 0
            if size and len(data) >= size:
                message, data = dbus.parse(data[:size]), data[size:]
                reply = answer(message)
                if reply is None:
                    return
                connection.sendall(reply)
                continue
            more = connection.recv(4096)
            if not more:
                return
            data += more


def _answer(kind: int, serial: int, signature: str, value: object) -> bytes:
    fields: list[tuple[int, tuple[str, object]]] = [(5, ("u", serial)), (8, ("g", signature))]
    if kind == dbus.FAILURE:
        fields.append((4, ("s", "org.example.Failed")))
    return dbus.message(kind, 7, fields, dbus.encode(signature, [value]))


def _running(refusal: str) -> Callable[[dbus.Message], bytes]:
    """firewalld is there, and refuses everything with this text."""

    def answer(message: dbus.Message) -> bytes:
        member = message.fields[3]
        if member == "Hello":
            # A signal first, as a bus sends it.
            signal = dbus.message(dbus.SIGNAL, 1, [(1, ("o", "/")), (2, ("s", _BUS)), (3, ("s", "NameAcquired"))], b"")
            return signal + _answer(dbus.RETURN, message.serial, "s", ":1.1")
        if member == _HAS_OWNER:
            return _answer(dbus.RETURN, message.serial, "b", value=True)
        return _answer(dbus.FAILURE, message.serial, "s", refusal)

    return answer


def test_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posix  # noqa: PLC0415

    monkeypatch.setitem(posix.environ, b"DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}".encode())
    assert firewalld.find() is None


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ("ALREADY_ENABLED: 'x' already in 'trusted'", ""),
        ("ZONE_ALREADY_SET: x", ""),
        ("INVALID_ZONE: z", "/firewalldZone: firewalld has no zone 'z'"),
        ("ZONE_CONFLICT: x", "10.0.0.1/32: firewalld has it in the zone another, not in z"),
        ("PANIC: everything", "firewalld: 10.0.0.1/32 cannot be put into the zone z: PANIC: everything"),
    ],
)
def test_refusals(peer: Peer, refusal: str, message: str) -> None:
    peer(_running(refusal))
    found = firewalld.find()
    assert found is not None
    with found:
        if message:
            with pytest.raises(Error) as caught:
                found.admit("z", ["10.0.0.1/32"])
            assert str(caught.value).startswith(message)
        else:
            found.admit("z", ["10.0.0.1/32"])


@pytest.mark.parametrize("refusal", ["UNKNOWN_SOURCE: x", "INVALID_ZONE: z", "NOT_ENABLED: x"])
def test_what_is_gone_need_not_be_removed(peer: Peer, refusal: str) -> None:
    peer(_running(refusal))
    found = firewalld.find()
    assert found is not None
    with found:
        found.dismiss("z", ["10.0.0.1/32"])


def test_a_bus_that_closes(peer: Peer) -> None:
    peer(lambda message: None if message.fields[3] == _HAS_OWNER else _answer(dbus.RETURN, message.serial, "s", ""))
    with pytest.raises(Error, match="the system's bus does not say whether firewalld runs"):
        firewalld.find()


def test_one_that_ends_meanwhile(peer: Peer) -> None:
    running = _running("")
    peer(lambda message: None if message.fields[3] == "addSource" else running(message))
    found = firewalld.find()
    assert found is not None
    with found, pytest.raises(Error, match="firewalld does not answer to addSource") as caught:
        found.admit("z", ["10.0.0.1/32"])
    assert "systemctl status firewalld" in caught.value.hint
