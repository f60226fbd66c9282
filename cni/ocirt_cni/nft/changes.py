"""The rules of attachments: committed as one transaction each, removed, checked and collected by their owner."""

from __future__ import annotations

from errno import EBUSY, EEXIST, ENOENT

from ocirt_cni.call import Attachment
from ocirt_cni.errors import CHECK_FAILED, TAKEN, UNSUPPORTED, Error
from ocirt_cni.netlink.socket import KernelError
from ocirt_cni.nft import base, forward, kept, localnet, owners, sets, wire, zones
from ocirt_cni.nft.rules import Port, Rules, record_name
from ocirt_cni.nft.sets import SETS, TABLE, Element
from ocirt_cni.nft.state import Locked, State
from ocirt_cni.nft.wire import Tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocirt_cni.netlink.socket import Request
    from ocirt_cni.nft.sets import Set

_TRIES = 5  # for what somebody flushes or adds between a look and a transaction
_WITH_NETWORKS = (*sets.MASQUERADED.values(), *sets.HAIRPINNED.values())
_PORTMAPS = (sets.PORTS, sets.HOST_PORTS, sets.CONDITIONAL, sets.HAIRPINNED, sets.HAIRPIN)
# Where an attachment's own elements from a plugin can be. Other plugins: _OF_LINKS.
_OF = {
    "portmap": tuple(one for maps in _PORTMAPS for one in maps.values()),
    "firewall": (sets.APART,),
}
_OF_LINKS = (*sets.MASQUERADED.values(), *sets.MASQUERADE.values(), sets.CHECKED, sets.SOURCES)


class Changes(Rules):
    """The rules of one attachment, made by one plugin: collected, then committed as one transaction."""

    def commit(self) -> None:
        """Make it so; whatever this attachment had from this plugin is replaced.

        Raises Error(TAKEN) that names the owner if a port belongs to another attachment, and Error.
        """
        with Locked() as (tables, state):
            old = _read(state, self.name)
            self.localnet = [one for one in self.localnet if localnet.is_ours(state, one)]
            admitted = _is_settled(tables, state) and bool(state.claims("admitted")) and set(self.asked) <= set(_asked(state))
            state.generation = -1
            state.write(self.name, self.document(), self.claims())
            try:
                _retried(lambda: tables.transact(_committing(tables, state, self, old)))
                for one in self.localnet:
                    localnet.open_for(one)
                if self.admitted and not admitted:
                    forward.admit(tables, _asked(state))
                zones.change(old, self)
            except BaseException:
                _take_back(tables, state, self, old)
                raise
            if old is not None:
                state.release(self.name, [one for one in old.claims() if one not in self.claims()])
            state.generation = tables.generation()


def remove(attachment: Attachment, plugin: str) -> Rules | None:
    """Remove all that an attachment has from one plugin, which is no error if it has nothing; what it was, if a record told."""
    name = record_name(attachment, plugin)
    with Locked() as (tables, state):
        rules = _read(state, name)
        if rules is not None:
            _renew(tables, state)
            _remove(tables, state, rules)
        elif state.fresh and tables.has_table(sets.INET):  # somebody removed all records: the comments are the truth
            owner = owners.comment(attachment)
            _delete(tables, (one for within in _sets_of(plugin) for one in tables.every(within) if one.comment == owner))
            _tidy(tables, state, name)
    return rules


def check(changes: Changes) -> None:
    """That all is there. Raises Error(CHECK_FAILED) naming what is missing, and Error."""
    with Locked() as (tables, state):
        changes.localnet = [one for one in changes.localnet if state.is_claimed(f"localnet {one}")]
        for one in (*changes.elements(), *changes.shared().values()):
            if tables.find(one.set, one.key) != one:
                raise _lost(f"{base.FAMILIES[one.set.family]} {TABLE} {one.set.name}", f"the element {one} is missing")
        for name in changes.chains().values():
            if not tables.has_chain(sets.INET, name):
                raise _lost(f"inet {TABLE}", f"the chain {name} is missing")
            above = base.above(name)
            if above and not _jumps(tables, name):
                raise _lost(f"inet {TABLE} {above}", f"the rule that jumps to {name} is missing")
        if changes.admitted:
            for chain in forward.lacking(tables, changes.asked):
                raise _lost(chain, "the rule that lets forwarded traffic pass is missing")
        if (made := _read(state, changes.name)) is not None:
            for source in zones.lacking(made):
                raise _lost(source, f"firewalld does not have it in its zone {made.zone}")


