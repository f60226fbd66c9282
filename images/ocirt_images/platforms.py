"""Platforms: which of an index's manifests is for this machine (image-spec, image-index.md; variants as Go names them).

A machine runs programs of more than one platform: a processor of level v3 those of v2 and of v1. `accepted` lists what it runs
from the best down, and `choose` takes the first entry of the best.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, text, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

# uname -m: GOARCH and variant
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
# The names that people use for an architecture: the one that images have
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm/v7", "armel": "arm/v6", "i386": "386"}
# What each level of x86-64 needs (x86-64 psABI, "Micro-Architecture Levels"), by the flags in /proc/cpuinfo
_LEVELS = (
    ("v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
_PART = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """What a manifest says that it runs on."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: object, pointer: str) -> Platform:
        """From a descriptor's `platform`, or from an image's configuration. Raises Error("invalid")."""
        found = mapping(value, pointer)
        return cls(
            text(found, "os", pointer, ""),
            text(found, "architecture", pointer, ""),
            text(found, "variant", pointer, ""),
            text(found, "os.version", pointer, ""),
            tuple(texts(found, "os.features", pointer)),
        )

    @classmethod
    def named(cls, name: str) -> Platform:
        """From what a person types: `linux/arm64/v8`, `arm64`, `linux/amd64`. Raises Error("invalid")."""
        parts = name.lower().split("/")
        if not all(_PART.fullmatch(part) for part in parts) or len(parts) > 3:
            raise Error("invalid", "not a platform", subject=name[:80], hint="OS/ARCHITECTURE[/VARIANT], as in linux/arm64/v8")
        if len(parts) == 1 or parts[0] not in ("linux", "windows", "freebsd", "darwin"):
            parts.insert(0, "linux")
        os_name, architecture, *variant = parts
        architecture, _, alias_variant = _ALIASES.get(architecture, architecture).partition("/")
        return cls(os_name, architecture, variant[0] if variant else alias_variant)._normal()

    def _normal(self) -> Platform:
        """The variant that is meant where none is said, and none where it says nothing."""
        variant = self.variant
        if self.architecture == "arm64" and variant in ("", "8", "v8"):
            variant = "v8"
        elif self.architecture == "arm":
            variant = "v7" if not variant else variant if variant.startswith("v") else f"v{variant}"
        elif self.architecture == "amd64" and variant == "v1":
            variant = ""
        return Platform(self.os, self.architecture, variant, self.os_version, self.os_features)

    def json(self) -> Json:
        """As a descriptor's `platform`, without what is empty."""
        value: Json = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            value["variant"] = self.variant
        if self.os_version:
            value["os.version"] = self.os_version
        if self.os_features:
            value["os.features"] = list(self.os_features)
        return value

    @property
    def nobody(self) -> bool:
        """Whether this is no platform: what BuildKit writes for an attestation."""
        return self.os == "unknown" and self.architecture == "unknown"

    def __str__(self) -> str:
        return "/".join(part for part in (self.os or "?", self.architecture or "?", self.variant) if part)


@cache
def host() -> Platform:
    """This machine's platform, with the highest variant that its processor supports."""
    architecture, variant = _MACHINES.get(os.uname().machine, (os.uname().machine, ""))
    if architecture == "amd64":
        variant = _level(_flags())
    return Platform("linux", architecture, variant)


def _flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def _level(flags: set[str]) -> str:
    level = ""
    for name, needed in _LEVELS:
        if not needed <= flags:
            break
        level = name
    return level


def accepted(wanted: Platform) -> list[Platform]:
    """What a machine of the platform `wanted` runs, from the best down."""
    wanted = wanted._normal()
    match wanted.architecture, wanted.variant:
        case "amd64", variant:
            levels = ["v4", "v3", "v2", ""]
            names = levels[levels.index(variant) :] if variant in levels else [variant, ""]
            found = [Platform(wanted.os, "amd64", name) for name in names]
            # Every 64-bit processor runs 32-bit programs; a kernel without IA32_EMULATION is rare, an image of that kind rarer.
            return [*found, Platform(wanted.os, "386")]
        case "arm", variant if variant[1:].isdigit():
            return [Platform(wanted.os, "arm", f"v{number}") for number in range(int(variant[1:]), 4, -1)]
        case "arm64", variant:
            # Some write v8.1 and v9 as variants; each runs what v8 does, and most of these processors 32-bit programs too.
            names = [variant] if variant == "v8" else [variant, "v8"]
            return [*(Platform(wanted.os, "arm64", name) for name in names), *accepted(Platform(wanted.os, "arm", "v8"))]
        case _:
            return [wanted]


def rank(offered: Platform, wanted: Platform) -> int | None:
    """How well `offered` does on a machine of `wanted`: 0 is best, None means not at all."""
    offered = offered._normal()
    plain = Platform(offered.os, offered.architecture, offered.variant)
    for place, one in enumerate(accepted(wanted)):
        if one == plain:
            return place
    return None


def choose(offered: Sequence[Platform | None], wanted: Platform) -> int | None:
    """Which of an index's entries is for `wanted`: of the best, the first. Entries without a platform are taken last."""
    best: tuple[int, int] | None = None
    for number, platform in enumerate(offered):
        if platform is not None and platform.nobody:
            continue
        place = 1000 if platform is None else rank(platform, wanted)
        if place is not None and (best is None or place < best[0]):
            best = (place, number)
    return None if best is None else best[1]
