"""Addresses and prefixes, beside the standard library's `ipaddress`."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address, Prefix

IPS = st.ip_addresses()
Theirs = ipaddress.IPv4Address | ipaddress.IPv6Address


def theirs(address: Address) -> Theirs:
    """The same of the standard library, which keeps an IPv4 address within IPv6 as it is."""
    return ipaddress.ip_address(str(address))


def plain(ip: Theirs) -> Theirs:
    return getattr(ip, "ipv4_mapped", None) or ip


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[Prefix, ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    ip = plain(draw(IPS))
    length = draw(st.integers(0, ip.max_prefixlen))
    text = f"{ip}/{length}"
    return Prefix.parse(text), ipaddress.ip_interface(text)


@given(IPS)
def test_text(ip: Theirs) -> None:
    address = Address.parse(str(ip))
    assert theirs(address) == plain(ip)
    assert Address.parse(str(address)) == address
    assert Address(ip.packed) == address
    assert Address.of(int(plain(ip)), plain(ip).version) == address
    assert int(address) == int(plain(ip))
    assert (address.version, address.bits) == (plain(ip).version, plain(ip).max_prefixlen)


@given(st.ip_addresses(v=6))
def test_the_long_form_is_read(ip: ipaddress.IPv6Address) -> None:
    assert Address.parse(ip.exploded) == Address.parse(ip.compressed)
    assert Address.parse(ip.exploded.upper()) == Address.parse(ip.compressed)


@given(st.text(max_size=20) | st.text(alphabet="0123456789abcdef:./ ", max_size=20))
def test_what_is_no_address_is_refused(text: str) -> None:
    try:
        expected = plain(ipaddress.ip_address(text))
    except ValueError:
        with pytest.raises(ValueError, match="not an IP address"):
            Address.parse(text)
    else:
        if not getattr(expected, "scope_id", None):
            assert theirs(Address.parse(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1 ", "1::2::3", ":", "fe80::1%eth0", "a\0", "\u0661.1.1.1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        Address.parse(text)


@given(IPS, IPS)
def test_order(one: Theirs, other: Theirs) -> None:
    mine, yours = Address.parse(str(one)), Address.parse(str(other))
    one, other = plain(one), plain(other)
    if one.version == other.version:
        assert (mine < yours) == (one < other)  # type: ignore[operator]
        assert (mine <= yours) == (one <= other)  # type: ignore[operator]
    else:
        assert (mine < yours) == (one.version < other.version)
    assert (mine == yours) == (one == other)
    assert sorted([mine, yours]) == sorted([yours, mine])


@given(IPS)
def test_kinds(ip: Theirs) -> None:
    address, ip = Address.parse(str(ip)), plain(ip)
    assert address.is_loopback == ip.is_loopback
    assert address.is_unspecified == ip.is_unspecified
    assert address.is_link_local == ip.is_link_local


@pytest.mark.parametrize(
    "text", ["127.255.0.1", "::1", "0.0.0.0", "::", "169.254.0.1", "fe80::1", "febf::1", "fec0::1", "128.0.0.1"]
)
def test_kinds_at_the_edges(text: str) -> None:
    address, ip = Address.parse(text), ipaddress.ip_address(text)
    assert (address.is_loopback, address.is_unspecified) == (ip.is_loopback, ip.is_unspecified)
    assert address.is_link_local == ip.is_link_local


@given(IPS)
def test_the_next_one(ip: Theirs) -> None:
    address, ip = Address.parse(str(ip)), plain(ip)
    if int(ip) == 2**ip.max_prefixlen - 1:
        with pytest.raises(OverflowError):
            address.next()
    else:
        assert int(address.next()) == int(ip) + 1


@pytest.mark.parametrize("text", ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"])
def test_there_is_none_after_the_last(text: str) -> None:
    with pytest.raises(OverflowError):
        Address.parse(text).next()


def test_a_network_that_reaches_to_mapped_addresses() -> None:
    """Its last address is one of IPv6, as its first."""
    found = Prefix.parse("::/80").last
    assert (found.version, found.bits, found.packed) == (6, 128, bytes(10) + b"\xff" * 6)


@given(prefixes())
def test_networks(pair: tuple[Prefix, ipaddress.IPv4Interface | ipaddress.IPv6Interface]) -> None:
    mine, interface = pair
    assert str(mine) == str(interface)
    assert str(mine.network) == str(interface.network)
    assert theirs(mine.first) == interface.network.network_address
    assert theirs(mine.last) == interface.network.broadcast_address
    assert mine.version == interface.version
    assert Prefix.parse(str(mine)) == mine
    assert hash(Prefix.parse(str(mine))) == hash(mine)
    assert mine.address in mine
    assert mine.first in mine
    assert mine.last in mine


@given(prefixes(), IPS)
def test_membership(pair: tuple[Prefix, ipaddress.IPv4Interface | ipaddress.IPv6Interface], ip: Theirs) -> None:
    assert (Address.parse(str(ip)) in pair[0]) == (plain(ip) in pair[1].network)


@given(prefixes(), prefixes())
def test_overlap(
    one: tuple[Prefix, ipaddress.IPv4Interface | ipaddress.IPv6Interface],
    other: tuple[Prefix, ipaddress.IPv4Interface | ipaddress.IPv6Interface],
) -> None:
    expected = one[1].version == other[1].version and one[1].network.overlaps(other[1].network)
    assert one[0].overlaps(other[0]) == expected
    assert other[0].overlaps(one[0]) == expected


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/²", "::/129", "/8", "10.0.0.1/8/8"]
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match="is not an"):
        Prefix.parse(text)


def test_what_an_error_suggests() -> None:
    with pytest.raises(ValueError, match=r"as in 10\.0\.0\.1/32"):
        Prefix.parse("10.0.0.1")


def test_of_a_host() -> None:
    assert str(Prefix.host(Address.parse("fd00::1"))) == "fd00::1/128"
    assert repr(Prefix.parse("10.0.0.1/8")) == "Prefix('10.0.0.1/8')"
    assert repr(Address.parse("::ffff:10.0.0.1")) == "Address('10.0.0.1')"
    assert Prefix.parse("10.0.0.1/8") != "10.0.0.1/8"
    assert Address.parse("10.0.0.1") != "10.0.0.1"
