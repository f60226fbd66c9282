"""Names of the Container Device Interface: `VENDOR/CLASS=DEVICE`, in requests and in annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig

_ANNOTATION = "cdi.k8s.io/"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_ENDS = _LETTERS | _DIGITS
_WITHIN = {"vendor": _ENDS | frozenset("_-."), "class": _ENDS | frozenset("_-"), "device": _ENDS | frozenset("_-.:")}
_HINT = "VENDOR/CLASS=DEVICE, such as vendor.com/gpu=0"


def requested(config: ContainerConfig) -> dict[str, str]:
    """The names that a request has, each once, and the field of each. Raises Error for one that is none."""
    found: dict[str, str] = {}
    for number, device in enumerate(config.CDI_devices):
        field = f"config.CDI_devices[{number}].name"
        check(device.name, field)
        found.setdefault(device.name, field)
    for key in sorted(config.annotations):
        if key.startswith(_ANNOTATION):
            field = f'config.annotations["{key[:80]}"]'
            for name in config.annotations[key].split(","):
                check(name, field)
                found.setdefault(name, field)
    return found


def check(name: str, field: str) -> None:
    """Raises Error for a name that is not qualified, or not one."""
    kind, equals, device = name.partition("=")
    if not equals or not is_kind(kind) or not is_part(device, "device"):
        raise invalid(field, f"{shown(name)} is no name of a CDI device", _HINT)


def is_kind(text: str) -> bool:
    """Whether it is `VENDOR/CLASS`."""
    vendor, slash, kind = text.partition("/")
    return bool(slash) and is_part(vendor, "vendor") and is_part(kind, "class")


def is_part(text: str, part: str) -> bool:
    """Whether it can be a vendor, a class or a device. The first two begin with a letter."""
    first = _ENDS if part == "device" else _LETTERS
    return bool(text) and text[0] in first and text[-1] in _ENDS and _WITHIN[part].issuperset(text)
