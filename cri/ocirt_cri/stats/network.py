"""What the interfaces of a pod have moved, asked from outside of its network namespace.

rtnetlink answers for another namespace that has a number in ours (RTM_NEWNSID; `ip netns list-id` shows them): no setns(2), which
the daemon never calls, and no process in the pod is needed, of which a pod without containers has none. The number goes with the
namespace. Where the kernel does not (before Linux 4.20), a process in the pod shows it: /proc/PID/net/dev.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from struct import pack, unpack_from

from ocirt_cni.errors import Error
from ocirt_cni.netlink import codec
from ocirt_cni.netlink.links import header
from ocirt_cni.netlink.socket import KernelError, Netlink, Request

# linux/rtnetlink.h, linux/net_namespace.h
_RTM_GETLINK = 18
_RTM_NEWNSID = 88
_RTM_GETNSID = 90
_NETNSA_NSID = 1
_NETNSA_FD = 3
_UNSPECIFIED = pack("=B3x", 0)  # rtgenmsg
# linux/if_link.h
_IFLA_IFNAME = 3
_IFLA_STATS64 = 23
_IFLA_TARGET_NETNSID = 46
_HEADER = 16  # bytes of ifinfomsg
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Interface:
    """What an interface has moved, as the pod sees it: bytes, if nothing else is said."""

    name: str
    received: int
    receive_errors: int
    sent: int
    send_errors: int
    packets_received: int
    packets_sent: int
    receive_drops: int
    send_drops: int


class Links:
    """Asks the kernel. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._netlink: Netlink | None = None

    def close(self) -> None:
        """Ends the socket, if there is one."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    def interfaces(self, netns: str) -> list[Interface]:
        """All interfaces of the namespace that is bound at `netns`, but for its loopback. Raises KernelError, OSError."""
        namespace = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._lock:
                if self._netlink is None:
                    self._netlink = Netlink()
                number = _number(self._netlink, namespace)
                contents = header() + codec.attribute(_IFLA_TARGET_NETNSID, pack("=i", number))
                found = self._netlink.dump(Request(_RTM_GETLINK, 0, contents, "RTM_GETLINK of a pod"))
        finally:
            os.close(namespace)
        return [one for one in map(_interface, found) if one is not None and one.name != _LOOPBACK]


def of_pod(links: Links, netns: str, pid: int) -> list[Interface]:
    """The interfaces of a pod, by its namespace or else by a process in it (0: there is none); none if `netns` is ""."""
    if not netns:
        return []
    try:
        return links.interfaces(netns)
    except (Error, OSError):
        try:
            return of_process(pid) if pid else []
        except OSError:
            return []


def _number(netlink: Netlink, namespace: int) -> int:
    """The number of a namespace in ours, which is given one if it has none."""
    by_fd = _UNSPECIFIED + codec.attribute(_NETNSA_FD, pack("=I", namespace))
    for attempt in range(2):
        answer = netlink.get(Request(_RTM_GETNSID, 0, by_fd, "RTM_GETNSID"))
        number = int(unpack_from("=i", codec.parse(answer, 4)[_NETNSA_NSID])[0])
        if number >= 0 or attempt:
            return number
        try:
            netlink.execute(Request(_RTM_NEWNSID, 0, by_fd + codec.attribute(_NETNSA_NSID, pack("=i", -1)), "RTM_NEWNSID"))
        except KernelError:
            continue  # somebody else gave it one: EEXIST
    raise AssertionError("not reached")


def _interface(message: bytes) -> Interface | None:
    attributes = codec.parse(message, _HEADER)
    counters = attributes.get(_IFLA_STATS64)
    if counters is None or len(counters) < 64:
        return None
    # rtnl_link_stats64: packets received, sent, bytes received, sent, errors received, sent, dropped received, sent
    packets_in, packets_out, received, sent, errors_in, errors_out, drops_in, drops_out = unpack_from("=8Q", counters)
    name = codec.text(attributes[_IFLA_IFNAME])
    return Interface(name, received, errors_in, sent, errors_out, packets_in, packets_out, drops_in, drops_out)


def of_process(pid: int, proc: str = "/proc") -> list[Interface]:
    """The same by a process in the namespace. Raises OSError."""
    with open(f"{proc}/{pid}/net/dev", encoding="ascii", errors="replace") as file:
        return parse(file.read())


def parse(text: str) -> list[Interface]:
    """proc(5), /proc/net/dev: a name, then eight numbers received and eight sent: bytes, packets, errors, drops, …"""
    found = []
    for line in text.split("\n"):
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and len(words) >= 12 and all(word.isdigit() for word in words[:12]) and name.strip() != _LOOPBACK:
            of = [int(word) for word in words[:12]]
            found.append(Interface(name.strip(), of[0], of[2], of[8], of[10], of[1], of[9], of[3], of[11]))
    return found
