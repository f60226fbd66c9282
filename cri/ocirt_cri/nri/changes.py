"""What plugins, one after the other, make of a container that is to be made: one adjustment out of many. No I/O.

Each plugin sees the container as those before it have left it. What two set is a conflict, unless the later one takes it away
first (containerd/nri, "Container Adjustment").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri.owners import Owners
from ocirt_cri.nri.removal import MARK, bare, is_removal
from ocirt_cri.nri.updates import Updates, claim_resources, lay_over

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated

T = TypeVar("T")
_HOOKS = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")


class Changes:
    """What was asked for so far. `container`: as the next plugin is to see it; `adjust`: everything of all plugins."""

    def __init__(self, container: nri.Container) -> None:
        self.container = nri.Container()
        self.container.CopyFrom(container)
        self.adjust = nri.ContainerAdjustment()
        self.owners = Owners()
        self.updates = Updates(self.owners, creating=container.id)
        self.evictions: list[nri.ContainerEviction] = []

    def apply(self, answer: nri.CreateContainerResponse, plugin: str) -> None:
        """Take in one plugin's answer. Raises Error("state") for a conflict with an earlier one's."""
        wanted = answer.adjust
        self._annotations(wanted.annotations, plugin)
        self._list("Mounts", wanted.mounts, self.adjust.mounts, self.container.mounts, lambda one: one.destination, plugin)
        self._env(wanted.env, plugin)
        self._args(list(wanted.args), plugin)
        self._hooks(wanted.hooks, plugin)
        self._linux(wanted.linux, plugin)
        for limit in wanted.rlimits:
            self.owners.claim(self.container.id, "Rlimits", plugin, limit.type)
            for there in (self.container.rlimits, self.adjust.rlimits):
                there.add().CopyFrom(limit)
        for device in wanted.CDI_devices:
            self.owners.claim(self.container.id, "CdiDevices", plugin, device.name)
            self.adjust.CDI_devices.add().CopyFrom(device)
        self.updates.apply(answer.update, plugin)
        self.evictions += answer.evict

    def _annotations(self, given: Mapping[str, str], plugin: str) -> None:
        self._map("Annotations", given, self.adjust.annotations, self.container.annotations, plugin, _put_text)

    def _map(
        self,
        field: str,
        given: Mapping[str, T],
        collected: MutableMapping[str, T],
        shown: MutableMapping[str, T],
        plugin: str,
        put: Callable[[Any, str, Any], None],
    ) -> None:
        """Entries of a map. Removals come first, whatever their order on the wire is: maps have none."""
        for name in given:
            if is_removal(name):
                key = bare(name)
                if key in collected:
                    del collected[key]
                    self.owners.clear(self.container.id, field, plugin, key)
                shown.pop(key, None)
                put(collected, name, given[name])
        for key in given:
            if not is_removal(key):
                self.owners.claim(self.container.id, field, plugin, key)
                collected.pop(MARK + key, None)
                put(collected, key, given[key])
                put(shown, key, given[key])

    def _list(
        self,
        field: str,
        given: Iterable[Any],
        collected: Repeated[Any],
        shown: Repeated[Any],
        name: Callable[[Any], str],
        plugin: str,
    ) -> None:
        """Entries of a list that has each name once. Removals come first; what stands there already is replaced."""
        entries = list(given)
        for one in entries:
            if is_removal(name(one)):
                key = bare(name(one))
                if _drop(collected, key, name):
                    self.owners.clear(self.container.id, field, plugin, key)
                _drop(shown, key, name)
                collected.add().CopyFrom(one)
        for one in entries:
            if not is_removal(name(one)):
                self.owners.claim(self.container.id, field, plugin, name(one))
                _drop(shown, name(one), name)
                for there in (collected, shown):
                    there.add().CopyFrom(one)

    def _env(self, given: Iterable[nri.KeyValue], plugin: str) -> None:
        entries = list(given)
        shown = [entry for entry in self.container.env if entry.partition("=")[0] not in {bare(one.key) for one in entries}]
        for one in entries:
            if is_removal(one.key):
                if _drop(self.adjust.env, bare(one.key), lambda entry: entry.key):
                    self.owners.clear(self.container.id, "Env", plugin, bare(one.key))
                self.adjust.env.add().CopyFrom(one)
        for one in entries:
            if not is_removal(one.key):
                self.owners.claim(self.container.id, "Env", plugin, one.key)
                self.adjust.env.add().CopyFrom(one)
                shown.append(f"{one.key}={one.value}")
        self.container.env[:] = shown

    def _args(self, given: list[str], plugin: str) -> None:
        if not given:
            return
        if not given[0]:
            self.owners.clear(self.container.id, "Args", plugin)
            given = given[1:]
        self.owners.claim(self.container.id, "Args", plugin)
        self.adjust.args[:] = self.container.args[:] = given

    def _hooks(self, given: nri.Hooks, plugin: str) -> None:
        if any(getattr(given, kind) for kind in _HOOKS):
            self.owners.add_hooks(self.container.id, plugin)
            self.adjust.hooks.MergeFrom(given)
            self.container.hooks.MergeFrom(given)

    def _linux(self, given: nri.LinuxContainerAdjustment, plugin: str) -> None:
        adjust, shown, claim = self.adjust.linux, self.container.linux, self.owners.claim
        identifier = self.container.id
        self._list("Devices", given.devices, adjust.devices, shown.devices, lambda one: one.path, plugin)
        if given.HasField("resources"):
            claim_resources(self.owners, identifier, given.resources, plugin)
            for there in (adjust.resources, shown.resources):
                lay_over(there, given.resources)
        if given.cgroups_path:
            claim(identifier, "CgroupsPath", plugin)
            adjust.cgroups_path = shown.cgroups_path = given.cgroups_path
        for name, field in (
            ("oom_score_adj", "OomScoreAdj"),
            ("io_priority", "IoPriority"),
            ("seccomp_policy", "SeccompPolicy"),
            ("scheduler", "LinuxSched"),
        ):
            if given.HasField(name):  # type: ignore[arg-type]
                claim(identifier, field, plugin)
                for place in (adjust, shown):
                    getattr(place, name).CopyFrom(getattr(given, name))
        if given.HasField("memory_policy"):
            claim(identifier, "MemoryPolicy", plugin)
            adjust.memory_policy.CopyFrom(given.memory_policy)
        self._namespaces(given.namespaces, plugin)
        self._map("Sysctl", given.sysctl, adjust.sysctl, shown.sysctl, plugin, _put_text)
        self._map("LinuxNetDevices", given.net_devices, adjust.net_devices, shown.net_devices, plugin, _put_message)
        if given.HasField("rdt"):
            self._rdt(given.rdt, plugin)

    def _namespaces(self, given: Iterable[nri.LinuxNamespace], plugin: str) -> None:
        for one in given:
            self.owners.claim(self.container.id, "Namespace", plugin, bare(one.type))
            _drop(self.container.linux.namespaces, bare(one.type), lambda entry: entry.type)
            if not is_removal(one.type):
                self.container.linux.namespaces.add().CopyFrom(one)
            self.adjust.linux.namespaces.add().CopyFrom(one)

    def _rdt(self, given: nri.LinuxRdt, plugin: str) -> None:
        rdt, identifier = self.adjust.linux.rdt, self.container.id
        if given.remove:
            self.owners.clear_rdt(identifier, plugin)
            rdt.CopyFrom(nri.LinuxRdt(remove=True))
        for name, field in (
            ("clos_id", "RdtClosID"),
            ("schemata", "RdtSchemata"),
            ("enable_monitoring", "RdtEnableMonitoring"),
        ):
            if given.HasField(name):  # type: ignore[arg-type]
                self.owners.claim(identifier, field, plugin)
                getattr(rdt, name).CopyFrom(getattr(given, name))


def _drop(there: Any, key: str, name: Callable[[Any], str]) -> bool:
    """Take the entries with a name out of a repeated field. Returns whether there were any."""
    found = [number for number, one in enumerate(there) if name(one) == key]
    for number in reversed(found):
        del there[number]
    return bool(found)


def _put_text(there: MutableMapping[str, str], key: str, value: str) -> None:
    there[key] = value


def _put_message(there: Any, key: str, value: Any) -> None:
    there[key].CopyFrom(value)
