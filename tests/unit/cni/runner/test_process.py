"""Programs with a deadline: what goes in and out, and how they end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ocirt_cni.errors import IO_FAILURE, TRY_AGAIN_LATER, Error
from ocirt_cni.runner import process

LONG = 60.0


def script(place: Path, text: str, name: str = "program") -> str:
    path = place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def run(program: str, data: bytes = b"", timeout: float = LONG) -> process.Ended:
    return process.run(program, dict(os.environ), data, timeout)


def refused(program: str, timeout: float = LONG) -> Error:
    with pytest.raises(Error) as caught:
        run(program, timeout=timeout)
    return caught.value


def test_input_output_and_standard_error(tmp_path: Path) -> None:
    ended = run(script(tmp_path, "cat; echo said >&2; exit 3"), b"words")
    assert (ended.code, ended.out, ended.err) == (3, b"words", b"said\n")


def test_more_than_pipes_hold_goes_both_ways(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    ended = run(script(tmp_path, "tee /dev/stderr"), data)
    assert ended.out == data
    assert ended.err == data


def test_input_that_nobody_reads_is_no_failure(tmp_path: Path) -> None:
    assert run(script(tmp_path, "exec <&-; echo done"), b"x" * (1 << 20)).out == b"done\n"


def test_a_signal_is_a_negative_code(tmp_path: Path) -> None:
    assert run(script(tmp_path, "kill -9 $$")).code == -signal.SIGKILL


def test_the_environment_is_what_was_given(tmp_path: Path) -> None:
    ended = process.run(script(tmp_path, 'echo "$ONE"'), {"ONE": "1", "PATH": os.environ["PATH"]}, b"", LONG)
    assert ended.out == b"1\n"


def test_signals_are_as_a_shell_gives_them(tmp_path: Path) -> None:
    """Python ignores SIGPIPE and SIGXFSZ; a plugin must not inherit that."""
    ended = run(script(tmp_path, "grep SigIgn /proc/self/status"))
    ignored = int(ended.out.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


def test_after_the_deadline_the_whole_group_is_killed(tmp_path: Path) -> None:
    """The child that the program waits for too; the error has what was said until then."""
    pids = tmp_path / "pids"
    program = script(tmp_path, f"echo about to hang >&2; sleep 1000 & echo $$ $! >{pids}; wait")
    err = refused(program, timeout=1.0)
    assert err.code == TRY_AGAIN_LATER
    assert "not done after 1 s: about to hang" in str(err)
    for pid in map(int, pids.read_text().split()):
        assert ended(pid), f"{pid} lives"


def ended(pid: int) -> bool:
    """Whether a process ends within a minute; a zombie that nobody has reaped counts as ended."""
    for _ in range(6000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_process_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    """A daemon that keeps the output open: libcni would wait for it."""
    pid = tmp_path / "pid"
    ended = run(script(tmp_path, f"sleep 1000 & echo $! >{pid}; echo done"))
    assert ended.out == b"done\n"
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_endless_output_ends_it(tmp_path: Path) -> None:
    err = refused(script(tmp_path, "exec yes"))
    assert err.code == IO_FAILURE
    assert "longer than 8 MiB" in str(err)


def test_a_program_that_is_being_written_is_tried_again(tmp_path: Path) -> None:
    program = script(tmp_path, "echo done")
    copy = tmp_path / "copy"
    copy.write_bytes(Path("/bin/true").read_bytes())
    copy.chmod(0o755)
    with copy.open("r+b"):
        assert "somebody is writing to it" in str(refused(str(copy), timeout=0.3))
    assert run(str(copy)).code == 0
    assert run(program).out == b"done\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [("#!/nonexistent/sh\n", "the interpreter of its first line is not there"), ("nothing of the kind", "neither a program")],
)
def test_what_cannot_be_executed_says_why(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "program"
    path.write_text(text)
    path.chmod(0o755)
    err = refused(str(path))
    assert err.code == IO_FAILURE
    assert word in str(err)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    run(script(tmp_path, "cat"), b"x")
    refused("/nonexistent")
    refused(script(tmp_path, "sleep 1000"), timeout=0.2)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_tail_is_one_line_of_the_end() -> None:
    assert process.tail(b" one\n\n two \n") == "one | two"
    assert process.tail(b"x" * 1000 + b"end", 10) == "…xxxxxxxend"
    assert process.tail(b"\xff") == "\ufffd"
