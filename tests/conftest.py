"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# What a caller's shell has set must not reach the containers by way of a runtime.
for _name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "PYTHONPATH", "PYTHONSTARTUP"):
    os.environ.pop(_name, None)

# A machine at work is no reason for a property to fail. OCIRT_TEST_FUZZ=N: N times as many examples.
settings.register_profile("ocirt", deadline=None, max_examples=100 * int(os.environ.get("OCIRT_TEST_FUZZ", "1")))
settings.load_profile("ocirt")
