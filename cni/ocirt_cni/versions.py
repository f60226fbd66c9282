"""The versions of CNI's specification."""

from __future__ import annotations

from ocirt_cni.errors import INCOMPATIBLE_VERSION, Error

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = SUPPORTED[-1]
DEFAULT = "0.1.0"  # of a configuration that names none
# The first version that has it.
CHECK = "0.4.0"
GC = STATUS = "1.1.0"


def rank(version: str) -> int:
    """Where a version stands among those that are supported. Raises Error(INCOMPATIBLE_VERSION)."""
    try:
        return SUPPORTED.index(version)
    except ValueError:
        known = ", ".join(SUPPORTED)
        raise Error(
            INCOMPATIBLE_VERSION, f"version {version} is not supported", subject="/cniVersion", hint=f"use one of {known}"
        ) from None


def at_least(version: str, other: str) -> bool:
    """Whether `version` is `other` or a later one. Raises Error(INCOMPATIBLE_VERSION)."""
    return rank(version) >= SUPPORTED.index(other)