def collect(
    network: str,
    plugin: str,
    valid: frozenset[tuple[str, str]],
    folder: str | None = None,
    is_there: Callable[[Attachment, str], bool] | None = None,
) -> None:
    """Remove what the attachments to a network have from a plugin, but for the valid ones: (container, interface).

    `folder`: as with `Rules`; those of another one stay. A plugin that does not know its network's folder (None) leaves alone who
    has one from a plugin that does, and `is_there`: it may be another runtime's, on a network of the same name. What that plugin
    collected has none any more. Raises Error.
    """
    keep = {owners.comment(Attachment(network, container, ifname)) for container, ifname in valid}
    with Locked() as (tables, state):
        state.forget_lost()
        _renew(tables, state)
        gone = []
        for rules in (_read(state, name) for name in state.records()):
            if rules is None or rules.attachment.network != network:
                continue
            if rules.plugin != plugin:
                if folder is None:
                    is_kept = bool(rules.folder) and (is_there is None or is_there(rules.attachment, rules.folder))
                else:
                    is_kept = _sets_of(rules.plugin) == _sets_of(plugin)
                if is_kept:
                    keep.add(owners.comment(rules.attachment))
            elif folder in (None, rules.folder):
                gone.append(rules)
            else:
                keep.add(owners.comment(rules.attachment))
        for rules in gone:
            if owners.comment(rules.attachment) not in keep:
                _remove(tables, state, rules)
        found = (one for within in _sets_of(plugin) for one in tables.every(within))
        _delete(tables, (one for one in found if owners.is_of(one.comment, network) and one.comment not in keep))
        _tidy(tables, state, "")


def reload() -> None:
    """Make all again from the records, after somebody flushed the rule set or changed something. Raises Error."""
    with Locked() as (tables, state):
        if not state.fresh or tables.has_table(sets.INET):
            _rebuild(tables, state)


def listing() -> list[Rules]:
    """The rules of all attachments, by owner and plugin, as the records have them. Raises Error."""
    with Locked() as (_, state):
        found = [_read(state, name) for name in sorted(state.records())]
        return [one for one in found if one is not None]


def _committing(tables: Tables, state: State, new: Rules, old: Rules | None) -> list[Request]:
    """The transaction from what there is to `new`. Makes tables and chains that are missing first."""
    wanted, owner = new.elements(), owners.comment(new.attachment)
    for port in new.ports:
        _refuse_taken(tables, state, port, owner)
    replaced, added = [], []
    for one in wanted:
        found = tables.find(one.set, one.key)
        if found == one:
            continue
        added.append(one)
        if found is not None:  # of somebody who had this address or link before: ports were looked at already
            replaced.append(found)
    _prepare(tables, state, new)
    before = [] if old is None else _removal(tables, state, old, new)
    return [*before, *wire.delete(replaced), *wire.add(added), *wire.add(new.shared().values(), shared=True)]


def _removal(tables: Tables, state: State, old: Rules, new: Rules | None = None) -> list[Request]:
    """What removes an attachment's rules, as far as they are there, are its own, and neither used by others nor part of `new`."""
    keys = set() if new is None else {(one.set, one.key) for one in new.elements()}
    kept = set() if new is None else set(new.claims())
    gone = [one for one in old.elements() if (one.set, one.key) not in keys and tables.find(one.set, one.key) == one]

    def is_unused(claim: str) -> bool:
        return claim not in kept and not state.is_claimed(claim, besides=old.name)

    gone += [one for claim, one in old.shared().items() if is_unused(claim) and tables.find(one.set, one.key) is not None]
    requests = wire.delete(gone)
    for claim, name in old.chains().items():
        if is_unused(claim) and tables.has_chain(sets.INET, name):
            requests += _drop_chain(tables, name)
    return requests


