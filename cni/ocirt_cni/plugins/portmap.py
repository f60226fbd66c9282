"""portmap: ports of the host that lead to the container.

The runtime names them in `runtimeConfig.portMappings` (CONVENTIONS.md, "portMappings"); the container's addresses come with the
previous result, whose plugin made its interface.
"""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, TAKEN, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.nft.changes import Changes
    from ocirt_cni.nft.rules import Port, Rules

_NAME = "portmap"
_BACKENDS = ("", "iptables", "nftables")
_PROTOCOLS = ("tcp", "udp", "sctp")
_LAST_PORT = 65535
_LAST_BIT = 31


class Mapping:
    """A port as the runtime asks for it. `host` None: any address of the host; `where`: its pointer."""

    __slots__ = ("host", "host_port", "port", "protocol", "version", "where")

    def __init__(self, one: dict[str, Any], where: str) -> None:
        """Raises Error(INVALID_CONFIG)."""
        self.where = where
        self.host_port = _port(one, "hostPort", where)
        self.port = _port(one, "containerPort", where)
        self.protocol = (field(one, "protocol", str, "", where) or "tcp").lower()
        if self.protocol not in _PROTOCOLS:
            raise Error(INVALID_CONFIG, f"{self.protocol!r} is none of {', '.join(_PROTOCOLS)}", subject=f"{where}/protocol")
        text = field(one, "hostIP", str, "", where)
        try:
            address = Address.parse(text) if text else None
        except ValueError as err:
            raise Error(INVALID_CONFIG, str(err), subject=f"{where}/hostIP") from None
        self.version: int | None = None if address is None else address.version
        self.host = None if address is None or address.is_unspecified else address


def add(call: Call) -> Result:
    """Publish the ports. Returns the previous result. Raises Error(TAKEN) that names who has a port already."""
    changes = _changes(call)
    result = _previous(call)
    if changes is not None:
        _refuse_taken(call, changes)
        changes.commit()
        _forget_streams(changes)
    return result


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    mappings(call)
    _source(call)
    _conditions(call)


def delete(call: Call) -> None:
    """Close all ports of the attachment."""
    from ocirt_cni.nft.changes import remove  # noqa: PLC0415  (many containers have no ports)

    removed = remove(call.attachment, _NAME)
    if removed is not None:
        _forget_streams(removed)


def check(call: Call) -> None:
    """That the ports lead where they should."""
    changes = _changes(call)
    if changes is not None:
        from ocirt_cni.nft.changes import check as check_changes  # noqa: PLC0415

        check_changes(changes)


def gc(call: Call) -> None:
    """Close the ports of attachments that are gone."""
    from ocirt_cni.nft.changes import collect  # noqa: PLC0415
    from ocirt_cni.plugins import pairs  # noqa: PLC0415

    collect(call.network, _NAME, call.valid, is_there=pairs.is_there)


def mappings(call: Call) -> list[Mapping]:
    """The ports that are asked for, each once. Raises Error(INVALID_CONFIG)."""
    found: dict[tuple[str, Address | None, int | None, int], Mapping] = {}
    for number, one in enumerate(field(call.runtime, "portMappings", list, [], "/runtimeConfig")):
        where = f"/runtimeConfig/portMappings/{number}"
        if not isinstance(one, dict):
            raise Error(INVALID_CONFIG, "this is not an object", subject=where)
        made = Mapping(one, where)
        other = found.setdefault((made.protocol, made.host, made.version, made.host_port), made)
        if other.port != made.port:
            raise Error(
                INVALID_CONFIG, f"the same port of the host as in {other.where}, for another of the container", subject=where
            )
    return list(found.values())


def _port(one: dict[str, Any], name: str, where: str) -> int:
    number: int = field(one, name, int, 0, where)
    if not 0 < number <= _LAST_PORT:
        raise Error(INVALID_CONFIG, f"a port is a number from 1 to {_LAST_PORT}", subject=f"{where}/{name}")
    return number


def _previous(call: Call) -> Result:
    if call.previous is None:
        hint = "list portmap after a plugin that makes an interface"
        raise Error(INVALID_CONFIG, "it is missing: portmap needs the container's addresses", subject="/prevResult", hint=hint)
    return call.previous


