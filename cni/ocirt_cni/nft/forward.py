"""Other tables' forward chains that drop: one rule of ours in each, by which what `inet ocirt` has marked passes.

In nftables an accept ends one base chain only, so a policy `drop` of another table (of docker and ufw in `ip filter`, of an
/etc/nftables.conf, of firewalld) would undo ours. Our own forward chain decides which traffic passes, and says so by a bit of
the packet's mark. The rule has no set, no `ct` and no jump, so `iptables -S` can go on to read the table.

`ip filter` and `ip6 filter` get the rule in any case, and are made if they are not there, as iptables would make them: whoever
sets the policy later, finds the rule in its chain. What was made goes with the rule, unless somebody has begun to use it.

The plugin firewall also asks a chain of the administrator's (CNI-ADMIN) before: there iptables may drop what we would accept.
"""

from __future__ import annotations

from errno import ENOENT, ERESTART

from ocirt_cni.errors import Error
from ocirt_cni.netlink.socket import KernelError
from ocirt_cni.nft import kept, wire
from ocirt_cni.nft.base import MARK
from ocirt_cni.nft.sets import INET, IPV4, IPV6, TABLE
from ocirt_cni.nft.wire import Chain, Tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ocirt_cni.netlink.socket import Request

    Place = tuple[int, str, str]  # family, table, chain

RULE = "ocirt"  # the comment of the rule
MADE = "made by ocirt"  # the comment of a table or chain
_FORWARD = 2  # NF_INET_FORWARD
_FAMILIES = {IPV4: "ip", IPV6: "ip6", INET: "inet"}
_OF_IPTABLES = ((IPV4, "filter", "FORWARD"), (IPV6, "filter", "FORWARD"))
_OF_FIREWALLD = (INET, "firewalld", "filter_FORWARD")  # its policy is accept, and its last rule rejects
_TRIES = 10
_REFUSALS = ("not permitted", "No such file")  # somebody else's table; one that has just gone


def missing(tables: Tables, asked: Sequence[str] = ()) -> dict[Place, str]:
    """Where the rule has to be and is not, and the commands that add it.

    `asked`: chains of the administrator, in the tables of iptables, that decide before. Raises KernelError.
    """
    chains = {(one.family, one.table, one.name): one for one in tables.chains()}
    commands: dict[Place, str] = {}
    for place, chain in chains.items():
        if _may_drop(place, chain):
            wanted = [*(_jump_comment(one) for one in asked if place in _OF_IPTABLES), RULE]
            found = [(handle, comment) for handle, comment in tables.rules(*place) if _is_ours(comment)]
            if [comment for _, comment in found if comment in wanted] != wanted:
                commands[place] = _rules(place, asked, [handle for handle, _ in found], chains.keys())
    for place in _OF_IPTABLES:
        if place not in chains:
            commands[place] = _make(place, asked, chains.keys(), anew=not tables.has_table(*place[:2]))
    return commands


def first() -> list[str]:
    """The commands on a host that has no table but ours, nor a chain of the administrator's."""
    return [_make(place, (), (), anew=True) for place in _OF_IPTABLES]


def lacking(tables: Tables, asked: Sequence[str] = ()) -> list[str]:
    """The chains without the rule, but for those whose owner may have refused it. Raises KernelError."""
    return [" ".join((_FAMILIES[one[0]], *one[1:])) for one in missing(tables, asked) if one != _OF_FIREWALLD]


def admit(tables: Tables, asked: Sequence[str] = ()) -> None:
    """Add the rule where it is missing. Raises Error.

    A table that belongs to a process of its own (firewalld's, of late) refuses: its administrator has to admit the traffic there.
    """
    commands = missing(tables, asked).values()
    if not commands:
        return
    try:
        kept.run(commands)
    except Error:
        for one in commands:
            _try(one)


def _try(commands: str) -> None:
    try:
        kept.run([commands])
    except Error as err:
        if not any(text in err.cause for text in _REFUSALS):
            raise


