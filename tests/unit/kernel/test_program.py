"""Finding the program, and its start: arguments, environment, descriptors, limits, signals, a filter."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.kernel import process
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run, StepError
from ocirt.kernel.steps import process as process_steps
from ocirt.kernel.steps import program, stdio
from ocirt.plan import INIT, PARENT, START, step
from ocirt.spec.rlimits import NUMBERS
from tests.unit.kernel.children import in_child, open_descriptors


def found(name: str, path: str) -> bytes:
    """Where the program is."""
    run = Run([])
    program.find(run, name, path)
    return run.program


def failed(name: str, path: str = "") -> tuple[int | None, str, object]:
    """How the search ends that finds nothing."""
    with pytest.raises(CallError) as caught:
        found(name, path)
    return caught.value.errno, caught.value.call, caught.value.filename


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    """Two directories for programs."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "a"), str(tmp_path / "b")


def program_at(directory: str, name: str, mode: int = 0o755) -> str:
    """Make a file there."""
    path = Path(directory, name)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_the_first_in_the_path(places: tuple[str, str]) -> None:
    first, second = places
    program_at(second, "x")
    assert found("x", f"{first}:{second}") == f"{second}/x".encode()
    program_at(first, "x")
    assert found("x", f"{first}:{second}") == f"{first}/x".encode()
    assert found("x", f"{second}:{first}") == f"{second}/x".encode()


def test_what_cannot_be_executed_is_passed_over(places: tuple[str, str]) -> None:
    first, second = places
    program_at(first, "x", 0o644)
    program_at(second, "x")
    Path(first, "d").mkdir()
    program_at(second, "d")
    Path(first, "l").symlink_to("nowhere")
    program_at(second, "l")
    for name in "xdl":
        assert found(name, f"/nonexistent:{first}/x:{first}:{second}") == f"{second}/{name}".encode()
    assert failed("x", first) == (errno.ENOENT, "", "x")


def test_a_link_to_a_program(places: tuple[str, str]) -> None:
    program_at(places[1], "real")
    Path(places[0], "l").symlink_to(places[1] + "/real")
    assert found("l", places[0]) == f"{places[0]}/l".encode()


