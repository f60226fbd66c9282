"""The owner of a rule, as its comment has it: "NETWORK CONTAINER IFNAME"."""

from __future__ import annotations

from _blake2 import blake2b

from ocirt_cni.call import Attachment
from ocirt_cni.nft import base

_LONGEST = 120  # bytes. libnftables reads comments of at most 127; and the name of a file has the plugin as well
_LONGEST_NETWORK = 60
SHARED = "shared"  # the comment of what several attachments use


def comment(attachment: Attachment) -> str:
    """The comment for an attachment. One that would be too long, or that nft(8) could not quote, has a hash for its container."""
    text = str(attachment)
    if len(text.encode()) <= _LONGEST and '"' not in text and "\\" not in text and text.isprintable():
        return text
    return f"{network(attachment.network)} #{_hash(text)} -"


def chain(attachment: Attachment) -> str:
    """The name of a chain of its own."""
    return base.own_chain(_hash(str(attachment)))


def network(name: str) -> str:
    """A network, as comments have it."""
    return name if len(name) <= _LONGEST_NETWORK else f"#{_hash(name)}"


def is_of(text: str, name: str) -> bool:
    """Whether a comment is that of an attachment to a network."""
    parts = text.split(" ")
    return len(parts) == 3 and parts[0] == network(name)


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()
