"""From the language of nft(8) to nf_tables' own messages, for what `base` and `forward` say in it and no more.

An executable that makes the tables would load libnftables and ctypes for it, which takes 8 ms of processor time, and this 1. What
is not understood here (a condition that somebody wrote) is libnftables' to do. One command, set, chain or rule stands in a line.
"""

from __future__ import annotations

from _struct import pack

from ocirt_cni.addresses import Prefix
from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import Request
from ocirt_cni.nft.sets import BRIDGE, INET, IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_cni.netlink.codec import Value

    Expression = tuple[str, dict[int, Value]]  # the name, and the attributes

_NEWTABLE, _NEWCHAIN, _NEWRULE, _DELRULE, _NEWSET = (10 << 8 | message for message in (0, 3, 6, 8, 9))
_FAMILIES = {"ip": IPV4, "ip6": IPV6, "inet": INET, "bridge": BRIDGE}
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_PRIORITIES = {"raw": -300, "dstnat": -100, "filter": 0, "srcnat": 100}
_PRIORITIES_BRIDGE = {"filter": -200}
_VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "return": -5}  # NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_RETURN
# The types of libnftables, which reads sets by them; their lengths; the order of their bytes: the machine's 1, the network's 2.
_TYPES = {
    "ipv4_addr": (7, 4, 2),
    "ipv6_addr": (8, 16, 2),
    "ether_addr": (9, 6, 2),
    "inet_proto": (12, 1, 2),
    "inet_service": (13, 2, 2),
    "ifname": (41, 16, 1),
}
_NETWORK, _TRANSPORT, _LINK = 1, 2, 0  # NFT_PAYLOAD_*
_MARK, _NFPROTO = 3, 15  # NFT_META_*
# What a rule can look at: (expression, its attributes beside the register, length, what the packet has to be).
_LOADS: dict[str, tuple[str, dict[int, int], int, str]] = {
    "iifname": ("meta", {2: 6}, 16, ""),
    "oifname": ("meta", {2: 7}, 16, ""),
    "meta mark": ("meta", {2: _MARK}, 4, ""),
    "meta nfproto": ("meta", {2: _NFPROTO}, 1, ""),
    "meta l4proto": ("meta", {2: 16}, 1, ""),
    "ip saddr": ("payload", {2: _NETWORK, 3: 12, 4: 4}, 4, "ipv4"),
    "ip daddr": ("payload", {2: _NETWORK, 3: 16, 4: 4}, 4, "ipv4"),
    "ip6 saddr": ("payload", {2: _NETWORK, 3: 8, 4: 16}, 16, "ipv6"),
    "ip6 daddr": ("payload", {2: _NETWORK, 3: 24, 4: 16}, 16, "ipv6"),
    "th dport": ("payload", {2: _TRANSPORT, 3: 2, 4: 2}, 2, ""),
    "ether saddr": ("payload", {2: _LINK, 3: 6, 4: 6}, 6, ""),
    "arp saddr ether": ("payload", {2: _NETWORK, 3: 8, 4: 6}, 6, "arp"),
    "ct state": ("ct", {2: 0}, 4, ""),
    "ct status": ("ct", {2: 2}, 4, ""),
    "fib daddr type": ("fib", {2: 3, 3: 2}, 4, ""),
}
_VALUES = {
    "meta nfproto": {"ipv4": bytes([IPV4]), "ipv6": bytes([IPV6])},
    "fib daddr type": {"local": pack("I", 2)},
}
_BITS = {"ct state": {"established": 2, "related": 4}, "ct status": {"dnat": 1 << 5}}
_EQUAL, _UNEQUAL = 0, 1


class NotUnderstoodError(Exception):
    """Something else than what is compiled here."""


def compiled(commands: str) -> list[Request]:
    """The messages. Raises NotUnderstoodError."""
    try:
        return _Compiler().compiled(commands)
    except (KeyError, ValueError, IndexError, StopIteration) as err:
        raise NotUnderstoodError from err