def test_an_empty_entry_is_the_working_directory(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    program_at(places[0], "x")
    monkeypatch.chdir(places[0])
    for path in (":/nonexistent", "/nonexistent::/other", "/nonexistent:"):
        assert found("x", path) == b"./x"


def test_a_path_is_not_searched_for(places: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    where = program_at(places[0], "x")
    assert found(where, places[1]) == where.encode()
    monkeypatch.chdir(places[0])
    assert found("./x", "") == b"./x"
    assert failed("sub/x", places[0]) == (errno.ENOENT, "stat", "sub/x")
    assert failed(where + "/y") == (errno.ENOTDIR, "stat", where + "/y")
    assert failed(places[0]) == (errno.EISDIR, "", places[0])
    program_at(places[0], "plain", 0o600)
    assert failed("./plain") == (errno.EACCES, "", "./plain")
    Path(places[0], "loop").symlink_to("loop")
    assert failed("./loop") == (errno.ELOOP, "stat", "./loop")
    assert failed("./" + "n" * 300) == (errno.ENAMETOOLONG, "stat", "./" + "n" * 300)


def test_nothing_is_found(places: tuple[str, str]) -> None:
    for path in ("", ":", places[0], "/nonexistent"):
        assert failed("no-such-program", path) == (errno.ENOENT, "", "no-such-program")


def test_a_name_that_is_not_utf_8(places: tuple[str, str]) -> None:
    name = os.fsdecode(b"\xffx")
    program_at(places[0], name)
    assert found(name, places[0]) == places[0].encode() + b"/\xffx"


# -- a program's start ---------------------------------------------------------------------------------------------------------

LOOK = """
import json, os, signal, sys, resource
masks = {}
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("SigBlk", "SigIgn", "Seccomp", "NoNewPrivs"):
        masks[name] = value.strip()
fds = []
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
        fds.append(int(name))
    except OSError:
        pass
try:
    kernel = os.uname().sysname
except OSError as err:
    kernel = err.errno
print(json.dumps({
    "args": sys.argv[1:], "env": dict(os.environ), "fds": sorted(fds), "status": masks, "kernel": kernel,
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_AS")},
    "pid": os.getpid(), "cwd": os.getcwd(),
}))
"""


def looked(
    *steps: Any, args: tuple[str, ...] = (), env: tuple[str, ...] = (), fds: int = 0, listen_fds: int = 0
) -> dict[str, Any]:
    """What a program sees that is started by the tail of a plan; `steps` stand before it."""
    reader, writer = os.pipe()
    words = ("python3", "-I", "-S", "-c", LOOK, *args)
    filtered = any(each[1] == "program.load_filter" for each in steps)
    queued = [each for each in steps if each[1] == "program.limit"]
    plan = [
        *[each for each in steps if each[0] == PARENT],
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        *[each for each in steps if each[0] == INIT],
        step(INIT, "stdio.take"),
        step(INIT, "program.find", sys.executable, ""),
        step(INIT, "sync.tell", "ready"),
        step(PARENT, "sync.expect", "ready"),
        step(PARENT, "sync.tell", "committed"),
        step(INIT, "sync.leave_parent", "committed"),
        step(START, "program.prepare", words, env, listen_fds),
        step(START, "program.keep_descriptors", fds),
        *queued,
        *([step(START, "program.filter")] if filtered else []),
        step(START, "program.execve"),
    ]
    run = Run(plan)
    run.stdio = (-1, writer, -1)
    try:
        run.parent()
        run.await_exec()
    finally:
        os.close(writer)
    data = b""
    while more := os.read(reader, 65536):
        data += more
    os.close(reader)
    assert os.waitpid(run.pid, 0)[1] == 0
    found: dict[str, Any] = json.loads(data)
    assert found["pid"] == run.pid
    return found


def test_arguments_and_environment() -> None:
    found = looked(args=("", "ä", "b c", "-x"), env=("A=1", "EMPTY=", "B=x=y"))
    assert found["args"] == ["", "ä", "b c", "-x"]
    found["env"].pop("LC_CTYPE", None)  # Python's own
    assert found["env"] == {"A": "1", "EMPTY": "", "B": "x=y"}


def test_no_descriptor_is_left() -> None:
    extra = os.open("/", os.O_PATH)
    os.set_inheritable(extra, True)
    found = looked()
    os.close(extra)
    assert found["fds"] == [0, 1, 2]


def test_descriptors_that_were_asked_for() -> None:
    """In a child of its own, in which 3 and 4 are known to be something."""

    def start() -> Any:
        os.closerange(3, 800)
        for fd in (3, 4):
            assert os.open("/", os.O_PATH | os.O_CLOEXEC) == fd
        return looked(fds=2, listen_fds=2, env=("LISTEN_PID=1", "LISTEN_FDS=9", "LISTEN_FDNAMES=x", "OTHER=1"))

    found = in_child(start)
    assert found["fds"] == [0, 1, 2, 3, 4]
    assert found["env"]["LISTEN_FDS"] == "2"
    assert found["env"]["LISTEN_PID"] == str(found["pid"])
    assert found["env"]["OTHER"] == "1"


def test_signals_are_as_a_program_expects_them() -> None:
    def start() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 3):
            signal.signal(number, signal.SIG_IGN)
        return looked()

    status = in_child(start)["status"]
    assert int(status["SigBlk"], 16) == 0
    # What Python itself ignores once it runs: SIGPIPE and SIGXFSZ.
    assert int(status["SigIgn"], 16) & ~(1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0


def test_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found = looked(
        step(START, "program.limit", NUMBERS["RLIMIT_CORE"], "RLIMIT_CORE", 0, 0),
        step(START, "program.limit", NUMBERS["RLIMIT_NOFILE"], "RLIMIT_NOFILE", 20, 30),
        step(START, "program.limit", NUMBERS["RLIMIT_AS"], "RLIMIT_AS", 1 << 32, (1 << 64) - 1),
    )
    assert hard >= 30
    assert found["limits"] == {"RLIMIT_CORE": [0, 0], "RLIMIT_NOFILE": [20, 30], "RLIMIT_AS": [1 << 32, -1]}


def test_a_filter(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
    }
    found = looked(
        step(PARENT, "program.load_filter", str(tmp_path), profile),
        step(INIT, "process.no_new_privileges"),
    )
    assert found["status"]["Seccomp"] == "2"
    assert found["status"]["NoNewPrivs"] == "1"
    assert found["kernel"] == 5


@pytest.mark.parametrize(
    ("text", "number"),
    [("not a program", errno.ENOEXEC), ("#!/nonexistent/interpreter\n", errno.ENOENT), ("#!/\n", errno.EACCES)],
)
def test_a_program_that_cannot_be_executed(tmp_path: Path, text: str, number: int) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    path.chmod(0o755)
    plan = [
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        step(INIT, "program.find", str(path), ""),
        step(START, "program.prepare", ("x",), (), 0),
        step(START, "program.limit", NUMBERS["RLIMIT_CORE"], "RLIMIT_CORE", 0, 0),
        step(START, "program.execve"),
    ]
    run = Run(plan)
    run.parent()
    with pytest.raises(StepError) as caught:
        run.await_exec()
    assert (caught.value.index, caught.value.errno) == (5, number)
    assert caught.value.detail == str(path)
    os.waitpid(run.pid, 0)


def test_a_queued_call_that_fails_is_its_step_s(tmp_path: Path) -> None:
    """A soft limit above the hard one: EINVAL, and nothing of it is the program's fault."""
    del tmp_path
    plan = [
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", INIT, 0),
        step(INIT, "program.find", "/bin/sh", ""),
        step(START, "program.prepare", ("x",), (), 0),
        step(START, "program.limit", NUMBERS["RLIMIT_CORE"], "RLIMIT_CORE", 2, 1),
        step(START, "program.execve"),
    ]
    run = Run(plan)
    run.parent()
    with pytest.raises(StepError) as caught:
        run.await_exec()
    os.waitpid(run.pid, 0)
    assert (caught.value.index, caught.value.errno) == (4, errno.EINVAL)
    assert caught.value.detail != "/bin/sh"


# -- descriptors and streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fds", [0, 2, 4])
def test_descriptors_that_led_to_the_host_are_closed(fds: int) -> None:
    def close() -> list[int]:
        os.closerange(3, 800)
        for fd in range(3, 30):
            os.dup2(0, fd)
        run = Run([])
        run.sync, run.root_fd, run.start_fd, run.phase_fd = 12, 20, 25, -1
        run.fds["barrier/started"] = 26
        process_steps.close_descriptors(run, fds)
        found = open_descriptors()
        os.dup2(0, 900)
        return found

    def kept() -> list[int]:
        # The answer's own descriptor is closed as well: it is told by the exit code of a child instead.
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(reader, 901)
            text = json.dumps(close())
            os.execv("/bin/sh", ["sh", "-c", f'[ "$0" = "{wanted}" ] || exit 1', text])
        os.close(writer)
        os.close(reader)
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

    wanted = json.dumps([0, 1, 2, *range(3, 3 + fds), 12, 20, 25, 26])
    assert in_child(kept) == [0]


def test_streams_that_are_the_host_s_null_become_the_container_s(tmp_path: Path) -> None:
    """Without a device in the root, and with something else in its place, they stay as they are."""
    for kind in ("nothing", "file", "link"):
        (tmp_path / kind / "dev").mkdir(parents=True)
    (tmp_path / "file/dev/null").write_text("text")
    (tmp_path / "link/dev/null").symlink_to("/proc/self/fd/1")

    def reopened(kind: str) -> Callable[[], list[bool]]:
        def do() -> list[bool]:
            null = os.open("/dev/null", os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.close(null)
            run = Run([])
            run.root_fd = os.open(tmp_path / kind, os.O_PATH)
            before = open_descriptors()
            stdio.reopen_null(run)
            same = [os.fstat(fd).st_rdev == os.makedev(1, 3) for fd in range(3)]
            return [*same, len(open_descriptors()) == len(before)]

        return do

    for kind in ("nothing", "file", "link"):
        assert in_child(reopened(kind)) == [True, True, True, True], kind


def test_pipes_take_the_place_of_streams() -> None:
    def take() -> list[bool]:
        reader, writer = os.pipe()
        run = Run([])
        run.stdio = (reader, -1, writer)
        before = os.fstat(1)
        stdio.take(run)
        return [
            os.fstat(0).st_ino == os.fstat(reader).st_ino,
            os.fstat(1) == before,
            os.fstat(2).st_ino == os.fstat(writer).st_ino,
            os.get_inheritable(0) and os.get_inheritable(2),
        ]

    assert in_child(take) == [True] * 4


# -- words for the kernel ------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40).filter(lambda data: b"\0" not in data), max_size=20))
def test_arrays_of_pointers(strings: list[bytes]) -> None:
    import ctypes  # noqa: PLC0415  (of the test only)

    array = process.pointer_array(strings)
    pointers = (ctypes.c_char_p * (len(strings) + 1)).from_buffer_copy(array)
    assert list(pointers) == [*strings, None]


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_capability_buffers(effective: int, permitted: int, inheritable: int) -> None:
    head, data = process.capability_buffers(effective, permitted, inheritable)
    assert int.from_bytes(head[:4], "little") == 0x20080522
    words = [int.from_bytes(data[place : place + 4], "little") for place in range(0, 24, 4)]
    low, high = words[:3], words[3:]
    assert [first | second << 32 for first, second in zip(low, high, strict=True)] == [effective, permitted, inheritable]
