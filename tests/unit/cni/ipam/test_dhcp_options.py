"""dhcp's configuration as options, and a lease as a result."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.addresses import Address
from ocirt_cni.call import ADD, Call
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, NOT_AVAILABLE, Error
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam import dhcp_options
from ocirt_cni.ipam.dhcp_client import Lease
from ocirt_cni.ipam.dhcp_message import ACK, Message

DEFAULT = bytes([1, 121, 3, 33])


def make(ipam: dict[str, Any], args: dict[str, str] | None = None, container: str = "c1") -> Call:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "ipam": {"type": "dhcp", **ipam}}
    return Call(ADD, conf, container=container, netns="/n", ifname="eth0", args=args)


def test_by_default() -> None:
    assert dhcp_options.parse(make({})) == {61: b"\0c1/net/eth0", 55: DEFAULT}
    assert not dhcp_options.wants_dns(make({}))


def test_provided() -> None:
    provide = [
        {"option": "host-name", "fromArg": "K8S_POD_NAME"},
        {"option": "12", "value": "never", "fromArg": "NO_SUCH"},
        {"option": "vendor-class-identifier", "value": "v", "fromArg": "VENDOR"},
        {"option": "user-class", "value": "u"},
        {"option": "dhcp-client-identifier", "value": "me"},
        {"option": "125", "fromArg": "NO_SUCH"},
    ]
    found = dhcp_options.parse(make({"provide": provide}, {"K8S_POD_NAME": "pod", "VENDOR": "w"}))
    assert found == {12: b"never", 60: b"w", 77: b"u", 61: b"me", 55: DEFAULT}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ([{"option": "routers"}, {"option": "42"}], bytes([3, 42, 1, 121, 33])),
        ([{"skipDefault": True}, {"option": "subnet-mask"}], bytes([1])),
        ([{"option": "domain-name-servers", "skipDefault": True}], bytes([6])),
        ([{"skipDefault": True}], b""),
    ],
)
def test_requested(request_: list[dict[str, Any]], expected: bytes) -> None:
    assert dhcp_options.parse(make({"request": request_})).get(55, b"") == expected


def test_dns_is_wanted_if_it_is_requested() -> None:
    assert dhcp_options.wants_dns(make({"request": [{"option": "6"}]}))
    assert dhcp_options.wants_dns(make({"request": [{"option": "domain-name"}]}))


def test_a_long_name_stays_one_of_a_kind() -> None:
    one, other = (dhcp_options.parse(make({}, container="c" * 250 + end))[61] for end in "ab")
    assert one != other
    assert len(one) == len(other) <= 255
    assert one.startswith(b"\0ccc")


@pytest.mark.parametrize(
    ("ipam", "subject", "code"),
    [
        ({"demonSocketPath": "x"}, "/ipam/demonSocketPath", INVALID_CONFIG),
        ({"provide": [{"option": "x", "value": "v"}]}, "/ipam/provide/0/option", INVALID_CONFIG),
        ({"provide": [{"option": "256", "value": "v"}]}, "/ipam/provide/0/option", INVALID_CONFIG),
        ({"provide": [{"option": "53", "value": "v"}]}, "/ipam/provide/0/option", INVALID_CONFIG),
        ({"provide": [{"option": "12", "value": "v" * 256}]}, "/ipam/provide/0/value", INVALID_CONFIG),
        ({"provide": [{"option": "12", "fromArg": "LONG"}]}, "CNI_ARGS/LONG", INVALID_ENVIRONMENT),
        ({"provide": [{"value": "v"}]}, "/ipam/provide/0/option", INVALID_CONFIG),
        ({"provide": [{"option": "12", "from": "x"}]}, "/ipam/provide/0/from", INVALID_CONFIG),
        ({"request": [{"option": "x"}]}, "/ipam/request/0/option", INVALID_CONFIG),
        ({"request": ["routers"]}, "/ipam/request/0", INVALID_CONFIG),
        ({"request": [{"skipDefault": "yes"}]}, "/ipam/request/0/skipDefault", INVALID_CONFIG),
        ({"priority": "high"}, "/ipam/priority", INVALID_CONFIG),
    ],
)
def test_what_is_refused(ipam: dict[str, Any], subject: str, code: int) -> None:
    with pytest.raises(Error) as caught:
        dhcp_options.parse(make(ipam, {"LONG": "x" * 256}))
    assert (caught.value.subject, caught.value.code) == (subject, code)


def result(options: dict[int, bytes], priority: int = 0, *, with_dns: bool = False) -> dict[str, Any]:
    ack = Message(ACK, 1, b"\2\0\0\0\0\1", {dhcp.SUBNET_MASK: b"\xff\xff\xff\0", **options}, yours=Address.parse("10.1.0.50"))
    return dhcp_options.result(Lease(ack, b"", 0), priority, with_dns=with_dns).document("1.1.0")


ROUTER = {dhcp.ROUTER: b"\x0a\1\0\1\x0a\1\0\2"}
NAMES = {dhcp.DNS_SERVER: b"\x0a\1\0\3", dhcp.DOMAIN_NAME: b"a.example\0"}


def test_a_result() -> None:
    assert result({**ROUTER, **NAMES}) == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.50/24", "gateway": "10.1.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        "dns": {},
    }
    assert result({}) == {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.50/24"}], "dns": {}}
    assert result(NAMES, with_dns=True)["dns"] == {"nameservers": ["10.1.0.3"], "domain": "a.example"}


def test_routes_of_the_old_classes() -> None:
    value = bytes([10, 2, 3, 4, 10, 1, 0, 9, 172, 16, 5, 5, 10, 1, 0, 8, 192, 168, 7, 7, 10, 1, 0, 7, 0, 0, 0, 0, 1, 1, 1, 1, 9])
    assert result({**ROUTER, dhcp.STATIC_ROUTE: value}, 7)["routes"] == [
        {"dst": "10.0.0.0/8", "gw": "10.1.0.9", "priority": 7},
        {"dst": "172.16.0.0/16", "gw": "10.1.0.8", "priority": 7},
        {"dst": "192.168.7.0/24", "gw": "10.1.0.7", "priority": 7},
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 7},
    ]


def test_classless_routes_are_the_only_ones() -> None:
    """RFC 3442."""
    value = bytes([0, 10, 1, 0, 1, 24, 10, 2, 3, 10, 1, 0, 2, 25, 10, 2, 4, 255, 0, 0, 0, 0, 32, 10, 9, 9, 9, 10, 1, 0, 3])
    expected = [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
        {"dst": "10.2.3.0/24", "gw": "10.1.0.2"},
        {"dst": "10.2.4.128/25", "scope": 253},
        {"dst": "10.9.9.9/32", "gw": "10.1.0.3"},
    ]
    options = {**ROUTER, dhcp.STATIC_ROUTE: bytes(8), dhcp.CLASSLESS_ROUTE: value}
    assert result(options)["routes"] == expected
    for tail in (b"\x21\1\2\3\4\5\6\7\x08", b"\x18\1", b"\0\1"):
        assert result({**options, dhcp.CLASSLESS_ROUTE: value + tail})["routes"] == expected


def test_a_lease_without_a_mask() -> None:
    with pytest.raises(Error) as caught:
        result({dhcp.SUBNET_MASK: b"", dhcp.SERVER_ID: b"\x0a\1\0\1"})
    assert caught.value.code == NOT_AVAILABLE
    assert str(caught.value) == "the DHCP server 10.1.0.1 named no subnet mask for 10.1.0.50"
