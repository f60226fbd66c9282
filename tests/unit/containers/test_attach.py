"""An attached process: bytes that are moved between all sorts of descriptors, and its end."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.containers.attach import _Copy
from tests.conftest import ROOT

Pipe = tuple[int, int]


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors that are closed in the end, if they are still open."""
    found: list[int] = []
    yield found
    for fd in found:
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def pipe(opened: list[int]) -> Callable[[], Pipe]:
    """Makes pipes."""

    def make() -> Pipe:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    return make


MOVED, FULL, ENDED = _Copy.MOVED, _Copy.FULL, _Copy.ENDED


def test_from_pipe_to_pipe(pipe: Callable[[], Pipe]) -> None:
    (source, into), (out, target) = pipe(), pipe()
    os.write(into, b"some bytes")
    copy = _Copy(source, target)
    assert copy.move() == MOVED
    assert os.read(out, 100) == b"some bytes"
    os.close(into)
    assert copy.move() == ENDED


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["plain", "append"])
def test_from_pipe_to_file(pipe: Callable[[], Pipe], tmp_path: Path, opened: list[int], flags: int) -> None:
    """splice(2) refuses a file that is appended to."""
    path = tmp_path / "out"
    path.write_bytes(b"before ")
    target = os.open(path, os.O_WRONLY | flags)
    opened.append(target)
    source, into = pipe()
    copy = _Copy(source, target)
    for part in (b"one ", b"two"):
        os.write(into, part)
        assert copy.move() == MOVED
    os.close(into)
    assert copy.move() == ENDED
    assert path.read_bytes() == (b"before one two" if flags else b"one two")


@pytest.mark.parametrize("blocking", [True, False])
def test_from_file_to_pipe(pipe: Callable[[], Pipe], tmp_path: Path, opened: list[int], blocking: bool) -> None:
    path = tmp_path / "in"
    data = os.urandom(200_000)
    path.write_bytes(data)
    source = os.open(path, os.O_RDONLY)
    opened.append(source)
    out, target = pipe()
    os.set_blocking(target, blocking)
    copy = _Copy(source, target)
    got = b""
    while copy.move() != ENDED:
        got += os.read(out, 1 << 17)
    assert got == data


def test_a_target_that_is_full_is_said_so(pipe: Callable[[], Pipe], tmp_path: Path, opened: list[int]) -> None:
    """Not waited for: the other directions go on, and what was read is kept."""
    path = tmp_path / "in"
    path.write_bytes(b"y" * 1_000_000)
    source = os.open(path, os.O_RDONLY)
    opened.append(source)
    out, target = pipe()
    os.set_blocking(target, False)
    copy = _Copy(source, target)
    outcomes = [copy.move() for _ in range(40)]
    assert FULL in outcomes
    assert outcomes[-1] == FULL
    assert len(os.read(out, 1 << 20)) > 4096
    assert copy.move() in (MOVED, FULL)


def test_from_terminal_and_to_terminal(pipe: Callable[[], Pipe], opened: list[int]) -> None:
    master, slave = pty.openpty()
    opened.extend((master, slave))
    out, target = pipe()
    os.write(slave, b"hello\n")
    came, copy = b"", _Copy(master, target)
    while not came.endswith(b"\n"):  # the kernel hands a line over in one piece or in two
        assert copy.move() == MOVED
        came += os.read(out, 100)
    assert came == b"hello\r\n"
    source, into = pipe()
    os.write(into, b"typed\n")
    assert _Copy(source, master).move() == MOVED
    assert os.read(slave, 100) == b"typed\n"


def test_all_bytes_come_to_a_terminal_that_is_slow(pipe: Callable[[], Pipe], opened: list[int]) -> None:
    master, slave = pty.openpty()
    opened.extend((master, slave))
    os.set_blocking(slave, False)
    data = bytes(range(65, 91)) * 1000
    source, into = pipe()
    os.write(into, data)
    os.close(into)
    copy = _Copy(source, slave)
    got = b""
    while len(got) < len(data):
        if copy.move() != MOVED:
            got += os.read(master, 1000)
    assert got == data


def test_a_terminal_that_is_closed_is_the_end(pipe: Callable[[], Pipe], opened: list[int]) -> None:
    master, slave = pty.openpty()
    opened.append(master)
    os.close(slave)
    assert _Copy(master, pipe()[1]).move() == ENDED  # EIO


def test_a_reader_that_went_away_is_the_end(pipe: Callable[[], Pipe]) -> None:
    (source, into), (out, target) = pipe(), pipe()
    os.write(into, b"x")
    os.close(out)
    assert _Copy(source, target).move() == ENDED


def test_nothing_there_yet_is_not_the_end(pipe: Callable[[], Pipe]) -> None:
    """A source of the caller's that does not block, and had nothing after all: to wait for the target would not be to wait."""
    source, _ = pipe()
    os.set_blocking(source, False)
    assert _Copy(source, pipe()[1]).move() == MOVED


