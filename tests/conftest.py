"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# What a caller's shell has set must not reach the containers by way of a runtime.
for _name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "PYTHONPATH", "PYTHONSTARTUP"):
    os.environ.pop(_name, None)
