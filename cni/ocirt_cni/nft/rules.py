"""What one attachment has from one plugin in nftables: what the rules are, and the elements that they are made of."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Attachment
from ocirt_cni.nft import base, owners, sets
from ocirt_cni.nft.sets import BRIDGE, INET, Element

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.nft.sets import Set

_FORM = 1  # of records

# Whose connections to a published port come from the host's address: nobody's; those of the container's network and of loopback,
# which could get no answer otherwise; everybody's (portmap's `snat` and `masqAll`).
PLAIN, HAIRPIN, ALL = "plain", "hairpin", "all"


class Port:
    """A published port: of the host (`host` None: of any of its addresses), and of the container (a Prefix with its network)."""

    __slots__ = ("container", "host", "host_port", "port", "protocol", "source")

    def __init__(
        self, protocol: str, host: Address | None, host_port: int, container: Prefix, port: int, source: str = HAIRPIN
    ) -> None:
        """`protocol`: tcp, udp or sctp; `source`: PLAIN, HAIRPIN or ALL."""
        self.protocol = protocol
        self.host = host
        self.host_port = host_port
        self.container = container
        self.port = port
        self.source = source

    def document(self) -> list[Any]:
        """As a record has it."""
        host = "" if self.host is None else str(self.host)
        return [self.protocol, host, self.host_port, str(self.container), self.port, self.source]

    @classmethod
    def parse(cls, document: list[Any]) -> Port:
        """From a record."""
        protocol, host, host_port, container, port, source = document
        return cls(protocol, Address.parse(host) if host else None, host_port, Prefix.parse(container), port, source)

    @property
    def at_host(self) -> str:
        """HOST:PORT/PROTOCOL, as in an error."""
        return f"{_joined(self.host, self.host_port)}/{self.protocol}"

    @property
    def rivals(self) -> list[tuple[Set, bytes]]:
        """The keys of elements that would take its packets: of whom they are, has the port."""
        version, key = self.container.version, [self.protocol, self.host_port]
        found = [(one, one.key_of(key)) for one in (sets.PORTS[version], sets.CONDITIONAL[version])]
        rival = sets.HOST_PORTS[version]
        return found if self.host is None else [*found, (rival, rival.key_of([self.host, *key]))]

    @property
    def claim(self) -> str:
        """What those claim who have the port at one address of the host."""
        return f"host_port {self.protocol}{self.container.version} {self.host_port}"

    def __str__(self) -> str:
        """PROTOCOL HOST:PORT -> CONTAINER:PORT."""
        return f"{self.protocol} {_joined(self.host, self.host_port)} -> {_joined(self.container.address, self.port)}"


class Rules:
    """The rules of one attachment, made by one plugin."""

    def __init__(self, attachment: Attachment, plugin: str, folder: str = "") -> None:
        """`plugin`: its name; `folder`: `ipam.dataDir`, if that is configured: two runtimes may have networks of one name."""
        self.folder = folder
        self.attachment = attachment
        self.plugin = plugin
        self.masqueraded: list[Prefix] = []
        self.ports: list[Port] = []
        self.admitted: list[str] = []
        self.localnet: list[str] = []
        self.sources: list[tuple[str, str]] = []
        self.bridges: list[tuple[str, bool]] = []
        self.apart: list[str] = []
        self.asked: list[str] = []
        self.zone = ""
        self.zoned: list[str] = []
        self.conditions: dict[int, str] = {}

    def masquerade(self, prefixes: list[Prefix]) -> None:
        """Traffic of these addresses leaves the host as the host's own.

        Each comes with its network's length: traffic to its own network and multicast is left alone.
        """
        self.masqueraded += prefixes

    def publish(self, port: Port) -> None:
        """Traffic to a port of the host goes to a port of the container."""
        self.ports.append(port)

    def admit(self, device: str) -> None:
        """Let pass other tables' chains: what comes from a link of the host, the answers, and connections to published ports."""
        self.admitted.append(device)

    def route_localnet(self, device: str) -> None:
        """Let 127.0.0.0/8 reach what is behind a link (the sysctl of that name), and nothing from there reach 127.0.0.0/8."""
        self.localnet.append(device)

    def forbid_spoofing(self, device: str, mac: str) -> None:
        """Frames that enter by the bridge port `device` have this source address (macspoofchk), also in what they say by ARP."""
        self.sources.append((device, mac.lower()))

    def isolate(self, bridge: str, *, within: bool = False) -> None:
        """Nothing passes between this bridge and others that are isolated; `within`: nor from the bridge to itself."""
        self.bridges.append((bridge, within))

    def keep_apart(self, device: str) -> None:
        """Nothing passes between this bridge port and others that are kept apart."""
        self.apart.append(device)

    def ask(self, chain: str) -> None:
        """Before traffic is admitted in a table of iptables, a chain of the administrator's there decides."""
        self.asked.append(chain)

    def put_into(self, zone: str, sources: list[str]) -> None:
        """These addresses, with their lengths, are sources of a zone of firewalld's."""
        self.zone = zone
        self.zoned = sources

    @property
    def name(self) -> str:
        """The name of its record."""
        return record_name(self.attachment, self.plugin)

    def document(self) -> dict[str, Any]:
        """The record."""
        one = self.attachment
        return {
            "form": _FORM,
            "plugin": self.plugin,
            "folder": self.folder,
            "attachment": [one.network, one.container, one.ifname],
            "masqueraded": [str(each) for each in self.masqueraded],
            "ports": [each.document() for each in self.ports],
            "admitted": self.admitted,
            "localnet": self.localnet,
            "sources": [list(each) for each in self.sources],
            "bridges": [list(each) for each in self.bridges],
            "apart": self.apart,
            "asked": self.asked,
            "zone": self.zone,
            "zoned": self.zoned,
            "conditions": [[version, text] for version, text in self.conditions.items() if text],
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Rules:
        """From a record, of this form or an older one."""
        made = cls(Attachment(*document["attachment"]), document["plugin"], document["folder"])
        made.masqueraded = [Prefix.parse(each) for each in document["masqueraded"]]
        made.ports = [Port.parse(each) for each in document["ports"]]
        made.admitted = document["admitted"]
        made.localnet = document["localnet"]
        made.sources = [(device, mac) for device, mac in document["sources"]]
        made.bridges = [(bridge, within) for bridge, within in document["bridges"]]
        made.apart = document["apart"]
        made.asked = document["asked"]
        made.zone, made.zoned = document.get("zone", ""), document.get("zoned", [])
        made.conditions = {version: text for version, text in document["conditions"]}  # noqa: C416  (a list of lists)
        return made

    def elements(self) -> list[Element]:
        """The elements that are its own."""
        owner = owners.comment(self.attachment)
        found = [_of_source(one, owner) for one in self.masqueraded]
        for port in self.ports:
            found += _of_port(port, owner, self._conditioned(port))
        for device, mac in self.sources:
            found.append(sets.CHECKED.element([device], comment=owner))
            found.append(sets.SOURCES.element([device, mac], comment=owner))
        found += [sets.APART.element([device], comment=owner) for device in self.apart]
        return list(dict.fromkeys(found))

    def shared(self) -> dict[str, Element]:
        """The elements that others may use as well, by the name of the claim."""
        found = {f"admitted {one}": sets.ADMITTED.element([one], comment=owners.SHARED) for one in self.admitted}
        found |= {f"localnet {one}": sets.LOCALNET.element([one], comment=owners.SHARED) for one in self.localnet}
        for bridge, within in self.bridges:
            found[f"bridge {bridge}"] = sets.BRIDGES.element([bridge], comment=owners.SHARED)
            if not within:
                found[f"pair {bridge}"] = sets.PAIRS.element([bridge, bridge], comment=owners.SHARED)
        return found

    def chains(self) -> dict[str, str]:
        """The chains that it needs: those that its elements jump to, and its networks'. By the name of the claim."""
        names = {one.chain for one in self.elements() if one.chain}
        names |= {base.masquerading(one) for one in self.masqueraded}
        names |= {base.hairpinning(port.container) for port in self.ports if port.source == HAIRPIN}
        return {f"chain {name.replace('/', '_')}": name for name in sorted(names)}

    def claims(self) -> list[str]:
        """What it shares with others."""
        asked = [f"asked {one}" for one in self.asked]
        return [*self.chains(), *self.shared(), *asked, *{port.claim: None for port in self.ports if port.host is not None}]

    def commands(self, chain: str) -> str:
        """The commands that make a chain that it needs."""
        if not base.is_own(chain):
            return base.chain(chain)
        comment = f'comment "{owners.comment(self.attachment)}"'
        rules = [
            f"{_rule(port, self.conditions[port.container.version])} {comment}" for port in self.ports if self._conditioned(port)
        ]
        return base.chain_of(chain, rules)

    def _conditioned(self, port: Port) -> str:
        """The chain of a port that has conditions, else ""."""
        return owners.chain(self.attachment) if self.conditions.get(port.container.version) else ""

    def families(self) -> list[int]:
        """The families of the tables that it needs."""
        return [INET, BRIDGE] if self.sources or self.apart else [INET]


def record_name(attachment: Attachment, plugin: str) -> str:
    """The name of the record of what an attachment has from a plugin."""
    return f"{plugin} {owners.comment(attachment)}"


def _rule(port: Port, conditions: str) -> str:
    ip = "ip" if port.container.version == 4 else "ip6"
    host = "" if port.host is None else f" {ip} daddr {port.host}"
    target = _joined(port.container.address, port.port)
    proto = f"meta nfproto ipv{port.container.version} meta l4proto {port.protocol} th dport {port.host_port}"
    return f"{proto}{host} {conditions} dnat {ip} to {target}"


def _of_port(port: Port, owner: str, chain: str) -> list[Element]:
    version = port.container.version
    value = (port.container.address, port.port)
    if chain:
        found = [sets.CONDITIONAL[version].element([port.protocol, port.host_port], chain=chain, comment=owner)]
    elif port.host is None:
        found = [sets.PORTS[version].element([port.protocol, port.host_port], value, comment=owner)]
    else:
        found = [sets.HOST_PORTS[version].element([port.host, port.protocol, port.host_port], value, comment=owner)]
    key = (port.container.address, port.protocol, port.port)
    if port.source == ALL:
        found.append(sets.HAIRPIN[version].element(key, chain=base.EVERYBODY, comment=owner))
    elif port.source == HAIRPIN and base.is_alone(port.container):
        found.append(sets.HAIRPIN[version].element(key, chain=base.hairpinning(port.container), comment=owner))
    elif port.source == HAIRPIN:
        found.append(sets.HAIRPINNED[version].element(key, comment=owner))
    return found


def _of_source(one: Prefix, owner: str) -> Element:
    if base.is_alone(one):
        return sets.MASQUERADE[one.version].element([one.address], chain=base.masquerading(one), comment=owner)
    return sets.MASQUERADED[one.version].element([one.address], comment=owner)


def _joined(address: Address | None, port: int) -> str:
    if address is None:
        return f"*:{port}"
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
