"""`ocirt-cni check-config`: every mistake has its pointer, what is wrong, and what would be right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni import plugins
from ocirt_cni.cli.checks import kinds, networks, tables
from ocirt_cni.cli.nearest import nearest
from ocirt_cni.errors import Error
from ocirt_cni.plugins import PLUGINS
from ocirt_cni.runner import lists
from tests.support.plugins import Folder, failure

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
BRIDGE = {"type": "bridge", "ipam": HOST_LOCAL}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


def write(place: Path, document: Any, name: str = "10-net.conflist") -> str:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def a_list(*listed: Any, **more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "plugins": list(listed)} | more


def findings(place: Path, *listed: Any, path: tuple[str, ...] = (), **more: Any) -> list[str]:
    """Without the file's name."""
    file = write(place, a_list(*listed, **more))
    return [str(one).removeprefix(f"{file}: ") for one in networks.check_file(file, path)]


@pytest.mark.parametrize(
    ("plugin", "finding"),
    [
        ({"type": "bandwidth", "ingressRate": 1000}, "/ingressBurst: error: it is missing or 0, and ingressRate is not"),
        ({"type": "dummy"}, "/ipam/type: error: it is missing: a dummy link without addresses is of no use"),
        ({"type": "firewall", "iptablesAdminChainName": "a b"}, "/iptablesAdminChainName: error: 'a b' cannot be the name of"),
        ({"type": "host-device"}, "/device: error: no device is named (name the device by one of"),
        ({"type": "host-device", "device": "eth1", "kernelpath": "/sys/devices/x"}, "/kernelpath: error: the device is named"),
        ({"type": "host-device", "capabilities": {"deviceID": True}}, ""),
        ({"type": "ipvlan", "mtu": 5}, "/mtu: error: 5 is not between 68 and 65535"),
        ({"type": "macvlan", "mode": "bridg"}, "/mode: error: 'bridg' is none of"),
        ({"type": "macvlan", "ipam": {"type": "dhcp", "provide": [{"option": "x"}]}}, "/ipam/provide/0/option: error: 'x' is no"),
        ({"type": "macvlan", "ipam": {"type": "dhcp"}}, ""),
        (PORTMAP | {"conditionsV4": ["--dport", "80"]}, "/conditionsV4/0: error: '--dport' is not understood"),
        (PORTMAP | {"markMasqBit": 5, "externalSetMarkChain": "X"}, "/externalSetMarkChain: error: it cannot be set together"),
        ({"type": "vlan", "vlanId": 5}, "/master: error: it is missing (name the link that carries the VLAN)"),
        ({"type": "vrf", "vrfname": "a/b"}, "/vrfname: error: 'a/b' cannot be the name of an interface"),
    ],
)
def test_what_a_plugin_says_of_its_configuration(tmp_path: Path, plugin: dict[str, Any], finding: str) -> None:
    found = findings(tmp_path, BRIDGE, plugin)
    assert len(found) == bool(finding)
    assert not found or found[0].startswith(f"/plugins/1{finding}")


def test_what_is_right_has_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path, BRIDGE, PORTMAP, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}) == []
    assert findings(tmp_path, BRIDGE, cniVersions=["0.4.0"], disableGC="false", disableCheck=True) == []


