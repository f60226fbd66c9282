"""The interpreter, with steps that are made up: what an error leads to, and how a child's failure comes to be known."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.kernel import messages, run
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import ChildGoneError, Run, StepError
from ocirt.plan import INIT, PARENT, STAGE, START, step
from tests.unit.kernel.children import in_child

Fake = Callable[..., Any]


class Steps:
    """Operations `fake.*`: `log` has what was done, as (name, arguments)."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.table: dict[str, Fake] = {}
        self.real = run.function

    def __call__(self, operation: str) -> Fake:
        if operation in self.table:
            return self.table[operation]
        if not operation.startswith("fake."):
            return self.real(operation)

        def note(run: Run, *args: Any) -> None:
            self.log.append((operation.removeprefix("fake."), *args, run.at))

        return note

    def add(self, operation: str, action: Fake) -> None:
        """Give an operation a meaning of its own."""
        self.table["fake." + operation] = action

    def failing(self, operation: str, failure: BaseException) -> None:
        """Make an operation fail."""

        def fail(run: Run, *args: Any) -> None:
            del run, args
            raise failure

        self.add(operation, fail)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The made-up operations, beside the real ones."""
    found = Steps()
    monkeypatch.setattr(run, "function", found)
    return found


def test_each_side_walks_its_own_steps_in_order(steps: Steps) -> None:
    plan = [
        step(PARENT, "fake.a", 1),
        step(INIT, "fake.b"),
        step(PARENT, "fake.c", "x", (2,)),
        step(STAGE, "fake.d"),
        step(START, "fake.e"),
        step(PARENT, "fake.a"),
    ]
    walker = Run(plan)
    walker.walk(PARENT)
    assert steps.log == [("a", 1, 0), ("c", "x", (2,), 2), ("a", 5)]
    steps.log.clear()
    for side in (STAGE, INIT, START):
        walker.walk(side)
    assert steps.log == [("d", 3), ("b", 1), ("e", 4)]
    walker.walk("nobody")


def test_all_is_looked_up_before_anything_is_done(steps: Steps) -> None:
    with pytest.raises(ModuleNotFoundError):
        Run([step(PARENT, "fake.a"), step(INIT, "no_such_module.x")])
    with pytest.raises(ModuleNotFoundError):
        Run([step(PARENT, "fake.a", errors={1: ("no_such_module.x", ())})])
    assert steps.log == []


def test_an_error_that_is_ignored(steps: Steps) -> None:
    steps.failing("fails", OSError(errno.ENOENT, "gone"))
    walker = Run([step(PARENT, "fake.fails", errors={errno.ENOENT: None}), step(PARENT, "fake.next")])
    walker.parent()
    assert steps.log == [("next", 1)]


def test_an_error_that_has_an_alternative(steps: Steps) -> None:
    steps.failing("fails", CallError(errno.EPERM, "mknodat", "/dev/null"))
    errors: Any = {errno.EEXIST: None, errno.EPERM: ("fake.instead", ("x", 2))}
    walker = Run([step(PARENT, "fake.fails", "y", errors=errors), step(PARENT, "fake.next")])
    walker.parent()
    assert steps.log == [("instead", "x", 2, 0), ("next", 1)]


def test_an_alternative_that_fails_is_a_failure_of_its_step(steps: Steps) -> None:
    steps.failing("fails", OSError(errno.EPERM, "no"))
    steps.failing("worse", CallError(errno.EPERM, "open_tree", "/dev/null"))
    errors: Any = {errno.EPERM: ("fake.worse", ())}
    walker = Run([step(PARENT, "fake.a"), step(PARENT, "fake.fails", errors=errors)])
    with pytest.raises(StepError) as caught:
        walker.parent()
    assert (caught.value.index, caught.value.errno, caught.value.call) == (1, errno.EPERM, "open_tree")
    assert caught.value.detail == "/dev/null"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("errors", [None, {}, {errno.EEXIST: None}, {errno.EACCES: ("fake.instead", ())}])
def test_other_errors_are_failures(steps: Steps, errors: Any) -> None:
    steps.failing("fails", CallError(errno.EINVAL, "fsconfig", b"tmpfs: Bad value"))
    walker = Run([step(PARENT, "fake.a"), step(PARENT, "fake.fails", errors=errors), step(PARENT, "fake.never")])
    with pytest.raises(StepError) as caught:
        walker.parent()
    err = caught.value
    assert (err.index, err.errno, err.call, err.detail) == (1, errno.EINVAL, "fsconfig", "tmpfs: Bad value")
    assert steps.log == [("a", 0)]


@pytest.mark.parametrize(
    ("failure", "wanted"),
    [
        (OSError(errno.ENOENT, "no", "/a"), (errno.ENOENT, "", "/a")),
        (OSError(errno.ENOENT, "no"), (errno.ENOENT, "", "")),
        (OSError(errno.ENOENT, "no", b"/\xff"), (errno.ENOENT, "", "/\udcff")),
        (OSError(errno.ENOENT, "no", 7), (errno.ENOENT, "", "7")),
        (OSError("odd"), (0, "", "")),
        (CallError(errno.EPERM, "setns"), (errno.EPERM, "setns", "")),
        (CallError(errno.EPERM, "", "/p"), (errno.EPERM, "", "/p")),
    ],
)
def test_what_an_os_error_says(failure: OSError, wanted: tuple[int, str, str]) -> None:
    err = run.failure(3, failure)
    assert (err.index, err.errno, err.call, err.detail) == (3, *wanted)


def test_errors_for_people_go_through(steps: Steps) -> None:
    error = Error("state", "frozen")
    steps.failing("fails", error)
    with pytest.raises(Error) as caught:
        Run([step(PARENT, "fake.fails")]).parent()
    assert caught.value is error


# -- children ------------------------------------------------------------------------------------------------------------------


def dance(*inits: Any, before: Any = ()) -> Any:
    """A plan with a child that does `inits`, then tells that it is ready."""
    return [
        *before,
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        *inits,
        step(INIT, "sync.tell", "ready"),
        step(PARENT, "sync.expect", "ready"),
        step(PARENT, "sync.tell", "committed"),
        step(INIT, "sync.leave_parent", "committed"),
    ]


def walked(plan: Any) -> Run:
    """A run whose parent has done its part; the child is waited for in any case."""
    walker = Run(plan)
    try:
        walker.parent()
        walker.await_exec()
    finally:
        if walker.pid:
            try:
                os.waitpid(walker.pid, 0)
            except ChildProcessError:
                pass
        for end in (walker.sync, walker.peer):
            if end >= 0:
                os.close(end)
    return walker


def test_a_child_that_does_its_part(steps: Steps) -> None:
    reader, writer = os.pipe()
    steps.add("write", lambda run, text: os.write(writer, text))
    walker = walked([*dance(step(INIT, "fake.write", b"init ")), step(START, "fake.write", b"start")])
    os.close(writer)
    assert os.read(reader, 100) == b"init start"
    os.close(reader)
    assert walker.pid > 0
    assert walker.sync == -1


def test_a_child_that_fails_says_where_and_why(steps: Steps) -> None:
    steps.failing("fails", CallError(errno.EROFS, "openat2", "/dev/\udcff"))
    with pytest.raises(StepError) as caught:
        walked(dance(step(INIT, "fake.a"), step(INIT, "fake.fails")))
    err = caught.value
    assert (err.index, err.errno, err.call, err.detail) == (3, errno.EROFS, "openat2", "/dev/\udcff")


def test_a_child_takes_alternatives_too(steps: Steps) -> None:
    steps.failing("fails", CallError(errno.EPERM, "mknodat"))
    steps.failing("worse", CallError(errno.ENODEV, "open_tree", "/dev/x"))
    walked(dance(step(INIT, "fake.fails", errors={errno.EPERM: ("fake.a", ())})))
    with pytest.raises(StepError) as caught:
        walked(dance(step(INIT, "fake.fails", errors={errno.EPERM: ("fake.worse", ())})))
    assert (caught.value.index, caught.value.errno) == (2, errno.ENODEV)


def test_a_bug_in_a_child_is_told_as_one(steps: Steps) -> None:
    def bug(run: Run) -> None:
        del run
        raise KeyError("mount/3")

    steps.add("bug", bug)
    with pytest.raises(StepError) as caught:
        walked(dance(step(INIT, "fake.bug")))
    err = caught.value
    assert (err.index, err.errno, err.call) == (2, 0, "KeyError")
    assert err.detail == f"'mount/3' (line {bug.__code__.co_firstlineno + 2})"


def test_a_failure_after_ready_is_heard_by_who_waits_for_the_program(steps: Steps) -> None:
    steps.failing("fails", CallError(errno.ENOEXEC, "execve", "/bin/odd"))
    with pytest.raises(StepError) as caught:
        walked([*dance(), step(START, "fake.fails")])
    assert (caught.value.index, caught.value.call, caught.value.detail) == (6, "execve", "/bin/odd")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda: os._exit(3), 3 << 8),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL),
    ],
    ids=["exit", "kill"],
)
def test_a_child_that_ends_without_a_word(steps: Steps, end: Callable[[], None], status: int) -> None:
    steps.add("end", lambda run: end())
    with pytest.raises(ChildGoneError) as caught:
        walked(dance(step(INIT, "fake.end")))
    assert caught.value.status == status


def test_a_child_that_is_gone_when_it_is_told_something(steps: Steps) -> None:
    steps.add("end", lambda run: os._exit(4))
    steps.add("wait", lambda run: os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT))
    plan = [
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        step(INIT, "fake.end"),
        step(PARENT, "fake.wait"),
        step(PARENT, "sync.tell", "mapped"),
    ]
    with pytest.raises(ChildGoneError) as caught:
        walked(plan)
    assert caught.value.status == 4 << 8


def test_a_child_that_is_gone_when_its_console_is_waited_for(steps: Steps) -> None:
    """It was told something that it did not live to read."""
    steps.add("end", lambda run: os._exit(5))
    steps.add("wait", lambda run: os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT))
    plan = [
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        step(PARENT, "sync.tell", "mapped"),
        step(INIT, "fake.pause"),
        step(INIT, "fake.end"),
        step(PARENT, "fake.wait"),
        step(PARENT, "console.receive"),
    ]
    # Its end must not come before it was told.
    reader, writer = os.pipe()
    steps.add("pause", lambda run: os.read(reader, 1))
    real = steps.real("sync.tell")
    steps.table["sync.tell"] = lambda run, point: (real(run, point), os.write(writer, b"x"))
    try:
        with pytest.raises(ChildGoneError) as caught:
            walked(plan)
    finally:
        os.close(reader)
        os.close(writer)
    assert caught.value.status == 5 << 8


@pytest.mark.parametrize("operation", ["namespace.loopback_up_of_init", "process.set_oom_score"])
def test_what_init_says_counts_more_than_what_comes_of_its_end(steps: Steps, operation: str) -> None:
    """The parent goes on beside init, and may look for it when it has failed already: why it failed must not get lost."""
    steps.failing("fails", CallError(errno.EINVAL, "fsconfig", "bad option"))
    steps.add("wait", lambda run: os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT))
    arguments: dict[str, tuple[Any, ...]] = {"process.set_oom_score": (1000,)}
    plan = [
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        step(INIT, "fake.fails", at="/mounts/0"),
        step(PARENT, "fake.wait"),
        step(PARENT, operation, *arguments.get(operation, ())),
        step(PARENT, "sync.expect", "ready"),
    ]
    with pytest.raises(StepError) as caught:
        walked(plan)
    assert (caught.value.index, caught.value.call, caught.value.detail) == (2, "fsconfig", "bad option")


def test_out_of_step() -> None:
    walker = Run([step(PARENT, "sync.expect", "ready")])
    walker.sync, walker.peer = messages.socket_pair()
    messages.send(walker.peer, b"t", b"mounted")
    with pytest.raises(StepError) as caught:
        walker.parent()
    assert (caught.value.index, caught.value.errno) == (0, 0)
    assert "out of step" in caught.value.detail
    os.close(walker.sync)
    os.close(walker.peer)


def test_a_parent_that_goes_before_it_commits_takes_init_along(steps: Steps) -> None:
    """Init waits for the word, and ends without one."""
    del steps

    def orphan() -> int:
        walker = Run([step(INIT, "sync.leave_parent", "committed"), step(START, "process.umask", 0)])
        walker.sync, walker.peer = messages.socket_pair()
        pid = os.fork()
        if pid == 0:
            walker.sync, walker.peer = walker.peer, walker.sync
            walker.child(INIT)
        os.close(walker.sync)
        os.close(walker.peer)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(orphan) == 1


def test_nothing_can_be_imported_in_a_child() -> None:
    def sealed() -> list[Any]:
        run.seal_imports()
        failures = []
        for name in ("colorsys", "ocirt.cli.help", "encodings.cp1140", "_nothing"):
            sys.modules.pop(name, None)
            try:
                __import__(name)
            except (ImportError, ImportWarning):  # Python warns of an empty sys.meta_path
                failures.append(name)
        return [failures, sys.path, sys.meta_path, sys.path_hooks]

    assert in_child(sealed) == [["colorsys", "ocirt.cli.help", "encodings.cp1140", "_nothing"], [], [], []]


def test_defaults() -> None:
    empty = Run([])
    empty.prepare()
    empty.commit()
    empty.on_console("/dev/pts/0", 1)
    assert empty.hook_state("created", 1) == b"{}"
    empty.parent()
