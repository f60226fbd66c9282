"""Results of ADD, in the forms of all versions (SPEC.md, "Success"). In memory there is one form, that of the newest."""

from __future__ import annotations

from ocirt_cni import versions
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.errors import DECODING_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Interface:
    """A link. `sandbox`: the path of the network namespace it is in, "" for the host's."""

    __slots__ = ("mac", "mtu", "name", "pci_id", "sandbox", "socket_path")

    def __init__(
        self, name: str, mac: str = "", *, sandbox: str = "", mtu: int = 0, socket_path: str = "", pci_id: str = ""
    ) -> None:
        self.name = name
        self.mac = mac
        self.sandbox = sandbox
        self.mtu = mtu
        self.socket_path = socket_path
        self.pci_id = pci_id

    def document(self, version: str) -> dict[str, Any]:
        """As it stands in a result of 0.3.0 or later."""
        found: dict[str, Any] = {"name": self.name, "mac": self.mac, "sandbox": self.sandbox}
        if versions.at_least(version, "1.1.0"):
            found |= {"mtu": self.mtu, "socketPath": self.socket_path, "pciID": self.pci_id}
        return {key: value for key, value in found.items() if value or key == "name"}


class IP:
    """An address of an interface. `interface`: its place among the result's interfaces; None in the result of an IPAM plugin."""

    __slots__ = ("address", "gateway", "interface")

    def __init__(self, address: Prefix, gateway: Address | None = None, interface: int | None = None) -> None:
        self.address = address
        self.gateway = gateway
        self.interface = interface

    def document(self, version: str) -> dict[str, Any]:
        """As it stands in a result of 0.3.0 or later."""
        found: dict[str, Any] = {}
        if not versions.at_least(version, "1.0.0"):
            found["version"] = str(self.address.version)
        if self.interface is not None:
            found["interface"] = self.interface
        found["address"] = str(self.address)
        if self.gateway is not None:
            found["gateway"] = str(self.gateway)
        return found


class Route:
    """A route of the container. `gateway` None: the interface's. Numbers are None where nobody chose one."""

    __slots__ = ("advmss", "destination", "gateway", "mtu", "priority", "scope", "table")

    def __init__(
        self,
        destination: Prefix,
        gateway: Address | None = None,
        *,
        mtu: int | None = None,
        advmss: int | None = None,
        priority: int | None = None,
        table: int | None = None,
        scope: int | None = None,
    ) -> None:
        self.destination = destination
        self.gateway = gateway
        self.mtu = mtu
        self.advmss = advmss
        self.priority = priority
        self.table = table
        self.scope = scope

    def document(self, version: str) -> dict[str, Any]:
        """As it stands in a result or a configuration."""
        found: dict[str, Any] = {"dst": str(self.destination)}
        if self.gateway is not None:
            found["gw"] = str(self.gateway)
        if versions.at_least(version, "1.1.0"):
            numbers = {name: getattr(self, name) for name in _NUMBERS}
            found |= {name: value for name, value in numbers.items() if value is not None}
        return found


_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")


class DNS:
    """What a resolver of the container should be told."""

    __slots__ = ("domain", "nameservers", "options", "search")

    def __init__(
        self,
        nameservers: list[str] | None = None,
        domain: str = "",
        search: list[str] | None = None,
        options: list[str] | None = None,
    ) -> None:
        self.nameservers = nameservers or []
        self.domain = domain
        self.search = search or []
        self.options = options or []

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)

    def document(self) -> dict[str, Any]:
        """As it stands in a result or a configuration."""
        found = {"nameservers": self.nameservers, "domain": self.domain, "search": self.search, "options": self.options}
        return {key: value for key, value in found.items() if value}


