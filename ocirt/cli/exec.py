"""`ocirt exec`: one more process in a container."""

from __future__ import annotations

import posix

from ocirt.cli.given import absolute, descriptors, write_pid_file
from ocirt.containers.execute import Execution, load_running
from ocirt.errors import Error
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cli.options import Options
    from ocirt.containers.attach import Attached
    from ocirt.state import Record

# What a process.json takes over from the container's own process, as with runc, where it says nothing of it.
_INHERITED = (
    *("capabilities", "rlimits", "apparmorProfile", "selinuxLabel"),
    *("scheduler", "ioPriority", "execCPUAffinity"),
)


def run(options: Options, args: list[str]) -> int:
    """Run args[1:] in container args[0]; the exit status is the process's. Raises Error, OSError."""
    record = load_running(options.root, args[0], ignore_paused=options.get("ignore-paused"))
    if options.get("process"):
        process = _from_file(options.get("process"), record)
    else:
        process = _from_flags(options, args[1:], record)
    detach, terminal = options.get("detach"), bool(process.get("terminal"))
    socket = absolute(options.get("console-socket"))
    if terminal and detach and not socket:
        raise Error("usage", f"cannot allocate tty if {options.name} will detach without setting console socket")
    if socket and not (terminal and detach):
        raise Error("usage", f"cannot use console socket if {options.name} will not detach or allocate tty")
    listen_fds, fds = descriptors(options.get("preserve-fds"))
    request = Request(
        args[0],
        record["bundle"],
        record["directory"],
        state_root=options.root,
        console=("socket" if detach else "attached") if terminal else "",
        fds=fds,
        listen_fds=listen_fds,
        pipes=not terminal and not detach,
        keyring=record.get("keyring", True),
    )
    pid_file = absolute(options.get("pid-file"))
    execution = Execution(record, process, request, options.get("cgroup"))
    attached: Attached | None = None
    if detach:
        if terminal:
            from ocirt.containers.sockets import Socket  # noqa: PLC0415  (only with a terminal)

            execution.run.on_console = Socket(socket, "console socket").send
    else:
        from ocirt.containers.attach import Attached  # noqa: PLC0415  (only then)

        attached = Attached(terminal=terminal, subreaper=False)
        attached.streams(execution.run)
    on_pid: list[Callable[[int], None]] = []
    if pid_file:
        on_pid.append(lambda pid: write_pid_file(pid_file, pid))
    if options.get("pidfd-socket"):
        from ocirt.containers.sockets import Socket  # noqa: PLC0415

        pidfd = Socket(absolute(options.get("pidfd-socket")), "pidfd socket")
        on_pid.append(lambda pid: pidfd.send("setns", posix.pidfd_open(pid)))
    pid = execution.make(on_pid)
    if attached is None:
        return 0
    attached.created()
    return attached.wait(pid)


def _from_file(path: str, record: Record) -> dict[str, Any]:
    """The process of a process.json; what it does not say of some things is said by the container's."""
    from ocirt.spec.load import read_process  # noqa: PLC0415  (only for --process)

    process = read_process(path)
    for name in _INHERITED:
        if process.get(name) in (None, "", []) and name in record["process"]:
            process[name] = record["process"][name]
    return process


def _from_flags(options: Options, args: list[str], record: Record) -> dict[str, Any]:
    """The container's own process, with other arguments and what the flags change."""
    from ocirt.spec.load import refuse  # noqa: PLC0415
    from ocirt.spec.process import check_process  # noqa: PLC0415

    if not args:
        raise Error("usage", "process args cannot be empty", hint="name a command, or a file by --process")
    process: dict[str, Any] = dict(record["process"])
    process["args"] = args
    process["terminal"] = options.get("tty")
    process.pop("oomScoreAdj", None)
    if options.get("cwd"):
        process["cwd"] = options.get("cwd")
    process["env"] = [*(process.get("env") or ()), *options.get("env")]
    for flag, name in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.get(flag):
            process[name] = options.get(flag)
    if options.given("no-new-privs"):
        process["noNewPrivileges"] = options.get("no-new-privs")
    if caps := options.get("cap"):
        sets = {name: list(names) for name, names in (process.get("capabilities") or {}).items()}
        kinds = ["bounding", "effective", "permitted"]
        if sets.get("inheritable"):  # ambient needs both
            kinds.append("ambient")
        for kind in kinds:
            sets[kind] = sets.get(kind, []) + [name for name in caps if name not in sets.get(kind, ())]
        process["capabilities"] = sets
    user = dict(process.get("user") or {})
    if options.get("user"):
        uid, colon, gid = options.get("user").partition(":")
        user = {"uid": _number(uid, "user"), "gid": _number(gid, "user") if colon else user.get("gid", 0)}
    if gids := options.get("additional-gids"):
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *[_number(gid, "additional-gids") for gid in gids]]
    process["user"] = user
    findings: list[Any] = []
    check_process(process, "", findings)
    refuse(findings, "process")
    return process


def _number(text: str, flag: str) -> int:
    """An id of the command line, and nothing that only looks like one (CVE-2026-30892)."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) >= (1 << 32) - 1:
        raise Error("usage", f"--{flag}: {text!r} is not an id", hint="a number from 0 to 4294967294")
    return int(text)
