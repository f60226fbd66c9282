"""One more program in a container, run to its end (`Exec` of our service).

Whoever walks its plan waits for what happens in the container: for a shim that is a fork, whose program the shim, a subreaper,
then inherits and reaps; an executor (see there) does it itself.
"""

from __future__ import annotations

import posix

from ocirt import jsonlite
from ocirt.cgroups import control
from ocirt.errors import Error
from ocirt_api.messages.shim import ExecRequest, ExecResponse
from ocirt_shim import streams
from ocirt_shim.children import exit_code
from ocirt_shim.streams import Input, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ocirt.containers.execute import Execution
    from ocirt.state import Record
    from ocirt_shim.children import Children
    from ocirt_shim.container import Employ
    from ocirt_shim.loop import Loop
    from ocirt_shim.worker import Word

    class Place(Protocol):
        """A container in which programs are run."""

        cgroup: dict[str, Any]

        def run_more(self, process: dict[str, Any], stdio: tuple[int, int, int], group: list[str], *, ours: bool) -> int:
            """See `Container`."""


_LIMIT = 16 << 20
_INLINE = 1 << 20  # bytes of output that one answer has
_SIGKILL = 9
_MS = 1_000_000  # nanoseconds
_PATIENCE = 2000  # milliseconds that what was killed may take to end


def prefix(pid: int = 0) -> str:
    """What the names of a program's files and cgroup begin with: of an executor's by its pid, or of a shim's."""
    return f"exec-{pid}-" if pid else "exec-"


class Executions:
    """Programs that are run in containers. employ: has somebody walk a plan."""

    def __init__(self, loop: Loop, children: Children, employ: Employ) -> None:
        self.children = children
        self.employ = employ
        self._loop = loop
        self._number = 0

    def begin(
        self,
        place: Place,
        beginning: str,
        request: ExecRequest,
        answer: Callable[[ExecResponse], object],
        fail: Callable[[Exception], object],
    ) -> None:
        """Run a program; `answer` or `fail` is called at its end. Raises Error, OSError if it cannot be begun.

        beginning: of a path that is nobody else's, for output that is too much for an answer; see `prefix`.
        """
        process = jsonlite.loads(request.process, "process.json", any_bytes=True)
        if not isinstance(process, dict):
            raise Error("invalid", "an object is expected", subject="process.json")
        self._number += 1
        Execute(self, self._loop, place, f"{beginning}{self._number}", request, answer, fail).begin(process)


def _group(paths: dict[str, str], name: str) -> dict[str, str]:
    """A cgroup for one program, below the container's in one hierarchy: whatever it starts is found there. {} without any.

    Raises OSError.
    """
    for controller in ("freezer", ""):
        if controller in paths:
            directory = f"{paths[controller]}/{name}"
            posix.mkdir(directory)
            return {controller: directory}
    return {}


def check(process: dict[str, Any], subject: str) -> None:
    """Raise Error("invalid") for what is no process.json."""
    from ocirt.spec.load import refuse  # noqa: PLC0415  (preloaded)
    from ocirt.spec.process import check_process  # noqa: PLC0415

    findings: list[Any] = []
    check_process(process, "", findings)
    refuse(findings, subject)


def load(runtime: str, container: str) -> Record:
    """The record of a running container. Raises Error."""
    from ocirt.containers.execute import load_running  # noqa: PLC0415  (preloaded)

    return load_running(runtime, container)


def prepare(runtime: str, record: Record, process: dict[str, Any], group: list[str], *, terminal: bool) -> Execution:
    """Not in a shim itself: a program that was checked, on its way into a container of this state root. Raises Error, OSError."""
    from ocirt.containers.execute import Execution  # noqa: PLC0415  (preloaded)
    from ocirt.plan import Request  # noqa: PLC0415

    request = Request(
        record["id"],
        record["bundle"],
        record["directory"],
        state_root=runtime,
        pipes=not terminal,
        console="attached" if terminal else "",
        keyring=record.get("keyring", True),
    )
    return Execution(record, process, request, group)


