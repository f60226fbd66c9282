"""Links for the tests of plugins that need one: an outside world beyond the host, and kinds that a kernel may lack."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.networks import command, new_network

OPTIONS = {"dummy": "CONFIG_DUMMY", "ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q", "vrf": "CONFIG_NET_VRF"}
_MORE = {"vlan": ("id", "7"), "vrf": ("table", "7"), "ipvlan": ("mode", "l2")}
_known: dict[str, bool] = {}


def has_kind(kind: str) -> bool:
    """Whether this kernel makes links of a kind, by making one with ip-link(8)."""
    if kind not in _known:
        with new_network():
            command("ip", "link", "add", "below", "type", "veth", "peer", "name", "other")
            below = ("link", "below") if kind in ("ipvlan", "vlan", "macvlan") else ()
            argv = ["/sbin/ip", "link", "add", *below, "name", "probe", "type", kind, *_MORE.get(kind, ())]
            _known[kind] = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    return _known[kind]


def need_kind(kind: str) -> None:
    """Skip the test if this kernel has no links of a kind. The virtual machine's has all (`make test-vm`)."""
    if not has_kind(kind):
        pytest.skip(f"this kernel is built without {OPTIONS[kind]}; `make test-vm` has one with it")


def refuse_kind(kind: str) -> None:
    """Skip the test of the error if the kernel has links of the kind."""
    if has_kind(kind):
        pytest.skip(f"this kernel has links of the kind {kind}")


def make_uplink(path: str) -> None:
    """Make a link `up0` of the host's, whose other end, `out0`, is in the network namespace at `path`; both are up."""
    command("ip", "link", "add", "up0", "type", "veth", "peer", "name", "out0", "netns", path)
    command("ip", "link", "set", "up0", "up")
    for name in ("lo", "out0"):
        command("ip", "link", "set", name, "up", network=path)
