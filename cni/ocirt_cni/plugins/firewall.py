"""firewall: the container's traffic passes the host's forward chains, and bridges are kept from each other (`ingressPolicy`).

open          nothing is forbidden
same-bridge   nothing passes between this bridge and others of this policy, or of the next
isolated      the same, and nothing passes between the containers of this bridge

Forwarded traffic is admitted by one rule in each table that may drop it (`ocirt_cni.nft.forward`), whatever `backend` says. Where
firewalld runs, the container's addresses become sources of one of its zones as well (`firewalldZone`), unless `backend` names
another one: that zone says what they may reach on the host itself.
"""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, NOT_AVAILABLE, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.changes import Changes

_NAME = "firewall"
_BACKENDS = ("", "iptables", "firewalld", "nftables")
_WITH_ZONES = ("", "firewalld")
_ZONE = "trusted"  # the reference plugin's default
OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
_POLICIES = (OPEN, SAME_BRIDGE, ISOLATED)
_LONGEST_CHAIN = 28  # XT_EXTENSION_MAXNAMELEN, less the null byte
_CHAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_ZONE_NAME = _CHAIN | {"/"}


def add(call: Call) -> Result:
    """Admit the container's traffic. Returns the previous result. Raises Error."""
    result = _previous(call)
    _changes(call, result).commit()
    return result


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    _settings(call)


def delete(call: Call) -> None:
    """Remove all of the attachment's rules."""
    from ocirt_cni.nft.changes import remove  # noqa: PLC0415

    remove(call.attachment, _NAME)


def check(call: Call) -> None:
    """That the rules are there."""
    from ocirt_cni.nft.changes import check as check_changes  # noqa: PLC0415

    check_changes(_changes(call, _previous(call)))


def gc(call: Call) -> None:
    """Remove the rules of attachments that are gone."""
    from ocirt_cni.nft.changes import collect  # noqa: PLC0415
    from ocirt_cni.plugins import pairs  # noqa: PLC0415

    collect(call.network, _NAME, call.valid, is_there=pairs.is_there)


def status(call: Call) -> None:
    """That nftables can be used. Raises Error(NOT_AVAILABLE)."""
    _settings(call)
    from ocirt_cni.nft import kept  # noqa: PLC0415

    try:
        kept.tables().generation()
    except Error as err:
        raise Error(NOT_AVAILABLE, "nftables cannot be used", cause=str(err)) from None


def _previous(call: Call) -> Result:
    if call.previous is None:
        hint = "list firewall after a plugin that makes an interface"
        raise Error(INVALID_CONFIG, "it is missing: firewall needs the container's links", subject="/prevResult", hint=hint)
    return call.previous


def _settings(call: Call) -> tuple[str, str, str]:
    """(policy, chain of the administrator, zone of firewalld or ""); all options are checked. Raises Error(INVALID_CONFIG)."""
    backend = field(call.conf, "backend", str, "")
    if backend not in _BACKENDS:
        raise Error(INVALID_CONFIG, f"this is none of {', '.join(_BACKENDS[1:])}", subject="/backend")
    zone = field(call.conf, "firewalldZone", str, "") or _ZONE
    if not _ZONE_NAME.issuperset(zone):
        raise Error(INVALID_CONFIG, f"{zone!r} cannot be the name of a zone of firewalld", subject="/firewalldZone")
    policy = field(call.conf, "ingressPolicy", str, "") or OPEN
    if policy not in _POLICIES:
        raise Error(INVALID_CONFIG, f"{policy!r} is none of {', '.join(_POLICIES)}", subject="/ingressPolicy")
    chain = field(call.conf, "iptablesAdminChainName", str, "") or "CNI-ADMIN"
    if len(chain) > _LONGEST_CHAIN or not _CHAIN.issuperset(chain):
        raise Error(INVALID_CONFIG, f"{chain!r} cannot be the name of a chain of iptables", subject="/iptablesAdminChainName")
    return policy, chain, zone if backend in _WITH_ZONES else ""


def _changes(call: Call, result: Result) -> Changes:
    from ocirt_cni.nft.changes import Changes  # noqa: PLC0415

    policy, chain, zone = _settings(call)
    changes = Changes(call.attachment, _NAME)
    changes.ask(chain)
    if zone:
        changes.put_into(zone, [str(Prefix.host(one.address.address)) for one in result.ips])
    bridges, ports = _links(result)
    for name in bridges or ports:
        changes.admit(name)
    if policy != OPEN:
        if not bridges:
            hint = "list firewall after bridge, or leave out ingressPolicy"
            raise Error(INVALID_CONFIG, f"{policy!r} needs a bridge in the previous result", subject="/ingressPolicy", hint=hint)
        for name in bridges:
            changes.isolate(name, within=policy == ISOLATED)
        for name in ports if policy == ISOLATED else ():
            changes.keep_apart(name)
    return changes


def _links(result: Result) -> tuple[list[str], list[str]]:
    """The bridges among the result's interfaces of the host, and the others, which are the container's ends."""
    from ocirt_cni.netlink import links  # noqa: PLC0415
    from ocirt_cni.netlink.socket import Netlink  # noqa: PLC0415

    bridges: list[str] = []
    others: list[str] = []
    netlink = Netlink()
    try:
        for one in result.interfaces:
            if one.sandbox:
                continue
            link = links.find(netlink, one.name)
            if link is not None:
                (bridges if link.kind == "bridge" else others).append(one.name)
    finally:
        netlink.close()
    return bridges, others
