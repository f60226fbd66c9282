"""Making a container: from a bundle to an init that waits, or nothing at all."""

from __future__ import annotations

import posix
from time import time_ns

from ocirt import paths, state
from ocirt.cgroups import control
from ocirt.containers.destroy import destroy, hook_state
from ocirt.containers.host import look, look_for, look_for_cgroups
from ocirt.errors import Error
from ocirt.kernel.process import close_on_exec_from
from ocirt.kernel.run import ChildGoneError, Run, StepError
from ocirt.plan import START, Request
from ocirt.plan.create import HOOKS, cgroup_paths, plan_create
from ocirt.plan.process import agent as agent_of
from ocirt.spec.load import read_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.containers.notify import Notify
    from ocirt.plan import Plan
    from ocirt.spec.shape import Finding
    from ocirt.state import Record

_OF_ALL = ("personality", "memoryPolicy")  # of /linux, and said of every process of the container


class Creation:
    """A container on its way: `prepare` plans it, `make` makes it. What fails leaves nothing.

    request, root: see ocirt.plan.Request, and the state root. config: the name of config.json in the bundle; `document`: what
    would stand in it, for a caller who has no such file.
    """

    def __init__(
        self,
        root: str,
        request: Request,
        config: str = "config.json",
        rootless: bool | None = None,
        document: dict[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.request = request
        self.host = look()
        look_for_cgroups(self.host, request, rootless)
        self._config = config
        self._findings: list[Finding] = []
        self.spec = read_spec(request.bundle, config, rootless=not self.host.root, warnings=self._findings, document=document)
        look_for(self.host, self.spec)
        self.record: Record = {}
        self.run: Run | None = None
        self.notify: Notify | None = None

    def warnings(self) -> list[tuple[str, str]]:
        """(JSON pointer, text) of what config.json says in vain: unknown properties, values that this host leaves aside."""
        from ocirt.cgroups.notes import ignored  # noqa: PLC0415  (only for who asks)

        found = [(pointer, f"{message} ({hint})") for pointer, message, hint, _ in self._findings]
        return found + ignored(self.spec["linux"].get("resources"), self.host.layout.mode)

    def check_terminal(self, name: str) -> None:
        """Hold process.terminal against what the command line gives. Raises Error in runc's words; `name` is the program's."""
        terminal = bool(self.spec["process"].get("terminal"))
        if terminal and not self.request.console:
            message = f"cannot allocate tty if {name} will detach without setting console socket"
            raise Error("usage", message, subject="/process/terminal", hint="give --console-socket")
        if not terminal and self.request.console == "socket":
            raise Error("usage", f"cannot use console socket if {name} will not detach or allocate tty")
        if not terminal:
            self.request.console = ""

    def plan(self, trace: str = "") -> Run:
        """Plan the container, and say what its record will be; nothing is made yet. Raises Error, OSError."""
        request = self.request
        request.state_root = self.root
        request.directory = state.directory(self.root, request.container_id)
        cgroups = cgroup_paths(self.spec, self.host, request)
        plan = self._plan(cgroups)
        self.record = self._record(cgroups)
        if not trace:
            return Run(plan)
        from ocirt.kernel.trace import Trace  # noqa: PLC0415  (only when asked for)

        return Run(plan, Trace(trace, plan))

    def prepare(self, trace: str = "") -> Run:
        """Plan the container and take its name. Raises Error, OSError."""
        request = self.request
        run = self.plan(trace)
        state.reserve(self.root, request.container_id)
        try:
            if request.notify:
                from ocirt.containers.notify import Notify, make_directory  # noqa: PLC0415  (only for services of systemd)

                make_directory(request.directory)
                if not request.waits:  # else `start` is who listens
                    self.notify = Notify(request.directory)
            if "mount" not in self.record["namespaces"]:
                from ocirt.containers import anchor  # noqa: PLC0415  (only then)

                self.record["anchor"] = anchor.section(self.record["rootfs"])
            if self.host.resctrl is not None:
                from ocirt.cgroups import resctrl  # noqa: PLC0415

                rdt = self.spec["linux"]["intelRdt"]
                self.record["resctrl"] = resctrl.section(self.host.resctrl.root, rdt, request.container_id)
            if request.waits:
                self.record["late"] = {
                    str(index): [operation, [word for word in arguments if isinstance(word, str)], pointer]
                    for index, (side, operation, arguments, pointer, _) in enumerate(run.plan)
                    if side == START
                }
            # On disk before anything is done: whoever finds it can undo what a dead creator has begun.
            state.save(request.directory, self.record)
        except BaseException:
            state.remove(request.directory)
            raise
        run.prepare = self._write_created
        run.commit = self._commit
        if agent := self.record["agent"]:
            run.on_listener = lambda way: self._take_listener(way, agent)
        if self.record["hooks"]:
            run.hook_state = hook_state(self.record)
        self.run = run
        return run

    def _plan(self, cgroups: dict[str, str]) -> Plan:
        return plan_create(self.spec, self.host, self.request, cgroups)

    def make(self) -> Record:
        """Walk the plan, up to an init that waits for `start` (or that runs, without the barrier). Raises Error, OSError."""
        run = self.run
        assert run is not None
        close_on_exec_from(3)
        self._attempt(run.parent)
        return self.record

    def release(self) -> None:
        """Close what was opened for the container's making, its root among it: for a process that lives on after `make`."""
        assert self.run is not None
        self.run.close()

    def await_program(self) -> None:
        """For an init without a barrier: wait until its end of the socket closes, on exec. Raises Error for what failed."""
        assert self.run is not None
        self._attempt(self.run.await_exec)

    def _attempt(self, action: Callable[[], None]) -> None:
        run = self.run
        assert run is not None
        try:
            action()
        except (StepError, ChildGoneError) as err:
            try:
                from ocirt.containers.failures import explain  # noqa: PLC0415  (only for a failure)

                failure = explain(err, run.plan, run.at)
            finally:
                self.undo()
            raise failure from None
        except BaseException:
            self.undo()
            raise

    def _record(self, cgroups: dict[str, str]) -> Record:
        spec, pid = self.spec, posix.getpid()
        hooks = spec.get("hooks") or {}
        linux = spec["linux"]
        record: Record = {
            "id": self.request.container_id,
            "status": "creating",
            "creator": {"pid": pid, "start_time": state.process_start_time(pid)},
            "pid": 0,
            "start_time": 0,
            "boot_id": state.boot_id(),
            "bundle": self.request.bundle,
            "rootfs": paths.clean(paths.join(self.request.bundle, spec["root"]["path"])),
            "created": state.timestamp(time_ns()),
            "annotations": spec.get("annotations") or {},
            "cgroup": self._cgroup_record(cgroups),
            "namespaces": {entry["type"]: entry.get("path") or "" for entry in linux.get("namespaces", ())},
            # What later verbs need of config.json, which may have changed by then.
            "hooks": {kind: hooks[kind] for kind in HOOKS if hooks.get(kind)},
            "process": spec["process"],
            "agent": agent_of(linux.get("seccomp"), self.request.bundle),
            "seccomp": "seccomp" in linux,  # itself in a file of its own, which only `exec` reads
            # What `update` changes. It leaves device rules alone.
            "resources": {name: value for name, value in (linux.get("resources") or {}).items() if name != "devices"},
            "keyring": self.request.keyring,
            "spec_version": spec["ociVersion"],
        }
        if kept := {name: linux[name] for name in _OF_ALL if name in linux}:
            record["linux"] = kept
        if self.request.overlay:
            record["overlay"] = True  # nobody can make the root again from what config.json says
        if self._config != "config.json":
            record["config"] = self._config  # `checkpoint` reads it again
        return record

    def _cgroup_record(self, cgroups: dict[str, str]) -> dict[str, Any]:
        found = {"mode": self.host.layout.mode, "paths": cgroups, "created": control.missing(cgroups)}
        if self.request.cgroups == "systemd":
            from ocirt.cgroups.systemd import to_remove  # noqa: PLC0415  (only then)
            from ocirt.plan import systemd  # noqa: PLC0415

            unit = systemd.unit(self.spec, self.host, self.request)
            found |= {"unit": unit.name, "user": unit.user, "created": to_remove(cgroups, found["created"])}
        return found

    def _write_created(self) -> None:
        """Step `state.prepare`: have the record of the created container ready, so that little is left to do when it is."""
        run = self.run
        assert run is not None
        started = state.process_start_time(run.pid) or 0
        state.write(self.request.directory, self.record | {"status": "created", "pid": run.pid, "start_time": started})
        self.record |= {"pid": run.pid, "start_time": started}
        if section := self.spec["linux"].get("seccomp"):
            state.keep_seccomp(self.request.directory, section)

    def _take_listener(self, way: int, agent: dict[str, str]) -> bytes:
        from ocirt.containers import listener  # noqa: PLC0415  (only with an agent)

        return listener.take(way, agent, self.record["pid"], self.record, "creating")

    def _commit(self) -> None:
        """Step `state.commit`: the container exists from here on."""
        state.publish(self.request.directory)
        self.record["status"] = "created"
        self.on_created(self.record["pid"])

    def on_created(self, pid: int) -> None:
        """What the command line wants done with init's pid while it can still fail, such as --pid-file."""

    def undo(self) -> None:
        """Take back what was made: init, cgroups, the directory. Errors of the undoing must not hide what went wrong."""
        run = self.run
        assert run is not None
        overlay = self.request.overlay
        marked = overlay is not None and overlay.volatile and "root" in run.fds
        if not run.end_children():
            self.record["hooks"] = {}  # there was no container yet, so none ends
        if "unit" in self.record["cgroup"] and not run.has_unit:
            # None was made, or there was one: what is there under its name is not ours.
            self.record["cgroup"] |= {"unit": "", "paths": {}}
        destroy(self.record, self.request.directory, quiet=True)
        if marked and overlay is not None:
            try:
                # Nothing ran on it: let it be mounted again, for the next attempt.
                mark = overlay.work + "/work/incompat/volatile"
                posix.unlink(mark + "/dirty")
                posix.rmdir(mark)
            except OSError:
                pass