def test_a_disk_that_is_full_is_an_error(pipe: Callable[[], Pipe], opened: list[int]) -> None:
    source, into = pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    opened.append(full)
    os.write(into, b"x")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        _Copy(source, full).move()


# -- a whole attached process --------------------------------------------------------------------------------------------------

SCRIPT = """
    import os, sys
    from ocirt.containers.attach import Attached
    from ocirt.kernel import process
    from ocirt.kernel.run import Run

    attached = Attached(terminal=False, subreaper=False)
    run = Run([])
    attached.streams(run)
    pid = process.clone3(0)
    if pid == 0:
        for fd, end in enumerate(run.stdio):
            if end >= 0:
                os.dup2(end, fd)
        process.reset_signals()
        os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
    attached.created()
    os._exit(attached.wait(pid))
"""


@contextlib.contextmanager
def attached(script: str, program: str = SCRIPT, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a shell script as an attached one; nothing of it is left in any case."""
    command = [sys.executable, "-c", textwrap.dedent(program), script]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **streams) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit_statuses(script: str, status: int) -> None:
    with attached(script) as process:
        assert process.wait(20) == status


def test_files_as_streams(tmp_path: Path) -> None:
    """Each byte comes, in order, and both outputs can be one file."""
    (tmp_path / "in").write_bytes(b"line\n" * 5_000)
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("ab") as err,
        attached("cat; echo done >&2", stdin=source, stdout=out, stderr=err) as process,
    ):
        assert process.wait(20) == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    assert (tmp_path / "err").read_bytes() == b"done\n"


def test_input_that_waits_does_not_hold_up_output(tmp_path: Path) -> None:
    """A program that reads again only when what it wrote is gone: both pipes are full then, and only one can be emptied."""
    (tmp_path / "in").write_bytes(b"x" * 400_000)
    script = "sleep 0.2; head -c 200000 /dev/zero; cat > /dev/null"
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as out,
        attached(script, stdin=source, stdout=out) as process,
    ):
        assert process.wait(5) == 0
    assert (tmp_path / "out").stat().st_size == 200_000


def test_the_program_may_close_its_input_early(tmp_path: Path) -> None:
    """The SIGPIPE that comes of it is the runtime's own: it is not one to pass on."""
    (tmp_path / "in").write_bytes(b"x" * 1_000_000)
    script = "exec < /dev/null; sleep 0.2; echo end"
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as out,
        attached(script, stdin=source, stdout=out) as process,
    ):
        assert process.wait(20) == 0
    assert (tmp_path / "out").read_bytes() == b"end\n"


def test_what_was_written_last_is_there(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, attached("head -c 60000 /dev/zero; exit 3", stdout=out) as process:
        assert process.wait(20) == 3
    assert (tmp_path / "out").stat().st_size == 60_000


def test_a_grandchild_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, attached("sleep 5 & echo now", stdout=out) as process:
        assert process.wait(3) == 0
    assert (tmp_path / "out").read_bytes() == b"now\n"


TERMINAL = """
    import os, pty, sys
    from ocirt.containers.attach import Attached
    from ocirt.kernel import process
    from ocirt.kernel.run import Run

    attached = Attached(terminal=True, subreaper=False)
    run = Run([])
    attached.streams(run)
    master, slave = pty.openpty()
    pid = process.clone3(0)
    if pid == 0:
        os.login_tty(slave)
        process.reset_signals()
        os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
    os.close(slave)
    run.on_console("/dev/pts/0", master)
    attached.created()
    os._exit(attached.wait(pid))
"""


def test_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"typed\n")
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as out,
        attached("stty -echo; read word; echo got $word; exit 6", TERMINAL, stdin=source, stdout=out) as process,
    ):
        assert process.wait(20) == 6
    assert b"got typed\r\n" in (tmp_path / "out").read_bytes()


def test_much_that_is_typed_does_not_hold_up_what_is_shown(tmp_path: Path) -> None:
    """As when a page of text is pasted into a program that is busy: its terminal takes no more input for a while."""
    script = (
        "stty raw -echo; echo ready; sleep 0.3; head -c 300000 /dev/zero; head -c 50000 > /dev/null; head -c 300000 /dev/zero"
    )
    with (
        (tmp_path / "out").open("wb") as out,
        attached(script + "; exit 6", TERMINAL, stdin=subprocess.PIPE, stdout=out) as process,
    ):
        deadline = time.monotonic() + 10
        while b"ready" not in (tmp_path / "out").read_bytes():  # before it is raw, the terminal drops what is more than a line
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.stdin is not None
        process.stdin.write(b"x" * 100_000)
        process.stdin.close()
        assert process.wait(10) == 6
    assert (tmp_path / "out").read_bytes().count(b"\0") == 600_000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 2])
def test_signals_are_passed_on(number: int) -> None:
    script = f"trap 'echo caught; exit 9' {int(number)}; echo ready; while :; do sleep 0.05; done"
    with attached(script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(20) == 9


def test_orphans_do_not_end_it() -> None:
    with attached("(sleep 0.05; exit 5) & sleep 0.3; exit 4") as process:
        assert process.wait(20) == 4
