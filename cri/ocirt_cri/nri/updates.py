"""What plugins, one after the other, make of the limits of containers that exist. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from ocirt.errors import Error
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri.owners import Owners

# Of LinuxMemory and LinuxCPU: the field, and its name in NRI's enum of fields.
_MEMORY = (
    ("limit", "MemLimit"),
    ("reservation", "MemReservation"),
    ("swap", "MemSwapLimit"),
    ("kernel", "MemKernelLimit"),
    ("kernel_tcp", "MemTCPLimit"),
    ("swappiness", "MemSwappiness"),
    ("disable_oom_killer", "MemDisableOomKiller"),
    ("use_hierarchy", "MemUseHierarchy"),
)
_CPU = (
    ("shares", "CPUShares"),
    ("quota", "CPUQuota"),
    ("period", "CPUPeriod"),
    ("realtime_runtime", "CPURealtimeRuntime"),
    ("realtime_period", "CPURealtimePeriod"),
)
_CPUSET = (("cpus", "CPUSetCPUs"), ("mems", "CPUSetMems"))
_SINGLE = (("blockio_class", "BlockioClass"), ("rdt_class", "RdtClass"), ("pids", "PidsLimit"))


class Updates:
    """The updates that were asked for so far, by container.

    creating: the id of the container that is being made, which may not be updated; updating: that of the one whose limits change,
    whose update is apart: `own`, which begins as what the request wants.
    """

    def __init__(
        self, owners: Owners, *, creating: str = "", updating: str = "", wanted: nri.LinuxResources | None = None
    ) -> None:
        self._owners = owners
        self._creating = creating
        self._updating = updating
        self.own = nri.LinuxResources()
        if wanted is not None:
            self.own.CopyFrom(wanted)
        self._others: dict[str, nri.ContainerUpdate] = {}

    @property
    def others(self) -> list[nri.ContainerUpdate]:
        """Of other containers, in the order in which they were asked for first."""
        return list(self._others.values())

    def apply(self, updates: Iterable[nri.ContainerUpdate], plugin: str) -> None:
        """Take in what one plugin asks for. Raises Error("state") for a conflict that the plugin does not want to be ignored."""
        for update in updates:
            identifier = update.container_id
            if self._creating and identifier == self._creating:
                what = f"plugin {plugin!r} asked for an update of the container that is being created"
                raise Error("state", what, subject=identifier)
            try:
                claim_resources(self._owners, identifier, update.linux.resources, plugin)
            except Error:
                if not update.ignore_failure:
                    raise
                continue
            if self._updating and identifier == self._updating:
                lay_over(self.own, update.linux.resources)
                continue
            there = self._others.get(identifier)
            if there is None:
                there = self._others[identifier] = nri.ContainerUpdate(container_id=identifier, ignore_failure=True)
            there.ignore_failure = there.ignore_failure and update.ignore_failure
            lay_over(there.linux.resources, update.linux.resources)


def claim_resources(owners: Owners, container: str, given: nri.LinuxResources, plugin: str) -> None:
    """All that `given` sets is this plugin's from now on. Raises Error("state"): another one's."""
    for section, names in ((given.memory, _MEMORY), (given.cpu, _CPU)):
        for name, field in names:
            if section.HasField(name):  # type: ignore[arg-type]
                owners.claim(container, field, plugin)
    for name, field in _CPUSET:
        if getattr(given.cpu, name):
            owners.claim(container, field, plugin)
    for limit in given.hugepage_limits:
        owners.claim(container, "HugepageLimits", plugin, limit.page_size)
    for key in given.unified:
        owners.claim(container, "CgroupsUnified", plugin, key)
    for name, field in _SINGLE:
        if given.HasField(name):  # type: ignore[arg-type]
            owners.claim(container, field, plugin)


def lay_over(there: nri.LinuxResources, given: nri.LinuxResources) -> None:
    """Set in `there` what `given` sets. Device rules are appended: the last one that fits counts."""
    sizes = {limit.page_size for limit in given.hugepage_limits}
    for number in reversed(range(len(there.hugepage_limits))):
        if there.hugepage_limits[number].page_size in sizes:
            del there.hugepage_limits[number]
    # Merging sets a wrapped value that is 0 in `given` only where the wrapper is not there yet.
    for section in ("memory", "cpu"):
        for field, _ in getattr(given, section).ListFields():
            if field.message_type is not None:
                getattr(there, section).ClearField(field.name)
    for name, _ in _SINGLE:
        if given.HasField(name):  # type: ignore[arg-type]
            there.ClearField(name)  # type: ignore[arg-type]
    there.MergeFrom(given)
