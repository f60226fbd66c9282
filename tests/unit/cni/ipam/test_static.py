"""static: who names the addresses, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Call
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, Error
from ocirt_cni.ipam import config
from ocirt_cni.plugins import invoke
from ocirt_cni.results import Result

ADDRESSES = [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "3ffe:ffff:0:01ff::1/64"}]


def call(command: str = ADD, version: str = "1.1.0", args: dict[str, str] | None = None, **more: Any) -> Result | None:
    ipam = {"type": "static", "addresses": ADDRESSES, **more.pop("ipam", {})}
    conf = json.loads(json.dumps({"cniVersion": version, "name": "net", "type": "bridge", "ipam": ipam, **more}))
    options: dict[str, Any] = {"container": "c1", "ifname": "eth0", "netns": "/n"} if command in (ADD, CHECK, DEL) else {}
    return invoke("static", Call(command, conf, args=args, **options))


def addresses(**more: Any) -> list[tuple[str, str | None]]:
    result = call(**more)
    assert result is not None
    return [(str(ip.address), str(ip.gateway) if ip.gateway else None) for ip in result.ips]


CONFIGURED = [("10.10.0.1/24", "10.10.0.254"), ("3ffe:ffff:0:1ff::1/64", None)]


def test_a_result() -> None:
    result = call(
        ipam={
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "3ffe:ffff:0:01ff::1/64", "gw": "3ffe:ffff::1", "table": 7}],
            "dns": {"nameservers": ["8.8.8.8"], "domain": "a.example", "search": ["b.example"], "options": ["rotate"]},
        }
    )
    assert result is not None
    assert result.document("1.1.0") == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "3ffe:ffff:0:1ff::1/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "3ffe:ffff:0:1ff::1/64", "gw": "3ffe:ffff::1", "table": 7}],
        "dns": {"nameservers": ["8.8.8.8"], "domain": "a.example", "search": ["b.example"], "options": ["rotate"]},
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, CONFIGURED),
        ({"args": {"IP": "10.0.0.5/24", "GATEWAY": "10.0.0.1"}}, [*CONFIGURED, ("10.0.0.5/24", "10.0.0.1")]),
        (
            {"args": {"IP": "10.0.0.5/24, fd00::5/64", "GATEWAY": "10.0.0.1,fd00::1,192.0.2.1", "K8S_POD_NAME": "p"}},
            [*CONFIGURED, ("10.0.0.5/24", "10.0.0.1"), ("fd00::5/64", "fd00::1")],
        ),
        (
            {"args": {"IP": "10.0.0.5/24", "GATEWAY": "10.10.0.253"}},
            [(CONFIGURED[0][0], "10.10.0.253"), CONFIGURED[1], ("10.0.0.5/24", None)],
        ),
    ],
)
def test_the_environment_adds(more: dict[str, Any], expected: list[tuple[str, str | None]]) -> None:
    assert addresses(**more) == expected


def test_the_runtime_replaces() -> None:
    by_args = {"cni": {"ips": ["10.0.0.5/24"]}}
    assert _with({"args": by_args}, {"IP": "10.0.0.9/24"}) == [("10.0.0.5/24", None)]
    assert _with({"args": by_args, "runtimeConfig": {"ips": ["10.0.0.6/24", "fd00::6/64"]}}) == [
        ("10.0.0.6/24", None),
        ("fd00::6/64", None),
    ]


def _with(more: dict[str, Any], args: dict[str, str] | None = None) -> list[tuple[str, str | None]]:
    conf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "static", "addresses": ADDRESSES}, **more}
    result = invoke("static", Call(ADD, conf, args=args, container="c1", ifname="eth0", netns="/n"))
    assert result is not None
    return [(str(ip.address), str(ip.gateway) if ip.gateway else None) for ip in result.ips]


@pytest.mark.parametrize(
    ("more", "subject", "said"),
    [
        ({"ipam": {"addresses": []}}, "/ipam/addresses", "there is no address"),
        ({"ipam": {"addresses": [{"address": "10.0.0.1"}]}}, "/ipam/addresses/0/address", "as in 10.0.0.1/32"),
        ({"ipam": {"addresses": [{}]}}, "/ipam/addresses/0/address", "not an IP address"),
        ({"ipam": {"addresses": [{"address": "10.0.0.1/24", "gw": "10.0.0.2"}]}}, "/ipam/addresses/0/gw", "unknown"),
        ({"ipam": {"addresses": [{"address": "10.0.0.1/24", "gateway": "fd00::1"}]}}, "/ipam/addresses/0/gateway", "IP version"),
        ({"ipam": {"addresses": ["10.0.0.1/24"]}}, "/ipam/addresses/0", "not an object"),
        ({"ipam": {"addresses": [ADDRESSES[0], ADDRESSES[0]]}}, "/ipam/addresses", "10.10.0.1 is named twice"),
        ({"ipam": {"adresses": []}}, "/ipam/adresses", "unknown"),
        ({"runtimeConfig": {"ips": ["10.0.0.1"]}}, "/runtimeConfig/ips/0", "as in 10.0.0.1/32"),
        ({"args": {"IP": "10.0.0.1"}}, "CNI_ARGS/IP", "as in 10.0.0.1/32"),
        ({"args": {"GATEWAY": "x"}}, "CNI_ARGS/GATEWAY", "not an IP address"),
        ({"version": "0.2.0", "args": {"IP": "10.0.0.5/24"}}, "/cniVersion", "1 address per family"),
    ],
)
def test_what_is_refused(more: dict[str, Any], subject: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        call(**more)
    assert caught.value.subject == subject
    assert said in str(caught.value)
    assert caught.value.code == (INVALID_ENVIRONMENT if subject.startswith("CNI_ARGS") else INVALID_CONFIG)


def test_two_of_different_versions_are_possible_before_0_3_0() -> None:
    result = call(version="0.2.0")
    assert result is not None
    assert result.document("0.2.0")["ip6"] == {"ip": "3ffe:ffff:0:1ff::1/64"}


def previous(*ips: dict[str, str]) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "ips": list(ips)}


def test_check() -> None:
    call(CHECK, prevResult=previous(*ADDRESSES, {"address": "192.0.2.1/24"}))
    for wrong, said in (
        (previous(ADDRESSES[0]), "the result does not have 3ffe:ffff:0:1ff::1"),
        (
            previous({"address": "10.10.0.1/24", "gateway": "10.10.0.9"}, ADDRESSES[1]),
            "has the gateway 10.10.0.9, not 10.10.0.254",
        ),
    ):
        with pytest.raises(Error) as caught:
            call(CHECK, prevResult=wrong)
        assert caught.value.code == CHECK_FAILED
        assert said in str(caught.value)
    with pytest.raises(Error) as caught:
        call(CHECK)
    assert caught.value.subject == "/prevResult"


@pytest.mark.parametrize(
    ("kind", "expected"), [("", False), ("host-local", False), ("static", False), ("dhcp", True), ("whereabouts", True)]
)
def test_which_plugins_work_with_the_interface(kind: str, expected: bool) -> None:
    conf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": kind}}
    assert config.needs_interface(Call(DEL, conf, container="c1", ifname="eth0")) == expected


@pytest.mark.parametrize("command", [DEL, GC, STATUS])
def test_nothing_is_kept(command: str) -> None:
    assert call(command) is None
