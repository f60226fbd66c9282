"""Fields that the configurations of several plugins have."""

from __future__ import annotations

from ocirt_cni.call import field
from ocirt_cni.errors import INVALID_CONFIG, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LEAST_MTU = 68  # RFC 791
_LARGEST_MTU = 65535  # linux/drivers/net/veth.c, linux/net/bridge
BACKENDS = ("iptables", "nftables")


def masquerade(conf: dict[str, Any]) -> bool:
    """`ipMasq`. Of `ipMasqBackend` all values of the reference are taken, and nftables is what does it."""
    backend: str | None = field(conf, "ipMasqBackend", str, None)
    if backend is not None and backend not in BACKENDS:
        raise Error(INVALID_CONFIG, f"{backend!r} is none of {', '.join(BACKENDS)}", subject="/ipMasqBackend")
    found: bool = field(conf, "ipMasq", bool, False)
    return found


def mtu(conf: dict[str, Any]) -> int:
    """`mtu`; 0 if it is not given. Raises Error(INVALID_CONFIG)."""
    found: int = field(conf, "mtu", int, 0)
    if found and not _LEAST_MTU <= found <= _LARGEST_MTU:
        raise Error(
            INVALID_CONFIG,
            f"{found} is not between {_LEAST_MTU} and {_LARGEST_MTU}",
            subject="/mtu",
            hint="0 leaves it to the kernel",
        )
    return found


def parse_mac(text: str, subject: str, code: int = INVALID_CONFIG) -> bytes:
    """A hardware address of one link, as in 02:00:00:00:00:01, or with dashes. Raises Error."""
    parts = text.replace("-", ":").split(":")
    try:
        found = bytes(int(one, 16) for one in parts) if all(0 < len(one) <= 2 for one in parts) else b""
    except ValueError:
        found = b""
    if len(found) != 6:
        raise Error(
            code, f"{text!r} is not a hardware address", subject=subject, hint="it has six bytes, as in 02:00:00:00:00:01"
        )
    if found[0] & 1 or not any(found):
        raise Error(code, f"{text!r} is not the hardware address of one link", subject=subject, hint="its first byte is even")
    return found
