"""What storage classes and inline volumes may say of a volume, beside its size."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from ocirt_csi.errors import Error
from ocirt_csi.model import MEMORY, PROJECT, SUBVOLUME

CLASS = "class"
EPHEMERAL = "csi.storage.k8s.io/ephemeral"
_KUBERNETES = "csi.storage.k8s.io/"  # added by sidecars and the kubelet
VOLUME = (CLASS,)
INLINE = (CLASS, "size", "fsType")
LIMITS = ("readBps", "writeBps", "readIops", "writeIops")
COMPRESSION = "compression"
COMPRESSIONS = ("none", "zstd", "lzo", "zlib")
_SIZE = re.compile(r"([0-9]{1,19})(|[kKMGTP]i?)B?")
_UNITS = {"": 1} | {
    letter + binary: (1024 if binary else 1000) ** power
    for power, letters in enumerate(("kK", "M", "G", "T", "P"), 1)
    for letter in letters
    for binary in ("", "i")
}
_LARGEST = (1 << 63) - 1


def checked(given: Mapping[str, str], known: tuple[str, ...], field: str) -> dict[str, str]:
    """The parameters without what sidecars add. Raises Error("invalid") for one that means nothing."""
    found = {}
    for name, value in given.items():
        if name.startswith(_KUBERNETES):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise Error("invalid", f"there is no parameter {name[:64]!r}", subject=field, hint=hint)
        found[name] = value
    return found


def mutable(given: Mapping[str, str], layout: str, field: str = "mutable_parameters") -> dict[str, str]:
    """What can be changed of a volume: of an image bytes or operations a second (0: no limit), of a subvolume its compression.

    Raises Error("invalid").
    """
    if layout in (PROJECT, MEMORY):
        return checked(given, (), field)
    if layout == SUBVOLUME:
        found = checked(given, (COMPRESSION,), field)
        if found and found[COMPRESSION] not in COMPRESSIONS:
            raise Error("invalid", f"{found[COMPRESSION][:64]!r} is not one", subject=COMPRESSION, hint=", ".join(COMPRESSIONS))
        return found
    return {name: str(size(value, f"{field}: {name}")) for name, value in checked(given, LIMITS, field).items()}


def size(text: str, field: str) -> int:
    """A number such as "10Gi" or "500M". Raises Error("invalid")."""
    match = _SIZE.fullmatch(text)
    number = int(match[1]) * _UNITS[match[2]] if match else _LARGEST + 1
    if number > _LARGEST:
        raise Error("invalid", f"{text[:64]!r} is not a size", subject=field, hint="such as 500Mi or 10G")
    return number
