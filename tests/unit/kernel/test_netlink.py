"""Messages to and from rtnetlink, without a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EEXIST, EINTR, ENODEV
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.kernel import netlink
from ocirt.kernel.ffi import CallError

MULTI, INTERRUPTED, TLVS = 0x2, 0x10, 0x200
NEWLINK, NEWADDR, ERROR, DONE = 16, 20, 2, 3


class Kernel:
    """Stands for the socket: keeps what is sent, and answers with what it was given, datagram by datagram."""

    def __init__(self, *answers: list[tuple[int, int, bytes]]) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        del size
        return b"".join(message(kind, flags, contents, len(self.sent)) for kind, flags, contents in self.answers.pop(0))


def message(kind: int, flags: int, contents: bytes, sequence: int = 1) -> bytes:
    """One message with its header and padding."""
    return pack("IHHII", 16 + len(contents), kind, flags, sequence, 0) + contents + bytes(-len(contents) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(index: int, name: str, *others: str) -> bytes:
    """The contents of an answer about a link."""
    nested = b"".join(attribute(53, other.encode() + b"\0") for other in others)
    properties = attribute(52 | 0x8000, nested) if others else b""
    return pack("BxHiII", 0, 1, index, 0, 0) + attribute(3, name.encode() + b"\0") + attribute(4, b"\x78\x05\0\0") + properties


def address(index: int, flags: int, scope: int, *attributes: tuple[int, bytes], family: int = 2, prefix: int = 24) -> bytes:
    return pack("BBBBI", family, prefix, flags & 0xFF, scope, index) + b"".join(attribute(*each) for each in attributes)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Netlink whose kernel gives the answers, and that kernel."""

    def make(*answers: list[tuple[int, int, bytes]]) -> tuple[netlink.Netlink, Kernel]:
        kernel = Kernel(*answers)
        made = netlink.Netlink.__new__(netlink.Netlink)
        made._socket = kernel  # type: ignore[assignment]
        made._sequence = 0
        return made, kernel

    return make


def error(errno: int, text: str = "") -> tuple[int, int, bytes]:
    """An answer that refuses; the header of what it refuses follows the errno."""
    said = attribute(1, text.encode() + b"\0") if text else b""
    return ERROR, TLVS if text else 0, pack("i", -errno) + bytes(16) + said


def test_a_link_by_name(talk: Any) -> None:
    found, kernel = talk([(NEWLINK, 0, link(7, "eth0", "enp0s3", "lan"))])
    assert found.find("lan") == (7, ["eth0", "enp0s3", "lan"])
    assert kernel.sent == [message(18, 1, pack("BxHiII", 0, 0, 0, 0, 0) + attribute(3, b"lan\0"))]


def test_a_link_that_is_not_there(talk: Any) -> None:
    with pytest.raises(CallError) as caught:
        talk([error(ENODEV)])[0].find("eth0")
    assert (caught.value.errno, caught.value.call, caught.value.filename) == (ENODEV, "netlink", None)


def test_what_the_kernel_says_of_an_error(talk: Any) -> None:
    with pytest.raises(CallError) as caught:
        talk([error(EEXIST, "taken")])[0].set_up(7)
    assert (caught.value.errno, caught.value.filename) == (EEXIST, "taken")


def test_all_names(talk: Any) -> None:
    """A dump comes in parts."""
    parts = [(NEWLINK, MULTI, link(1, "lo")), (NEWLINK, MULTI, link(2, "a", "b"))]
    assert talk(parts, [(NEWLINK, MULTI, link(3, "c")), (DONE, MULTI, bytes(4))])[0].names() == {"lo", "a", "b", "c"}


def test_a_dump_that_was_interrupted_is_taken_again(talk: Any) -> None:
    done = (DONE, MULTI, bytes(4))
    first = [(NEWLINK, MULTI | INTERRUPTED, link(1, "old")), done]
    assert talk(first, [(NEWLINK, MULTI, link(1, "new")), done])[0].names() == {"new"}
    late = [(NEWLINK, MULTI, link(1, "old")), (DONE, MULTI | INTERRUPTED, bytes(4))]
    assert talk(late, [(NEWLINK, MULTI, link(1, "new")), done])[0].names() == {"new"}
    with pytest.raises(CallError) as caught:
        talk(*[first] * 9)[0].names()
    assert caught.value.errno == EINTR


def test_which_addresses_go_along(talk: Any) -> None:
    """Permanent ones of global scope; the flags that do not fit into a byte come as an attribute."""
    local, peer = (2, bytes([10, 0, 0, 1])), (1, bytes([10, 0, 0, 2]))
    six = (1, bytes(15) + b"\1")
    label, cache = (3, b"eth0\0"), (6, bytes(16))
    answers = [
        address(7, 0x80, 0, peer, local, label, cache),
        address(8, 0x80, 0, peer, local),  # another link's
        address(7, 0, 0, peer, local),  # for a time
        address(7, 0x80, 253, peer, local),  # of this link
        address(7, 0x80, 0, six, (8, pack("I", 0x80 | 0x02 | 0x200 | 0x40)), family=10, prefix=64),
    ]
    found, _ = talk([*[(NEWADDR, MULTI, each) for each in answers], (DONE, MULTI, bytes(4))])
    assert [(each.family, each.prefix, each.flags, each.attributes) for each in found.addresses(7)] == [
        (2, 24, 0, dict([peer, local])),
        (10, 64, 0x202, dict([six])),
    ]


def test_an_address_is_given_as_it_was_taken(talk: Any) -> None:
    found, kernel = talk([error(0)])
    found.add(9, netlink.Address(10, 64, 0x202, {1: bytes(16)}))
    body = pack("BBBBI", 10, 64, 0, 0, 9) + attribute(1, bytes(16)) + attribute(8, pack("I", 0x202))
    assert kernel.sent == [message(20, 0x1 | 0x4 | 0x400 | 0x200, body)]


def test_up_and_down(talk: Any) -> None:
    found, kernel = talk([error(0)], [error(0)])
    found.set_up(7)
    found.set_up(7, up=False)
    wanted = [message(16, 0x5, pack("BxHiII", 0, 0, 7, flags, 1), number) for number, flags in ((1, 1), (2, 0))]
    assert kernel.sent == wanted


def test_the_move_names_the_link(talk: Any) -> None:
    found, kernel = talk([error(0)])
    found.move(7, 12, "eth0")
    body = pack("BxHiII", 0, 0, 7, 0, 0) + attribute(3, b"eth0\0") + attribute(28, pack("I", 12))
    assert kernel.sent == [message(16, 0x5, body)]


@given(st.binary(max_size=200), st.integers(0, 20))
def test_any_bytes_are_read_to_their_end(data: bytes, start: int) -> None:
    """What is cut or wrong gives less, never an endless loop or another exception."""
    assert all(kind <= 0x3FFF for kind in netlink.parse(data, start))
    list(netlink._messages(data))


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_as_they_are_written(values: dict[int, bytes]) -> None:
    assert netlink.parse(b"".join(netlink._attribute(*each) for each in values.items()), 0) == values


@pytest.mark.parametrize(
    ("template", "taken", "name"),
    [("eth%d", (), "eth0"), ("eth%d", ("eth0", "eth2"), "eth1"), ("%dx", ("0x",), "1x"), ("a%db", ("a0b", "a1b"), "a2b")],
)
def test_the_lowest_number_that_is_free(template: str, taken: Iterable[str], name: str) -> None:
    assert netlink.free_name(template, set(taken)) == name
