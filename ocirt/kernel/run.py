"""The interpreter of plans: walks the steps of one side, and says exactly which of them failed.

All that a child will need is looked up and loaded before it is cloned. Past its clone a child imports nothing (the import
system is taken apart, as paths may soon lead into the container), decides nothing, formats nothing: what goes wrong goes to the
parent as the number of the step, an errno and the name of the call.
"""

from __future__ import annotations

import posix
import sys
from time import monotonic_ns

from ocirt.kernel import messages
from ocirt.kernel.ffi import CallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ocirt.kernel.trace import Trace
    from ocirt.plan import Plan

    Program = list[tuple[int, Callable[..., Any], tuple[Any, ...], Any]]


_SIGKILL = 9


class StepError(Exception):
    """A step failed: `index` in the plan, `errno`, the name of the `call`, `detail` (a path, or what the kernel said)."""

    def __init__(self, index: int, errno: int, call: str, detail: str) -> None:
        super().__init__(index, errno, call, detail)
        self.index = index
        self.errno = errno
        self.call = call
        self.detail = detail


class ChildGoneError(Exception):
    """The child ended without a word; `status` is as waitpid(2) gives it, -1 when somebody else has taken it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Run:
    """One plan on its way: its slots, and what the sides have in common.

    fds: descriptors by slot. pid: init, in the runtime's pid namespace. sync: this side's end of the socket between parent and
    child, `peer` the other end's. prepare, commit, launch: called by the steps of `state` and `criu`. hook_state: makes what
    hooks read on stdin.
    on_listener: takes the listener of init's filter from the socket, and returns what init says next.
    The other attributes belong to the steps module that sets them.
    """

    def __init__(self, plan: Plan, trace: Trace | None = None) -> None:
        self.plan = plan
        self.trace = trace
        self.at = 0
        self.fds: dict[str, int] = {}
        self.pid = 0
        self.stage_pid = 0
        self.sync = -1
        self.peer = -1
        self.report = -1  # where init says what goes wrong: `sync`, then the barrier's FIFO
        self.cgroup_fd = -1
        self.join_fds: list[int] = []
        self.has_unit = False  # of systemd
        self.postponed: list[tuple[Any, ...]] = []
        self.stdio: tuple[int, int, int] | None = None
        self.root_fd = -1
        self.dev_fd = -1
        self.mask_fd = -1
        self.phase_fd = -1
        self.start_fd = -1
        self.cpus: set[int] = set()
        self.home = ""
        self.program = b""
        self.filter: Any = None
        self.listener: Any = None  # the number through which init says which descriptor its filter's listener is
        self.strings: tuple[list[bytes], list[bytes]] = ([], [])  # arguments and environment of the program
        self.tail: list[tuple[int, str, tuple[Any, ...]]] = []  # queued: step, system call, its six words
        self.offering: list[tuple[int, str, tuple[Any, ...]]] = []  # of the waiter's calls, those that offer the listener
        self.before_exec: list[Callable[[], None]] = []
        self.prepare: Callable[[], None] = _nothing
        self.commit: Callable[[], None] = _nothing
        self.launch: Callable[[], None] = _nothing
        self.on_console: Callable[[str, int], None] = _nobody
        self.on_listener: Callable[[int], bytes] | None = None
        self.hook_state: Callable[[str, int], bytes] = _no_state
        self.programs = _programs(plan)

    def walk(self, side: str) -> None:
        """Do all steps of a side. Raises what a step raises, with `at` at that step."""
        for index, operation, arguments, table in self.programs.get(side, ()):
            self.at = index
            taken = 0
            if self.trace is not None:
                began = monotonic_ns()
            try:
                operation(self, *arguments)
            except OSError as err:
                if table is None or err.errno not in table:
                    raise
                taken = err.errno or 0
                call = table[taken]
                if call is not None:
                    call[0](self, *call[1])
            if self.trace is not None:
                self.trace.add(side, index, began, taken)

    def parent(self) -> None:
        """Walk the parent's side. Raises StepError for a system call that failed, in whichever process, ChildGoneError, Error."""
        try:
            self.walk("parent")
        except OSError as err:
            raise self._childs_failure() or failure(self.at, err) from None

    def _childs_failure(self) -> StepError | None:
        """What the child has said of a failure of its own: if it is gone, what the parent does to it fails because of that."""
        if self.sync < 0:
            return None
        posix.set_blocking(self.sync, False)
        try:
            while message := messages.receive(self.sync):
                if message[:1] == b"f":
                    return StepError(*messages.failure_of(message))
        except BlockingIOError:
            pass
        return None

    def await_exec(self) -> None:
        """Wait until init's end of the socket closes, as it does on exec. Raises StepError for what init says instead."""
        message = messages.receive(self.sync) if self.on_listener is None else self.on_listener(self.sync)
        posix.close(self.sync)
        self.sync = -1
        if message:
            raise StepError(*messages.failure_of(message))

    def close(self) -> None:
        """Close what this side has opened for the plan, such as the container's mounts: for a parent that lives on."""
        self.fds.pop("console/number", None)
        for fd in {*self.fds.values(), *self.join_fds, self.cgroup_fd, self.phase_fd, self.peer, self.sync} - {-1}:
            posix.close(fd)
        self.fds.clear()
        self.join_fds.clear()
        self.cgroup_fd = self.phase_fd = self.peer = self.sync = -1

    def end_children(self) -> bool:
        """Kill the children that there are, and wait for their end; whether there were any.

        What the parent had opened is closed: an undoing may need the numbers, and an init whose pid no stage lived to tell ends
        by itself when the socket does.
        """
        self.close()
        children = [pid for pid in (self.stage_pid, self.pid) if pid]
        for pid in children:
            try:
                posix.kill(pid, _SIGKILL)
                posix.waitpid(pid, 0)
            except OSError:
                pass  # it has ended, and somebody waited for it
        return bool(children)

    def child(self, side: str) -> NoReturn:
        """As a new child of the parent: walk `side`, report what fails, and end."""
        if self.trace is not None:
            self.trace.forget()  # the parent writes it down
        self._seal()
        self.become(side)

    def become(self, side: str) -> NoReturn:
        """Walk a child's side, report what fails, and end. A stage's own clone is sealed already."""
        try:
            self.walk(side)
            if side == "init":
                self.walk("start")  # ends with execve
            posix._exit(0)
        except OSError as err:
            self._tell(failure(self.at, err))
        except BaseException as err:  # noqa: BLE001  (nobody else would hear of it)
            self._tell(_bug(self.at, err))
        posix._exit(1)

    def _tell(self, err: StepError) -> None:
        try:
            messages.send_failure(self.report, err.index, err.errno, err.call, err.detail)
            if self.phase_fd >= 0 and self.report != self.sync:
                posix.pwrite(self.phase_fd, (-(err.errno or 1)).to_bytes(4, "little", signed=True), 0)
        except BaseException:  # noqa: BLE001  (the parent sees the end of the socket)
            pass

    def _seal(self) -> None:
        """From here on nothing can be imported: `sys.path` will mean the container's files."""
        seal_imports()
        posix.close(self.peer)
        self.peer = -1
        self.report = self.sync


