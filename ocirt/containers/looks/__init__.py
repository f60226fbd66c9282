"""A look for each step of a plan: would it fail on this machine? Loaded only for `check`.

A step that only looks is done. What changes nothing but the process that does it is done by a child that then ends (`trial`). Of
the others, what they need is looked at. The words are those in which the step's own failure would be told.
"""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.containers.examine import error_finding
from ocirt.containers.failures import explain
from ocirt.containers.looks import cgroups, hooks, namespaces, process, tree
from ocirt.errors import Error
from ocirt.kernel.run import Run, StepError, failure, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.plan import Host, Plan, Request
    from ocirt.spec.shape import Finding

_ONLY_LOOK = (
    "anchor.check",
    "cgroup.check",
    "idmap.make_namespace",
    "listener.check",
    "namespace.open",
    "tree.check_mounted",
    "tree.check_root",
)
# Called with the looks, the number of the step, and its arguments.
_LOOKS: dict[str, Callable[..., None]] = {
    "cgroup.device_program": cgroups.devices,
    "cgroup.device_rules": cgroups.devices,
    "cgroup.limit": cgroups.limits,
    "cgroup.make": cgroups.directories,
    "device.bind": tree.device,
    "hooks.run": hooks.hook,
    "idmap.map": tree.id_map,
    "label.write": process.attempt,
    "mount.clone": tree.source,
    "mount.new": tree.file_system,
    "namespace.set_offsets": namespaces.offsets,
    "netdevice.check": namespaces.device,
    "netdevice.move": namespaces.device_on_its_way,
    "process.raise_limit": process.limit,
    "process.set_capabilities": process.capabilities,
    "process.set_oom_score": process.oom_score,
    "process.set_own_oom_score": process.oom_score,
    "program.find": tree.program,
    "program.load_filter": process.seccomp,
    "resctrl.make": cgroups.resctrl_groups,
    "scheduling.set_io_priority": process.attempt,
    "scheduling.set_memory_policy": process.memory_policy,
    "scheduling.set_personality": process.attempt,
    "scheduling.set_scheduler": process.scheduler,
    "systemd.start": cgroups.unit,
    "tree.sysctl": tree.sysctl,
    "user.map": namespaces.mappings,
}
# What would be right, where the step's failure does not say it.
_HINTS = {
    "cgroup.make": "a cgroup below which this user may make others, see cgroups(7), or a path that is not read-only",
    "device.bind": "without the right to make devices only those of this machine can be had: see its /dev",
    "idmap.make_namespace": "mappings of ids that there are here, see user_namespaces(7)",
    "label.write": "a profile or label that this machine has loaded",
    "mount.clone": "a path on this machine, absolute or relative to the bundle",
    "mount.new": "see what the file system takes as options",
    "namespace.open": "a namespace of this type, such as /proc/PID/ns/…, or no path for a new one",
    "process.set_oom_score": "the runtime's own score, /proc/self/oom_score_adj, or a higher one",
    "process.set_own_oom_score": "the runtime's own score, /proc/self/oom_score_adj, or a higher one",
    "scheduling.set_io_priority": "IOPRIO_CLASS_BE, or a runtime with CAP_SYS_NICE, see ioprio_set(2)",
    "scheduling.set_memory_policy": "nodes of this machine with memory, see /sys/devices/system/node/has_memory",
    "scheduling.set_personality": "a domain of this machine's kernel, see personality(2)",
    "tree.check_root": "a directory, absolute or relative to the bundle",
    "tree.sysctl": "a name that is there below /proc/sys, or the kernel module that brings it",
}


class Looks:
    """The findings on the steps of a plan; `run` holds the descriptors that one look leaves to another."""

    def __init__(self, spec: dict[str, Any], host: Host, request: Request, plan: Plan) -> None:
        self.spec = spec
        self.host = host
        self.plan = plan
        self.findings: list[Finding] = []
        self.rootfs = paths.clean(paths.join(request.bundle, spec["root"]["path"]))
        self.run = Run([])
        self._status = paths.read_text("/proc/self/status")
        try:
            namespaces.kinds(self)
            for index, (_, operation, arguments, _, _) in enumerate(plan):
                if operation in _ONLY_LOOK:
                    self.do(index)
                elif operation in _LOOKS:
                    _LOOKS[operation](self, index, *arguments)
            process.affinity(self)
            hooks.of_the_host(self)
        finally:
            for fd in self.run.fds.values():
                posix.close(fd)

    def fail(self, index: int, errno: int, call: str, detail: str = "", *, severity: str = "error") -> None:
        """The finding that step `index` would fail."""
        err = explain(StepError(index, errno, call, detail), self.plan, index)
        found = error_finding(err, hint=_HINTS.get(self.plan[index][1], "leave it out"))
        self.findings.append((*found[:3], severity))

    def say(self, pointer: str, message: str, hint: str, severity: str = "warning") -> None:
        """A finding in its own words."""
        self.findings.append((pointer, message, hint, severity))

    def refuse(self, err: Error, pointer: str = "") -> None:
        """The finding that `run` would raise `err`, at `pointer` if its subject is no JSON pointer."""
        self.findings.append(error_finding(err, pointer))

    def do(self, index: int) -> None:
        """Do step `index`, which changes nothing. A slot that it fails to fill stays empty."""
        _, operation, arguments, pointer, _ = self.plan[index]
        before = set(self.run.fds)
        try:
            function(operation)(self.run, *arguments)
        except OSError as err:
            said = failure(index, err)
            self.fail(index, said.errno, said.call, said.detail)
        except Error as err:
            self.refuse(err, pointer)
        else:
            return
        for slot in self.run.fds.keys() - before:  # what it has opened is not what is wanted
            posix.close(self.run.fds.pop(slot))

    def find(self, operation: str) -> int:
        """The number of the first step with this operation, -1 if the plan has none."""
        return next((index for index, step in enumerate(self.plan) if step[1] == operation), -1)

    def status(self, field: str) -> str:
        """A field of this process's /proc/self/status."""
        for line in self._status.split("\n"):
            if line.startswith(field + ":"):
                return line.partition(":")[2].strip()
        return ""

    def capability(self, field: str) -> int:
        """A set of this process (CapEff, CapPrm) as a mask."""
        return int(self.status(field) or "0", 16)