def _drop_chain(tables: Tables, name: str) -> list[Request]:
    """A chain that attachments share, and the rule that jumps there."""
    above = base.above(name)
    jumps = [wire.drop_rule(sets.INET, TABLE, above, handle) for handle in _jumps(tables, name)]
    return [*jumps, *wire.drop_chain(sets.INET, name)]


def _jumps(tables: Tables, name: str) -> list[bytes]:
    """The handles of the rules that jump to a network's chain."""
    above = base.above(name)
    return [handle for handle, comment in tables.rules(sets.INET, TABLE, above) if comment == name] if above else []


def _prepare(tables: Tables, state: State, rules: Rules) -> None:
    """Make tables and chains that rules need and that are missing. Raises Error(UNSUPPORTED) if a newer ocirt made the tables."""
    commands = []
    for family in rules.families():
        if tables.has_chain(family, base.VERSION):
            continue
        if tables.has_table(family):
            _replace(tables, state, family)
        else:
            commands.append(base.table(family))
    for name in rules.chains().values():
        if base.is_own(name) or not tables.has_chain(sets.INET, name):
            commands.append(rules.commands(name))
    if commands:
        kept.run(commands)


def _replace(tables: Tables, state: State, family: int) -> None:
    """Tables of another ocirt: an older one's are made anew."""
    if _is_newer(tables, family):
        what = f"{base.FAMILIES[family]} {TABLE}"
        hint = "use that one's plugins, or delete the table and run its `ocirt-cni reload`"
        raise Error(UNSUPPORTED, "a newer ocirt made this table", subject=what, hint=hint)
    _rebuild(tables, state)


def _renew(tables: Tables, state: State) -> None:
    """Make tables of an older ocirt anew before anything is removed from them: it may have it elsewhere."""
    if not tables.has_chain(sets.INET, base.VERSION) and tables.has_table(sets.INET) and not _is_newer(tables, sets.INET):
        _rebuild(tables, state)


def _is_newer(tables: Tables, family: int) -> bool:
    number = int(base.VERSION.partition("-")[2])
    for one in tables.chains():
        kind, _, other = one.name.partition("-")
        if one.family == family and one.table == TABLE and kind == "version" and other.isdigit() and int(other) > number:
            return True
    return False


def _rebuild(tables: Tables, state: State) -> None:
    """Tables, chains and elements as the records have them, and the elements of those who have no record, in one transaction."""
    rules = [one for one in (_read(state, name) for name in state.records()) if one is not None]
    recorded = {owners.comment(one.attachment) for one in rules}
    elements = {(one.set, one.key): one for each in rules for one in (*each.elements(), *each.shared().values())}
    for within in SETS:
        for one in tables.every(within):
            if one.comment not in recorded and one.comment != owners.SHARED:
                elements.setdefault((within, one.key), one)
    commands = [f"delete table {name} {TABLE}\n" for family, name in base.FAMILIES.items() if tables.has_table(family)]
    families = {one.set.family for one in elements.values()}
    commands += [base.table(family) for family in base.FAMILIES if family in families]
    chains = {name: each.commands(name) for each in rules for name in each.chains().values()}
    for one in list(elements.values()):
        if one.chain and one.chain not in chains:
            if base.is_own(one.chain):  # nobody knows any more what was in it
                del elements[one.set, one.key]
            else:
                chains[one.chain] = base.chain(one.chain)
    if any(one.set in _WITH_NETWORKS and one.comment not in recorded for one in elements.values()):
        # Whose network's chain it needs is not said by an element.
        there = [one.name for one in tables.chains() if one.family == sets.INET and one.table == TABLE]
        chains |= {name: base.chain(name) for name in there if base.above(name) and name not in chains}
    commands += chains.values()
    commands += [base.element(one) for one in elements.values()]
    if commands:
        kept.run(commands)
    if any(one.admitted for one in rules):
        forward.admit(tables, _asked(state))
    zones.change(None, *rules)
    state.generation = tables.generation()


