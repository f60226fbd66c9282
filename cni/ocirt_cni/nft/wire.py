"""nf_tables' own messages (linux/netfilter/nf_tables.h), for what every ADD and DEL does.

libnftables takes 5 ms to load, and reads all chains and sets of the host for each command: beside the 3,000 of a kube-proxy,
adding an element takes it 8 ms, and this module 0.1.
"""

from __future__ import annotations

from _socket import SOL_SOCKET
from _struct import pack, unpack
from errno import ENOENT

from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import NETLINK_NETFILTER, KernelError, Netlink, Request, refusal
from ocirt_cni.nft.sets import TABLE, Element, Set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ocirt_cni.netlink.codec import Value

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFNL_BATCH_GENID = 1
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _DELCHAIN = range(6)
_GETRULE, _DELRULE, _GETSET = 7, 8, 10
_NEWSETELEM, _GETSETELEM, _DELSETELEM, _GETGEN = 12, 13, 14, 16
# Attributes: of an element and its list, of data, of chains, rules, tables.
_LIST_ELEM = 1
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_ELEM_KEY, _ELEM_DATA, _ELEM_USERDATA = 1, 2, 6
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_JUMP = pack(">i", -3)  # NFT_JUMP
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE, _CHAIN_USERDATA = 1, 3, 4, 5, 7, 12
_HOOK_NUMBER = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_USERDATA = 1, 2, 3, 7
_TABLE_NAME, _TABLE_USERDATA = 1, 6
_COMMENT = 0  # the type of the userdata of libnftnl that is a comment: of tables, chains, rules and elements
_AT_ONCE = 200  # elements in a message: a nested attribute has at most 64 KiB
_SO_SNDBUFFORCE = 32
_BUFFER = 8 << 20  # bytes: a transaction is one datagram


class Chain:
    """A chain: its family, table and name; `hook` and `type` of a base chain, whether its policy is `drop`; its comment."""

    __slots__ = ("comment", "drops", "family", "hook", "name", "table", "type")

    def __init__(self, contents: bytes) -> None:
        self.family = contents[0]
        attributes = codec.parse(contents, 4)
        self.table = codec.text(attributes[_CHAIN_TABLE])
        self.name = codec.text(attributes[_CHAIN_NAME])
        hook = attributes.get(_CHAIN_HOOK)
        self.hook: int | None = None if hook is None else unpack(">I", codec.parse(hook)[_HOOK_NUMBER])[0]
        self.type = codec.text(attributes.get(_CHAIN_TYPE, b""))
        self.drops = attributes.get(_CHAIN_POLICY) == bytes(4)  # NF_DROP
        self.comment = comment_of(attributes.get(_CHAIN_USERDATA, b""))


