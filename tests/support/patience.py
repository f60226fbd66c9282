"""How long tests wait for what has to come. OCIRT_TEST_SLOWNESS=N: N times as long, for a machine that is as much slower."""

from __future__ import annotations

import os

SLOWNESS = float(os.environ.get("OCIRT_TEST_SLOWNESS", "1"))


def patience(seconds: float) -> float:
    """Seconds to wait on this machine, where it would be `seconds` on an ordinary one."""
    return seconds * SLOWNESS
