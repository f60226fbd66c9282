"""The addresses that host-local may hand out: ranges, and sets of them, of which an attachment gets one address each."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.ipam import config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FIELDS = ("gateway", "rangeEnd", "rangeStart", "subnet")


class Range:
    """The addresses from `first` to `last`, both of them included, but for the gateway."""

    __slots__ = ("first", "gateway", "last", "subnet")

    def __init__(self, subnet: Prefix, first: Address, last: Address, gateway: Address) -> None:
        self.subnet = subnet
        self.first = first
        self.last = last
        self.gateway = gateway

    @classmethod
    def parse(cls, document: dict[str, Any], where: str) -> Range:
        """From an object with FIELDS. Raises Error(INVALID_CONFIG) that names the field."""
        subnet = config.prefix(field(document, "subnet", str, "", where), f"{where}/subnet")
        bits = subnet.address.bits
        if subnet.length > bits - 2:
            raise Error(INVALID_CONFIG, f"{subnet} is too small to allocate from", subject=f"{where}/subnet")
        if subnet.address != subnet.first:
            hint = f"the network is {subnet.network}"
            raise Error(INVALID_CONFIG, f"{subnet} has bits of a host", subject=f"{where}/subnet", hint=hint)
        second = subnet.first.next()
        last = Address.of(int(subnet.last) - 1, 4) if subnet.version == 4 else subnet.last  # without the broadcast address
        first = _within(subnet, _address(document, "rangeStart", where), second, f"{where}/rangeStart")
        last = _within(subnet, _address(document, "rangeEnd", where), last, f"{where}/rangeEnd")
        if last < first:
            raise Error(INVALID_CONFIG, f"{last} is before the first address, {first}", subject=f"{where}/rangeEnd")
        gateway = _address(document, "gateway", where) or second
        if gateway.version != subnet.version:
            raise Error(INVALID_CONFIG, f"{gateway} is not of the IP version of {subnet}", subject=f"{where}/gateway")
        return cls(subnet, first, last, gateway)

    @property
    def size(self) -> int:
        """How many addresses it has to give."""
        return int(self.last) - int(self.first) + 1 - (self.gateway in self)

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and self.first <= address <= self.last

    def overlaps(self, other: Range) -> bool:
        """Whether they have an address in common."""
        return self.first in other or other.first in self

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class RangeSet:
    """Ranges of one IP version. `where`: the pointer of its configuration."""

    __slots__ = ("ranges", "where")

    def __init__(self, ranges: list[Range], where: str) -> None:
        """Raises Error(INVALID_CONFIG) for ranges that do not go together."""
        self.ranges = ranges
        self.where = where
        if not ranges:
            raise Error(INVALID_CONFIG, "the set has no range", subject=where)
        for number, one in enumerate(ranges):
            if one.subnet.version != self.version:
                raise Error(INVALID_CONFIG, "the ranges of a set are not of one IP version", subject=f"{where}/{number}")
            for other in ranges[:number]:
                if one.overlaps(other):
                    raise Error(INVALID_CONFIG, f"{one} overlaps with {other}", subject=f"{where}/{number}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ranges[0].subnet.version

    @property
    def size(self) -> int:
        """How many addresses it has to give."""
        return sum(one.size for one in self.ranges)

    def find(self, address: Address) -> Range | None:
        """The range that an address is in."""
        for one in self.ranges:
            if address in one:
                return one
        return None

    def gives(self, address: Address) -> bool:
        """Whether an address is one that it may hand out."""
        found = self.find(address)
        return found is not None and address != found.gateway

    def after(self, address: Address | None = None) -> Iterator[Address]:
        """What it may hand out, in order, from behind an address to the end; all, if the address is in none of its ranges."""
        start = address if address is not None and self.find(address) is not None else None
        for one in self.ranges:
            if start is not None and start not in one:
                continue
            value = int(one.first) if start is None else int(start) + 1
            start = None
            for each in range(value, int(one.last) + 1):
                if each != int(one.gateway):
                    yield Address.of(each, self.version)

    def __str__(self) -> str:
        return ",".join([str(one) for one in self.ranges])


def parse(call: Call, *, needed: bool = True) -> list[RangeSet]:
    """The sets of a configuration: the capability `ipRanges`, the old fields, `ipam.ranges`. Raises Error(INVALID_CONFIG).

    `needed` False: there may be none.
    """
    ipam = config.section(call)
    sets = _sets(call.runtime, "ipRanges", "/runtimeConfig")
    if field(ipam, "subnet", str, "", config.WHERE):
        sets.append(RangeSet([Range.parse(ipam, config.WHERE)], config.WHERE))
    else:
        for name in FIELDS:
            if ipam.get(name) is not None and name != "subnet":
                raise Error(INVALID_CONFIG, "it stands here without a subnet", subject=f"{config.WHERE}/{name}")
    sets += _sets(ipam, "ranges", config.WHERE)
    if needed and not sets:
        raise Error(
            INVALID_CONFIG, "there are no ranges", subject=f"{config.WHERE}/ranges", hint='as in [[{"subnet": "10.1.0.0/24"}]]'
        )
    config.check_count(call, [one.version for one in sets])
    _check_apart(sets)
    return sets


def _sets(document: dict[str, Any], name: str, where: str) -> list[RangeSet]:
    found = []
    for number, one in enumerate(field(document, name, list, [], where)):
        at = f"{where}/{name}/{number}"
        if not isinstance(one, list):
            raise Error(INVALID_CONFIG, "this is not a list of ranges", subject=at)
        ranges = []
        for place, each in enumerate(one):
            if not isinstance(each, dict):
                raise Error(INVALID_CONFIG, "this is not an object", subject=f"{at}/{place}")
            config.refuse_unknown(each, FIELDS, f"{at}/{place}")
            ranges.append(Range.parse(each, f"{at}/{place}"))
        found.append(RangeSet(ranges, at))
    return found


def _check_apart(sets: list[RangeSet]) -> None:
    for number, one in enumerate(sets):
        for other in sets[:number]:
            if any(mine.overlaps(theirs) for mine in one.ranges for theirs in other.ranges):
                raise Error(INVALID_CONFIG, f"the set overlaps with that of {other.where}", subject=one.where)


def _address(document: dict[str, Any], name: str, where: str) -> Address | None:
    text = field(document, name, str, "", where)
    return config.address(text, f"{where}/{name}") if text else None


def _within(subnet: Prefix, chosen: Address | None, default: Address, where: str) -> Address:
    if chosen is not None and chosen not in subnet:
        raise Error(INVALID_CONFIG, f"{chosen} is not in {subnet}", subject=where)
    return chosen or default
