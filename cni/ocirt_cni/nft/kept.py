"""The connections to nftables that this process keeps open: the socket, and libnftables' context.

Closing a socket to nf_tables waits until the kernel has freed what was deleted last, 10 to 30 ms: so they stay open.
They belong to the network namespace that the thread was in when they were made, and are made anew in another one. Not for several
threads.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socketpair
from _struct import pack
from errno import EPERM

from ocirt_cni.errors import UNSUPPORTED, Error
from ocirt_cni.netlink.socket import KernelError, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cni.nft.library import Nft
    from ocirt_cni.nft.wire import Tables

_MOST_COMPILED = 100  # texts, which are mostly those of the tables and of networks' chains
_compiled: dict[str, list[Request]] = {}
_tables: dict[tuple[int, int], Tables] = {}
_libraries: dict[tuple[int, int], Nft] = {}


def tables() -> Tables:
    """The socket. Raises Error(UNSUPPORTED) if this user cannot change the rules, or the kernel has none."""
    place = _place()
    if place not in _tables:
        _close(_tables)
        _tables[place] = _opened()
    return _tables[place]


def library() -> Nft:
    """libnftables. Raises Error(UNSUPPORTED) if it is not installed."""
    place = _place()
    if place not in _libraries:
        from ocirt_cni.nft.library import Nft  # noqa: PLC0415  (loading it costs 5 ms, and few need it)

        _close(_libraries)
        _libraries[place] = Nft()
    return _libraries[place]


def run(texts: Iterable[str]) -> None:
    """Run commands in the language of nft(8), as one transaction. Raises Error, of which KernelError is one."""
    wanted = list(texts)
    requests: list[Request] = []
    for one in wanted:
        found = _compiled.get(one) or _messages(one)
        if found is None:
            library().run("".join(wanted))
            return
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        _compiled[one] = found
        requests += found
    tables().transact(requests)


def _messages(text: str) -> list[Request] | None:
    """The messages of commands; None if the compiler does not understand them."""
    if text.startswith("create table"):
        from ocirt_cni.nft.ready import READY  # noqa: PLC0415  (most calls find all tables and chains)

        if text in READY:
            return [Request(*each) for each in READY[text]]
    from ocirt_cni.nft.compiler import NotUnderstoodError, compiled  # noqa: PLC0415  (as above)

    try:
        return compiled(text)
    except NotUnderstoodError:
        return None


def _opened() -> Tables:
    from ocirt_cni.nft.wire import Tables  # noqa: PLC0415

    try:
        made = Tables()
        made.generation()
    except KernelError as err:
        if err.errno == EPERM:
            hint = "it takes CAP_NET_ADMIN in the user namespace of this network namespace: root, or podman's rootless namespace"
            raise Error(UNSUPPORTED, "the rules of nftables cannot be changed", cause=err.cause, hint=hint) from None
        hint = "load the module nf_tables, or use a kernel that has it (CONFIG_NF_TABLES_INET)"
        raise Error(UNSUPPORTED, "this kernel does not have nftables", cause=err.cause, hint=hint) from None
    return made


def release() -> None:
    """Close both: they hold their network namespace."""
    _close(_tables)
    _close(_libraries)


def abandon() -> None:
    """Let go of the socket without the wait for its end: for an executable, which has nothing else to do.

    It goes into a message that waits in a socket, which is itself in that message: so the kernel ends both when it collects what
    nobody can reach (unix(7), SCM_RIGHTS). A recent kernel does that aside, an older one when this process ends, as without.
    """
    while _tables:
        one = _tables.popitem()[1]
        mine, its = socketpair(AF_UNIX, SOCK_STREAM)
        try:
            mine.sendmsg([b"\0"], [(SOL_SOCKET, SCM_RIGHTS, pack("ii", one.fileno(), its.fileno()))])
        except OSError:
            return  # it ends with the process
        # In this order: with the last one the kernel looks for what cannot be reached.
        for each in (one, its, mine):
            each.close()


def _place() -> tuple[int, int]:
    """This process, which may be a child of the one that opened them, and its network namespace."""
    return posix.getpid(), posix.stat("/proc/thread-self/ns/net").st_ino


def _close(kept: dict[tuple[int, int], Tables] | dict[tuple[int, int], Nft]) -> None:
    while kept:
        kept.popitem()[1].close()
