"""What a host of the tests looks like before and after: whatever a network plugin could leave, of any kind.

`Host.traces` is for what one plugin makes; this is for chains, and knows nothing of what they should make.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.isolation import CLONE_NEWNET, MS_BIND, loopback_up, mount, umount, unshare
from tests.support.leaks import GRACE, firewall, links
from tests.support.networks import NETNS, command

STATE = Path("/var/lib/cni")
_BOOT = "/proc/sys/kernel/random/boot_id"
_RTF_ANYCAST, _RTF_LOCAL = 0x00100000, 0x80000000  # linux/ipv6_route.h
# What moves by itself below /proc/sys/net, or is an action.
_UNSTABLE = ("nf_conntrack_count", "route/flush", "stable_secret", "netdev_rss_key", "tcp_fastopen_key")


@dataclass(frozen=True)
class Audit:
    """A host at one moment: for each kind of thing what there is of it, and how often."""

    kinds: dict[str, Counter[str]]

    @classmethod
    def take(cls, *, whole: bool = True) -> Audit:
        """Look at the host that this thread is on; not `whole`: without sysctls and policies of routing, which takes 5 ms."""
        kinds = {
            "link": list(links()),
            "nft": [line.partition(": ")[2].strip() for line in firewall()],
            "file": _files(Path("/run")) + _files(STATE),
            "IPv6 address": _addresses6(),
            "IPv6 route": _routes6(),
            **{name: Path("/proc/thread-self/net", name).read_text().splitlines() for name in ("route", "fib_trie")},
        }
        if whole:
            kinds["sysctl"] = _sysctls()
            kinds["rule"] = command("ip", "-4", "rule").splitlines() + command("ip", "-6", "rule").splitlines()
        return cls({kind: Counter(found) for kind, found in kinds.items()})

    def changes(self, grace: float = GRACE) -> list[str]:
        """A line for each thing that there is now and was not, or was and is not, once what ends by itself has had the time."""
        deadline = time.monotonic() + grace
        while True:
            now = Audit.take(whole="sysctl" in self.kinds)
            found = [f"{kind}: left behind: {one}" for kind, things in now.kinds.items() for one in things - self.kinds[kind]]
            found += [f"{kind}: lost: {one}" for kind, things in self.kinds.items() for one in things - now.kinds[kind]]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


def _files(root: Path) -> list[str]:
    return [
        f"{place}/{name}"
        for place, directories, names in os.walk(root)
        if Path(place) != NETNS
        for name in [*directories, *names]
    ]


def _addresses6() -> list[str]:
    """The IPv6 addresses but for those of links, which the kernel gives and probes when it likes."""
    lines = [line.split() for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines()]
    return [f"{one[0]}/{one[2]} {one[5]}" for one in lines if not one[0].startswith("fe80")]


def _routes6() -> list[str]:
    """The IPv6 routes that do not merely follow from an address."""
    lines = [line.split() for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
    return [
        f"{one[0]}/{one[1]} {one[4]} {one[-1]}"
        for one in lines
        if not one[0].startswith(("fe80", "ff")) and not int(one[8], 16) & (_RTF_LOCAL | _RTF_ANYCAST)
    ]


def _sysctls() -> list[str]:
    found = []
    for directory, _, names in os.walk("/proc/sys/net"):
        for path in (f"{directory}/{name}" for name in names):
            if not any(word in path for word in _UNSTABLE):
                with contextlib.suppress(OSError):
                    found.append(f"{path[len('/proc/sys/') :]}={Path(path).read_bytes().strip()!r}")
    return found


def reboot() -> None:
    """The host off and on: links, rules, namespaces and /run are gone, /var/lib is older than the boot, whose id is another."""
    umount("/run")
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    unshare(CLONE_NEWNET)
    loopback_up()
    for place, directories, names in os.walk(STATE):
        for name in [*directories, *names]:
            os.utime(f"{place}/{name}", (0, 0), follow_symlinks=False)
    identity = Path("/run/boot_id")
    identity.write_bytes(Path("/proc/sys/kernel/random/uuid").read_bytes())
    mount(str(identity), _BOOT, "none", MS_BIND)


def forget_reboots() -> None:
    """The machine's own boot id again."""
    with contextlib.suppress(OSError):
        while True:
            umount(_BOOT)


def drop(network: str) -> None:
    """The end of a network namespace of `make_network`."""
    umount(network)
    Path(network).unlink()