class Tables(Netlink):
    """A socket to nf_tables, in the network namespace that the thread is in when it is made."""

    def __init__(self) -> None:
        """Raises KernelError."""
        super().__init__(NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        except OSError:
            pass  # no CAP_NET_ADMIN: the kernel will say so of the first request, in clearer words

    def option(self, level: int, name: int, size: int) -> bytes:
        """A socket option: getsockopt(2). Raises OSError."""
        found: bytes = self._socket.getsockopt(level, name, size)
        return found

    def transact(self, requests: Sequence[Request], generation: int | None = None) -> None:
        """All of them or none; with `generation` only if nothing changed since (ERESTART). Raises KernelError: the first."""
        if not requests:
            return
        begin, end = self._sequence + 1, self._sequence + len(requests) + 2
        head = b"" if generation is None else codec.attribute(_NFNL_BATCH_GENID, pack(">I", generation))
        data = [codec.message(_BATCH_BEGIN, 0, begin, _header(0, _SUBSYSTEM) + head)]
        for number, one in enumerate(requests, begin + 1):
            # The last one's answer comes after all others' errors. An answer to each would not fit into the socket.
            flags = one.flags | (codec.NLM_F_ACK if number == end - 1 else 0)
            data.append(codec.message(one.kind, flags, number, one.contents))
        data.append(codec.message(_BATCH_END, 0, end, _header(0, _SUBSYSTEM)))
        self._sequence = end
        try:
            self._socket.send(b"".join(data))
        except OSError as err:
            raise KernelError(err.errno or 0, "send(AF_NETLINK)") from None
        first: KernelError | None = None
        while True:
            for kind, flags, sequence, contents in self._receive():
                if kind != 2 or not begin <= sequence <= end:  # NLMSG_ERROR
                    continue
                what = requests[sequence - begin - 1].what if begin < sequence < end else "a transaction of nf_tables"
                first = first or refusal(flags, contents, what)
                # What befalls the transaction as a whole is answered at its begin, and perhaps by nothing else.
                if sequence == end - 1 or (sequence in (begin, end) and first is not None):
                    if first is not None:
                        raise first
                    return

    def find(self, within: Set, key: bytes) -> Element | None:
        """The element of a key, if there is one. Raises KernelError."""
        values = _elements(within, [Element(within, key)])
        request = Request(_kind(_GETSETELEM), 0, _header(within.family) + codec.attributes(values), f"get from {within.name}")
        try:
            found = self.get(request)
        except KernelError as err:
            if err.errno == ENOENT:
                return None
            raise
        return _parse(within, found)[0]

    def every(self, within: Set) -> list[Element]:
        """All elements. Raises KernelError; of a table that is not there it has none."""
        values: dict[int, Value] = {_ELEMENTS_TABLE: TABLE, _ELEMENTS_SET: within.name}
        request = Request(_kind(_GETSETELEM), 0, _header(within.family) + codec.attributes(values), f"list {within.name}")
        try:
            return [one for contents in self.dump(request) for one in _parse(within, contents)]
        except KernelError as err:
            if err.errno == ENOENT:
                return []
            raise

    def has_chain(self, family: int, name: str, table: str = TABLE) -> bool:
        """Whether there is such a chain. Raises KernelError."""
        return self._has(_GETCHAIN, family, {_CHAIN_TABLE: table, _CHAIN_NAME: name})

    def has_table(self, family: int, table: str = TABLE) -> bool:
        """Whether there is such a table. Raises KernelError."""
        return self._has(_GETTABLE, family, {_TABLE_NAME: table})

    def table_comment(self, family: int, table: str) -> str:
        """The comment of a table; "" if it has none or is not there. Raises KernelError."""
        try:
            found = self.get(_get(_GETTABLE, family, {_TABLE_NAME: table}))
        except KernelError as err:
            if err.errno == ENOENT:
                return ""
            raise
        return comment_of(codec.parse(found, 4).get(_TABLE_USERDATA, b""))

    def _has(self, kind: int, family: int, values: dict[int, Value]) -> bool:
        try:
            self.get(_get(kind, family, values))
        except KernelError as err:
            if err.errno == ENOENT:
                return False
            raise
        return True

    def chains(self) -> list[Chain]:
        """The chains of all families and tables. Raises KernelError."""
        return [Chain(one) for one in self.dump(_get(_GETCHAIN, 0, {}))]

    def has_sets(self, family: int, table: str) -> bool:
        """Whether a table has any set or map. Raises KernelError."""
        try:
            return bool(self.dump(_get(_GETSET, family, {1: table})))
        except KernelError as err:
            if err.errno == ENOENT:
                return False
            raise

    def rules(self, family: int, table: str, chain: str) -> list[tuple[bytes, str]]:
        """(handle, comment) of the rules of a chain, in their order; none of one that is not there. Raises KernelError."""
        request = _get(_GETRULE, family, {_RULE_TABLE: table, _RULE_CHAIN: chain})
        try:
            found = [codec.parse(one, 4) for one in self.dump(request)]
        except KernelError as err:
            if err.errno == ENOENT:
                return []
            raise
        return [(one[_RULE_HANDLE], comment_of(one.get(_RULE_USERDATA, b""))) for one in found]

    def generation(self) -> int:
        """The number of the rule set's state: any change of anybody's makes it another. Raises KernelError."""
        found: int = unpack(">I", codec.parse(self.get(_get(_GETGEN, 0, {})), 4)[1])[0]
        return found


def add(elements: Iterable[Element], *, shared: bool = False) -> list[Request]:
    """Add elements; EEXIST if there is one of a key, unless `shared`, when it may be the same."""
    flags = codec.NLM_F_CREATE | (0 if shared else codec.NLM_F_EXCL)
    return _change(_NEWSETELEM, flags, elements, "add to")


def delete(elements: Iterable[Element]) -> list[Request]:
    """Delete elements by their keys: the kernel compares neither value nor comment."""
    return _change(_DELSETELEM, 0, elements, "delete from")


def drop_chain(family: int, name: str, table: str = TABLE) -> list[Request]:
    """Delete a chain and its rules. EBUSY if anything jumps there."""
    what = f"delete chain {name}"
    rules = codec.attributes({_RULE_TABLE: table, _RULE_CHAIN: name})
    chain = codec.attributes({_CHAIN_TABLE: table, _CHAIN_NAME: name})
    return [
        Request(_kind(_DELRULE), 0, _header(family) + rules, what),
        Request(_kind(_DELCHAIN), 0, _header(family) + chain, what),
    ]


def drop_table(family: int, table: str = TABLE) -> Request:
    """Delete a table with all that is in it."""
    return Request(_kind(_DELTABLE), 0, _header(family) + codec.attributes({_TABLE_NAME: table}), f"delete table {table}")


def drop_rule(family: int, table: str, chain: str, handle: bytes) -> Request:
    """Delete one rule."""
    values: dict[int, Value] = {_RULE_TABLE: table, _RULE_CHAIN: chain, _RULE_HANDLE: handle}
    return Request(_kind(_DELRULE), 0, _header(family) + codec.attributes(values), f"delete a rule of {table} {chain}")


def comment_of(data: bytes) -> str:
    """The comment within userdata: of libnftnl's form, a type and a length of one byte each before every value."""
    start = 0
    while start + 2 <= len(data):
        kind, size = data[start], data[start + 1]
        if kind == _COMMENT:
            return codec.text(data[start + 2 : start + 2 + size])
        start += 2 + size
    return ""


def _kind(message: int) -> int:
    return _SUBSYSTEM << 8 | message


def _header(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return pack(">BBH", family, 0, resource)


def _get(message: int, family: int, values: dict[int, Value]) -> Request:
    return Request(_kind(message), 0, _header(family) + codec.attributes(values), "a question to nf_tables")


def _elements(within: Set, elements: Sequence[Element]) -> dict[int, Value]:
    return {
        _ELEMENTS_TABLE: TABLE,
        _ELEMENTS_SET: within.name,
        _ELEMENTS: [(_LIST_ELEM, _element(one)) for one in elements],
    }


def _element(one: Element) -> dict[int, Value]:
    values: dict[int, Value] = {_ELEM_KEY: {_DATA_VALUE: one.key}}
    if one.chain:
        values[_ELEM_DATA] = {_DATA_VERDICT: {_VERDICT_CODE: _JUMP, _VERDICT_CHAIN: one.chain}}
    elif one.data:
        values[_ELEM_DATA] = {_DATA_VALUE: one.data}
    if one.comment:
        text = one.comment.encode() + b"\0"
        values[_ELEM_USERDATA] = pack("BB", _COMMENT, len(text)) + text
    return values


def _change(message: int, flags: int, elements: Iterable[Element], verb: str) -> list[Request]:
    by_set: dict[Set, list[Element]] = {}
    for one in elements:
        by_set.setdefault(one.set, []).append(one)
    found = []
    for within, all_of_it in by_set.items():
        for start in range(0, len(all_of_it), _AT_ONCE):
            some = all_of_it[start : start + _AT_ONCE]
            contents = _header(within.family) + codec.attributes(_elements(within, some))
            found.append(Request(_kind(message), flags, contents, f"{verb} {within.name}: {', '.join(map(str, some[:3]))}"))
    return found


def _parse(within: Set, contents: bytes) -> list[Element]:
    found = []
    for _, value in codec.each(codec.parse(contents, 4).get(_ELEMENTS, b"")):
        one = codec.parse(value)
        key = codec.parse(one[_ELEM_KEY])[_DATA_VALUE]
        data = codec.parse(one.get(_ELEM_DATA, b""))
        verdict = codec.parse(data.get(_DATA_VERDICT, b""))
        chain = codec.text(verdict.get(_VERDICT_CHAIN, b""))
        found.append(Element(within, key, data.get(_DATA_VALUE, b""), chain, comment_of(one.get(_ELEM_USERDATA, b""))))
    return found