class Result:
    """What an ADD made."""

    __slots__ = ("dns", "interfaces", "ips", "routes")

    def __init__(
        self,
        interfaces: list[Interface] | None = None,
        ips: list[IP] | None = None,
        routes: list[Route] | None = None,
        dns: DNS | None = None,
    ) -> None:
        self.interfaces = interfaces or []
        self.ips = ips or []
        self.routes = routes or []
        self.dns = dns or DNS()

    def joined(self, other: Result) -> Result:
        """This one, and after it what another plugin of the chain made, whose addresses keep their interfaces."""
        before = len(self.interfaces)
        ips = [IP(one.address, one.gateway, None if one.interface is None else one.interface + before) for one in other.ips]
        return Result(
            [*self.interfaces, *other.interfaces],
            [*self.ips, *ips],
            [*self.routes, *other.routes],
            other.dns or self.dns,
        )

    def document(self, version: str) -> dict[str, Any]:
        """The JSON object of a version. Raises Error(INCOMPATIBLE_VERSION)."""
        if not versions.at_least(version, "0.3.0"):
            return self._old(version)
        found: dict[str, Any] = {"cniVersion": version}
        parts = {
            "interfaces": [one.document(version) for one in self.interfaces],
            "ips": [one.document(version) for one in self.ips],
            "routes": [one.document(version) for one in self.routes],
        }
        found |= {key: value for key, value in parts.items() if value}
        # Its absence says the same, but libcni has always written it.
        return found | {"dns": self.dns.document()}

    def _old(self, version: str) -> dict[str, Any]:
        """Before 0.3.0: one address of each IP version, with its routes; no interfaces."""
        found: dict[str, Any] = {"cniVersion": version}
        for ip in self.ips:
            key = f"ip{ip.address.version}"
            if key in found:
                continue
            one: dict[str, Any] = {"ip": str(ip.address)}
            if ip.gateway is not None:
                one["gateway"] = str(ip.gateway)
            routes = [route.document(version) for route in self.routes if route.destination.version == ip.address.version]
            if routes:
                one["routes"] = routes
            found[key] = one
        return found | {"dns": self.dns.document()}

    @classmethod
    def parse(cls, document: dict[str, Any], where: str = "", version: str = "") -> Result:
        """From JSON, of the version that it names, else `version`.

        Raises Error(DECODING_FAILURE) that names the field, or Error(INCOMPATIBLE_VERSION).
        """
        version = _get(document, "cniVersion", str, "", where) or version or versions.DEFAULT
        if not versions.at_least(version, "0.3.0"):
            return cls._parse_old(document, where)
        interfaces = [
            Interface(
                _get(one, "name", str, "", at),
                _get(one, "mac", str, "", at),
                sandbox=_get(one, "sandbox", str, "", at),
                mtu=_get(one, "mtu", int, 0, at),
                socket_path=_get(one, "socketPath", str, "", at),
                pci_id=_get(one, "pciID", str, "", at),
            )
            for one, at in _objects(document, "interfaces", where)
        ]
        ips = []
        for one, at in _objects(document, "ips", where):
            number = _get(one, "interface", int, None, at)
            if number is not None and not -1 <= number < len(interfaces):
                raise Error(DECODING_FAILURE, f"there is no interface {number}", subject=f"{at}/interface")
            ips.append(IP(_prefix(one, "address", at), _address(one, "gateway", at), None if number == -1 else number))
        routes = [parse_route(one, at) for one, at in _objects(document, "routes", where)]
        return cls(interfaces, ips, routes, parse_dns(document, where))

    @classmethod
    def _parse_old(cls, document: dict[str, Any], where: str) -> Result:
        ips, routes = [], []
        for key in ("ip4", "ip6"):
            one = _get(document, key, dict, None, where)
            if one is None:
                continue
            at = f"{where}/{key}"
            ips.append(IP(_prefix(one, "ip", at), _address(one, "gateway", at)))
            routes += [parse_route(each, below) for each, below in _objects(one, "routes", at)]
        return cls([], ips, routes, parse_dns(document, where))


def parse_route(document: dict[str, Any], where: str) -> Route:
    """A route of a result or a configuration. Raises Error(DECODING_FAILURE) that names the field."""
    numbers = {name: _get(document, name, int, None, where) for name in _NUMBERS}
    return Route(_prefix(document, "dst", where), _address(document, "gw", where), **numbers)


def parse_dns(document: dict[str, Any], where: str) -> DNS:
    """The field `dns` of a result or a configuration. Raises Error(DECODING_FAILURE) that names the field."""
    found = _get(document, "dns", dict, {}, where)
    at = f"{where}/dns"
    lists = {key: _get(found, key, list, [], at) for key in ("nameservers", "search", "options")}
    for key, value in lists.items():
        for number, one in enumerate(value):
            if not isinstance(one, str):
                raise Error(DECODING_FAILURE, "this is not a string", subject=f"{at}/{key}/{number}")
    return DNS(lists["nameservers"], _get(found, "domain", str, "", at), lists["search"], lists["options"])


def _get(document: dict[str, Any], name: str, kind: type, default: Any, where: str) -> Any:
    value = document.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise Error(DECODING_FAILURE, f"this is not of the type {kind.__name__}", subject=f"{where}/{name}")
    return value


def _objects(document: dict[str, Any], name: str, where: str) -> list[tuple[dict[str, Any], str]]:
    found = [(one, f"{where}/{name}/{number}") for number, one in enumerate(_get(document, name, list, [], where))]
    for one, at in found:
        if not isinstance(one, dict):
            raise Error(DECODING_FAILURE, "this is not an object", subject=at)
    return found


def _prefix(document: dict[str, Any], name: str, where: str) -> Prefix:
    text = _get(document, name, str, "", where)
    try:
        return Prefix.parse(text)
    except ValueError as err:
        raise Error(DECODING_FAILURE, str(err), subject=f"{where}/{name}") from None


def _address(document: dict[str, Any], name: str, where: str) -> Address | None:
    text = _get(document, name, str, "", where)
    if not text:
        return None
    try:
        return Address.parse(text)
    except ValueError as err:
        raise Error(DECODING_FAILURE, str(err), subject=f"{where}/{name}") from None
