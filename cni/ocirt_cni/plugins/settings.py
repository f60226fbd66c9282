"""Fields of configurations that several plugins have, each refused with its JSON pointer."""

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
_RUNTIME = "cni.dev/"
_SEPARATORS = ":-"


def refuse_unknown(call: Call, *known: str) -> None:
    """Refuse fields that are neither general nor `known`: mostly misspelt. Raises Error(UNSUPPORTED_FIELD)."""
    for name in call.conf:
        if name not in known and name not in _GENERAL and not name.startswith(_RUNTIME):
            hint = f"it has {', '.join(known)}" if known else ""
            raise Error(UNSUPPORTED_FIELD, f"{call.type} has no such field", subject=f"/{name}", hint=hint)


def number(conf: Mapping[str, Any], name: str, default: Any, least: int, most: int, where: str = "") -> Any:
    """A number from `least` to `most`; `default` if it is absent. Raises Error(INVALID_CONFIG)."""
    found = field(conf, name, int, None, where)
    if found is None:
        return default
    if not least <= found <= most:
        raise Error(INVALID_CONFIG, f"{found} is not between {least} and {most}", subject=f"{where}/{name}")
    return found


def mac(call: Call) -> bytes | None:
    """The hardware address that is asked for, if one is: `mac`, above it MAC of CNI_ARGS, `args.cni.mac`, `runtimeConfig.mac`.

    Raises Error.
    """
    chosen, where, code = field(call.conf, "mac", str, ""), "/mac", INVALID_CONFIG
    if call.args.get("MAC"):
        chosen, where, code = call.args["MAC"], "CNI_ARGS: MAC", INVALID_ENVIRONMENT
    for conf, above in ((call.cni_args, "/args/cni"), (call.runtime, "/runtimeConfig")):
        if found := field(conf, "mac", str, "", above):
            chosen, where, code = found, f"{above}/mac", INVALID_CONFIG
    return parse_mac(chosen, where, code) if chosen else None


def parse_mac(text: str, where: str, code: int = INVALID_CONFIG) -> bytes:
    """The 6 bytes of a hardware address that a link can have. Raises Error that names `where`."""
    separator = text[2:3]
    parts = text.split(separator) if separator and separator in _SEPARATORS else []
    try:
        found = bytes(int(one, 16) for one in parts if len(one) == 2 and one.isalnum())
    except ValueError:
        found = b""
    if len(parts) != 6 or len(found) != 6:
        raise Error(code, f"{text!r} is not a hardware address such as 02:00:00:00:00:01", subject=where)
    if found[0] & 1 or not any(found):
        hint = "its first byte is even, and not all of it is zero"
        raise Error(code, f"{text} cannot be the address of a link", subject=where, hint=hint)
    return found
