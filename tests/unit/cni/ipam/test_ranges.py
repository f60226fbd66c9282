"""The ranges of host-local's configuration."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import ADD, Call
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.ipam import ranges
from ocirt_cni.ipam.ranges import Range, RangeSet


def parse(ipam: dict[str, Any], version: str = "1.1.0", **more: Any) -> list[RangeSet]:
    conf = {"cniVersion": version, "name": "net", "type": "bridge", "ipam": ipam, **more}
    return ranges.parse(Call(ADD, conf, container="c1", netns="/n", ifname="eth0"))


def one(**fields: str) -> Range:
    return Range.parse(fields, "/r")


@pytest.mark.parametrize(
    ("subnet", "first", "last", "gateway", "size"),
    [
        ("192.0.2.0/24", "192.0.2.1", "192.0.2.254", "192.0.2.1", 253),
        ("192.0.2.0/25", "192.0.2.1", "192.0.2.126", "192.0.2.1", 125),
        ("192.0.2.4/30", "192.0.2.5", "192.0.2.6", "192.0.2.5", 1),
        ("2001:db8:1::/64", "2001:db8:1::1", "2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1", 2**64 - 2),
        ("2001:db8:1::/126", "2001:db8:1::1", "2001:db8:1::3", "2001:db8:1::1", 2),
    ],
)
def test_what_a_subnet_gives(subnet: str, first: str, last: str, gateway: str, size: int) -> None:
    found = one(subnet=subnet)
    assert (str(found.first), str(found.last), str(found.gateway), found.size) == (first, last, gateway, size)


def test_all_fields() -> None:
    found = one(subnet="192.0.2.0/24", rangeStart="192.0.2.40", rangeEnd="192.0.2.50", gateway="192.0.2.254")
    assert (str(found), str(found.gateway), found.size) == ("192.0.2.40-192.0.2.50", "192.0.2.254", 11)


def test_the_ends_of_a_network_are_given_if_somebody_says_so() -> None:
    found = one(subnet="192.0.2.0/30", rangeStart="192.0.2.0", rangeEnd="192.0.2.3")
    assert [str(each) for each in RangeSet([found], "").after()] == ["192.0.2.0", "192.0.2.2", "192.0.2.3"]


@pytest.mark.parametrize(
    ("fields", "subject", "said"),
    [
        ({}, "/r/subnet", "not an IP address"),
        ({"subnet": "192.0.2.0"}, "/r/subnet", "192.0.2.0/32"),
        ({"subnet": "192.0.2.0/31"}, "/r/subnet", "too small"),
        ({"subnet": "2001:db8::/127"}, "/r/subnet", "too small"),
        ({"subnet": "192.0.2.12/24"}, "/r/subnet", "the network is 192.0.2.0/24"),
        ({"subnet": "192.0.2.0/24", "rangeStart": "192.0.3.0"}, "/r/rangeStart", "not in 192.0.2.0/24"),
        ({"subnet": "192.0.2.0/24", "rangeEnd": "192.0.4.0"}, "/r/rangeEnd", "not in 192.0.2.0/24"),
        ({"subnet": "192.0.2.0/24", "rangeEnd": "::1"}, "/r/rangeEnd", "not in 192.0.2.0/24"),
        ({"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.50", "rangeEnd": "192.0.2.40"}, "/r/rangeEnd", "before the first"),
        ({"subnet": "192.0.2.0/24", "gateway": "2001:db8::1"}, "/r/gateway", "not of the IP version"),
        ({"subnet": "192.0.2.0/24", "gateway": "x"}, "/r/gateway", "not an IP address"),
    ],
)
def test_what_is_refused(fields: dict[str, str], subject: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        one(**fields)
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, subject)
    assert said in str(caught.value)


def test_old_fields_ranges_and_capability_in_the_reference_s_order() -> None:
    found = parse(
        {"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}, {"subnet": "10.3.0.0/24"}], [{"subnet": "fd00::/64"}]]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.4.0.0/24"}]]},
    )
    assert [(str(each.ranges[0].subnet), each.where) for each in found] == [
        ("10.4.0.0/24", "/runtimeConfig/ipRanges/0"),
        ("10.1.0.0/24", "/ipam"),
        ("10.2.0.0/24", "/ipam/ranges/0"),
        ("fd00::/64", "/ipam/ranges/1"),
    ]
    assert found[2].size == 506


@pytest.mark.parametrize(
    ("ipam", "version", "subject", "said"),
    [
        ({}, "1.1.0", "/ipam/ranges", "there are no ranges"),
        ({"rangeStart": "10.1.0.1"}, "1.1.0", "/ipam/rangeStart", "without a subnet"),
        ({"ranges": [[]]}, "1.1.0", "/ipam/ranges/0", "no range"),
        ({"ranges": [{"subnet": "10.1.0.0/24"}]}, "1.1.0", "/ipam/ranges/0", "not a list"),
        ({"ranges": [["10.1.0.0/24"]]}, "1.1.0", "/ipam/ranges/0/0", "not an object"),
        ({"ranges": [[{"subnet": "10.1.0.0/24", "start": "10.1.0.2"}]]}, "1.1.0", "/ipam/ranges/0/0/start", "unknown"),
        ({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}, "1.1.0", "/ipam/ranges/0/1", "IP version"),
        ({"ranges": [[{"subnet": "10.1.0.0/22"}, {"subnet": "10.1.2.0/24"}]]}, "1.1.0", "/ipam/ranges/0/1", "overlaps"),
        ({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.0.0/22"}]]}, "1.1.0", "/ipam/ranges/1", "/ipam/ranges/0"),
        ({"subnet": "10.1.2.0/24", "ranges": [[{"subnet": "10.1.0.0/22"}]]}, "1.1.0", "/ipam/ranges/0", "of /ipam"),
        ({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}, "0.2.0", "/cniVersion", "1 address per family"),
    ],
)
def test_sets_that_are_refused(ipam: dict[str, Any], version: str, subject: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        parse(ipam, version)
    assert (caught.value.code, caught.value.subject) == (INVALID_CONFIG, subject)
    assert said in str(caught.value)


def test_two_sets_of_both_versions_are_possible_before_0_3_0() -> None:
    assert len(parse({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}, "0.2.0")) == 2


def test_what_comes_after_an_address() -> None:
    sets = parse({"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/29", "gateway": "10.2.0.3"}]]})[0]
    everything = ["10.1.0.2", "10.2.0.1", "10.2.0.2", "10.2.0.4", "10.2.0.5", "10.2.0.6"]
    assert [str(each) for each in sets.after()] == everything
    assert [str(each) for each in sets.after(Address.parse("10.9.9.9"))] == everything
    assert [str(each) for each in sets.after(Address.parse("10.1.0.2"))] == everything[1:]
    assert [str(each) for each in sets.after(Address.parse("10.2.0.2"))] == everything[3:]
    assert list(sets.after(Address.parse("10.2.0.6"))) == []


@given(st.integers(0, 2**32 - 1), st.integers(20, 30), st.data())
def test_as_the_standard_library_counts(value: int, length: int, data: st.DataObject) -> None:
    network = ipaddress.ip_network((value, length), strict=False)
    hosts = list(network.hosts())
    gateway = data.draw(st.sampled_from(hosts))
    found = RangeSet([one(subnet=str(network), gateway=str(gateway))], "")
    expected = [str(host) for host in hosts if host != gateway]
    assert [str(each) for each in found.after()] == expected
    assert found.size == len(expected)
    assert not found.gives(Address.parse(str(gateway)))
    assert all(found.gives(Address.parse(text)) for text in expected)
    assert Prefix.parse(str(network)).last not in found.ranges[0]
