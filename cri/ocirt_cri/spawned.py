"""What processes of the daemon's own do first. No imports but the smallest: they are many modules lighter than the daemon."""

from __future__ import annotations


def be_killed_first() -> None:
    """The daemon may be one that the kernel's OOM killer spares; what works for it can be started anew."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("500")
    except OSError:
        pass
