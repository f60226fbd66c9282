"""Which free address is handed out.

First one that was never handed out, in the order of the ranges. When there are none left, the one that was freed first; while
its link is still on the host, it waits. Last any other: only those that the reference freed, or whose freeing a full disk kept
from being noted.
"""

from __future__ import annotations

from ocirt_cni.addresses import Address
from ocirt_cni.ipam.ranges import RangeSet
from ocirt_cni.ipam.store import Store

_LONGEST = 4000  # bytes of a symlink's target


class Counts:
    """How the addresses of a set are used: `size` to give, `taken`, `waiting` for their links to go."""

    __slots__ = ("size", "taken", "waiting")

    def __init__(self, store: Store | None, ranges: RangeSet) -> None:
        self.size = ranges.size
        self.taken = self.waiting = 0
        if store is not None:
            taken = {address for address, owner in store.leases() if owner is not None and ranges.gives(address)}
            self.taken = len(taken)
            self.waiting = len(_waiting(store, ranges) - taken)

    @property
    def free(self) -> int:
        """How many can be handed out now."""
        return self.size - self.taken - self.waiting

    def __str__(self) -> str:
        waiting = f", {self.waiting} wait for their links to go" if self.waiting else ""
        return f"{self.taken} of {self.size} addresses are taken{waiting}"


def choose(store: Store, ranges: RangeSet, number: int) -> Address | None:
    """A free address of a set of ranges, `number` its place among the sets; None if there is none. Raises OSError."""
    return _never_used(store, ranges, number) or _freed_first(store, ranges) or _any(store, ranges)


def _never_used(store: Store, ranges: RangeSet, number: int) -> Address | None:
    text = str(ranges)[:_LONGEST]
    known = store.whole(number)
    if known == text:
        return None
    # If other ranges were all used, these may have grown at any end.
    for address in ranges.after(None if known else store.last(number)):
        if store.owner(address) is None and address not in store.freed:
            return address
    store.set_whole(number, text)
    return None


def _freed_first(store: Store, ranges: RangeSet) -> Address | None:
    for record in store.freed:
        if ranges.gives(record.address) and store.owner(record.address) is None and not record.waits:
            return record.address
    return None


def _any(store: Store, ranges: RangeSet) -> Address | None:
    not_now = _waiting(store, ranges) | {address for address, owner in store.leases() if owner is not None}
    for address in ranges.after():
        if address not in not_now:
            return address
    return None


def _waiting(store: Store, ranges: RangeSet) -> set[Address]:
    return {record.address for record in store.freed if ranges.gives(record.address) and record.waits}