class Execute:
    """One program."""

    def __init__(
        self,
        executions: Executions,
        loop: Loop,
        place: Place,
        name: str,
        request: ExecRequest,
        answer: Callable[[ExecResponse], object],
        fail: Callable[[Exception], object],
    ) -> None:
        self._all = executions
        self._loop = loop
        self._place = place
        self._name = name
        self._request = request
        self._answer = answer
        self._fail = fail
        self._limit = request.output_limit or _LIMIT
        self._taken: list[list[bytes]] = [[], []]
        self._sizes = [0, 0]
        self._truncated = self._timed_out = False
        self._outputs: list[Output] = []
        self._input: Input | None = None
        self._timer: object = None
        self._pid = self._worker = 0
        self._group: dict[str, Any] = {"paths": {}}

    def begin(self, process: dict[str, Any]) -> None:
        """Have it started. Raises OSError."""
        inner: list[int] = []
        outer: list[int] = []
        try:
            given = streams.pipe(outward=False) if self._request.stdin else (streams.null(), -1)
            for near, far in (given, streams.pipe(outward=True), streams.pipe(outward=True)):
                inner.append(near)
                outer.append(far)
        except OSError:
            for fd in (*inner, *outer):
                posix.close(fd)
            raise
        stdio = inner[0], inner[1], inner[2]
        self._outputs = [Output(self._loop, outer[1 + which], self._sink(which)) for which in range(2)]
        if outer[0] >= 0:
            self._input = Input(self._loop, outer[0], self._request.stdin)
        try:
            if self._request.timeout:
                self._group["paths"] = _group(self._place.cgroup["paths"], self._name.rpartition("/")[2])
        except OSError:
            for fd in inner:
                posix.close(fd)
            self._close()
            raise
        words = [f"{controller}:{path.rpartition('/')[2]}" for controller, path in self._group["paths"].items()]
        if self._request.timeout:
            self._timer = self._loop.after(self._request.timeout, self._time_out)
        try:
            self._worker = self._all.employ(lambda: self._work(process, stdio, words), self._hear, inner)
        except OSError:
            self._close()
            raise

    def _work(self, process: dict[str, Any], stdio: tuple[int, int, int], group: list[str]) -> Word:
        """The pid of the program, which runs. Raises Error, OSError."""
        check(process, "process")
        return {"pid": self._place.run_more(process, stdio, group, ours=False)}

    def _sink(self, which: int) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            room = self._limit - self._sizes[which]
            if len(data) > room:
                data, self._truncated = data[:room], True
            if data:
                self._taken[which].append(data)
                self._sizes[which] += len(data)

        return take

    def _hear(self, word: Word | Exception) -> None:
        """The worker's word: the pid, or what went wrong."""
        if isinstance(word, Exception):
            self._close()
            self._kill_others()
            if self._timed_out:
                self._wait_for_others(_SIGKILL, _PATIENCE)
            else:
                self._drop_group()
                self._fail(word)
            return
        self._pid = word["pid"]
        self._all.children.expect(self._pid, self.ended)

    def _time_out(self) -> None:
        """Kill it with all that it has started."""
        self._timed_out = True
        # Without a program yet, it may hang on its way into the container.
        if target := self._pid or self._worker:
            try:
                posix.kill(target, _SIGKILL)
            except ProcessLookupError:
                pass  # a worker that was reaped, and has not been heard; a program that was is not waited for
        self._kill_others()

    def _kill_others(self) -> None:
        """Kill all that is in its cgroup. What does not end is waited for, but not for ever."""
        if control.processes(self._group):
            self._all.children.kill(self._group, _nobody, _nobody)

    def ended(self, status: int) -> None:
        """The program was reaped. Others may hold its streams for longer: they are not waited for, unless its time was over."""
        for output in self._outputs:
            output.drain()
        self._close()
        if self._timed_out:
            self._kill_others()
            self._wait_for_others(status, _PATIENCE)
        else:
            self._tell(status)

    def _wait_for_others(self, status: int, left: int) -> None:
        """Answer when nothing of it is left."""
        if left and control.processes(self._group):
            self._loop.after(_MS, lambda: self._wait_for_others(status, left - 1))
        else:
            self._tell(status)

    def _drop_group(self) -> None:
        for directory in self._group["paths"].values():
            try:
                posix.rmdir(directory)
            except OSError:
                pass  # something of it goes on; the container's removal takes it away

    def _tell(self, status: int) -> None:
        self._drop_group()
        out, err = (b"".join(taken) for taken in self._taken)
        response = ExecResponse(exit_code=exit_code(status), timed_out=self._timed_out, truncated=self._truncated)
        if len(out) + len(err) <= _INLINE:
            response.stdout, response.stderr = out, err
        else:
            try:
                for name, text in (("stdout", out), ("stderr", err)):
                    _write(f"{self._name}.{name}", text)
            except OSError as failure:
                self._fail(failure)
                return
            response.spilled = self._name
        self._answer(response)

    def _close(self) -> None:
        self._loop.cancel(self._timer)
        for output in self._outputs:
            output.close()
        if self._input is not None:
            self._input.close()


def _nobody(*_: object) -> None:
    """Nobody waits for it."""


def _write(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)
