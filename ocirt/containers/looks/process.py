"""Looks at what the process is given: limits, capabilities, the filter, labels, how the kernel is to treat it."""

from __future__ import annotations

from errno import EINVAL, EPERM

from ocirt import paths
from ocirt.containers.looks import trial
from ocirt.errors import Error
from ocirt.spec.scheduling import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.looks import Looks
    from ocirt.kernel.run import StepError

_SYS_RESOURCE = 1 << 24
_NOFILE = 7
_REAL_TIME = (1, 2)  # SCHED_FIFO, SCHED_RR
_DEADLINE = 6
_RT_RUNTIME = "/cpu.rt_runtime_us"
_HAS_MEMORY = "/sys/devices/system/node/has_memory"
_CPUS = "/sys/devices/system/cpu/"


def attempt(looks: Looks, index: int, *arguments: Any) -> None:
    """Have a child do the step to itself."""
    del arguments
    _tell(looks, index, trial.attempt([looks.plan[index]]))


def _tell(looks: Looks, index: int, said: StepError | None, severity: str = "error") -> None:
    if said is not None:
        looks.fail(index, said.errno, said.call, said.detail, severity=severity)


def oom_score(looks: Looks, index: int, score: int) -> None:
    """Have a child set its own score, from which there may be no way back for us."""
    side, _, _, pointer, errors = looks.plan[index]
    _tell(looks, index, trial.attempt([(side, "process.set_own_oom_score", (score,), pointer, errors)]))


def limit(looks: Looks, index: int, number: int, name: str, hard: int) -> None:
    """A hard limit, which may be above the one that we have."""
    del name
    import resource  # noqa: PLC0415

    had = resource.getrlimit(number)[1]
    if had == resource.RLIM_INFINITY or hard <= had:
        return
    allowed = bool(looks.capability("CapEff") & _SYS_RESOURCE) and not looks.host.user_namespace
    if allowed and number == _NOFILE:
        allowed = hard <= int(paths.read_text("/proc/sys/fs/nr_open"))
    if not allowed:
        looks.fail(index, EPERM, "prlimit64")


def capabilities(looks: Looks, index: int, effective: int, permitted: int, inheritable: int) -> None:
    """Capabilities, of which init cannot get more than we have, but in a user namespace of its own."""
    del effective
    if any(entry["type"] == "user" for entry in looks.spec["linux"].get("namespaces", ())):
        return  # init has all of them there
    bounding = next((step[2][0] for step in looks.plan if step[1] == "process.limit_bounding_set"), -1)
    if permitted & ~looks.capability("CapPrm") or inheritable & ~(bounding | looks.capability("CapInh")):
        looks.fail(index, EPERM, "capset")


def seccomp(looks: Looks, index: int, root: str, section: dict[str, Any], *rest: Any) -> None:
    """Translate the filter, without the cache."""
    del root, index, rest
    from ocirt.seccomp.compile import compile_filter  # noqa: PLC0415

    try:
        compile_filter(section)
    except Error as err:
        looks.refuse(err)


def scheduler(looks: Looks, index: int, policy: int, *rest: int) -> None:
    """Have a child ask for the policy; the cgroup of the container may have less to give than ours, or more."""
    del rest
    real_time = policy in _REAL_TIME
    cpu = (looks.spec["linux"].get("resources") or {}).get("cpu") or {}
    share = cpu.get("realtimeRuntime")
    if real_time and not share and _gives_no_share(looks):
        looks.fail(index, EPERM, "sched_setattr")
        return
    if policy == _DEADLINE and _are_a_part(cpu.get("cpus") or ""):
        looks.fail(index, EPERM, "sched_setattr", severity="warning")  # unless the cgroup is in a partition of its own
        return
    said = trial.attempt([looks.plan[index]])
    # With a share of its own the container may do what we may not.
    unsure = said is not None and said.errno == EPERM and real_time and bool(share)
    _tell(looks, index, said, "warning" if unsure else "error")


def _are_a_part(cpus: str) -> bool:
    """Whether these are not all CPUs that run; a list with strides, which only the kernel knows to read, is taken for all."""
    try:
        return bool(cpus and members(_text(_CPUS + "online")) & ~members(cpus))
    except ValueError:
        return False


def _gives_no_share(looks: Looks) -> bool:
    """Whether the container's version 1 cgroup has no real-time to give: a new one has none (CONFIG_RT_GROUP_SCHED)."""
    mount = looks.host.layout.mounts.get("cpu")
    groups = looks.find("cgroup.check")
    directory = looks.plan[groups][2][0].get("cpu") if groups >= 0 else None
    if not mount or not directory or not paths.exists(mount + _RT_RUNTIME):
        return False
    return not paths.exists(directory) or paths.read_text(directory + _RT_RUNTIME).strip() == "0"


def memory_policy(looks: Looks, index: int, mode: int, nodes: bytes) -> None:
    """Have a child ask for the policy. Where we may not use all memory, the container may be allowed more."""
    del mode, nodes
    said = trial.attempt([looks.plan[index]])
    unsure = said is not None and said.errno == EINVAL and looks.status("Mems_allowed_list") != _text(_HAS_MEMORY)
    _tell(looks, index, said, "warning" if unsure else "error")


def affinity(looks: Looks) -> None:
    """`execCPUAffinity`. A warning only: `run` has nothing to do with it."""
    there = _text(_CPUS + "possible")
    for name, wanted in (looks.spec["process"].get("execCPUAffinity") or {}).items():
        if name in ("initial", "final") and there and wanted and not members(wanted) & members(there):
            pointer = f"/process/execCPUAffinity/{name}"
            looks.say(pointer, f'this machine has none of the CPUs "{wanted}": `exec` would fail', f"some of {there}")


def _text(path: str) -> str:
    try:
        return paths.read_text(path).strip()
    except OSError:
        return ""
