"""What can be had of seccomp here, as `features` reports it (runtime-spec, features-linux.md)."""

from __future__ import annotations

from ocirt.errors import Error
from ocirt.seccomp.tables import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def supported() -> dict[str, Any]:
    """The object `/linux/seccomp` of the features document.

    The names are those that are understood; `supportedFlags` are those that this kernel takes as well. Needs no root, and loads
    no filter.
    """
    from ocirt.seccomp.compile import flag_supported  # noqa: PLC0415
    from ocirt.seccomp.library import load  # noqa: PLC0415

    try:
        load()
    except Error:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(ACTIONS),
        "operators": sorted(OPERATORS),
        "archs": sorted(ARCHITECTURES),
        "knownFlags": list(FLAGS),
        "supportedFlags": [name for name, flag in FLAGS.items() if flag_supported(flag)],
    }
