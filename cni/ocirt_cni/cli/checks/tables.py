"""The fields of our plugins' configurations, and what else can be said of a plugin without asking it.

A plugin that has more to say, or rules between fields, says it by a function `configure(call)` in its module, which reads the
configuration and raises Error; `check-config` calls it too.
"""

from __future__ import annotations

from ocirt_cni.cli.checks.kinds import (
    Cidr,
    Flag,
    IPAddress,
    Kind,
    LinkName,
    ListOf,
    Mac,
    MapOf,
    Number,
    Object,
    Text,
)

# Beside an interface that is there already; alone they have nothing to do.
CHAINED = frozenset(("bandwidth", "firewall", "portmap", "sbr"))
IPAM = frozenset(("dhcp", "host-local", "static"))
# A capability without which the plugin is of no use.
NEEDED = {"portmap": "portMappings"}
CAPABILITIES = frozenset(
    ("aliases", "bandwidth", "cgroupPath", "deviceID", "dns", "infinibandGUID", "io.kubernetes.cri.pod-annotations", "ipRanges")
    + ("ips", "mac", "portMappings")
)

_VLAN = Number(1, 4094)
_MTU = Number(0, 65535)
_DNS = Object(
    {"nameservers": ListOf(IPAddress()), "domain": Text(), "search": ListOf(Text()), "options": ListOf(Text())},
)
_ROUTE = Object(
    {
        "dst": Cidr(),
        "gw": IPAddress(),
        **dict.fromkeys(("mtu", "advmss", "priority", "table", "scope"), Number()),
    },
    needs=["dst"],
)
_RANGE: dict[str, Kind] = {"subnet": Cidr(), "rangeStart": IPAddress(), "rangeEnd": IPAddress(), "gateway": IPAddress()}
_RATES: dict[str, Kind] = dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), Number(0, (1 << 63) - 1))
_MASQUERADE: dict[str, Kind] = {"ipMasq": Flag(), "ipMasqBackend": Text("iptables", "nftables")}

# What any plugin's configuration may have (SPEC.md, section 1; CONVENTIONS.md).
GENERAL: dict[str, Kind] = {
    "args": MapOf(Kind()),
    "capabilities": MapOf(Flag()),
    "cniVersion": Text(),
    "dns": _DNS,
    "name": Text(),
    "type": Text(),
}

_IPAM: dict[str, tuple[dict[str, Kind], tuple[str, ...]]] = {
    "dhcp": (
        {
            "daemonSocketPath": Text(),
            "priority": Number(),
            "provide": ListOf(Object({"option": Kind(), "value": Text(), "fromArg": Text()}, needs=["option"])),
            "request": ListOf(Object({"option": Kind(), "skipDefault": Flag()})),
        },
        (),
    ),
    "host-local": (
        {
            **_RANGE,
            "ranges": ListOf(ListOf(Object(_RANGE, needs=["subnet"]), least=1)),
            "routes": ListOf(_ROUTE),
            "dataDir": Text(),
            "resolvConf": Text(),
        },
        (),
    ),
    "static": (
        {
            "addresses": ListOf(Object({"address": Cidr(), "gateway": IPAddress()}, needs=["address"])),
            "routes": ListOf(_ROUTE),
            "dns": _DNS,
        },
        (),
    ),
}

FIELDS: dict[str, tuple[dict[str, Kind], tuple[str, ...]]] = {
    "bandwidth": (_RATES, ()),
    "bridge": (
        {
            "bridge": LinkName(),
            "disableContainerInterface": Flag(),
            "enabledad": Flag(),
            "forceAddress": Flag(),
            "hairpinMode": Flag(),
            "isDefaultGateway": Flag(),
            "isGateway": Flag(),
            "mac": Mac(),
            "macspoofchk": Flag(),
            "mtu": _MTU,
            "portIsolation": Flag(),
            "preserveDefaultVlan": Flag(),
            "promiscMode": Flag(),
            "vlan": Number(0, 4094),
            "vlanTrunk": ListOf(Object({"id": _VLAN, "minID": _VLAN, "maxID": _VLAN})),
            **_MASQUERADE,
        },
        (),
    ),
    "dummy": ({}, ()),
    "firewall": (
        {
            "backend": Text("", "iptables", "firewalld", "nftables"),
            "firewalldZone": Text(),
            "ingressPolicy": Text("", "open", "same-bridge", "isolated"),
            "iptablesAdminChainName": Text(),
        },
        (),
    ),
    "host-device": (
        {"device": LinkName(), "hwaddr": Text(), "kernelpath": Text(), "pciBusID": Text()},
        (),
    ),
    "ipvlan": (
        {"master": LinkName(), "mode": Text("", "l2", "l3", "l3s"), "mtu": _MTU, "linkInContainer": Flag()},
        (),
    ),
    "loopback": ({}, ()),
    "macvlan": (
        {
            "bcqueuelen": Number(),
            "linkInContainer": Flag(),
            "mac": Mac(),
            "master": LinkName(),
            "mode": Text("", "bridge", "private", "vepa", "passthru"),
            "mtu": _MTU,
        },
        (),
    ),
    "portmap": (
        {
            "backend": Text("", "iptables", "nftables"),
            "conditionsV4": ListOf(Text()),
            "conditionsV6": ListOf(Text()),
            "externalSetMarkChain": Text(),
            "markMasqBit": Number(0, 31),
            "masqAll": Flag(),
            "snat": Flag(),
        },
        (),
    ),
    "ptp": ({"mtu": _MTU, "enabledad": Flag(), **_MASQUERADE}, ()),
    "sbr": ({"addSourceHints": Flag(), "gateways": ListOf(IPAddress()), "table": Number()}, ()),
    "tap": (
        {
            "bridge": LinkName(),
            "group": Number(),
            "mac": Mac(),
            "mtu": _MTU,
            "multiQueue": Flag(),
            "owner": Number(),
            "selinuxContext": Text(),
        },
        (),
    ),
    "tuning": (
        {
            "allmulti": Flag(),
            "dataDir": Text(),
            "mac": Mac(),
            "mtu": _MTU,
            "promisc": Flag(),
            "sysctl": MapOf(Text()),
            "txQLen": Number(),
        },
        (),
    ),
    "vlan": ({"linkInContainer": Flag(), "master": LinkName(), "mtu": _MTU, "vlanId": Number(0, 4094)}, ("vlanId",)),
    "vrf": ({"table": Number(), "vrfname": LinkName()}, ("vrfname",)),
}


def of_plugin(name: str) -> Object | None:
    """The fields of a plugin's configuration, but for `ipam`; None if it is not ours."""
    if name not in FIELDS:
        return None
    fields, needs = FIELDS[name]
    return Object(GENERAL | {"ipam": Kind()} | fields, needs)


def of_ipam(name: str) -> Object | None:
    """The fields of an IPAM plugin's section; None if it is not ours."""
    if name not in _IPAM:
        return None
    fields, needs = _IPAM[name]
    return Object({"type": Text(), "name": Text()} | fields, needs)
