"""Whether a process of the host has a port, and which one."""

from __future__ import annotations

import posix
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_IP,
    SOL_SOCKET,
    socket,
)
from errno import EADDRINUSE

from ocirt_cni.addresses import Address
from ocirt_cni.nft.sets import PROTOCOLS

_IP_FREEBIND = 15  # linux/in.h
_IPV6_FREEBIND = 78  # linux/in6.h
_ANY = {4: "0.0.0.0", 6: "::"}
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def is_taken(protocol: str, address: Address | None, port: int, version: int) -> bool:
    """Whether somebody has bound it: a socket that listens, or any of UDP. `address` None: on any address of the IP version."""
    family = AF_INET if version == 4 else AF_INET6
    kind = SOCK_DGRAM if protocol == "udp" else SOCK_STREAM
    try:
        one = socket(family, kind | SOCK_CLOEXEC, PROTOCOLS[protocol])
    except OSError:
        return False  # the kernel does not have the protocol, so nobody listens
    try:
        if version == 4:
            one.setsockopt(SOL_IP, _IP_FREEBIND, 1)  # an address that the host is yet to get
        else:
            one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
            one.setsockopt(IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        if protocol != "udp":
            one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)  # connections that have ended and are remembered do not count
        one.bind((_ANY[version] if address is None else str(address), port))
    except OSError as err:
        return err.errno == EADDRINUSE
    finally:
        one.close()
    return False


def holder(protocol: str, port: int) -> str:
    """Who has it: "NAME (PID)" of the first process found, "" if none is: it may run in another PID namespace."""
    inodes = {inode for suffix in ("", "6") for inode in _inodes(f"/proc/self/net/{protocol}{suffix}", protocol, port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in posix.listdir("/proc") if wanted else ():
        if pid.isdigit() and _has(f"/proc/{pid}/fd", wanted):
            return f"{_name(pid)} ({pid})"
    return ""


def _inodes(path: str, protocol: str, port: int) -> list[str]:
    """Of sockets at a port, from a table of /proc/net (proc_net_tcp(5) has their form)."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return []
    found = [row for row in rows if row[1].endswith(f":{port:04X}") and (protocol != "tcp" or row[3] == _LISTEN)]
    return [row[9] for row in found]


def _has(directory: str, wanted: set[str]) -> bool:
    try:
        return any(_target(f"{directory}/{name}") in wanted for name in posix.listdir(directory))
    except OSError:
        return False


def _target(path: str) -> str:
    try:
        return posix.readlink(path)
    except OSError:
        return ""


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process"
