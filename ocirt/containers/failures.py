"""What a failed step means to a person. Loaded only when one failed."""

from __future__ import annotations

import posix
from errno import EACCES, EBUSY, EEXIST, EINVAL, EISDIR, EMFILE, ENODEV, ENOENT, ENOSYS, ENOTCONN, EPERM, ERANGE

from ocirt import paths
from ocirt.errors import Error
from ocirt.kernel.run import ChildGoneError, StepError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Plan

_SIGKILL = 9


def explain(err: StepError | ChildGoneError, plan: Plan, at: int) -> Error:
    """The Error for what ended a plan; `at` is the step that the parent was at."""
    if isinstance(err, ChildGoneError):
        return _gone(err.status, plan[at][3])
    _, operation, arguments, pointer, _ = plan[err.index]
    return _step_failed(err, operation, arguments, pointer)


def _step_failed(err: StepError, operation: str, arguments: tuple[Any, ...], pointer: str) -> Error:
    if operation == "hooks.run":
        return Error("kernel", err.detail, subject=pointer)
    if err.errno == 0:
        where = f"step {err.index}, {operation}"
        return Error("internal", f"{where}: {err.call}: {err.detail}", subject=pointer, hint="this is a bug in ocirt")
    text = strerror(err.errno)
    if operation == "program.find":
        return _program(err, str(arguments[0]), pointer, text)
    if operation in ("program.execve", "waiter.hand_over"):
        return Error("kernel", f'exec: "{err.detail}": {text}', subject=pointer)
    if operation == "tree.check_mounted" and err.errno == ENOTCONN:
        hint = f"`ocirt bundle --mount {paths.parent(arguments[0])}` mounts it again, as after a reboot"
        return Error("invalid", f"root file system: nothing is mounted at {arguments[0]}", subject=pointer, hint=hint)
    what = _subject(operation, arguments)
    detail = "" if err.detail in ("", what) else err.detail
    call = err.call
    message = ": ".join(part for part in (_WORDS.get(operation, operation.replace(".", " ").replace("_", " ")), what) if part)
    return Error(
        "kernel",
        message,
        subject=pointer,
        cause=": ".join(part for part in (call, detail, text) if part),
        hint=_hint(operation, err.errno, arguments),
    )


# What the steps do, where the name of the operation does not say it.
_WORDS = {
    "mount.new": "mount",
    "mount.attach": "mount at",
    "mount.clone": "bind mount of",
    "mount.change": "set mount options",
    "mount.mask": "mask",
    "mount.read_only": "make read-only",
    "idmap.map": "map the ids of",
    "anchor.attach": "root file system",
    "anchor.check": "root file system",
    "tree.check_mounted": "root file system",
    "tree.check_root": "root file system",
    "tree.make_directory": "make directory",
    "process.chdir": "chdir to cwd",
    "process.clone": "unable to start container process: clone",
    "listener.check": "failed to connect with seccomp agent specified in the seccomp profile",
    "namespace.open": "open namespace",
    "overlay.new": "mount the overlay at",
    "overlay.new_apart": "mount the overlay at",
    "overlay.open_lowers": "layer",
    "overlay.open_upper": "writable layer",
    "namespace.join": "join namespace",
    "device.make": "make device",
    "device.bind": "bind device",
    "cgroup.make": "make cgroup",
    "criu.start": "start criu",
    "netdevice.check": "network device",
    "netdevice.move": "move network device",
    "namespace.open_offsets": "set clocks",
    "namespace.set_offsets": "set clocks",
    "scheduling.lend_affinity": "set initial CPU affinity",
    "scheduling.set_affinity": "set final CPU affinity",
    "scheduling.set_io_priority": "set I/O priority",
    "scheduling.set_memory_policy": "set memory policy",
    "scheduling.set_personality": "set personality",
    "scheduling.set_scheduler": "set scheduler",
}


def strerror(errno: int) -> str:
    """The text of an errno as Go has it: with a small letter."""
    text = posix.strerror(errno)
    return text[:1].lower() + text[1:]


def _subject(operation: str, arguments: tuple[Any, ...]) -> str:
    """The path or name that a step is about, as far as its arguments say."""
    words = [word for word in arguments if isinstance(word, str)]
    if operation in ("mount.clone", "mount.attach", "namespace.open", "idmap.map") and len(words) > 1:
        return words[1]
    if operation == "mount.new":
        return f"{words[1]} (source {words[2]})"
    if operation.startswith("overlay."):
        return "/" if "new" in operation else ""
    if operation in ("mount.change", "mount.propagate", "namespace.join", "namespace.set_offsets"):
        return ""
    return words[0] if words else ""


