"""How a plugin asks for addresses: by `ipam.type`, in this process if that plugin is ours, else by executing it.

Ours it is if CNI_PATH holds no executable of that name, or one that is a name of the running one.
"""

from __future__ import annotations

from ocirt_cni import plugins, versions
from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Call, field
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.results import Result
from ocirt_cni.runner import execute


def type_of(call: Call) -> str:
    """`ipam.type`; "" if the configuration has no IPAM plugin. Raises Error(INVALID_CONFIG)."""
    found: str = field(field(call.conf, "ipam", dict, {}), "type", str, "", "/ipam")
    return found


def minds_links(call: Call) -> bool:
    """Whether the IPAM plugin gives an address to nobody as long as the link is there that it was released with (`Call.link`)."""
    name = type_of(call)
    return name == "host-local" and execute.is_ours(name, call.path)


def add(call: Call) -> Result:
    """Addresses for the attachment. Raises Error, also if there are none in the result; then what it may hold is given back."""
    result = _ask(call, ADD)
    if result is None or not result.ips:
        delete(call)
        raise Error(INVALID_CONFIG, "the IPAM plugin returned no addresses", subject="/ipam/type")
    return result


def delete(call: Call) -> None:
    """Give them back. Raises Error."""
    _ask(call, DEL)


def check(call: Call) -> None:
    """That they are taken. Raises Error."""
    _ask(call, CHECK)


def gc(call: Call) -> None:
    """Free those of attachments that are gone, if the IPAM plugin knows how. Raises Error."""
    _ask(call, GC)


def status(call: Call) -> None:
    """That there are more, if the IPAM plugin can say so. Raises Error(NOT_AVAILABLE)."""
    _ask(call, STATUS)


def _ask(call: Call, command: str) -> Result | None:
    name = type_of(call)
    if not name:
        return None
    one = call if call.command == command else call.derived(call.conf, command)
    if execute.is_ours(name, call.path):
        return plugins.invoke(name, one)
    if command in (GC, STATUS) and versions.GC not in execute.supported(name, call.path):
        return None  # it is of a time before these, and would fail for want of a container
    return execute.execute(name, one)
