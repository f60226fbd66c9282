"""One sample: a command's wall time, CPU time, memory, system calls."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.build import compiled


class CommandFailedError(Exception):
    """A command under measurement did not succeed: its figures would mean nothing."""


@dataclass
class Sample:
    """Wall and CPU time (user and system, in milliseconds), peak resident set of one process (MiB)."""

    wall: float
    cpu: float
    memory: float

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def helper() -> str:
    """The program that runs and measures commands."""
    return str(compiled("measure", Path(__file__).parent))


def memlock() -> list[str]:
    """What stands before a command whose setrlimit(RLIMIT_MEMLOCK) has to succeed, see measure.c."""
    return [helper(), "memlock"]


def sample(command: Sequence[str], *, count: int = 1, stdout: int = subprocess.DEVNULL, may_fail: bool = False) -> Sample:
    """Run `count` copies of a command at once. Raises CommandFailedError, unless `may_fail`: wall is -1 then."""
    read_end, write_end = os.pipe()
    wrapper, command = (command[:2], command[2:]) if tuple(command[:2]) == tuple(memlock()) else ([], command)
    with tempfile.TemporaryFile() as errors:
        argv = [*wrapper, helper(), str(write_end), str(count), *command]  # a wrapper goes around the clock, not inside
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors, pass_fds=[write_end], check=False)
        os.close(write_end)
        with os.fdopen(read_end) as result:
            line = result.read()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if done.returncode or not line:
        message = f"measure: {shlex.join(argv)}: exit code {done.returncode}"
        raise CommandFailedError(message)
    wall, user, system, memory, code = map(int, line.split())
    if code:
        if may_fail:
            return Sample(-1, 0, 0)
        message = f"{shlex.join(command)}: exit code {code}: {said.strip()}"
        raise CommandFailedError(message)
    return Sample(wall / 1e6, (user + system) / 1e3, memory / 1024)


def through_pipe(command: Sequence[str], size: int) -> Sample:
    """Measure a command that writes `size` bytes to a pipe that is emptied as fast as it fills."""
    read_end, write_end = os.pipe()
    taken = 0

    def drain() -> None:
        nonlocal taken
        sink = os.open("/dev/null", os.O_WRONLY)
        while moved := os.splice(read_end, sink, 1 << 20):
            taken += moved
        os.close(sink)

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        result = sample(command, stdout=write_end)
    finally:
        os.close(write_end)
        reader.join()
        os.close(read_end)
    if taken != size:
        message = f"{shlex.join(command)}: {taken} bytes came through, not {size}"
        raise CommandFailedError(message)
    return result


def cpu_of(pid: int) -> float:
    """The CPU time that a living process has used, in milliseconds (its CPU-time clock, see clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2) * 1e3


def system_calls(command: Sequence[str], until: Callable[[], None] | None = None) -> int:
    """The number of system calls that a command and its children make, by strace. Raises CommandFailedError.

    `until` is called meanwhile and ends what would otherwise go on, such as the init of a created container.
    """
    strace = shutil.which("strace")
    if strace is None:
        message = "strace is not there: apt-get install strace, or --quick"
        raise CommandFailedError(message)
    with tempfile.NamedTemporaryFile("r") as counts, tempfile.TemporaryFile("w+") as said:
        argv = [strace, "-f", "-c", "-U", "calls,name", "-o", counts.name, *command]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said) as process:
            if until is not None:
                until()
            process.wait()
        if process.returncode:
            said.seek(0)
            message = f"{shlex.join(argv)}: exit code {process.returncode}: {said.read().strip()}"
            raise CommandFailedError(message)
        total = re.search(r"^\s*(\d+)\s+total$", counts.read(), re.MULTILINE)
    return int(total[1]) if total else 0


def proportional_memory(pid: int) -> float:
    """The memory of a process, shared pages divided by their users, in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
