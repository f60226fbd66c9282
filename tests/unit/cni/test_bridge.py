"""bridge and ptp: what their configurations mean, and what is decided without the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, KERNEL, Error
from ocirt_cni.netlink import bridges, codec, routes
from ocirt_cni.plugins import bridge_attach, bridge_device, bridge_vlans, fields, interfaces, steps
from ocirt_cni.plugins.bridge_settings import Settings
from ocirt_cni.results import DNS, IP, Interface, Result, Route

VLANS = st.integers(1, 4094)


def settings(conf: dict[str, Any], args: dict[str, str] | None = None) -> Settings:
    whole = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", **conf}
    return Settings(Call("ADD", whole, container="c1", netns="/run/netns/n", ifname="eth0", args=args))


def address(text: str, gateway: str = "") -> IP:
    return IP(Prefix.parse(text), Address.parse(gateway) if gateway else None)


def test_what_is_not_said() -> None:
    found = settings({})
    assert (found.bridge, found.mtu, found.vlan, found.trunk, found.mac) == ("cni0", 0, 0, [], b"")
    assert found.has_interface
    assert not any(
        (
            found.is_gateway,
            found.is_default_gateway,
            found.force_address,
            found.masquerade,
            found.hairpin,
            found.promiscuous,
            found.keep_default_vlan,
            found.check_spoofing,
            found.detect_duplicates,
            found.isolated,
            found.ipam,
            found.has_vlans,
        )
    )


def test_a_default_gateway_is_a_gateway() -> None:
    assert settings({"isDefaultGateway": True}).is_gateway
    assert settings({"isDefaultGateway": True, "isGateway": False}).is_gateway


@given(st.lists(st.one_of(VLANS.map(lambda one: (one, one)), st.tuples(VLANS, VLANS).map(sorted))))
def test_a_trunk_is_the_union_of_its_ranges(ranges: list[tuple[int, int]]) -> None:
    trunk = [{"id": first} if first == last else {"minID": first, "maxID": last} for first, last in ranges]
    wanted = {number for first, last in ranges for number in range(first, last + 1)}
    assert settings({"vlanTrunk": trunk}).trunk == sorted(wanted)


def test_one_item_of_a_trunk_may_have_both_forms() -> None:
    assert settings({"vlanTrunk": [{"id": 7, "minID": 1, "maxID": 2}]}).trunk == [1, 2, 7]


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"vlan": 100}, {100: bridges.PVID | bridges.UNTAGGED}),
        ({"vlanTrunk": [{"id": 5}]}, {1: bridges.PVID | bridges.UNTAGGED, 5: 0}),
        ({"vlan": 5, "vlanTrunk": [{"minID": 5, "maxID": 6}]}, {5: bridges.PVID | bridges.UNTAGGED, 6: 0}),
    ],
)
def test_vlans_of_a_port(conf: dict[str, Any], expected: dict[int, int]) -> None:
    assert bridge_vlans.of_port(settings(conf)) == expected


def test_the_gateway_of_a_vlan_is_a_link_of_its_own() -> None:
    assert settings({"bridge": "br0"}).gateway_device == "br0"
    assert settings({"bridge": "br0", "vlan": 100}).gateway_device == "br0.100"


MACS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, {"MAC": "02:00:00:00:00:01"}, "02:00:00:00:00:01"),
    ({"args": {"cni": {"mac": "02:00:00:00:00:02"}}}, {"MAC": "02:00:00:00:00:01"}, "02:00:00:00:00:02"),
    (
        {"runtimeConfig": {"mac": "02:00:00:00:00:03"}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}},
        {"MAC": "02:00:00:00:00:01"},
        "02:00:00:00:00:03",
    ),
    ({"runtimeConfig": {"mac": ""}}, {"MAC": "0A-0B-0C-0D-0E-0F"}, "0a:0b:0c:0d:0e:0f"),
    ({}, {"IgnoreUnknown": "1", "K8S_POD_NAME": "web"}, ""),
]


@pytest.mark.parametrize(("conf", "args", "expected"), MACS)
def test_the_hardware_address(conf: dict[str, Any], args: dict[str, str], expected: str) -> None:
    assert settings(conf, args).mac.hex(":") == expected


@given(st.binary(min_size=6, max_size=6).filter(lambda one: not one[0] & 1 and any(one)), st.sampled_from(":-"))
def test_a_hardware_address_is_read_as_it_was_written(mac: bytes, separator: str) -> None:
    assert fields.parse_mac(mac.hex(separator), "/mac") == mac
    assert fields.parse_mac(mac.hex(separator).upper(), "/mac") == mac


@given(st.text(alphabet="0123456789abcdefg:-. \0", max_size=20))
def test_anything_is_a_hardware_address_or_an_error(text: str) -> None:
    try:
        found = fields.parse_mac(text, "/mac", INVALID_ENVIRONMENT)
    except Error as err:
        assert (err.code, err.subject) == (INVALID_ENVIRONMENT, "/mac")
    else:
        assert len(found) == 6
        assert not found[0] & 1


def test_a_random_hardware_address_is_one_of_a_single_link_administered_locally() -> None:
    for _ in range(100):
        mac = bridge_device.random_mac()
        assert len(mac) == 6
        assert mac[0] & 3 == 2


def test_gateways_and_default_routes() -> None:
    result = Result(ips=[address("10.1.0.5/24"), address("10.1.0.6/24"), address("fd00::5/64", "fd00::ff")])
    found = bridge_attach.choose_gateways(settings({"isDefaultGateway": True}), result)
    assert [str(one) for one in found] == ["10.1.0.1/24", "fd00::ff/64"]
    assert [str(one.gateway) for one in result.ips] == ["10.1.0.1", "10.1.0.1", "fd00::ff"]
    assert [(str(one.destination), str(one.gateway)) for one in result.routes] == [
        ("0.0.0.0/0", "10.1.0.1"),
        ("::/0", "fd00::ff"),
    ]


def test_without_a_gateway_nothing_is_added() -> None:
    result = Result(ips=[address("10.1.0.5/24")])
    assert bridge_attach.choose_gateways(settings({}), result) == []
    assert result.ips[0].gateway is None
    assert result.routes == []


@pytest.mark.parametrize("text", ["10.1.0.1/24", "10.1.0.0/32", "255.255.255.255/32", "fd00::1/64", "fd00::/128"])
def test_a_network_without_room_for_a_gateway(text: str) -> None:
    with pytest.raises(Error) as caught:
        interfaces.default_gateway(Prefix.parse(text))
    assert caught.value.code == INVALID_CONFIG


def test_the_gateway_of_a_route() -> None:
    ips = [address("10.1.0.5/24"), address("10.2.0.5/24", "10.2.0.1"), address("fd00::5/64", "fd00::1")]

    def gateway(text: str, gateway: str = "", scope: int | None = None) -> str:
        route = Route(Prefix.parse(text), Address.parse(gateway) if gateway else None, scope=scope)
        return str(interfaces.gateway_of(route, ips))

    assert gateway("10.9.0.0/16") == "10.2.0.1"
    assert gateway("10.9.0.0/16", "10.1.0.9") == "10.1.0.9"
    assert gateway("10.9.0.0/16", scope=routes.RT_SCOPE_LINK) == "None"
    assert gateway("::/0") == "fd00::1"
    assert str(interfaces.gateway_of(Route(Prefix.parse("10.9.0.0/16")), [address("fd00::5/64", "fd00::1")])) == "None"


def test_ports_without_options_are_as_the_kernel_makes_them() -> None:
    assert bridge_attach.port_settings(settings({})) == {}
    (info,) = bridge_attach.port_settings(settings({"hairpinMode": True, "portIsolation": True})).values()
    parsed = codec.parse(codec.attributes({1: info})[4:])
    assert codec.text(parsed[4]) == "bridge"
    assert codec.parse(parsed[5]) == {bridges.IFLA_BRPORT_MODE: b"\1", bridges.IFLA_BRPORT_ISOLATED: b"\1"}


def test_results_are_joined() -> None:
    first = Result([Interface("lo")], [IP(Prefix.parse("127.0.0.1/8"), None, 0)], [], DNS(["9.9.9.9"]))
    second = Result([Interface("br0"), Interface("eth0")], [IP(Prefix.parse("10.1.0.2/24"), None, 1), address("10.3.0.1/24")])
    joined = first.joined(second)
    assert [one.name for one in joined.interfaces] == ["lo", "br0", "eth0"]
    assert [one.interface for one in joined.ips] == [0, 2, None]
    assert joined.dns.nameservers == ["9.9.9.9"]
    assert [one.interface for one in second.ips] == [1, None], "it is left as it was"


def failing(name: str, done: list[str]) -> Callable[[], None]:
    def step() -> None:
        done.append(name)
        raise Error(KERNEL, name)

    return step


def test_no_step_is_left_out() -> None:
    done: list[str] = []
    with pytest.raises(Error, match="first"):
        steps.every(failing("first", done), lambda: done.append("second"), failing("third", done))
    assert done == ["first", "second", "third"]
    steps.attempt(failing("fourth", done), lambda: done.append("fifth"))
    assert done[3:] == ["fourth", "fifth"]