def _source(call: Call) -> str:
    """How ports are answered: a word of `ocirt_cni.nft.rules`. Checks all options about that. Raises Error(INVALID_CONFIG)."""
    from ocirt_cni.nft.rules import ALL, HAIRPIN, PLAIN  # noqa: PLC0415

    if field(call.conf, "backend", str, "") not in _BACKENDS:
        raise Error(INVALID_CONFIG, "this is neither iptables nor nftables", subject="/backend")
    bit = field(call.conf, "markMasqBit", int, None)
    if bit is not None and not 0 <= bit <= _LAST_BIT:
        raise Error(INVALID_CONFIG, f"a bit is a number from 0 to {_LAST_BIT}", subject="/markMasqBit")
    if bit is not None and field(call.conf, "externalSetMarkChain", str, None) is not None:
        raise Error(INVALID_CONFIG, "it cannot be set together with markMasqBit", subject="/externalSetMarkChain")
    if not field(call.conf, "snat", bool, True):
        return PLAIN
    return ALL if field(call.conf, "masqAll", bool, False) else HAIRPIN


def _conditions(call: Call) -> dict[int, str]:
    from ocirt_cni.plugins import conditions  # noqa: PLC0415

    return {version: conditions.parse(call.conf, f"conditionsV{version}", version) for version in (4, 6)}


def _changes(call: Call) -> Changes | None:
    """The rules for a call; None if no port is asked for."""
    asked = mappings(call)
    if not asked:
        return None
    from ocirt_cni.nft.changes import Changes  # noqa: PLC0415

    changes = Changes(call.attachment, _NAME)
    source = _source(call)
    changes.conditions = _conditions(call)
    addresses = _addresses(_previous(call))
    for one in asked:
        _publish(changes, one, addresses, source)
    _reach(changes, addresses, source)
    return changes


def _addresses(result: Result) -> dict[int, Prefix]:
    """The container's first address of each IP version."""
    found: dict[int, Prefix] = {}
    for ip in result.ips:
        if ip.interface is None or result.interfaces[ip.interface].sandbox:
            found.setdefault(ip.address.version, ip.address)
    return found


def _publish(changes: Changes, one: Mapping, addresses: dict[int, Prefix], source: str) -> None:
    from ocirt_cni.nft.rules import Port  # noqa: PLC0415

    fitting = [address for version, address in addresses.items() if one.version in (None, version)]
    if not fitting:
        what = "an" if one.version is None else f"an IPv{one.version}"
        raise Error(INVALID_CONFIG, f"the container does not have {what} address", subject=one.where)
    for address in fitting:
        changes.publish(Port(one.protocol, one.host, one.host_port, address, one.port, source))


def _reach(changes: Changes, addresses: dict[int, Prefix], source: str) -> None:
    """The links of the host that lead to the container: their traffic passes, and that from 127.0.0.0/8 is routed to them."""
    from ocirt_cni.netlink import links, routes  # noqa: PLC0415
    from ocirt_cni.netlink.socket import Netlink  # noqa: PLC0415
    from ocirt_cni.nft.rules import PLAIN  # noqa: PLC0415

    netlink = Netlink()
    try:
        for version, prefix in addresses.items():
            route = routes.to(netlink, prefix.address)
            if route is None or route.gateway is not None:
                continue  # it is somewhere behind another host, or a bridge without an address of the host
            link = links.find_index(netlink, route.output)
            if link is None:
                continue
            if link.name not in changes.admitted:
                changes.admit(link.name)
            if version == 4 and source != PLAIN and any(_is_local(port) for port in changes.ports):
                changes.route_localnet(link.name)
    finally:
        netlink.close()


def _is_local(port: Port) -> bool:
    return port.container.version == 4 and (port.host is None or port.host.is_loopback)


def _refuse_taken(call: Call, changes: Changes) -> None:
    from ocirt_cni.plugins import host_ports  # noqa: PLC0415

    for port in changes.ports:
        if host_ports.is_taken(port.protocol, port.host, port.host_port, port.container.version):
            holder = host_ports.holder(port.protocol, port.host_port) or "a process of the host"
            raise Error(TAKEN, f"the port of the host belongs to {holder}", subject=port.at_host)


def _forget_streams(rules: Rules) -> None:
    ports = {port.host_port for port in rules.ports if port.protocol == "udp"}
    if ports:
        from ocirt_cni.netlink import conntrack  # noqa: PLC0415

        conntrack.forget(ports)
