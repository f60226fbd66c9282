"""Adjustments by hypothesis, and a document to adjust."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ocirt_api.nri import api_pb2 as nri
from tests.unit.cri.spec.requests import config, made

_NAMES = st.sampled_from(["A", "B", "C", "PATH"])
_WORDS = st.sampled_from(["", "x", "y=z", "ä"])
_PATHS = st.sampled_from(["/a", "/a/b", "/proc", "/dev/shm", "/etc/hosts"])
_SMALL = st.integers(1, 1 << 30)


def document() -> dict[str, Any]:
    """Of a plain container."""
    return made(config()).document


def marked(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Names, or their removals."""
    return st.one_of(names, names.map(lambda name: "-" + name))


def _optional(value: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, int] | None]:
    return st.one_of(st.none(), value.map(lambda number: {"value": number}))


@st.composite
def limits(draw: st.DrawFn) -> nri.LinuxResources:
    """Limits of CPU and memory, and more."""
    found = nri.LinuxResources()
    for section, names in (("memory", ("limit", "reservation", "swap", "swappiness")), ("cpu", ("shares", "quota", "period"))):
        for name in names:
            if draw(st.booleans()):
                getattr(getattr(found, section), name).value = draw(_SMALL)
    if draw(st.booleans()):
        found.cpu.cpus = draw(st.sampled_from(["0", "0-1"]))
    if draw(st.booleans()):
        found.pids.limit = draw(_SMALL)
    for size in draw(st.sets(st.sampled_from(["2MB", "1GB"]))):
        found.hugepage_limits.add(page_size=size, limit=draw(_SMALL))
    for key in draw(st.sets(st.sampled_from(["memory.high", "io.max"]))):
        found.unified[key] = draw(_WORDS)
    return found


@st.composite
def adjustments(draw: st.DrawFn) -> nri.ContainerAdjustment:
    """What a plugin may want: each thing at most once, as a removal, anew, or both."""
    found = nri.ContainerAdjustment()
    for name in draw(st.sets(marked(_NAMES))):
        found.annotations[name] = "" if name.startswith("-") else draw(_WORDS)
    for name in draw(st.lists(marked(_NAMES), unique=True)):
        found.env.add(key=name, value="" if name.startswith("-") else draw(_WORDS))
    for path in draw(st.lists(marked(_PATHS), unique=True)):
        if path.startswith("-"):
            found.mounts.add(destination=path)
        else:
            found.mounts.add(destination=path, type="bind", source="/tmp", options=["bind", draw(st.sampled_from(["ro", "rw"]))])
    if draw(st.booleans()):
        found.args.extend(draw(st.lists(st.sampled_from(["", "sh", "-c"]), min_size=2, max_size=3)))
    for kind in draw(st.sets(st.sampled_from(["prestart", "create_runtime", "poststop"]))):
        getattr(found.hooks, kind).add(path="/bin/true", args=["true", draw(_WORDS)])
    for name in draw(st.sets(st.sampled_from(["RLIMIT_NOFILE", "RLIMIT_CORE"]))):
        found.rlimits.add(type=name, soft=1, hard=draw(_SMALL))
    linux = found.linux
    for path in draw(st.lists(marked(st.sampled_from(["/dev/a", "/dev/b"])), unique=True)):
        device = linux.devices.add(path=path, type="c", major=1, minor=draw(st.integers(0, 9)))
        if draw(st.booleans()):
            device.file_mode.value = draw(st.sampled_from([0o400, 0o666, 0]))
    if draw(st.booleans()):
        linux.resources.CopyFrom(draw(limits()))
    linux.cgroups_path = draw(st.sampled_from(["", "/other"]))
    for name in draw(st.sets(marked(st.sampled_from(["net.a", "net.b"])))):
        linux.sysctl[name] = draw(_WORDS)
    for name in draw(st.sets(marked(st.sampled_from(["eth7", "eth8"])))):
        linux.net_devices[name].name = draw(st.sampled_from(["", "lan"]))
    if draw(st.booleans()):
        linux.oom_score_adj.value = draw(st.integers(-1000, 1000))
    for kind in draw(st.lists(marked(st.sampled_from(["network", "uts"])), unique_by=lambda one: one.strip("-"))):
        linux.namespaces.add(type=kind, path=draw(st.sampled_from(["", "/run/netns/x"])))
    if draw(st.booleans()):
        linux.rdt.CopyFrom(nri.LinuxRdt(remove=draw(st.booleans())))
        if draw(st.booleans()):
            linux.rdt.clos_id.value = "gold"
    return found