@pytest.mark.parametrize(
    ("plugin", "finding"),
    [
        ({"type": "brigde"}, "/plugins/0/type: error: there is no plugin 'brigde' (did you mean bridge?)"),
        ({"type": "zzz"}, "/plugins/0/type: error: there is no plugin 'zzz' (set CNI_PATH, as in /opt/cni/bin)"),
        ({}, "/plugins/0/type: error: it is missing (the name of a plugin)"),
        ({"type": 7}, "/plugins/0/type: error: this is not a string (the name of a plugin)"),
        (7, "/plugins/0: error: this is not an object"),
        (BRIDGE | {"isGatway": True}, "/plugins/0/isGatway: error: there is no such field (did you mean isGateway?)"),
        (BRIDGE | {"ipmasq": True}, "/plugins/0/ipmasq: error: there is no such field (did you mean ipMasq?)"),
        (BRIDGE | {"ipMasq": "yes"}, "/plugins/0/ipMasq: error: this is not true or false"),
        (BRIDGE | {"vlan": 5000}, "/plugins/0/vlan: error: 5000 is not between 0 and 4094"),
        (BRIDGE | {"vlan": True}, "/plugins/0/vlan: error: this is not a whole number"),
        (BRIDGE | {"vlanTrunk": [{"id": 0}]}, "/plugins/0/vlanTrunk/0/id: error: 0 is not between 1 and 4094"),
        (BRIDGE | {"vlanTrunk": [None]}, "/plugins/0/vlanTrunk/0: error: this is null"),
        (BRIDGE | {"bridge": "a/b"}, "/plugins/0/bridge: error: 'a/b' cannot be the name of an interface"),
        (
            BRIDGE | {"ipMasqBackend": "nftable"},
            "/plugins/0/ipMasqBackend: error: 'nftable' is none of iptables, nftables (did you mean nftables?)",
        ),
        (
            BRIDGE | {"mac": "03:00:00:00:00:01"},
            "/plugins/0/mac: error: 03:00:00:00:00:01 is not the hardware address of one link",
        ),
        (BRIDGE | {"runtimeConfig": {}}, "/plugins/0/runtimeConfig: warning: this is for the runtime to say (leave it out)"),
        (BRIDGE | {"cni.dev/x": 1}, "/plugins/0/cni.dev~1x: warning: this is for the runtime to say"),
        (
            BRIDGE | {"capabilities": {"prtMappings": True}},
            "/plugins/0/capabilities/prtMappings: warning: there is no such capability (did you mean portMappings?)",
        ),
        (BRIDGE | {"capabilities": {"mac": "yes"}}, "/plugins/0/capabilities/mac: error: this is not true or false"),
        (BRIDGE | {"dns": {"nameservers": ["x"]}}, "/plugins/0/dns/nameservers/0: error: 'x' is not an IP address"),
        ({"type": "bridge", "ipam": []}, "/plugins/0/ipam: error: this is not an object"),
        ({"type": "bridge", "ipam": {"x": 1}}, "/plugins/0/ipam/type: error: it is missing (there are dhcp, host-local, static)"),
        ({"type": "bridge", "ipam": {"type": "ptp"}}, "/plugins/0/ipam/type: error: ptp gives no addresses"),
        (
            {"type": "bridge", "ipam": {"type": "host-loca"}},
            "/plugins/0/ipam/type: error: there is no plugin 'host-loca' (did you",
        ),
        (
            {"type": "bridge", "ipam": HOST_LOCAL | {"route": []}},
            "/plugins/0/ipam/route: error: there is no such field (did you mean",
        ),
        (
            {"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0"}]]}},
            "/plugins/0/ipam/ranges/0/0/subnet: error: '10.1.0.0' is not an address with the length of its network",
        ),
        (
            {"type": "bridge", "ipam": {"type": "host-local", "ranges": [[]]}},
            "/plugins/0/ipam/ranges/0: error: the list is empty",
        ),
        (
            {"type": "bridge", "ipam": HOST_LOCAL | {"routes": [{"gw": "10.1.0.1"}]}},
            "/plugins/0/ipam/routes/0/dst: error: it is missing",
        ),
        (
            {"type": "bridge", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/33"}]}},
            "/plugins/0/ipam/addresses/0/address: error: '10.1.0.2/33' is not an address",
        ),
        (HOST_LOCAL, "/plugins/0/type: error: host-local gives addresses and makes no interface"),
        (PORTMAP, "/plugins/0/type: error: portmap works on an interface that a plugin before it made (put one before it)"),
        ({"type": "vlan", "ipam": HOST_LOCAL}, "/plugins/0/vlanId: error: it is missing"),
        ({"type": "tuning", "sysctl": {"net.a": 1}}, "/plugins/0/sysctl/net.a: error: this is not a string"),
    ],
)
def test_a_wrong_plugin_is_found(tmp_path: Path, plugin: Any, finding: str) -> None:
    found = [one for one in findings(tmp_path, plugin) if one.startswith(finding)]
    assert len(found) == 1, findings(tmp_path, plugin)


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"name": None}, "/name: error: it is missing"),
        ({"name": "a b"}, "/name: error: 'a b' is not a name (letters, digits, and after the first one also . _ -)"),
        ({"name": 7}, "/name: error: this is not a string"),
        ({"cniVersion": "7.0.0"}, "/cniVersion: error: no version that is supported is named (use one of 0.1.0"),
        ({"cniVersion": None}, "/cniVersion: warning: it is missing, so 0.1.0 counts"),
        ({"cniVersions": [1]}, "/cniVersions/0: error: this is not a string"),
        ({"disableGc": True}, "/disableGc: warning: there is no such field (did you mean disableGC?)"),
        ({"disableGC": "no"}, "/disableGC: error: 'no' is not true or false"),
        ({"plugins": []}, "/plugins: error: the list is empty"),
        ({"plugins": None}, "/plugins: error: it is missing (a network needs one plugin at least)"),
        ({"plugins": {}}, "/plugins: error: this is not a list"),
    ],
)
def test_a_wrong_list_is_found(tmp_path: Path, fields: dict[str, Any], finding: str) -> None:
    found = findings(tmp_path, BRIDGE, **fields)
    assert len([one for one in found if one.startswith(finding)]) == 1, found


