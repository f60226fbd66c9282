"""Running one more process in a container (`exec`)."""

from __future__ import annotations

import posix

from ocirt import state
from ocirt.errors import Error
from ocirt.kernel.process import close_on_exec_from
from ocirt.kernel.run import ChildGoneError, Run, StepError
from ocirt.plan import Host, Request
from ocirt.plan.execute import plan_exec
from ocirt.plan.process import is_labelled
from ocirt.spec.process import check_process_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ocirt.state import Record


def load_running(root: str, container_id: str, *, ignore_paused: bool = False) -> Record:
    """The record of a container that a process can join. Raises Error in runc's words."""
    record = state.load(root, container_id)
    now = state.status(record)
    if now in ("stopped", "creating"):
        raise Error("state", f"cannot exec in a {now} container")
    if now == "paused" and not ignore_paused:
        raise Error("state", "cannot exec in a paused container (use --ignore-paused to override)")
    for pointer, message, _, severity in check_process_document(record.get("process")):
        if severity == "error":
            raise Error("state", f"process{pointer}: {message}", subject=record["directory"] + "/state.json")
    return record


class Execution:
    """A process on its way into the container of `record`; `prepare`, then `make`. What fails leaves no process."""

    def __init__(self, record: Record, process: dict[str, Any], request: Request, sub_cgroups: list[str]) -> None:
        self.record = record
        paths = record["cgroup"]["paths"]
        if sub_cgroups:
            from ocirt.cgroups.paths import below  # noqa: PLC0415  (only for --cgroup)

            for word in sub_cgroups:
                controllers, colon, sub = word.rpartition(":")
                for controller in controllers.split(",") if colon else (None,):
                    paths = below(paths, sub, controller)
        spec = {"process": process, "seccomp": state.load_seccomp(record), "linux": record.get("linux")}
        host = Host(None, posix.geteuid() == 0, state.in_user_namespace())
        if is_labelled(process):
            from ocirt.containers.host import security_modules  # noqa: PLC0415  (only then)

            host.modules = security_modules()
        self.run = Run(plan_exec(spec, record, paths, host, request))
        if agent := record.get("agent"):
            self.run.on_listener = lambda way: self._take_listener(way, agent)

    def _take_listener(self, way: int, agent: dict[str, str]) -> bytes:
        from ocirt.containers import listener  # noqa: PLC0415  (only with an agent)

        return listener.take(way, agent, self.run.pid, self.record, "running")

    def make(self, on_pid: Sequence[Callable[[int], None]] = ()) -> int:
        """Walk the plan until the program runs; its pid, with which `on_pid` are called before. Raises Error, OSError."""
        run = self.run

        def commit() -> None:
            for action in on_pid:
                action(run.pid)

        run.commit = commit
        close_on_exec_from(3)
        try:
            run.parent()
            run.await_exec()
        except (StepError, ChildGoneError) as err:
            from ocirt.containers.failures import explain  # noqa: PLC0415  (only for a failure)

            run.end_children()
            raise explain(err, run.plan, run.at) from None
        except BaseException:
            run.end_children()
            raise
        return run.pid
