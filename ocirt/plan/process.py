"""The process that the container runs: what it is given, in the order in which privileges go (capabilities(7), seccomp(2)).

The tail of a start (side `start`) queues its calls, and `program.execve` makes them one right after the other: what lowers limits
or forbids system calls comes when the interpreter needs none any more.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOSYS, EPERM

from ocirt.paths import clean, join
from ocirt.plan import INIT, PARENT, STAGE, START, step
from ocirt.spec.capabilities import mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Errors, Host, Plan, Request

_NOTIFY = "SCMP_ACT_NOTIFY"
_UMASK = 0o022
_SYS_ADMIN = 1 << 21
# These keep the interpreter from going on; they come last.
_TIGHT = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU")


class Process:
    """A `process` of config.json, with what the plan makes of it: `env` without repetitions, `path` (PATH), masks."""

    __slots__ = ("capabilities", "env", "gid", "groups", "path", "pointer", "process", "rlimits", "uid")

    def __init__(self, process: dict[str, Any], pointer: str = "/process") -> None:
        self.process = process
        self.pointer = pointer
        user = process.get("user") or {}
        self.uid: int = user.get("uid", 0)
        self.gid: int = user.get("gid", 0)
        self.groups: list[int] = user.get("additionalGids") or []
        env = {entry.partition("=")[0]: entry for entry in process.get("env") or ()}
        if env.get("HOME") == "HOME=":
            del env["HOME"]  # as good as none: it is looked up
        self.env = list(env.values())
        self.path: str = env.get("PATH", "=").partition("=")[2]
        # As for runc, a process without the section has no capabilities at all.
        sets = process.get("capabilities") or {}
        names = ("bounding", "effective", "permitted", "inheritable", "ambient")
        self.capabilities: dict[str, int] = {name: mask(sets.get(name) or ()) for name in names}
        limits = process.get("rlimits") or ()
        self.rlimits: list[tuple[int, str, int, int, str]] = []
        if limits:
            from ocirt.spec.rlimits import NUMBERS  # noqa: PLC0415  (many specs have none)

            for index, limit in enumerate(limits):
                at = f"{pointer}/rlimits/{index}"
                self.rlimits.append((NUMBERS[limit["type"]], limit["type"], limit["soft"], limit["hard"], at))
            self.rlimits.sort(key=_tightness)

    def set_variable(self, name: str, value: str) -> None:
        """Have this in the environment, whatever config.json says."""
        self.env = [*(entry for entry in self.env if not entry.startswith(name + "=")), f"{name}={value}"]


def is_labelled(process: dict[str, Any]) -> bool:
    """Whether AppArmor or SELinux is to confine the process."""
    return bool(process.get("apparmorProfile") or process.get("selinuxLabel"))


def _tightness(limit: tuple[int, str, int, int, str]) -> int:
    return -_TIGHT.index(limit[1]) if limit[1] in _TIGHT else -len(_TIGHT)


def oom_score(run: Process, *, staged: bool) -> Plan:
    """Set the score where it can be set: by the parent, or by a stage for itself, from which init inherits it.

    Soon after its clone a stage is not to be looked into from outside, which closes the file to a parent that is not root.
    """
    if "oomScoreAdj" not in run.process:
        return []
    operation = "process.set_own_oom_score" if staged else "process.set_oom_score"
    score = run.process["oomScoreAdj"]
    return [step(STAGE if staged else PARENT, operation, score, at=run.pointer + "/oomScoreAdj")]


def met() -> Plan:
    """Let the parent know init before init says a word: until then the stage speaks on the same socket."""
    return [step(PARENT, "process.meet"), step(PARENT, "sync.tell", "met"), step(INIT, "sync.expect", "met")]


def keyring(run: Process, request: Request) -> Plan:
    """A session keyring of the container's own."""
    if not request.keyring:
        return []
    plan = [step(INIT, "process.join_keyring", "_ses." + request.container_id, errors={ENOSYS: None})]
    if run.process.get("selinuxLabel"):
        from ocirt.plan import label  # noqa: PLC0415  (only with SELinux)

        return label.keyring(run, plan)
    return plan


def labels(run: Process, side: str, host: Host) -> Plan:
    """Have `side` confined by AppArmor and SELinux from its next execve(2) on, or the process that it clones."""
    if not is_labelled(run.process):
        return []
    from ocirt.plan import label  # noqa: PLC0415  (only if there are some)

    return label.of_process(run, side, host)


def affinity(side: str) -> Plan:
    """Leave the CPUs that the caller is bound to. To stay there harms less than a container that does not start."""
    return [step(side, "process.reset_affinity", errors={EINVAL: None, EPERM: None, ENOSYS: None})]


def limits(run: Process) -> Plan:
    """The parent's part: to raise a hard limit takes a capability that init may not have."""
    return [step(PARENT, "process.raise_limit", number, name, hard, at=pointer) for number, name, _, hard, pointer in run.rlimits]


def baseline(run: Process, request: Request, score: int = 0, *, user_namespace: bool) -> tuple[Plan, Plan, Plan]:
    """Steps that take from the process what it has from the caller: init's, the parent's meanwhile, and once init is ready."""
    if not request.baseline:
        return [], [], []
    from ocirt.plan import baseline  # noqa: PLC0415  (only then)

    return baseline.of_process(run, score, user_namespace=user_namespace)


def scheduled(run: Process, linux: dict[str, Any], host: Host) -> tuple[Plan, Plan]:
    """How the kernel is to treat the process: what init does about it while it is root, what the parent once init is ready.

    `linux` is that section of config.json, or what the container's record kept of it.
    """
    if not ("scheduler" in run.process or "ioPriority" in run.process or "personality" in linux or "memoryPolicy" in linux):
        return [], []
    from ocirt.plan import scheduling  # noqa: PLC0415  (few specs have one of these)

    inside, outside = scheduling.of_process(run, host)
    return scheduling.of_container(linux) + inside, outside


