"""Whom a link belongs to: a note in its alias, `ocirt NETWORK CONTAINER IFNAME`, and names made of the owner's hash.

An alias (IFLA_IFALIAS) has at most 255 bytes. An owner that would be longer is shortened to `ocirt NETWORK #HASH`, so that the
network can still be read from it.
"""

from __future__ import annotations

from _blake2 import blake2b

from ocirt_cni.call import Attachment, Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 255  # bytes of an alias: linux/if.h, IFALIASZ, without the null byte
_MARK = "ocirt "
_LONGEST_NETWORK = 100
_IFNAME = 15  # characters of a link's name


def alias(call: Call, attachment: Attachment | None = None, *, longest: int = LONGEST) -> str:
    """What a link of this attachment, or another one of the network, has as its alias; `longest` leaves room behind it."""
    one = attachment or call.attachment
    text = f"{_of_network(call)}{one.container} {one.ifname}"
    return text if len(text) <= longest else f"{_of_network(call)}#{_hash(str(one), 16)}"


def stale(call: Call, found: Iterable[str], *, longest: int = LONGEST) -> set[str]:
    """Those of the aliases that belong to the call's network, and to none of its valid attachments."""
    beginning = _of_network(call)
    kept = {alias(call, Attachment(call.network, *one), longest=longest) for one in call.valid}
    return {one for one in found if one.startswith(beginning) and one not in kept}


def name(beginning: str, call: Call) -> str:
    """The name of a link that is found again by its owner: `beginning`, and as much of the owner's hash as a name can hold."""
    return (beginning + _hash(alias(call), 8))[:_IFNAME]


def _of_network(call: Call) -> str:
    """How the aliases of a network's links begin."""
    network = call.network
    return f"{_MARK}{network if len(network) <= _LONGEST_NETWORK else '#' + _hash(network, 16)} "


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()
