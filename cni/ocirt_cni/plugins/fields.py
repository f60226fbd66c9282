"""Fields that the configurations of several plugins have."""

from __future__ import annotations

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, UNSUPPORTED_FIELD, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What a runtime, or the network that the plugin belongs to, puts into any configuration (SPEC.md, section 1).
_GENERAL = frozenset(
    ("args", "capabilities", "cniVersion", "cniVersions", "dns", "ipam", "name", "prevResult", "runtimeConfig", "type")
)
_OF_RUNTIMES = "cni.dev/"

_LEAST_MTU = 68  # RFC 791
_LARGEST_MTU = 65535  # linux/drivers/net/veth.c, linux/net/bridge
BACKENDS = ("iptables", "nftables")


def refuse_unknown(call: Call, *known: str) -> None:
    """Refuse fields that are neither general nor `known`: mostly misspelt ones. Raises Error(UNSUPPORTED_FIELD)."""
    for name in call.conf:
        if name not in known and name not in _GENERAL and not name.startswith(_OF_RUNTIMES):
            hint = f"it has {', '.join(known)}" if known else ""
            pointer = "/" + name.replace("~", "~0").replace("/", "~1")
            raise Error(UNSUPPORTED_FIELD, f"{call.type} has no such field", subject=pointer, hint=hint)


def number(conf: Mapping[str, Any], name: str, default: Any, least: int, most: int, where: str = "") -> Any:
    """A number from `least` to `most`; `default` if it is absent. Raises Error(INVALID_CONFIG)."""
    found = field(conf, name, int, None, where)
    if found is None:
        return default
    if not least <= found <= most:
        raise Error(INVALID_CONFIG, f"{found} is not between {least} and {most}", subject=f"{where}/{name}")
    return found


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


def mac(call: Call) -> bytes:
    """The hardware address that is asked for: `mac`, above it MAC of CNI_ARGS, `args.cni.mac`, `runtimeConfig.mac`; else empty.

    Raises Error that names the one which is none.
    """
    found = b""
    for text, subject, code in (
        (field(call.conf, "mac", str, ""), "/mac", INVALID_CONFIG),
        (call.args.get("MAC", ""), "CNI_ARGS", INVALID_ENVIRONMENT),
        (field(call.cni_args, "mac", str, "", "/args/cni"), "/args/cni/mac", INVALID_CONFIG),
        (field(call.runtime, "mac", str, "", "/runtimeConfig"), "/runtimeConfig/mac", INVALID_CONFIG),
    ):
        if text:
            found = parse_mac(text, subject, code)
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
