"""The tables themselves: chains, sets and maps that are there once, whoever is attached. In the language of nft(8).

`inet ocirt` does all but what needs the family bridge. Its chains run a little before those of docker, ufw, firewalld and
kube-proxy, at priorities of their own; `forwarded` runs behind all that may drop.
"""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.nft.sets import BRIDGE, INET, SETS, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.sets import Element

VERSION = "version-3"  # a chain without rules: who finds another one, found tables of another ocirt
MARK = 0x1000  # the bit of a packet's mark by which other tables' forward chains know what is ours; only while it is forwarded
FAMILIES = {INET: "inet", BRIDGE: "bridge"}
_LOOPBACK4 = "127.0.0.0/8"
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_BROADCAST = "255.255.255.255"

_INET = f"""
chain {VERSION} {{
}}

chain networks {{
}}

chain hairpins {{
}}

chain ports {{
    ip6 daddr ::1 return comment "the kernel has no route_localnet for IPv6"
    meta nfproto ipv4 meta l4proto . th dport vmap @conditional4
    meta nfproto ipv6 meta l4proto . th dport vmap @conditional6
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @host_ports4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @host_ports6
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6
}}

chain raw {{
    type filter hook prerouting priority raw - 5; policy accept;
    iifname @localnet ip daddr {_LOOPBACK4} drop
    iifname @localnet ip saddr {_LOOPBACK4} drop
}}

chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    fib daddr type local jump ports
}}

chain output {{
    type nat hook output priority -105; policy accept;
    fib daddr type local jump ports
}}

chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname @bridges oifname @bridges iifname . oifname != @pairs drop
    iifname @admitted meta mark set meta mark | {MARK:#x}
    oifname @admitted ct state established,related meta mark set meta mark | {MARK:#x}
    oifname @admitted ct status dnat meta mark set meta mark | {MARK:#x}
}}

chain forwarded {{
    type filter hook forward priority filter + 100; policy accept;
    meta mark & {MARK:#x} == {MARK:#x} meta mark set meta mark & {0xFFFFFFFF ^ MARK:#x}
}}

chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    ct status dnat ip daddr . meta l4proto . th dport @hairpinned4 jump hairpins
    ct status dnat ip6 daddr . meta l4proto . th dport @hairpinned6 jump hairpins
    ct status dnat ip daddr . meta l4proto . th dport vmap @hairpin4
    ct status dnat ip6 daddr . meta l4proto . th dport vmap @hairpin6
    ip saddr @masqueraded4 jump networks
    ip6 saddr @masqueraded6 jump networks
    ip saddr vmap @masquerade4
    ip6 saddr vmap @masquerade6
}}
"""

_BRIDGE = f"""
chain {VERSION} {{
}}

chain prerouting {{
    type filter hook prerouting priority filter - 5; policy accept;
    iifname @checked iifname . ether saddr != @sources drop
    iifname @checked iifname . arp saddr ether != @sources drop
}}

chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname @apart oifname @apart drop
}}
"""

_CHAINS = {INET: _INET, BRIDGE: _BRIDGE}


def table(family: int) -> str:
    """The commands that make a table; they fail if there is one already."""
    sets = "\n".join(one.declaration for one in SETS if one.family == family)
    name = f"{FAMILIES[family]} {TABLE}"
    return f"create table {name}\ntable {name} {{\n{sets}\n{_CHAINS[family]}}}\n"


def masquerading(prefix: Prefix) -> str:
    """The name of the chain that masquerades what leaves a network."""
    return _name("masquerade", prefix)


def hairpinning(prefix: Prefix) -> str:
    """The name of the chain that masquerades what comes to a published port from the container's network or loopback."""
    return _name("hairpin", prefix)


_ABOVE = {"masquerade": "networks", "hairpin": "hairpins"}
EVERYBODY = "hairpin-all"  # the chain that masquerades whoever comes


_OWN = "conditions-"


def own_chain(unique: str) -> str:
    """The name of the chain that one attachment has for itself, for ports with conditions."""
    return f"{_OWN}{unique}"


def is_own(name: str) -> bool:
    """Whether a chain is one attachment's."""
    return name.startswith(_OWN)


def is_alone(prefix: Prefix) -> bool:
    """Whether an address is a network for itself."""
    return prefix.length == prefix.address.bits


def above(name: str) -> str:
    """The chain from which a rule jumps to that of a network; "" if elements of a map do."""
    kind, _, rest = name.partition("-")
    if kind not in _ABOVE or rest == "all" or is_alone(_prefix(rest)):
        return ""
    return _ABOVE[kind]


def chain(name: str) -> str:
    """The commands that make a chain of the names above."""
    kind, _, rest = name.partition("-")
    if rest == "all":
        return chain_of(name, ["masquerade"])
    prefix = _prefix(rest)
    ip = "ip" if prefix.version == 4 else "ip6"
    if kind == "masquerade":
        which = "saddr"
        left = [str(prefix), _MULTICAST[prefix.version], *([_BROADCAST] if prefix.version == 4 else [])]
        rules = [*(f"{ip} daddr {one} return" for one in left), "masquerade"]
    else:
        which = "daddr"
        sources = [str(prefix), *([_LOOPBACK4] if prefix.version == 4 else [])]
        rules = [f"{ip} saddr {one} masquerade" for one in sources]
    if not above(name):
        return chain_of(name, rules)
    # By its comment the rule is found again.
    return f'{chain_of(name, rules)}add rule inet {TABLE} {above(name)} {ip} {which} {prefix} jump {name} comment "{name}"\n'


def chain_of(name: str, rules: list[str]) -> str:
    """The commands that make, or make anew, a chain of these rules."""
    where = f"inet {TABLE} {name}"
    return "".join([f"add chain {where}\nflush chain {where}\n", *(f"add rule {where} {rule}\n" for rule in rules)])


def element(one: Element) -> str:
    """The command that adds an element."""
    key = " . ".join(f'"{text}"' if kind == "device" else text for kind, text in zip(one.set.key, one.fields, strict=True))
    value = f" : {str(one).partition(' : ')[2]}" if one.set.data else ""
    return f'add element {FAMILIES[one.set.family]} {TABLE} {one.set.name} {{ {key} comment "{one.comment}"{value} }}\n'


def _name(kind: str, prefix: Prefix) -> str:
    return f"{kind}-{str(prefix.network).replace(':', '_')}"


def _prefix(rest: str) -> Prefix:
    return Prefix.parse(rest.replace("_", ":"))