def _remove(tables: Tables, state: State, rules: Rules) -> None:
    """The rules of an attachment from a plugin, and the record; with the last attachment the tables."""
    settled = _is_settled(tables, state)
    for one in rules.localnet:
        if not state.is_claimed(f"localnet {one}", besides=rules.name):
            localnet.close_for(one)
    try:
        _retried(lambda: tables.transact(_removal(tables, state, rules)))
    except KernelError as err:
        if err.errno != EBUSY:
            raise
        # Somebody without a record uses a chain of ours: it stays.
        _retried(lambda: tables.transact(wire.delete(one for one in rules.elements() if tables.find(one.set, one.key) == one)))
    _tidy(tables, state, rules.name)
    if rules.admitted and not any(state.is_claimed(one, besides=rules.name) for one in state.claims("admitted")):
        forward.withdraw(tables)
    for one in rules.asked:
        if not state.is_claimed(f"asked {one}", besides=rules.name):
            forward.withdraw(tables, one)
    zones.change(rules)
    state.remove(rules.name, rules.claims())
    state.generation = tables.generation() if settled else -1


def _tidy(tables: Tables, state: State, name: str) -> None:
    """Delete the tables, if there is no other record than `name`, and no element that has an owner."""
    if not state.is_alone(name) or any(one.comment != owners.SHARED for within in SETS for one in tables.every(within)):
        return
    tables.transact([wire.drop_table(family) for family in base.FAMILIES if tables.has_table(family)])
    forward.withdraw(tables)


def _is_settled(tables: Tables, state: State) -> bool:
    """Whether nobody else changed anything since we looked last."""
    return state.generation == tables.generation()


def _asked(state: State) -> list[str]:
    return sorted(one.partition(" ")[2] for one in state.claims("asked"))


def _take_back(tables: Tables, state: State, new: Rules, old: Rules | None) -> None:
    """After a commit that failed: the record as it was, and no chain or table that is of no use."""
    if old is None:
        _remove(tables, state, new)
        return
    state.write(old.name, old.document(), old.claims())
    dropped = [one for one in new.claims() if one not in old.claims()]
    unused = [name for claim, name in new.chains().items() if claim in dropped and not state.is_claimed(claim, besides=new.name)]
    tables.transact([one for name in unused if tables.has_chain(sets.INET, name) for one in _drop_chain(tables, name)])
    state.release(new.name, dropped)


def _delete(tables: Tables, elements: Iterable[Element]) -> None:
    found = list(elements)
    _retried(lambda: tables.transact(wire.delete(one for one in found if tables.find(one.set, one.key) == one)))


def _retried(transaction: Callable[[], None]) -> None:
    """Again, if somebody changed the rule set between the look and the transaction."""
    for left in reversed(range(_TRIES)):
        try:
            return transaction()
        except KernelError as err:
            if not left or err.errno not in (EEXIST, ENOENT):
                raise
    return None


def _read(state: State, name: str) -> Rules | None:
    document = state.read(name)
    return None if document is None else Rules.parse(document)


def _sets_of(plugin: str) -> tuple[Set, ...]:
    return _OF.get(plugin, _OF_LINKS)


def _refuse_taken(tables: Tables, state: State, port: Port, owner: str) -> None:
    holders = [found.comment for within, key in port.rivals if (found := tables.find(within, key)) is not None]
    if port.host is None:
        holders += [name.partition(" ")[2] for name in state.claimants(port.claim)]
    for one in holders:
        if one != owner:
            raise Error(TAKEN, f"the port of the host belongs to the attachment {one!r}", subject=port.at_host)


def _lost(subject: str, message: str) -> Error:
    return Error(CHECK_FAILED, message, subject=subject, hint="`ocirt-cni reload` makes the rules anew")