class _Compiler:
    def __init__(self) -> None:
        self.found: list[Request] = []
        self.where: tuple[int, str] = (0, "")  # the family and table of the block
        self.chain = ""  # of the block
        self.sets = 0

    def compiled(self, commands: str) -> list[Request]:
        for line in commands.splitlines():
            text, _, rest = line.partition('comment "')
            comment, _, rest = rest.partition('"')
            if rest.strip(" ;}"):
                raise ValueError(line)
            words = text.replace(";", " ;").split()
            if words and words[0] in ("create", "add", "insert", "flush", "delete"):
                self._command(words, comment)
            elif words and self.chain:
                self._in_chain(words, comment)
            elif words:
                self._in_table(words)
        return self.found

    def _command(self, words: list[str], comment: str) -> None:
        verb, kind, family, table, *words = words
        where = _FAMILIES[family], table
        if (verb, kind) == ("create", "table") and words in ([], ["{"]):
            self._send(_NEWTABLE, codec.NLM_F_CREATE | codec.NLM_F_EXCL, where, {2: _number(0), **_note(6, comment)})
        elif (verb, kind) == ("add", "chain"):
            name, *head = words
            self._add_chain(where, name, head[1:] if head != ["{"] else [], comment)
        elif (verb, kind, len(words)) == ("flush", "chain", 1):
            self._send(_DELRULE, 0, where, {2: words[0]})
        elif (verb, kind) in (("add", "rule"), ("insert", "rule")):
            self._add_rule(where, words[0], words[1:], comment, first=verb == "insert")
        elif (verb, kind, words[1]) == ("delete", "rule", "handle"):
            self._send(_DELRULE, 0, where, {2: words[0], 3: pack(">Q", int(words[2]))})
        else:
            raise ValueError(verb)

    def _in_table(self, words: list[str]) -> None:
        if words[0] == "table":
            self.where = _FAMILIES[words[1]], words[2]
        elif words[0] in ("set", "map"):
            self._add_set(words)
        elif words[0] == "chain":
            self.chain = words[1]
            self._add_chain(self.where, self.chain, [], "")
        elif words != ["}"]:
            raise ValueError(words)

    def _in_chain(self, words: list[str], comment: str) -> None:
        if words == ["}"]:
            self.chain = ""
        elif words[0] == "type":
            self.found.pop()  # the chain without a hook
            self._add_chain(self.where, self.chain, words, comment)
        else:
            self._add_rule(self.where, self.chain, words, comment)

    def _add_set(self, words: list[str]) -> None:
        """set NAME { type TYPE . TYPE ; }, map NAME { type TYPE . TYPE : TYPE . TYPE ; }."""
        kind, name, _, _, *types = words
        if types[-2:] != [";", "}"] or types.count(";") > 1:
            raise ValueError(words)
        types = types[:-2]
        key, data = (types[: types.index(":")], types[types.index(":") + 1 :]) if kind == "map" else (types, [])
        self.sets += 1
        number, length, order = _type(key)
        note = pack("=BBI", 0, 4, order)
        values: dict[int, Value] = {
            2: name,
            3: _number(8 if data else 0),
            4: _number(number),
            5: _number(length),
        }
        values[10] = _number(self.sets)
        if data == ["verdict"]:
            values[6], values[7] = _number(0xFFFFFF00), _number(0)
        elif data:
            number, length, order = _type(data)
            values[6], values[7] = _number(number), _number(length)
            note += pack("=BBI", 1, 4, order)
        values[13] = note
        self._send(_NEWSET, codec.NLM_F_CREATE, self.where, values)

    def _add_chain(self, where: tuple[int, str], name: str, head: list[str], comment: str) -> None:
        """`head`: nothing, or type TYPE hook HOOK priority NAME - N ; policy accept ;."""
        values: dict[int, Value] = {3: name}
        if head:
            _, kind, _, hook, _, priority, *rest = head
            offset = int(f"{rest[0]}{rest[1]}") if rest[0] in "+-" else 0
            if rest[-4:] != [";", "policy", "accept", ";"]:
                raise ValueError(head)
            named = _PRIORITIES_BRIDGE if where[0] == BRIDGE else _PRIORITIES
            value = (named[priority] if priority in named else int(priority)) + offset
            values[4] = {1: _number(_HOOKS[hook]), 2: pack(">i", value)}
            values[5] = _number(1)  # NF_ACCEPT
            values[7] = kind
        self._send(_NEWCHAIN, codec.NLM_F_CREATE, where, values | _note(12, comment))

    def _add_rule(self, where: tuple[int, str], chain: str, words: list[str], comment: str, *, first: bool = False) -> None:
        expressions = _Rule(where[0], words).expressions
        listed: list[tuple[int, Value]] = [(1, {1: name, 2: attributes}) for name, attributes in expressions]
        flags = codec.NLM_F_CREATE | (0 if first else codec.NLM_F_APPEND)
        self._send(_NEWRULE, flags, where, {2: chain, 4: listed, **_note(7, comment)})

    def _send(self, kind: int, flags: int, where: tuple[int, str], values: dict[int, Value]) -> None:
        """Attribute 1 is the table's name with all of them."""
        family, table = where
        contents = pack(">BBH", family, 0, 0) + codec.attributes({1: table, **values})
        self.found.append(Request(kind, flags, contents, f"a change of the table {table}"))


