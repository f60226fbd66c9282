"""host-local: addresses from ranges of the configuration, kept in files of this host (see `store`)."""

from __future__ import annotations

import time

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, EXHAUSTED, IO_FAILURE, NOT_AVAILABLE, TAKEN, Error
from ocirt_cni.ipam import config, ranges
from ocirt_cni.ipam.choose import Counts, choose
from ocirt_cni.ipam.ranges import RangeSet
from ocirt_cni.ipam.store import DATA_DIR, Store
from ocirt_cni.results import DNS, IP, Result

FIELDS = ("dataDir", "name", "ranges", "resolvConf", "routes", "type", *ranges.FIELDS)
# Seconds for links on the host to go, when all other addresses are taken. The kernel takes some 0.03 after the namespace's end.
_PATIENCE = 2.0
_PAUSE = 0.01


def add(call: Call) -> Result:
    """An address of each set of ranges. Raises Error(EXHAUSTED), Error(TAKEN)."""
    ipam = config.section(call)
    config.refuse_unknown(ipam, FIELDS, config.WHERE)
    sets = ranges.parse(call)
    routes = config.routes(ipam)
    wanted = _wanted(call, sets)
    dns = _dns(field(ipam, "resolvConf", str, "", config.WHERE))
    chosen = _lease(call, sets, wanted)
    return Result([], [_ip(one, address) for one, address in zip(sets, chosen, strict=True)], routes, dns)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    config.routes(config.section(call))
    _wanted(call, ranges.parse(call))


def delete(call: Call) -> None:
    """Free what the attachment holds. Of the configuration only `dataDir` counts."""
    try:
        store = Store.find(_data_dir(call), call.network)
        if store is not None:
            with store:
                store.release(call.attachment, call.link)
    except OSError as err:
        raise _unusable(err) from None


def check(call: Call) -> None:
    """That the attachment holds its addresses: those of the previous result that are of these ranges, and at least one."""
    sets = ranges.parse(call)
    try:
        store = Store.find(_data_dir(call), call.network)
        held = []
        if store is not None:
            with store:
                held = store.held(call.attachment)
    except OSError as err:
        raise _unusable(err) from None
    if not held:
        raise Error(CHECK_FAILED, "it holds no address", subject=str(call.attachment))
    for ip in call.previous.ips if call.previous is not None else []:
        address = ip.address.address
        if any(one.find(address) is not None for one in sets) and address not in held:
            raise Error(CHECK_FAILED, f"it does not hold {address}", subject=str(call.attachment))


def gc(call: Call) -> None:
    """Free what attachments of this network hold that are not valid."""
    valid = call.valid
    try:
        store = Store.find(_data_dir(call), call.network)
        if store is not None:
            with store:
                store.collect(valid)
    except OSError as err:
        raise _unusable(err) from None


def status(call: Call) -> None:
    """That every set of ranges has a free address. Raises Error(NOT_AVAILABLE) with the counts.

    Ranges that come by the capability are not known here: no runtime names them with STATUS.
    """
    ipam = config.section(call)
    config.refuse_unknown(ipam, FIELDS, config.WHERE)
    sets = ranges.parse(call, needed=False)
    try:
        store = Store.find(_data_dir(call), call.network)
        if store is None:
            return
        with store:
            counts = [Counts(store, one) for one in sets]
    except OSError as err:
        raise _unusable(err) from None
    for one, count in zip(sets, counts, strict=True):
        if count.free <= 0:
            raise Error(NOT_AVAILABLE, f"no address is free in {one}", subject=one.where, cause=str(count))


def _dns(path: str) -> DNS:
    if not path:
        return DNS()
    from ocirt_cni.ipam import resolv  # noqa: PLC0415  (few have it)

    return resolv.read(path, f"{config.WHERE}/resolvConf")


def _data_dir(call: Call) -> str:
    ipam = field(call.conf, "ipam", dict, {})
    return field(ipam, "dataDir", str, "", config.WHERE) or DATA_DIR


def _wanted(call: Call, sets: list[RangeSet]) -> list[Address | None]:
    """For each set the address that the runtime asks for. Raises Error for one that cannot be had."""
    found: list[Address | None] = [None] * len(sets)
    for text, where, code in (*config.of_environment(call, "IP"), *config.of_args(call), *config.of_capability(call)):
        address = config.address(text, where, code)
        number = next((number for number, one in enumerate(sets) if one.find(address) is not None), None)
        if number is None:
            known = " ".join([str(one) for one in sets])
            raise Error(code, f"{address} is in none of the ranges", subject=where, hint=f"they are {known}")
        if not sets[number].gives(address):
            raise Error(code, f"{address} is the gateway", subject=where)
        if found[number] not in (None, address):
            raise Error(code, f"{found[number]} is asked for from the same set of ranges", subject=where)
        found[number] = address
    return found


def _lease(call: Call, sets: list[RangeSet], wanted: list[Address | None]) -> list[Address]:
    """Addresses for the attachment, waiting a little if there will be some soon."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with Store(_data_dir(call), call.network) as store:
                chosen = _try(store, call, sets, wanted, last=time.monotonic() > deadline)
        except OSError as err:
            raise _unusable(err) from None
        if chosen is not None:
            return chosen
        time.sleep(_PAUSE)


def _try(store: Store, call: Call, sets: list[RangeSet], wanted: list[Address | None], *, last: bool) -> list[Address] | None:
    """Choose and lease; None if some wait for their links, unless it is the last try. Raises Error."""
    for number, one in enumerate(sets):
        store.adopt(number, Address.of(0, one.version))
    for address in store.held(call.attachment, thoroughly=False):
        if any(one.find(address) is not None for one in sets):
            hint = "an attachment is added once; delete it first"
            raise Error(TAKEN, f"it holds {address} already", subject=str(call.attachment), hint=hint)
    chosen = []
    for number, one in enumerate(sets):
        found = wanted[number] or choose(store, one, number)
        if found is None:
            counts = Counts(store, one)
            if counts.waiting and not last:
                return None
            raise Error(EXHAUSTED, f"no address is free in {one}", subject=one.where, cause=str(counts))
        chosen.append(found)
    store.lease(call.attachment, chosen)
    try:
        for number, address in enumerate(chosen):
            if wanted[number] is None:
                store.set_last(number, address)
    except OSError:
        store.undo(call.attachment, chosen)
        raise
    return chosen


def _ip(one: RangeSet, address: Address) -> IP:
    found = one.find(address)
    assert found is not None, "it was chosen from the set"
    return IP(Prefix(address, found.subnet.length), found.gateway)


def _unusable(err: OSError) -> Error:
    return Error(IO_FAILURE, "the leases cannot be kept", subject=str(err.filename or ""), cause=err.strerror or "")