def test_all_are_said_at_once_and_each_once(tmp_path: Path) -> None:
    found = findings(tmp_path, BRIDGE | {"a": 1, "vlan": "x"}, {"type": "portmap"}, 7, name="a b", disableGC=1)
    assert sorted(one.split(": ")[0] for one in found) == [
        "/disableGC",
        "/name",
        "/plugins/0/a",
        "/plugins/0/vlan",
        "/plugins/1/capabilities/portMappings",
        "/plugins/2",
    ]


def test_names_that_stand_there_twice(tmp_path: Path) -> None:
    text = '{"cniVersion": "1.1.0", "name": "n", "name": "n", "plugins": [{"type": "bridge", "mtu": 1400, "mtu": 1500}]}'
    found = [str(one) for one in networks.check_file(write(tmp_path, text), ())]
    assert [one.split(": ", 1)[1] for one in found] == [
        "/name: warning: it is there twice, and the last one counts",
        "/plugins/0/mtu: warning: it is there twice, and the last one counts",
    ]


@pytest.mark.parametrize("text", ["{", "", "[]", "\0", '{"a": NaN}', '{"a": 1}}'])
def test_what_is_no_object_of_json(tmp_path: Path, text: str) -> None:
    (found,) = networks.check_file(write(tmp_path, text), ())
    assert (found.level, found.pointer) == (kinds.ERROR, "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (found,) = networks.check_file(str(tmp_path / "x.conflist"), ())
    assert str(found).endswith("error: the file cannot be read: No such file or directory")


def test_single_plugins_and_lists_by_the_wrong_name(tmp_path: Path) -> None:
    assert networks.check_file(write(tmp_path, BRIDGE | {"cniVersion": "1.0.0", "name": "net"}, "a.conf"), ()) == []
    found = networks.check_file(write(tmp_path, {"type": "bridge", "isGatway": True}, "b.conf"), ())
    assert [one.pointer for one in found] == ["/name", "/cniVersion", "/isGatway"]
    found = networks.check_file(write(tmp_path, a_list(BRIDGE), "c.conf"), ())
    assert [(one.pointer, one.hint) for one in found] == [("/plugins", "name the file *.conflist")]


def test_foreign_plugins_are_asked_for_their_versions_only(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "plugins")
    folder.make("one")
    folder.make("old", VERSION=failure(4, "unknown CNI_COMMAND: VERSION"))
    found = findings(tmp_path, {"type": "one", "anything": 1}, {"type": "old"}, path=(str(folder.bin),))
    assert found == ["/plugins/1/type: error: the plugin old does not support version 1.1.0 (it supports 0.1.0)"]
    assert folder.calls() == ["VERSION one", "VERSION old"]


def test_a_folder_with_hidden_networks_and_drop_ins(tmp_path: Path) -> None:
    write(tmp_path, a_list(BRIDGE), "10.conflist")
    write(tmp_path, a_list(BRIDGE), "20.conflist")
    write(tmp_path, {"type": "portmap", "snta": True}, "net/a.conf")
    write(tmp_path, {"type": "portmap"}, "other/a.conf")
    found = [str(one).removeprefix(f"{tmp_path}/") for one in networks.check_folder(str(tmp_path), ())]
    needed = "warning: it is not set, so portmap gets nothing to do (say true)"
    drop_in = [
        "net/a.conf: /snta: error: there is no such field (did you mean snat?)",
        f"net/a.conf: /capabilities/portMappings: {needed}",
    ]
    hidden = f"20.conflist: /name: warning: {tmp_path}/10.conflist hides this network 'net'"
    assert found == [
        *drop_in,
        *drop_in,
        f"{hidden} (it comes first; lists come before single plugins)",
        "other: warning: there is no network 'other', which these plugins would belong to",
    ]


def test_the_plugin_itself_is_asked_for_what_goes_beyond_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def configure(call: Any) -> None:
        asked.append((call.network, call.version, call.conf["type"]))
        raise Error(7, "hairpinMode is set as well", subject="/promiscMode", hint="one is enough")

    monkeypatch.setattr(plugins.module("loopback"), "configure", configure, raising=False)
    assert findings(tmp_path, {"type": "loopback"}) == [
        "/plugins/0/promiscMode: error: hairpinMode is set as well (one is enough)"
    ]
    assert asked == [("net", "1.1.0", "loopback")]
    (found,) = findings(tmp_path, {"type": "loopback", "x": 1})  # what is wrong with a field goes first
    assert found.startswith("/plugins/0/x: error: there is no such field")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("plugin", "finding"),
    [
        (BRIDGE | {"hairpinMode": True, "promiscMode": True}, "/plugins/1/promiscMode: error: hairpinMode is set as well"),
        (BRIDGE | {"vlanTrunk": [{"minID": 3}]}, "/plugins/1/vlanTrunk/0: error: it has neither id, nor minID and maxID"),
        ({"type": "sbr", "table": 100, "addSourceHints": True}, "/plugins/1/addSourceHints: error: with `table` the routes are"),
        (
            {"type": "tuning", "sysctl": {"kernel.x": "1"}},
            "/plugins/1/sysctl/kernel.x: error: kernel.x is not a sysctl of the net",
        ),
        (
            {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.9"}]]}},
            "/plugins/1/ipam/ranges/0/0/rangeEnd: error: 10.2.0.9 is not in 10.1.0.0/24",
        ),
        (
            {"type": "ptp", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.2/24", "gateway": "fd00::1"}]}},
            "/plugins/1/ipam/addresses/0/gateway: error: fd00::1 is not of the IP version of 10.1.0.2/24",
        ),
    ],
)
def test_rules_between_fields_are_the_plugins_own(tmp_path: Path, plugin: Any, finding: str) -> None:
    (found,) = findings(tmp_path, BRIDGE, plugin)
    assert found.startswith(finding)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["bridge", "host-local", "1.1.0"]),
    lambda one: (
        st.lists(one, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "ipam", "plugins", "name", "cniVersion", "capabilities", "vlan", "ranges"]), one
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_no_document_makes_it_fail_and_what_it_passes_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    file = write(tmp_path_factory.mktemp("net"), document if isinstance(document, dict) else {"plugins": document})
    found = networks.check_file(file, ())
    if not any(one.level == kinds.ERROR for one in found):
        lists.read(file)


@pytest.mark.parametrize("name", PLUGINS)
def test_each_plugin_has_a_table_that_knows_what_the_plugin_knows(name: str) -> None:
    """Where a plugin lists its fields itself, the lists are the same."""
    assert name in tables.FIELDS or name in tables.IPAM
    if importlib.util.find_spec(f"ocirt_cni.{PLUGINS[name]}") is None:
        return  # its own tests miss it
    module = plugins.module(name)
    table = tables.of_plugin(name) or tables.of_ipam(name)
    assert table is not None
    own = getattr(module, "FIELDS", None) or getattr(module, "_FIELDS", None)
    if own is not None:
        known = set(table.fields) - set(tables.GENERAL) - {"ipam"}
        assert known == set(own) - set(tables.GENERAL) - {"ipam"}


def test_nearest() -> None:
    assert nearest("IPMASQ", ["ipMasq", "mtu"]) == "ipMasq"
    assert nearest("zzz", ["ipMasq", "mtu"]) == ""