class _Rule:
    """The expressions of a rule."""

    def __init__(self, family: int, words: list[str]) -> None:
        self.expressions: list[Expression] = []
        self.family = family
        self.known = ""  # what the packet is known to be
        self.words = words
        self.place = 0
        while self.place < len(words):
            self._statement()

    def _next(self) -> str:
        self.place += 1
        return self.words[self.place - 1]

    def _is_next(self, word: str) -> bool:
        found = self.words[self.place : self.place + 1] == [word]
        self.place += found
        return found

    def _statement(self) -> None:
        word = self.words[self.place]
        if word in _VERDICTS:
            self.place += 1
            verdict: dict[int, Value] = {1: pack(">i", _VERDICTS[word])}
            if word == "jump":
                verdict[2] = self._next()
            self._add("immediate", {1: _number(0), 2: {2: verdict}})
        elif word in ("masquerade", "counter"):
            self.place += 1
            self._add({"masquerade": "masq"}.get(word, word), {})
        elif word == "dnat":
            self._dnat()
        elif self.words[self.place : self.place + 3] == ["meta", "mark", "set"]:
            self.place += 3
            self._set_mark()
        else:
            self._match()

    def _dnat(self) -> None:
        """dnat ip to KEY map @MAP."""
        self.place += 1
        family = _FAMILIES[self._next()]
        if not self._is_next("to"):
            raise ValueError(self.words)
        self._load(self._fields())
        if not self._is_next("map"):
            raise ValueError(self.words)
        self._look_up(_number(1))
        port = 9 if family == IPV4 else 2  # the register behind the address
        self._add("nat", {1: _number(1), 2: _number(family), 3: _number(1), 5: _number(port)})

    def _set_mark(self) -> None:
        """Meta mark set meta mark | BITS, or & BITS."""
        self._load(self._fields())
        operator, bits = self._next(), int(self._next(), 0)
        if operator not in "&|":
            raise ValueError(operator)
        self._bitwise(*((0xFFFFFFFF ^ bits, bits) if operator == "|" else (bits, 0)))
        self._add("meta", {2: _number(_MARK), 3: _number(1)})

    def _match(self) -> None:
        fields = self._fields()
        word = self.words[self.place]
        if word.startswith("@") or word in ("!=", "vmap"):
            self._load(fields)
            if self._is_next("vmap"):
                self._look_up(_number(0))
            else:
                self._look_up(None, inverted=self._is_next("!="))
            return
        (name,) = fields
        self.place += 1
        if word == "&":
            self._load(fields)
            mask, equal, value = int(self._next(), 0), self._next(), int(self._next(), 0)
            if equal != "==":
                raise ValueError(equal)
            self._bitwise(mask, 0)
            self._compare(_EQUAL, pack("I", value))
        elif name.startswith("ip"):
            self._match_prefix(name, Prefix.parse(word if "/" in word else f"{word}/{128 if ':' in word else 32}"))
        elif name in _BITS:
            self._load(fields)
            self._bitwise(sum(_BITS[name][one] for one in word.split(",")), 0)
            self._compare(_UNEQUAL, bytes(4))
        else:
            self._load(fields)
            self._compare(_EQUAL, _VALUES[name][word])
            if name == "meta nfproto":
                self.known = word

    def _match_prefix(self, name: str, prefix: Prefix) -> None:
        size, rest = divmod(prefix.length, 8)
        network = prefix.first.packed
        if not prefix.length:
            raise ValueError(prefix)
        if not rest:  # as many bytes as count
            self._load([name], size)
            self._compare(_EQUAL, network[:size])
            return
        self._load([name])
        mask = ((1 << prefix.length) - 1 << prefix.address.bits - prefix.length).to_bytes(len(network), "big")
        self._mask(mask, bytes(len(network)))
        self._compare(_EQUAL, network)

    def _fields(self) -> list[str]:
        """FIELD . FIELD: their names."""
        found = []
        while True:
            for count in (3, 2, 1):
                name = " ".join(self.words[self.place : self.place + count])
                if name in _LOADS:
                    break
            else:
                raise ValueError(self.words)
            found.append(name)
            self.place += count
            if not self._is_next("."):
                return found

    def _load(self, fields: Sequence[str], length: int = 0) -> None:
        """Load fields one behind the other, from the first register on; `length`: so many bytes of the only one."""
        for name in fields:
            self._need(_LOADS[name][3])
        slot = 0  # of 4 bytes
        for name in fields:
            kind, attributes, size, _ = _LOADS[name]
            values: dict[int, Value] = {key: _number(value) for key, value in attributes.items()}
            if length:
                values[4] = _number(length)
            self._add(kind, {1: _number(8 + slot if slot % 4 else 1 + slot // 4), **values})
            slot += size + 3 >> 2

    def _need(self, what: str) -> None:
        """The packet has to be of this kind, for a field to be where it is looked for."""
        if not what or what == self.known or self.family in (IPV4, IPV6):
            return
        if self.known:
            raise ValueError(what)
        self.known = what
        if what == "arp":
            self._add("payload", {1: _number(1), 2: _number(_LINK), 3: _number(12), 4: _number(2)})
            self._compare(_EQUAL, b"\x08\x06")
        else:
            self._add("meta", {1: _number(1), 2: _number(_NFPROTO)})
            self._compare(_EQUAL, bytes([_FAMILIES["ip" if what == "ipv4" else "ip6"]]))

    def _look_up(self, into: bytes | None, *, inverted: bool = False) -> None:
        name = self._next()
        if not name.startswith("@"):
            raise ValueError(name)
        values: dict[int, Value] = {1: name[1:], 2: _number(1)}
        if into is not None:
            values[3] = into
        if inverted:
            values[5] = _number(1)
        self._add("lookup", values)

    def _compare(self, operator: int, value: bytes) -> None:
        self._add("cmp", {1: _number(1), 2: _number(operator), 3: {1: value}})

    def _bitwise(self, mask: int, flip: int) -> None:
        self._mask(pack("I", mask), pack("I", flip))

    def _mask(self, mask: bytes, flip: bytes) -> None:
        values: dict[int, Value] = {
            1: _number(1),
            2: _number(1),
            3: _number(len(mask)),
            6: _number(0),
            4: {1: mask},
            5: {1: flip},
        }
        self._add("bitwise", values)

    def _add(self, name: str, attributes: dict[int, Value]) -> None:
        self.expressions.append((name, attributes))


def _type(words: Sequence[str]) -> tuple[int, int, int]:
    """Number, length and order of bytes of TYPE . TYPE."""
    found = [_TYPES[one] for one in words if one != "."]
    if len(found) == 1:
        return found[0]
    number = 0
    for one, _, _ in found:
        number = number << 6 | one
    return number, sum(length + 3 & ~3 for _, length, _ in found), 0


def _number(value: int) -> bytes:
    return pack(">I", value)


def _note(kind: int, comment: str) -> dict[int, Value]:
    """A comment as userdata; nothing for none."""
    text = comment.encode() + b"\0"
    return {kind: pack("BB", 0, len(text)) + text} if comment else {}
