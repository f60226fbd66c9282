"""What the host looks like before and after a test.

Compared are mounts, cgroups, namespaces, links, firewall rules, processes, host sysctls and device nodes. Mounts, links, rules
and the sysctls of network and IPC belong to the namespaces of the session (see `isolation`), processes are the descendants of
this one, so nobody else can disturb them. Cgroups have no owner: those that carry the session's token count, and with
`OCIRT_TEST_ALONE=1`, which CI sets, all but what systemd manages.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.isolation import cgroup_mounts, umount

GRACE = float(
    os.environ.get("OCIRT_TEST_GRACE", "10")
)  # seconds that asynchronous ends may take (a dying pid namespace, a cgroup that empties)

_LOOKS = 5  # at least, before anything is called a leak

_SYSTEMD = re.compile(r"/(system|user|machine)\.slice(/|$)|/init\.scope$|\.(service|scope|slice)$")

_OF_DISKS = re.compile(r"loop\d+|dm-\d+|mapper|ocirt-test")  # the last: of the volume group of tests

# Read once a test: a few hundred small files.
_SYSCTLS = ("net", "kernel", "vm", "fs/mqueue", "user")
# These move by themselves, or reading them is an action.
_UNSTABLE = re.compile(
    r"kernel/(random|ns_last_pid|pty/nr|perf_event_max_sample_rate|hung_task_detect_count|tainted|sched_domain|hotplug"
    r"|sysrq|usermodehelper|keys|cad_pid|spl)|vm/(stat_refresh|compact_memory|drop_caches|nr_)|route/flush"
    r"|nf_conntrack_count|stable_secret|/cdrom|netdev_rss_key|tcp_fastopen_key|max_.*_namespaces",
)


@dataclass
class Snapshot:
    """The host at one moment: for each kind of thing, its name and (where it has one) its value."""

    kinds: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Leak:
    """One thing that was left, lost or changed."""

    kind: str
    change: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.change}: {self.name}" + (f" ({self.detail})" if self.detail else "")


def mounts() -> dict[str, str]:
    """Each mount by target and id: `root, type, source, options`, of cgroup2 also those that all its mounts share.

    A bound namespace shows as nsfs.
    """
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        end = fields.index("-")
        shared = fields[end + 3 :] if fields[end + 1] == "cgroup2" else []
        found[f"{fields[4]} #{fields[0]}"] = " ".join((fields[3], *fields[end + 1 : end + 3], fields[5], *fields[6:end], *shared))
    return found


def cgroups(token: str, everything: bool) -> dict[str, str]:
    """The directories of all cgroup hierarchies: those whose path holds the token, or nearly all."""
    found = {}
    for root in cgroup_mounts():
        for path in _cgroup_directories(str(root), "" if everything else token):
            relative = path[len(str(root)) :]
            if everything and token not in relative and _SYSTEMD.search(relative):
                continue
            found[path] = ""
    return found


def _cgroup_directories(directory: str, token: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError, OSError), os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            if not token or token in entry.path:
                yield entry.path
            yield from _cgroup_directories(entry.path, token)


def descendants() -> dict[int, str]:
    """The processes below this one: pid to `start time, state, command`. Zombies that nobody waits for are reaped on the way."""
    parents: dict[int, int] = {}
    said: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            head, _, tail = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")
            fields = tail.split()
            parents[int(name)] = int(fields[1])
            said[int(name)] = f"{fields[0]} {head.partition('(')[2]}, started {fields[19]}"
    own = os.getpid()
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor > 1 and ancestor != own:
            ancestor = parents.get(ancestor, 0)
        if ancestor == own and pid != own:
            found[pid] = said[pid]
    return found


def processes() -> dict[str, str]:
    """The descendants of this process, without state; what is dead and ours to reap is reaped."""
    found = {}
    for pid, said in descendants().items():
        if said.startswith("Z"):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == pid:
                    continue
        found[f"{pid} {said[2:]}"] = ""
    return found


def namespaces() -> dict[str, str]:
    """The namespaces of this process and its descendants, and those that their open descriptors hold."""
    found: dict[str, str] = {}
    for pid in [os.getpid(), *descendants()]:
        with contextlib.suppress(OSError):
            for kind in os.listdir(f"/proc/{pid}/ns"):
                with contextlib.suppress(OSError):
                    found.setdefault(os.readlink(f"/proc/{pid}/ns/{kind}"), "")
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if re.fullmatch(r"[a-z_]+:\[\d+\]", target) and not target.startswith(("pipe", "socket")):
                        found.setdefault(target, "")
    return found


def links() -> dict[str, str]:
    """The network interfaces by name, with their index."""
    return {name: str(index) for index, name in socket.if_nameindex()}


def firewall() -> dict[str, str]:
    """The nft rule set without its counters, line by line with the place of each."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None:
        return {}
    done = subprocess.run([nft, "-s", "list", "ruleset"], capture_output=True, text=True, check=False, timeout=20)
    return {f"{number}: {line}": "" for number, line in enumerate(done.stdout.splitlines())}