def _program(err: StepError, name: str, pointer: str, text: str) -> Error:
    if "/" not in name and err.errno == ENOENT:
        return Error("invalid", f'exec: "{name}": executable file not found in $PATH', subject=pointer)
    if err.errno == EACCES and err.call != "stat":
        hint = "the user of the process may not execute it: see its mode"
        return Error("invalid", f'exec: "{name}": permission denied', subject=pointer, hint=hint)
    if err.errno == EISDIR:
        return Error("invalid", f'exec: "{name}": is a directory', subject=pointer)
    return Error("invalid", f'exec: "{name}": stat {name}: {text}', subject=pointer)


def _hint(operation: str, errno: int, arguments: tuple[Any, ...]) -> str:
    if errno == ENOSYS:
        return "ocirt needs Linux 5.12 or newer"
    if operation in ("anchor.check", "anchor.attach") and errno in (EBUSY, EINVAL):
        return 'add {"type": "mount"} to /linux/namespaces'
    if operation == "listener.check":
        return "an agent must listen there"
    if operation == "program.filter" and errno == EMFILE:
        return "RLIMIT_NOFILE must leave room for the filter's listener"
    if operation == "mount.clone" and errno == EPERM and arguments[0] == "root":
        return 'who may not mount here needs {"type": "mount"} in /linux/namespaces'
    if operation.startswith("overlay.new") and errno == EINVAL:
        return "was the upper directory volatile before? then see work/incompat/volatile in the work directory, and dmesg(1)"
    if operation == "mount.new" and errno == ENODEV:
        return f"this kernel has no file system {arguments[1]!r}"
    if operation == "process.raise_limit" and errno == EPERM:
        return "to raise a hard limit above the caller's takes CAP_SYS_RESOURCE"
    if operation == "process.set_capabilities" and errno == EPERM:
        return "a capability that the caller does not have cannot be given"
    if operation == "idmap.map":
        return _idmap_hint(errno, recursive=bool(arguments[-1]))
    if operation.startswith("netdevice."):
        return _netdevice_hint(errno, arguments)
    if operation == "scheduling.set_scheduler" and errno == EPERM:
        return (
            "it takes CAP_SYS_NICE; real-time needs a share of it by /linux/resources/cpu/realtimeRuntime (cgroup version 1); a "
            "deadline can't be used together with AllowedCPUs, /linux/resources/cpu/cpus"
        )
    if operation == "scheduling.set_scheduler" and errno == EINVAL:
        return "see sched_setattr(2): this kernel may not know the policy or a flag, or wants other numbers"
    if operation == "namespace.open_offsets" and errno == ENOENT:
        return "this kernel has no time namespaces"
    if operation == "namespace.set_offsets" and errno == ERANGE:
        return "no clock may come to stand before 0, or after some 146 years"
    if operation == "user.become" and errno == EINVAL:
        return "the user namespace maps no such id"
    if operation == "user.map" and errno == EPERM:
        return "see /etc/subuid and /etc/subgid"
    return ""


def _idmap_hint(errno: int, *, recursive: bool) -> str:
    what = "the source's file system, or of one mounted below it" if recursive else "the source's file system"
    if errno == EINVAL:
        return f"this kernel cannot map the ids of {what}"
    if errno == EPERM:
        return f"it takes CAP_SYS_ADMIN where {what} was mounted, and no mapping that is there already"
    return ""


def _netdevice_hint(errno: int, arguments: tuple[Any, ...]) -> str:
    if errno == ENODEV:
        return "`ip link` shows those of the runtime's network namespace"
    if errno == EEXIST:
        name = arguments[1] or arguments[0]
        return f'"{name}" is the name, or an alternative name, of a device already: choose another "name", such as "eth%d"'
    if errno == EINVAL:
        return "the kernel does not let every kind of device change its network namespace"
    return ""


def _gone(status: int, pointer: str) -> Error:
    if status < 0:
        return Error("kernel", "the container's init is gone", subject=pointer)
    code = posix.waitstatus_to_exitcode(status)
    if code == -_SIGKILL:
        return Error(
            "kernel",
            "unable to start container process: init was killed",
            subject=pointer,
            hint="the memory limit may be too low, or somebody sent SIGKILL",
        )
    word = f"by signal {-code}" if code < 0 else f"with exit status {code}"
    return Error("kernel", f"unable to start container process: init ended {word}", subject=pointer)


def from_words(words: tuple[int, int, str, str], late: dict[str, list[Any]], program: str) -> Error:
    """The Error for what init wrote to the barrier; `late` are the steps of its plan that come after it, by number."""
    index, errno, call, detail = words
    operation, arguments, pointer = late.get(str(index), ["program.execve", [], ""])
    if operation in ("program.execve", "waiter.hand_over"):
        detail = detail or program  # the waiter says numbers only
    return _step_failed(StepError(index, errno, call, detail), operation, tuple(arguments), pointer)