def _programs(plan: Plan) -> dict[str, Program]:
    """Each side's steps with the functions that do them, loaded where that is still to be done."""
    programs: dict[str, Program] = {}
    for index, (side, operation, arguments, _, errors) in enumerate(plan):
        table = None
        if errors:
            table = {errno: None if call is None else (function(call[0]), call[1]) for errno, call in errors.items()}
        programs.setdefault(side, []).append((index, function(operation), arguments, table))
    return programs


def seal_imports() -> None:
    """Make every import of what is not loaded fail."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _bug(index: int, err: BaseException) -> StepError:
    """The name of an exception's type, and the line: enough to find a bug, and nothing is loaded to say it."""
    trace, line = err.__traceback__, 0
    while trace is not None:
        line = trace.tb_lineno
        trace = trace.tb_next
    return StepError(index, 0, type(err).__name__, f"{err} (line {line})")


def _nothing() -> None:
    pass


def _nobody(name: str, fd: int) -> None:
    del name, fd


def _no_state(status: str, pid: int) -> bytes:
    del status, pid
    return b"{}"


_functions: dict[str, Callable[..., Any]] = {}  # those that were looked up


def function(operation: str) -> Callable[..., Any]:
    """The function that does an operation: `mount.attach` is `attach` of ocirt.kernel.steps.mount."""
    found = _functions.get(operation)
    if found is None:
        module, _, name = operation.partition(".")
        found = getattr(__import__("ocirt.kernel.steps." + module, None, None, (name,)), name)
        _functions[operation] = found
    return found


def failure(index: int, err: OSError) -> StepError:
    """What an OSError says, without its traceback."""
    detail = err.filename if err.filename is not None else ""
    if isinstance(detail, bytes):
        detail = detail.decode("utf-8", "surrogateescape")
    call = err.call if isinstance(err, CallError) else ""
    return StepError(index, err.errno or 0, call, str(detail))
