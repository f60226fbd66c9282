"""Other tables' forward chains that drop: one rule of ours in each, by which what `inet ocirt` has marked passes.

In nftables an accept ends one base chain only, so a policy `drop` of another table (of docker and ufw in `ip filter`, of an
/etc/nftables.conf, of firewalld) would undo ours. Our own forward chain decides which traffic passes, and says so by a bit of
the packet's mark. The rule has no set, no `ct` and no jump, so `iptables -S` can go on to read the table.

`ip filter` and `ip6 filter` get the rule in any case, and are made if they are not there, as iptables would make them: whoever
sets the policy later, finds the rule in its chain. What was made goes with the rule, unless somebody has begun to use it.
"""

from __future__ import annotations

from errno import ENOENT, ERESTART

from ocirt_cni.netlink.socket import KernelError
from ocirt_cni.nft import wire
from ocirt_cni.nft.base import MARK
from ocirt_cni.nft.library import Nft, Refused
from ocirt_cni.nft.sets import INET, IPV4, IPV6, TABLE
from ocirt_cni.nft.wire import Chain, Tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.socket import Request

RULE = "ocirt"  # the comment of the rule
MADE = "made by ocirt"  # the comment of a table or chain
_FORWARD = 2  # NF_INET_FORWARD
_FAMILIES = {IPV4: "ip", IPV6: "ip6", INET: "inet"}
_OF_IPTABLES = ((IPV4, "filter", "FORWARD"), (IPV6, "filter", "FORWARD"))
_OF_FIREWALLD = (INET, "firewalld", "filter_FORWARD")  # its policy is accept, and its last rule rejects
_TRIES = 10


def missing(tables: Tables) -> list[str]:
    """The commands that each add the rule where it has to be and is not; to run one by one. Raises KernelError."""
    chains = {(one.family, one.table, one.name): one for one in tables.chains()}
    commands = [_rule(place) for place, chain in chains.items() if _may_drop(place, chain) and not _has_rule(tables, place)]
    return commands + [_make(tables, place) for place in _OF_IPTABLES if place not in chains]


def admit(tables: Tables, nft: Nft | None = None) -> None:
    """Add the rule where it is missing. Raises Error.

    A table that belongs to a process of its own (firewalld's, of late) refuses: its administrator has to admit the traffic there.
    """
    commands = missing(tables)
    nft = nft or (Nft() if commands else None)
    for one in commands:
        assert nft is not None
        try:
            nft.run(one)
        except Refused as err:
            if "permitted" not in err.cause and "No such file" not in err.cause:
                raise


def withdraw(tables: Tables) -> None:
    """Remove the rule wherever it is, and what was made for it. Raises KernelError."""
    for _ in range(_TRIES):
        generation = tables.generation()
        try:
            tables.transact(_removal(tables), generation)
        except KernelError as err:
            if err.errno not in (ENOENT, ERESTART):
                raise
        else:
            return


def _removal(tables: Tables) -> list[Request]:
    chains = tables.chains()
    requests: list[Request] = []
    for one in chains:
        if one.hook != _FORWARD or one.table == TABLE:
            continue
        rules = tables.rules(one.family, one.table, one.name)
        ours = [handle for handle, comment in rules if comment == RULE]
        if one.comment == MADE and not one.drops and len(ours) == len(rules):
            requests += _unmake(tables, one, chains)
        else:
            requests += [wire.drop_rule(one.family, one.table, one.name, handle) for handle in ours]
    return requests


def _unmake(tables: Tables, chain: Chain, chains: list[Chain]) -> list[Request]:
    alone = all(one is chain or (one.family, one.table) != (chain.family, chain.table) for one in chains)
    if alone and tables.table_comment(chain.family, chain.table) == MADE and not tables.has_sets(chain.family, chain.table):
        return [wire.drop_table(chain.family, chain.table)]
    return wire.drop_chain(chain.family, chain.name, chain.table)


def _may_drop(place: tuple[int, str, str], chain: Chain) -> bool:
    if chain.hook != _FORWARD or chain.type != "filter" or chain.family not in _FAMILIES or chain.table == TABLE:
        return False
    return chain.drops or place in _OF_IPTABLES or place == _OF_FIREWALLD


def _has_rule(tables: Tables, place: tuple[int, str, str]) -> bool:
    return any(comment == RULE for _, comment in tables.rules(*place))


def _rule(place: tuple[int, str, str]) -> str:
    family, table, chain = place
    where = f"{_FAMILIES[family]} {table} {chain}"
    return f'insert rule {where} meta mark & {MARK:#x} == {MARK:#x} counter accept comment "{RULE}"\n'


def _make(tables: Tables, place: tuple[int, str, str]) -> str:
    family, table, chain = place
    name = f"{_FAMILIES[family]} {table}"
    first = "" if tables.has_table(family, table) else f'create table {name} {{ comment "{MADE}"; }}\n'
    hook = "type filter hook forward priority filter; policy accept;"
    return f'{first}add chain {name} {chain} {{ {hook} comment "{MADE}"; }}\n{_rule(place)}'
