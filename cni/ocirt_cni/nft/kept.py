"""The connections to nftables that this process keeps open: the socket, and libnftables' context.

Closing a socket to nf_tables waits until the kernel has freed what was deleted last, some 10 ms: so they stay open.
They belong to the network namespace that the thread was in when they were made, and are made anew in another one. Not for several
threads.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.library import Nft
    from ocirt_cni.nft.wire import Tables

_tables: dict[tuple[int, int], Tables] = {}
_libraries: dict[tuple[int, int], Nft] = {}


def tables() -> Tables:
    """The socket. Raises KernelError."""
    place = _place()
    if place not in _tables:
        from ocirt_cni.nft.wire import Tables  # noqa: PLC0415

        _close(_tables)
        _tables[place] = Tables()
    return _tables[place]


def library() -> Nft:
    """libnftables. Raises Error(UNSUPPORTED) if it is not installed."""
    place = _place()
    if place not in _libraries:
        from ocirt_cni.nft.library import Nft  # noqa: PLC0415  (loading it costs 5 ms, and few need it)

        _close(_libraries)
        _libraries[place] = Nft()
    return _libraries[place]


def release() -> None:
    """Close both: they hold their network namespace."""
    _close(_tables)
    _close(_libraries)


def _place() -> tuple[int, int]:
    """This process, which may be a child of the one that opened them, and its network namespace."""
    return os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino


def _close(kept: dict[tuple[int, int], Tables] | dict[tuple[int, int], Nft]) -> None:
    while kept:
        kept.popitem()[1].close()
