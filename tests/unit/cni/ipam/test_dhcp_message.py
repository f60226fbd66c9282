"""The bytes of DHCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_message import Message

MAC = bytes.fromhex("020000000001")
ADDRESSES = st.ip_addresses(v=4).map(lambda ip: Address(ip.packed))
OPTIONS = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code not in (dhcp.MESSAGE_TYPE, dhcp.OVERLOAD)), st.binary(max_size=600), max_size=6
)
MESSAGES = st.builds(
    Message,
    st.integers(dhcp.DISCOVER, dhcp.RELEASE),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=6, max_size=6),
    OPTIONS,
    secs=st.integers(0, 0xFFFF),
    broadcast=st.booleans(),
    client=ADDRESSES,
    yours=ADDRESSES,
)


def fields(message: Message) -> list[object]:
    return [getattr(message, name) for name in message.__slots__]


def test_a_discover_byte_by_byte() -> None:
    """RFC 2131, figure 1."""
    data = Message(dhcp.DISCOVER, 0x01020304, MAC, {55: b"\1\3"}, secs=5, broadcast=True).encode()
    assert data[:12].hex() == "010106000102030400058000"
    assert data[12:28] == bytes(16)
    assert data[28:44] == MAC + bytes(10)
    assert data[44:236] == bytes(192)
    assert data[236:].rstrip(b"\0").hex() == "6382536335010137020103ff"
    assert len(data) == 300


@given(MESSAGES, st.booleans())
def test_there_and_back(message: Message, reply: bool) -> None:
    assert fields(Message.decode(message.encode(reply=reply), reply=reply)) == fields(message)


@given(
    st.binary(max_size=400)
    | MESSAGES.map(lambda message: message.encode(reply=True)).flatmap(
        lambda data: st.binary(max_size=8).map(lambda more: data[: len(data) - 60] + more)
    )
)
def test_anything_is_a_message_or_none(data: bytes) -> None:
    try:
        found = Message.decode(data)
    except ValueError:
        return
    assert dhcp.DISCOVER <= found.kind <= dhcp.RELEASE


def test_options_that_go_on_in_other_fields() -> None:
    """Option 52 (RFC 2132, 9.3), and an option in two parts (RFC 3396)."""
    data = bytearray(Message(dhcp.ACK, 1, MAC, {}).encode(reply=True))
    data[240:] = bytes([53, 1, 5, 52, 1, 3, 6, 4, 10, 0, 0, 1, 255])
    data[108:115] = bytes([6, 4, 10, 0, 0, 2, 255])
    data[44:50] = bytes([0, 15, 1, 97, 255, 0])
    found = Message.decode(bytes(data))
    assert [str(one) for one in found.addresses(dhcp.DNS_SERVER)] == ["10.0.0.1", "10.0.0.2"]
    assert found.options[dhcp.DOMAIN_NAME] == b"a"


def test_values() -> None:
    found = Message(dhcp.ACK, 1, MAC, {51: b"\0\0\1\0", 58: b"\1", 3: b"\x0a\0\0\1\x0a"})
    assert (found.number(51), found.number(58), found.number(59)) == (256, None, None)
    assert [str(one) for one in found.addresses(3)] == ["10.0.0.1"]
    assert found.addresses(6) == []


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, 1, "not for an Ethernet"),
        (1, 6, "not for an Ethernet"),
        (2, 17, "not for an Ethernet"),
        (236, 0, "no options"),
        (242, 9, "no type"),
    ],
)
def test_what_is_no_message(place: int, value: int, said: str) -> None:
    data = bytearray(Message(dhcp.ACK, 1, MAC, {}).encode(reply=True))
    data[place] = value
    with pytest.raises(ValueError, match=said):
        Message.decode(bytes(data))


def test_an_option_that_is_cut_off() -> None:
    data = Message(dhcp.ACK, 1, MAC, {}).encode(reply=True)[:243]
    for tail in (b"\x06", b"\x06\x04\x0a"):
        with pytest.raises(ValueError, match="cut off"):
            Message.decode(data + tail)


def checksum(data: bytes) -> int:
    """RFC 1071, written down another way."""
    total = 0
    for place in range(0, len(data), 2):
        total += int.from_bytes(data[place : place + 2].ljust(2, b"\0"), "big")
        total = total % 0x10000 + total // 0x10000
    return total


@given(ADDRESSES, ADDRESSES, st.binary(max_size=300))
def test_packets(source: Address, destination: Address, data: bytes) -> None:
    found = dhcp.packet(source, destination, data, ports=(67, 68))
    assert dhcp.unpack(found) == (source, data)
    assert checksum(found[:20]) == 0xFFFF
    pseudo = found[12:20] + b"\0\x11" + found[24:26]
    assert checksum(pseudo + found[20:]) == 0xFFFF
    assert dhcp.unpack(found + bytes(6)) == (source, data), "Ethernet pads short frames"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: 0x65}, "no IPv4"),
        ({0: 0x44}, "no whole"),
        ({9: 6}, "no whole"),
        ({6: 0x20}, "no whole"),
        ({7: 1}, "no whole"),
        ({8: 1}, "no whole"),  # the sum is wrong then
        ({2: 0xFF}, "no whole"),
        ({23: 69}, "not for port 68"),
        ({25: 4}, "not for port 68"),
    ],
)
def test_what_is_no_packet(change: dict[int, int], said: str) -> None:
    data = bytearray(dhcp.packet(dhcp.ANY, dhcp.EVERYBODY, b"1234", ports=(67, 68)))
    for place, value in change.items():
        data[place] = value
    with pytest.raises(ValueError, match=said):
        dhcp.unpack(bytes(data))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    try:
        dhcp.unpack(data)
    except ValueError:
        return