def sysctls() -> dict[str, str]:
    """Host sysctls that stay as they are unless somebody writes them."""
    found: dict[str, str] = {}
    for part in _SYSCTLS:
        for directory, _, names in os.walk(f"/proc/sys/{part}"):
            for name in names:
                path = f"{directory}/{name}"
                if _UNSTABLE.search(path[len("/proc/sys/") :]):
                    continue
                with contextlib.suppress(OSError):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                    try:
                        found[path[len("/proc/sys/") :]] = os.read(fd, 4096).decode(errors="replace").strip()
                    finally:
                        os.close(fd)
    return found


def devices() -> dict[str, str]:
    """The names in /dev: a device that was made outside its container shows here.

    Without loop devices, of which the kernel makes one for whoever asks for a free one, and it stays, and without those of LVM.
    Tests that use one look after it.
    """
    return {f"/dev/{name}": "" for name in os.listdir("/dev") if not _OF_DISKS.fullmatch(name)}


class Leaks:
    """Takes snapshots and compares them."""

    def __init__(self, token: str, *, everything: bool = False) -> None:
        """Watch for one session, known by its token; `everything`: nobody else makes cgroups on this machine."""
        self.kinds: dict[str, Callable[[], dict[str, str]]] = {
            "process": processes,
            "mount": mounts,
            "cgroup": lambda: cgroups(token, everything),
            "namespace": namespaces,
            "link": links,
            "nft rule": firewall,
            "sysctl": sysctls,
            "device": devices,
        }

    def snapshot(self) -> Snapshot:
        """The host now."""
        return Snapshot({kind: look() for kind, look in self.kinds.items()})

    def compare(self, before: Snapshot, grace: float = GRACE) -> list[Leak]:
        """What differs from `before`, once `grace` seconds have been given to what ends by itself, and as many looks as it takes.

        On a busy machine the seconds may go by between two looks, and nobody else gets to run in them.
        """
        deadline = time.monotonic() + grace
        pause = 0.005
        looks = 0
        pending = dict(self.kinds)
        while True:
            looks += 1
            found: list[Leak] = []
            for kind, look in list(pending.items()):
                differences = _differences(kind, before.kinds[kind], look())
                if not differences:
                    del pending[kind]  # looked at once more only while it differs
                found += differences
            if not found or (looks >= _LOOKS and time.monotonic() > deadline):
                return found
            time.sleep(pause)
            pause = min(pause * 2, 0.1)


def _differences(kind: str, before: dict[str, str], after: dict[str, str]) -> list[Leak]:
    if before == after:
        return []
    found = [Leak(kind, "left behind", name, after[name]) for name in after if name not in before]
    found += [Leak(kind, "lost", name, before[name]) for name in before if name not in after]
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            found.append(Leak(kind, "changed", name, f"{before[name]!r} became {after[name]!r}"))
    return found


def repair(leaks: list[Leak], token: str) -> None:
    """Take away what a test left, as far as that is possible, so that the next test is judged for itself alone."""
    for leak in leaks:
        if leak.change != "left behind":
            continue
        if leak.kind == "process":
            with contextlib.suppress(OSError):
                os.kill(int(leak.name.split()[0]), signal.SIGKILL)
        elif leak.kind == "mount":
            with contextlib.suppress(OSError):
                umount(leak.name.rpartition(" #")[0].encode().decode("unicode_escape"))
    if any(leak.kind == "process" for leak in leaks):
        time.sleep(0.1)
        processes()
    for leak in sorted(leaks, key=lambda leak: leak.name, reverse=True):
        if leak.kind == "cgroup" and leak.change == "left behind" and token in leak.name:
            with contextlib.suppress(OSError):
                os.rmdir(leak.name)
