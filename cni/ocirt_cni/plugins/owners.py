"""Whom a link belongs to: a note in its alias, and names made of the owner's hash."""

from __future__ import annotations

from _blake2 import blake2b

from ocirt_cni.call import Attachment, Call, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 255  # bytes of an alias (linux/if.h, IFALIASZ)
_MARK = "ocirt "
_LONGEST_NETWORK = LONGEST // 2
_IFNAME = 15  # bytes of a link's name


def owner(call: Call, attachment: Attachment | None = None, *, longest: int = LONGEST) -> str:
    """What stands in the alias of a link that an attachment owns: that of the call, unless another one of its network is given.

    "ocirt NETWORK CONTAINER INTERFACE"; a hash stands for what would be too long. `longest` leaves room for more behind it.
    """
    return owner_of(attachment or call.attachment, folder_of(call), longest=longest)


def owner_of(attachment: Attachment, folder: str, *, longest: int = LONGEST) -> str:
    """The same for an attachment to a network whose configuration names this folder for its addresses, or "" if it names none."""
    rest = f"{attachment.container} {attachment.ifname}"
    beginning = _prefix_of(attachment.network, folder)
    text = beginning + rest
    return text if len(text.encode()) <= longest else f"{beginning}#{digest(rest, 16)}"


def folder_of(call: Call) -> str:
    """The folder in which the network keeps its addresses, if the configuration names one. Raises Error(INVALID_CONFIG)."""
    found: str = field(field(call.conf, "ipam", dict, {}), "dataDir", str, "", "/ipam")
    return found


def prefix(call: Call) -> str:
    """What the aliases of all of a network's links begin with.

    The folder in which the network keeps its addresses is part of it, if the configuration names one: two runtimes with networks
    of one name do not clean up each other's.
    """
    return _prefix_of(call.network, folder_of(call))


def _prefix_of(network: str, folder: str) -> str:
    network = network if len(network) < _LONGEST_NETWORK else f"#{digest(network, 16)}"
    return f"{_MARK}{network}@{digest(folder, 4)} " if folder else f"{_MARK}{network} "


def anywhere(alias: str) -> str:
    """The alias without the folder of the network's addresses, as a plugin has it that is not told of them."""
    network, at, rest = alias.partition("@")
    return f"{network} {rest.partition(' ')[2]}" if at and " " not in network.removeprefix(_MARK) else alias


def stale(call: Call, found: Iterable[str], *, longest: int = LONGEST) -> set[str]:
    """GC: those of the aliases that belong to the call's network, and to none of its attachments that are valid."""
    beginning = prefix(call)
    kept = {owner(call, Attachment(call.network, *one), longest=longest) for one in call.valid}
    return {one for one in found if one.startswith(beginning) and one not in kept}


def name(beginning: str, text: str) -> str:
    """The name of a link for what it is, such as its owner: `beginning`, and as much of a hash as there is room for."""
    return (beginning + digest(text, 8))[:_IFNAME]


def digest(text: str, size: int) -> str:
    """A hash of so many bytes, in hexadecimal digits."""
    return blake2b(text.encode(), digest_size=size).hexdigest()
