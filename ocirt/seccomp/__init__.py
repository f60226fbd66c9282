"""System-call filters: from `/linux/seccomp` of config.json to a program for seccomp(2), by libseccomp or from a cache.

`cache.load` is the way in for a container's start; `compile.compile_filter` translates without a cache; `support.supported`
says what can be had here, for `features`.
"""

from __future__ import annotations

import sys

# linux/seccomp.h
SET_MODE_FILTER = 1
FLAG_TSYNC = 1 << 0
FLAG_LOG = 1 << 1
FLAG_SPEC_ALLOW = 1 << 2
FLAG_NEW_LISTENER = 1 << 3
FLAG_WAIT_KILLABLE_RECV = 1 << 5

INSTRUCTION_SIZE = 8  # struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

LIBRARY = "libseccomp.so.2"


def library_places() -> list[str]:
    """Where distributions put libseccomp for this interpreter's kind of binary, in the order in which it is looked for."""
    multiarch: str = getattr(sys.implementation, "_multiarch", "")
    folders = ["/usr/lib/" + multiarch] if multiarch else []
    if sys.maxsize > 1 << 32:
        folders.append("/usr/lib64")
    return [f"{folder}/{LIBRARY}" for folder in (*folders, "/usr/lib")]


class Filter:
    """A filter that is ready to be loaded: seccomp(SET_MODE_FILTER, `flags`, &{len(program) / 8, program}).

    `program` is an array of struct sock_filter in the machine's byte order. With `listener`, a rule asks a supervisor
    (SCMP_ACT_NOTIFY): `flags` has FLAG_NEW_LISTENER, and the call returns the listener's descriptor, which is close-on-exec.
    """

    __slots__ = ("flags", "listener", "program")

    def __init__(self, program: bytes, flags: int, listener: bool) -> None:
        self.program = program
        self.flags = flags
        self.listener = listener