def withdraw(tables: Tables, chain: str = "") -> None:
    """Remove the rule wherever it is, and what was made for it; or no more than the jumps to a chain. Raises KernelError."""
    only = _jump_comment(chain) if chain else ""
    for _ in range(_TRIES):
        generation = tables.generation()
        try:
            tables.transact(_removal(tables, only), generation)
        except KernelError as err:
            if err.errno not in (ENOENT, ERESTART):
                raise
        else:
            return


def _removal(tables: Tables, only: str) -> list[Request]:
    chains = tables.chains()
    requests: list[Request] = []
    for one in chains:
        if one.hook != _FORWARD or one.table == TABLE:
            continue
        rules = tables.rules(one.family, one.table, one.name)
        ours = [(handle, text) for handle, text in rules if (text == only if only else _is_ours(text))]
        requests += [wire.drop_rule(one.family, one.table, one.name, handle) for handle, _ in ours]
        targets = {text.removeprefix(_JUMP) for _, text in ours if text.startswith(_JUMP)}
        asked = [each for each in chains if (each.family, each.table) == (one.family, one.table) and each.name in targets]
        made = [each for each in asked if each.comment == MADE and not tables.rules(each.family, each.table, each.name)]
        requests += [request for each in made for request in wire.drop_chain(each.family, each.name, each.table)]
        if not only and one.comment == MADE and not one.drops and len(ours) == len(rules):
            rest = [each for each in chains if (each.family, each.table) == (one.family, one.table) and each not in (one, *made)]
            requests += _unmake(tables, one, used=bool(rest))
    if not only:
        requests += _emptied(tables, chains)
    return requests


def _emptied(tables: Tables, chains: Sequence[Chain]) -> list[Request]:
    """Tables that were made with the chains, which somebody has deleted since: firewalld does so at its end."""
    used = {(one.family, one.table) for one in chains}
    places = [place[:2] for place in _OF_IPTABLES if place[:2] not in used]
    return [wire.drop_table(*place) for place in places if tables.table_comment(*place) == MADE and not tables.has_sets(*place)]


def _unmake(tables: Tables, chain: Chain, *, used: bool) -> list[Request]:
    made = tables.table_comment(chain.family, chain.table) == MADE
    if made and not used and not tables.has_sets(chain.family, chain.table):
        return [wire.drop_table(chain.family, chain.table)]
    return wire.drop_chain(chain.family, chain.name, chain.table)


def _may_drop(place: Place, chain: Chain) -> bool:
    if chain.hook != _FORWARD or chain.type != "filter" or chain.family not in _FAMILIES or chain.table == TABLE:
        return False
    return chain.drops or place in _OF_IPTABLES or place == _OF_FIREWALLD


_JUMP = f"{RULE} asks "


def _jump_comment(chain: str) -> str:
    return f"{_JUMP}{chain}"


def _is_ours(comment: str) -> bool:
    return comment == RULE or comment.startswith(_JUMP)


def _rules(place: Place, asked: Sequence[str], old: Sequence[bytes], chains: Collection[Place]) -> str:
    """The rule as the first one, behind jumps to the chains that are asked; instead of `old` ones."""
    family, table, chain = place
    name = f"{_FAMILIES[family]} {table}"
    where = f"{name} {chain}"
    commands = [f"delete rule {where} handle {int.from_bytes(handle, 'big')}" for handle in old]
    commands.append(f'insert rule {where} meta mark & {MARK:#x} == {MARK:#x} counter accept comment "{RULE}"')
    for one in reversed(asked) if place in _OF_IPTABLES else ():
        if (family, table, one) not in chains:
            commands.append(f'add chain {name} {one} {{ comment "{MADE}"; }}')
        commands.append(f'insert rule {where} counter jump {one} comment "{_jump_comment(one)}"')
    return "".join(f"{one}\n" for one in commands)


def _make(place: Place, asked: Sequence[str], chains: Collection[Place], *, anew: bool) -> str:
    """The chain, and with `anew` its table."""
    family, table, chain = place
    name = f"{_FAMILIES[family]} {table}"
    table_first = f'create table {name} {{ comment "{MADE}"; }}\n' if anew else ""
    hook = "type filter hook forward priority filter; policy accept;"
    return f'{table_first}add chain {name} {chain} {{ {hook} comment "{MADE}"; }}\n{_rules(place, asked, (), chains)}'
