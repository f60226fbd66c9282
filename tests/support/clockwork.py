"""ocirtd with a clock that can jump: `python -m tests.support.clockwork PLACE [ARGUMENTS]`. PLACE/jump: by so many seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> int:
    """The daemon."""
    jump = Path(sys.argv[1], "jump")
    real = time.time_ns

    def time_ns() -> int:
        return real() + int(jump.read_text() if jump.exists() else 0) * 1_000_000_000

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    from ocirt_cri.main import main as daemon  # noqa: PLC0415  (it takes names from `time`)

    return daemon(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