def identity(run: Process, as_root: Plan, *, user_namespace: bool, seccomp: bool) -> Plan:
    """Give up privileges and become the user. `seccomp`: there is a filter, which without no_new_privs takes CAP_SYS_ADMIN.

    `user_namespace`: the container or the runtime is in one, which may deny setgroups(2). `as_root`: steps to be made before.
    """
    process, pointer = run.process, run.pointer
    cwd = clean(process["cwd"])
    no_new_privileges = process.get("noNewPrivileges", False)
    user = process.get("user") or {}
    plan = [
        step(INIT, "stdio.reopen_null"),
        step(INIT, "user.find_home", run.uid, run.env, at=pointer + "/env"),
        step(INIT, "process.umask", user.get("umask", _UMASK) & 0o777, at=pointer + "/user/umask"),
        # What the user may not enter, but the container's root may.
        step(INIT, "process.chdir", cwd, at=pointer + "/cwd", errors={EPERM: None, EACCES: None}),
    ]
    plan += as_root
    sets = run.capabilities
    plan.append(step(INIT, "process.limit_bounding_set", sets["bounding"], at=pointer + "/capabilities/bounding"))
    plan.append(step(INIT, "stdio.own", run.uid, at=pointer + "/user"))
    plan.append(step(INIT, "user.become", run.uid, run.gid, tuple(run.groups), user_namespace, at=pointer + "/user"))
    plan.append(step(INIT, "process.chdir", cwd, at=pointer + "/cwd"))
    plan.append(step(INIT, "process.check_directory", at=pointer + "/cwd"))
    spare = _SYS_ADMIN if seccomp and not no_new_privileges else 0
    plan.append(
        step(
            INIT,
            "process.set_capabilities",
            sets["effective"] | spare,
            sets["permitted"] | spare,
            sets["inheritable"],
            at=pointer + "/capabilities",
        )
    )
    if sets["ambient"]:
        lost: Errors = {EPERM: None, EINVAL: None}
        ambient = sets["ambient"] & sets["permitted"] & sets["inheritable"]
        plan.append(step(INIT, "process.raise_ambient", ambient, at=pointer + "/capabilities/ambient", errors=lost))
    if no_new_privileges:
        plan.append(step(INIT, "process.no_new_privileges", at=pointer + "/noNewPrivileges"))
    plan.append(step(INIT, "program.find", process["args"][0], run.path, at=pointer + "/args/0"))
    return plan


def agent(seccomp: dict[str, Any] | None, bundle: str) -> dict[str, str] | None:
    """Who takes the filter's listener: the "path" of a socket, and "metadata" for it. None if no rule notifies anybody."""
    if not seccomp or not seccomp.get("listenerPath"):
        return None
    actions = [rule["action"] for rule in seccomp.get("syscalls", ())]
    if _NOTIFY not in (seccomp["defaultAction"], *actions):
        return None
    return {"path": join(bundle, seccomp["listenerPath"]), "metadata": seccomp.get("listenerMetadata", "")}


def tail(run: Process, *, fds: int, listen_fds: int, filtered: bool, listener: bool = False, waiter: bool = False) -> Plan:
    """From `start` to the program: what is queued, then execve(2); with `waiter`, before `start` by that."""
    pointer = run.pointer
    plan = [step(START, "program.prepare", tuple(run.process["args"]), tuple(run.env), listen_fds, at=pointer + "/args")]
    if listener:
        plan.append(step(START, "listener.offer", waiter, at="/linux/seccomp/listenerPath"))
    plan.append(step(START, "program.keep_descriptors", fds))
    plan += [step(START, "program.limit", number, name, soft, hard, at=at) for number, name, soft, hard, at in run.rlimits]
    if filtered:
        plan.append(step(START, "program.filter", at="/linux/seccomp"))
        sets = run.capabilities
        if not run.process.get("noNewPrivileges"):
            plan.append(
                step(
                    START,
                    "program.set_capabilities",
                    sets["effective"],
                    sets["permitted"],
                    sets["inheritable"],
                    at=pointer + "/capabilities",
                )
            )
    last = step(START, "program.execve", at=pointer + "/args")
    if waiter:
        sets = run.capabilities
        kept = (sets["effective"], sets["permitted"], sets["inheritable"])
        last = step(START, "waiter.hand_over", fds, kept, at=pointer + "/args")
    return [*plan, last]


def can_wait_outside(run: Process, *, filtered: bool) -> bool:
    """Whether the small program of `waiter.hand_over` can take init's place until `start`.

    execve(2) takes from a user who is not root all capabilities but the ambient ones. The program's own execve would do so too,
    but what comes before it may need them: a filter without no_new_privs, a program that only CAP_DAC_OVERRIDE can reach.
    A profile or label comes into force by the next execve, which must be the program's.
    """
    sets = run.capabilities
    if is_labelled(run.process) or (run.uid and sets["permitted"] & ~sets["ambient"]):
        return False
    return not filtered or bool(run.process.get("noNewPrivileges"))


def console(run: Process, *, bind: bool) -> Plan:
    """A pseudo-terminal of the container's own devpts; with `bind`, as /dev/console too."""
    size = run.process.get("consoleSize") or {}
    at = run.pointer + "/terminal"
    rows, columns = size.get("height", 0), size.get("width", 0)
    if not (rows and columns):  # half a size is none, as for runc
        rows = columns = 0
    plan = [step(INIT, "console.open", rows, columns, at=at)]
    if bind:
        plan.append(step(INIT, "console.bind", at=at))
    return [*plan, step(INIT, "console.send", at=at), step(PARENT, "console.receive", at=at)]
