"""Between dhcp's configuration and the options of DHCP, and between a lease and a result of CNI."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, NOT_AVAILABLE, Error
from ocirt_cni.ipam import config
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_client import Lease
from ocirt_cni.results import DNS, IP, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIELDS = ("daemonSocketPath", "name", "priority", "provide", "request", "type")
# dhcp-options(5)
NAMES = {
    "dhcp-client-identifier": dhcp.CLIENT_ID,
    "domain-name": dhcp.DOMAIN_NAME,
    "domain-name-servers": dhcp.DNS_SERVER,
    "host-name": dhcp.HOST_NAME,
    "routers": dhcp.ROUTER,
    "subnet-mask": dhcp.SUBNET_MASK,
    "user-class": dhcp.USER_CLASS,
    "vendor-class-identifier": dhcp.VENDOR_CLASS,
}
# Those that the exchange itself needs.
_OURS = {dhcp.PAD, dhcp.REQUESTED_ADDRESS, dhcp.OVERLOAD, dhcp.MESSAGE_TYPE, dhcp.SERVER_ID, dhcp.PARAMETER_LIST, dhcp.END}
_DEFAULT = (dhcp.SUBNET_MASK, dhcp.CLASSLESS_ROUTE, dhcp.ROUTER, dhcp.STATIC_ROUTE)  # in the order of RFC 3442
_LONGEST = 255
_SCOPE_LINK = 253  # rtnetlink(7)


def parse(call: Call) -> dict[int, bytes]:
    """The options of a client's messages: its name, what is provided, what is asked for. Raises Error that names the field."""
    ipam = config.section(call)
    config.refuse_unknown(ipam, FIELDS, config.WHERE)
    field(ipam, "priority", int, 0, config.WHERE)
    options = {dhcp.CLIENT_ID: _client_id(call), **_provided(call, ipam)}
    requested = _requested(ipam)
    if requested:
        options[dhcp.PARAMETER_LIST] = bytes(requested)
    return options


def wants_dns(call: Call) -> bool:
    """Whether the configuration asks for servers of names: then they are part of the result."""
    return bool({dhcp.DNS_SERVER, dhcp.DOMAIN_NAME} & set(_requested(config.section(call))))


def _client_id(call: Call) -> bytes:
    """Container, network and interface, as the reference has it, so that a server knows it again; type 0 (RFC 2132, 9.14)."""
    text = f"{call.container}/{call.network}/{call.ifname}".encode()
    if len(text) >= _LONGEST:  # the reference cuts it off, and then interfaces of one container are the same
        from hashlib import sha256  # noqa: PLC0415  (a millisecond, for names that no runtime has)

        digest = sha256(text).hexdigest().encode()
        text = text[: _LONGEST - 2 - len(digest)] + b"/" + digest
    return b"\0" + text


def _provided(call: Call, ipam: dict[str, Any]) -> dict[int, bytes]:
    found = {}
    for one, at in config.objects(ipam, "provide", config.WHERE):
        config.refuse_unknown(one, ("fromArg", "option", "value"), at)
        code = _code(field(one, "option", str, "", at), f"{at}/option")
        if code in _OURS:
            raise Error(INVALID_CONFIG, f"option {code} is not for a configuration to provide", subject=f"{at}/option")
        key = field(one, "fromArg", str, "", at)
        value, where, error = field(one, "value", str, "", at), f"{at}/value", INVALID_CONFIG
        if call.args.get(key):
            value, where, error = call.args[key], f"CNI_ARGS/{key}", INVALID_ENVIRONMENT
        if len(value.encode()) > _LONGEST:
            raise Error(error, f"it has more than {_LONGEST} bytes", subject=where)
        if value:
            found[code] = value.encode()
    return found


def _requested(ipam: dict[str, Any]) -> list[int]:
    found = []
    default = True
    for one, at in config.objects(ipam, "request", config.WHERE):
        config.refuse_unknown(one, ("option", "skipDefault"), at)
        default = default and not field(one, "skipDefault", bool, False, at)
        name = field(one, "option", str, "", at)
        if name:
            found.append(_code(name, f"{at}/option"))
    return list(dict.fromkeys([*found, *(_DEFAULT if default else ())]))


def _code(name: str, where: str) -> int:
    if name in NAMES:
        return NAMES[name]
    if name.isascii() and name.isdigit() and int(name) <= _LONGEST:
        return int(name)
    raise Error(
        INVALID_CONFIG, f"{name!r} is no option", subject=where, hint=f"a number up to 255, or {', '.join(sorted(NAMES))}"
    )


def result(lease: Lease, priority: int, *, with_dns: bool) -> Result:
    """What a lease is to CNI; `priority` of its routes, 0 for none. Raises Error(NOT_AVAILABLE) if the server named no mask."""
    prefix = lease.prefix
    if prefix is None:
        raise Error(NOT_AVAILABLE, f"the DHCP server {lease.server} named no subnet mask for {lease.ack.yours}")
    routers = lease.ack.addresses(dhcp.ROUTER)
    routes = _classless(lease.ack.options.get(dhcp.CLASSLESS_ROUTE, b""))
    if not routes:  # with them, the other two kinds do not count (RFC 3442)
        routes = _static(lease.ack.options.get(dhcp.STATIC_ROUTE, b""))
        routes += [Route(Prefix(dhcp.ANY, 0), router) for router in routers[:1]]
    for route in routes:
        route.priority = priority or None
    return Result([], [IP(prefix, routers[0] if routers else None)], routes, _dns(lease) if with_dns else DNS())


def _classless(value: bytes) -> list[Route]:
    """Of option 121: the length of the destination, as many of its bytes as that needs, the router; 0.0.0.0: directly."""
    found = []
    place = 0
    while place < len(value):
        length = value[place]
        size = (length + 7) // 8
        rest = value[place + 1 : place + 1 + size + 4]
        if length > 32 or len(rest) < size + 4:
            break  # what is wrong cannot be read on
        destination = Prefix(Address(rest[:size].ljust(4, b"\0")), length).network
        router = Address(rest[size:])
        found.append(Route(destination, scope=_SCOPE_LINK) if router.is_unspecified else Route(destination, router))
        place += 1 + size + 4
    return found


def _static(value: bytes) -> list[Route]:
    """Of option 33: a network of the old classes, and its router."""
    found = []
    for place in range(0, len(value) - 7, 8):
        first = value[place]
        length = 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else 32
        if any(value[place : place + 4]):  # it is no way to name a default route
            found.append(Route(Prefix(Address(value[place : place + 4]), length).network, Address(value[place + 4 : place + 8])))
    return found


def _dns(lease: Lease) -> DNS:
    domain = lease.ack.options.get(dhcp.DOMAIN_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return DNS([str(one) for one in lease.ack.addresses(dhcp.DNS_SERVER)], domain)
