"""host-local beside the reference plugin: the same calls on folders of their own, the same answers and leases."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks import Done, execute

REFERENCE = Path("/usr/lib/cni")  # Debian's containernetworking-plugins
SUBNET = {"subnet": "10.1.0.0/29"}
SIX = {"subnet": "fd00:0:0:1::/64"}

pytestmark = pytest.mark.skipif(not (REFERENCE / "host-local").exists(), reason="the reference plugins are not installed")


def add(container: str = "c1", ip: str = "") -> tuple[str, str, str]:
    return "ADD", container, f"IgnoreUnknown=1;IP={ip}" if ip else ""


def delete(container: str = "c1") -> tuple[str, str, str]:
    return "DEL", container, ""


def check(container: str = "c1") -> tuple[str, str, str]:
    return "CHECK", container, ""


def adds(count: int) -> list[tuple[str, str, str]]:
    return [add(f"c{number}") for number in range(count)]


# What `ipam` says, the calls, and what else the configuration has.
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]], dict[str, Any]]] = {
    "a range": (SUBNET, [add(), add("c2"), add("c3"), delete(), add("c4"), add("c5"), add("c6"), add("c7")], {}),
    "turns": (SUBNET, [call for number in range(12) for call in (add(f"c{number}"), delete(f"c{number}"))], {}),
    "twice": (SUBNET, [add(), add()], {}),
    "by environment": (SUBNET, [add(ip="10.1.0.5"), add("c2", "10.1.0.5"), add("c3", "10.1.0.1"), add("c4", "10.1.0.9")], {}),
    "no address by environment": (SUBNET, [add(ip="x")], {}),
    "by capability": (SUBNET, [add(), add("c2")], {"runtimeConfig": {"ips": ["10.1.0.5/29"]}}),
    "two of a set": (SUBNET, [add()], {"runtimeConfig": {"ips": ["10.1.0.5/29", "10.1.0.6"]}}),
    "one that is named twice": (SUBNET, [add()], {"runtimeConfig": {"ips": ["10.1.0.5/29", "10.1.0.5"]}}),
    "by args": (SUBNET, [add()], {"args": {"cni": {"ips": ["10.1.0.5"]}}}),
    "ranges by capability": (SUBNET, [add()], {"runtimeConfig": {"ipRanges": [[{"subnet": "10.7.0.0/24"}]]}}),
    "check": (SUBNET, [check(), add(), check(), delete(), check()], {}),
    "a gateway": ({**SUBNET, "gateway": "10.1.0.3"}, adds(7), {}),
    "a gateway outside": ({**SUBNET, "gateway": "10.9.0.3"}, adds(7), {}),
    "a gateway in the form of IPv6": ({**SUBNET, "gateway": "::ffff:10.1.0.3"}, adds(2), {}),
    "the ends of a network": ({**SUBNET, "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.7"}, adds(8), {}),
    "one address": ({**SUBNET, "rangeStart": "10.1.0.4", "rangeEnd": "10.1.0.4"}, adds(2), {}),
    "an end before the start": ({**SUBNET, "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.4"}, [add()], {}),
    "a range of IPv6": ({"subnet": "fd00::/125"}, adds(8), {}),
    "a start that is the gateway": ({**SIX, "rangeStart": "fd00:0:0:1::10", "gateway": "fd00:0:0:1::10"}, adds(2), {}),
    "capital letters": ({"subnet": "FD00::/64", "rangeStart": "FD00::ABCD"}, [add()], {}),
    "ranges of a set": ({"ranges": [[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/30"}]]}, adds(4), {}),
    "two sets": ({"ranges": [[SUBNET], [{"subnet": "10.2.0.0/29"}]]}, adds(7), {}),
    "both versions in 0.2.0": ({"ranges": [[SUBNET], [SIX]]}, adds(2), {"cniVersion": "0.2.0"}),
    "one version twice in 0.2.0": ({"ranges": [[SUBNET], [{"subnet": "10.2.0.0/29"}]]}, [add()], {"cniVersion": "0.2.0"}),
    "sets that overlap": ({"ranges": [[SUBNET], [{"subnet": "10.1.0.0/28"}]]}, [add()], {}),
    "a set of both versions": ({"ranges": [[SUBNET, SIX]]}, [add()], {}),
    "an empty set": ({"ranges": [[]]}, [add()], {}),
    "no range": ({}, [add()], {}),
    "bits of a host": ({"subnet": "10.1.0.3/29"}, [add()], {}),
    "a /31": ({"subnet": "10.1.0.0/31"}, [add()], {}),
    "a /127": ({"subnet": "fd00::/127"}, [add()], {}),
    "no length": ({"subnet": "10.1.0.0"}, [add()], {}),
    "IPv4 in the form of IPv6": ({"subnet": "::ffff:10.1.0.0/125"}, [add()], {}),
    "a zero in front": ({"subnet": "10.01.0.0/24"}, [add()], {}),
    "routes": ({**SUBNET, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.1"}]}, [add()], {}),
    "a route to nowhere": ({**SUBNET, "routes": [{"dst": "x"}]}, [add()], {}),
    "no resolv.conf": ({**SUBNET, "resolvConf": "/none"}, [add()], {}),
}


def run(path: Path, folder: Path, name: str) -> list[object]:
    """What each call answers (of errors only that they are some), and the leases at the end."""
    ipam, calls, more = CASES[name]
    conf = {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "bridge",
        "ipam": {"type": "host-local", "dataDir": str(folder), **ipam},
        **more,
    }
    found: list[object] = []
    for command, container, args in calls:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/n",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(path),
            "CNI_ARGS": args,
        }
        found.append(_answer(execute(path, "host-local", json.dumps(conf).encode(), environment)))
    net = folder / "net"
    names = sorted(os.listdir(net)) if net.exists() else []
    return [*found, {one: (net / one).read_bytes() for one in names if one[0] != "." and one != "lock" and "last" not in one}]


def _answer(done: Done) -> object:
    return "refused" if done.rc else done.answer or {}


@pytest.mark.parametrize("name", CASES)
def test_the_same_answers(name: str, plugin_path: Path, tmp_path: Path) -> None:
    assert run(plugin_path, tmp_path / "ours", name) == run(REFERENCE, tmp_path / "theirs", name)


def test_where_we_differ(plugin_path: Path, tmp_path: Path) -> None:
    """A second ADD of one attachment with another address: two leases there, an error here (SPEC.md, "ADD")."""
    CASES["another"] = (SUBNET, [add(ip="10.1.0.5"), add(ip="10.1.0.6")], {})
    try:
        ours, theirs = run(plugin_path, tmp_path / "ours", "another"), run(REFERENCE, tmp_path / "theirs", "another")
    finally:
        del CASES["another"]
    assert ours[1] == "refused"
    assert theirs[1] != "refused"
