"""Results in the forms of all versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni import jsonio, versions
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, Error
from ocirt_cni.results import DNS, IP, Interface, Result, Route

NEWEST = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "00:11:22:33:44:55", "mtu": 1500},
        {"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/run/netns/x", "socketPath": "/run/s", "pciID": "0000:00:01.0"},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "10.1.0.3/24"},
        {"interface": 0, "address": "fd00::2/64", "gateway": "fd00::1"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 5, "table": 7, "scope": 253},
        {"dst": "192.168.0.0/16"},
        {"dst": "::/0", "gw": "fd00::1", "priority": 0},
    ],
    "dns": {"nameservers": ["10.1.0.1"], "domain": "a.example", "search": ["b.example"], "options": ["rotate"]},
}


def document(version: str) -> dict[str, Any]:
    """NEWEST as SPEC.md of that version has it, written down by hand."""
    found: dict[str, Any] = json.loads(json.dumps({**NEWEST, "cniVersion": version}))
    if version == "1.1.0":
        return found
    for one in found["interfaces"]:
        for key in ("mtu", "socketPath", "pciID"):
            one.pop(key, None)
    found["routes"] = [{key: value for key, value in one.items() if key in ("dst", "gw")} for one in found["routes"]]
    if version == "1.0.0":
        return found
    for one in found["ips"]:
        one["version"] = "6" if ":" in one["address"] else "4"
    if version in ("0.3.0", "0.3.1", "0.4.0"):
        return found
    return {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.0.2/24",
            "gateway": "10.1.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "192.168.0.0/16"}],
        },
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
        "dns": found["dns"],
    }


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_the_form_of_each_version(version: str) -> None:
    assert Result.parse(NEWEST).document(version) == document(version)


@pytest.mark.parametrize("version", versions.SUPPORTED)
@pytest.mark.parametrize("other", versions.SUPPORTED)
def test_from_each_version_to_each(version: str, other: str) -> None:
    """What both have room for is the same, wherever it came from: a result that went through the older one."""
    found = Result.parse(document(version)).document(other)
    through = Result.parse(document(min(version, other, key=versions.rank)))
    assert found == through.document(other)
    if versions.at_least(version, other):
        assert found == document(other)


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_an_empty_one(version: str) -> None:
    assert Result().document(version) == {"cniVersion": version, "dns": {}}
    parsed = Result.parse({"cniVersion": version})
    assert (parsed.interfaces, parsed.ips, parsed.routes, bool(parsed.dns)) == ([], [], [], False)


def test_the_version_of_a_result_that_names_none() -> None:
    one = {"address": "10.1.0.2/24"}
    assert len(Result.parse({"ips": [one]}, version="1.0.0").ips) == 1
    assert Result.parse({"ips": [one]}).ips == []  # 0.1.0 has none of these
    with pytest.raises(Error) as caught:
        Result.parse({"cniVersion": "2.0.0"})
    assert caught.value.code == INCOMPATIBLE_VERSION


TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
ADDRESSES = st.ip_addresses().map(lambda ip: Address(ip.packed))
NUMBERS = st.none() | st.integers(0, 2**32 - 1)


@st.composite
def prefix(draw: st.DrawFn) -> Prefix:
    address = draw(ADDRESSES)
    return Prefix(address, draw(st.integers(0, address.bits)))


@st.composite
def results(draw: st.DrawFn) -> Result:
    interfaces = draw(
        st.lists(
            st.builds(Interface, TEXTS, TEXTS, sandbox=TEXTS, mtu=st.integers(0, 9000), socket_path=TEXTS, pci_id=TEXTS),
            max_size=3,
        )
    )
    place = st.none() | st.integers(0, len(interfaces) - 1) if interfaces else st.none()
    ips = draw(st.lists(st.builds(IP, prefix(), st.none() | ADDRESSES, place), max_size=4))
    route = st.builds(
        Route, prefix(), st.none() | ADDRESSES, mtu=NUMBERS, advmss=NUMBERS, priority=NUMBERS, table=NUMBERS, scope=NUMBERS
    )
    lists = st.lists(TEXTS, max_size=2)
    return Result(interfaces, ips, draw(st.lists(route, max_size=4)), draw(st.builds(DNS, lists, TEXTS, lists, lists)))


@given(results(), st.sampled_from(versions.SUPPORTED))
def test_a_document_is_read_as_it_was_written(result: Result, version: str) -> None:
    written = result.document(version)
    assert jsonio.loads(jsonio.dumps(written).encode(), "x") == written
    assert Result.parse(written).document(version) == written


@given(results())
def test_the_newest_keeps_everything(result: Result) -> None:
    parsed = Result.parse(result.document("1.1.0"))
    for name in ("interfaces", "ips", "routes"):
        for one, other in zip(getattr(result, name), getattr(parsed, name), strict=True):
            assert [getattr(one, slot) for slot in one.__slots__] == [getattr(other, slot) for slot in other.__slots__]
    assert result.dns.document() == parsed.dns.document()


@given(results(), st.sampled_from(versions.SUPPORTED))
def test_older_versions_lose_only_what_they_have_no_room_for(result: Result, version: str) -> None:
    parsed = Result.parse(result.document(version))
    if versions.at_least(version, "0.3.0"):
        assert [(ip.address, ip.gateway, ip.interface) for ip in parsed.ips] == [
            (ip.address, ip.gateway, ip.interface) for ip in result.ips
        ]
        assert [(one.destination, one.gateway) for one in parsed.routes] == [
            (one.destination, one.gateway) for one in result.routes
        ]
        assert [(one.name, one.mac, one.sandbox) for one in parsed.interfaces] == [
            (one.name, one.mac, one.sandbox) for one in result.interfaces
        ]
    else:
        for number in (4, 6):
            first = [ip for ip in result.ips if ip.address.version == number][:1]
            assert [ip.address for ip in parsed.ips if ip.address.version == number] == [ip.address for ip in first]
    assert parsed.dns.document() == result.dns.document()


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        ({"ips": [{"address": "10.1.0.2"}]}, "/ips/0/address", "as in 10.1.0.2/32"),
        ({"ips": [{"address": "10.1.0.2/24", "gateway": "x"}]}, "/ips/0/gateway", "not an IP address"),
        ({"ips": [{"address": "10.1.0.2/24", "interface": 0}]}, "/ips/0/interface", "there is no interface 0"),
        ({"ips": [{"address": "10.1.0.2/24", "interface": "0"}]}, "/ips/0/interface", "type int"),
        ({"ips": [{"address": "10.1.0.2/24", "interface": True}]}, "/ips/0/interface", "type int"),
        ({"ips": ["10.1.0.2/24"]}, "/ips/0", "not an object"),
        ({"ips": {}}, "/ips", "type list"),
        ({"routes": [{}]}, "/routes/0/dst", "not an IP address"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": 1}]}, "/routes/0/gw", "type str"),
        ({"routes": [{"dst": "0.0.0.0/0", "mtu": "1"}]}, "/routes/0/mtu", "type int"),
        ({"interfaces": [{"name": 1}]}, "/interfaces/0/name", "type str"),
        ({"dns": []}, "/dns", "type dict"),
        ({"dns": {"nameservers": "a"}}, "/dns/nameservers", "type list"),
        ({"dns": {"search": [1]}}, "/dns/search/0", "not a string"),
        ({"cniVersion": 1}, "/cniVersion", "type str"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": "x"}}, "/ip4/ip", "not an IP address"),
        ({"cniVersion": "0.2.0", "ip6": {"ip": "::1/64", "routes": [{"dst": 1}]}}, "/ip6/routes/0/dst", "type str"),
    ],
)
def test_what_is_refused(change: dict[str, Any], where: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        Result.parse({"cniVersion": "1.1.0", **change}, "/prevResult")
    assert (caught.value.code, caught.value.subject) == (DECODING_FAILURE, f"/prevResult{where}")
    assert said in str(caught.value)


def test_null_counts_as_absent() -> None:
    """As Go's decoder has it, and as some runtimes write it."""
    parsed = Result.parse({"cniVersion": "1.0.0", "interfaces": None, "ips": None, "routes": None, "dns": None})
    assert parsed.document("1.0.0") == {"cniVersion": "1.0.0", "dns": {}}


def test_no_interface_is_minus_one_in_old_results() -> None:
    parsed = Result.parse({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.2/24", "interface": -1}]})
    assert parsed.ips[0].interface is None
