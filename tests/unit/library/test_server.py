"""The zygote's loop: which fork serves a request, and what becomes of the one that waits."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.runtime import process_state, wait_for

# A fork says who it is and how often it has rehearsed, a zygote that cannot fork says so.
PROGRAM = """
import os, posix, sys
sys.path.append(sys.argv[1])
from ocirt.zygote import server
times = []
def work(fd):
    os.write(fd, b"%d %d" % (os.getpid(), len(times)))
def refuse(fd, err):
    os.write(fd, err.strerror.encode())
def broken():
    raise OSError(11, "no fork")
if sys.argv[4] == "broken":
    posix.fork = broken
server.serve(int(sys.argv[2]), int(sys.argv[3]), work, refuse, lambda: times.append(1))
"""


class Zygote:
    """A process in that loop; `owner` is whose end it has to see."""

    def __init__(self, fork: str = "works") -> None:
        self.owner = subprocess.Popen(["sleep", "1000"])
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pidfd = os.pidfd_open(self.owner.pid)
        fds = (theirs.fileno(), pidfd)
        argv = [sys.executable, "-I", "-S", "-B", "-c", PROGRAM, str(ROOT), *map(str, fds), fork]
        self.process = subprocess.Popen(argv, pass_fds=fds)
        os.close(pidfd)
        theirs.close()

    def ask(self) -> socket.socket:
        """Send a descriptor; where the answer comes."""
        mine, theirs = socket.socketpair()
        mine.settimeout(20)
        self.control.sendmsg([b"n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        theirs.close()
        return mine

    def answer(self) -> tuple[int, int]:
        """The pid of the fork that serves a request, and how often it has rehearsed."""
        with self.ask() as mine:
            pid, times = mine.recv(64).split()
        return int(pid), int(times)

    def forks(self) -> list[int]:
        """Those that are there."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if process_state(int(pid)) != "Z"]

    def spare(self) -> int:
        """The pid of the fork that waits, once it sleeps."""
        wait_for(lambda: [process_state(pid) for pid in self.forks()] == ["S"], "a spare")
        return self.forks()[0]

    def end(self) -> None:
        self.control.close()
        for process in (self.process, self.owner):
            process.kill()
            process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Zygote]]:
    made: list[Zygote] = []

    def begin(fork: str = "works") -> Zygote:
        made.append(Zygote(fork))
        return made[-1]

    yield begin
    for zygote in made:
        zygote.end()


def test_a_spare_serves_once(start: Callable[..., Zygote]) -> None:
    """It was there before, and has rehearsed; then there is another."""
    zygote = start()
    first = zygote.spare()
    assert zygote.answer() == (first, 1)
    wait_for(lambda: zygote.forks() not in ([], [first]), "another")
    second = zygote.spare()
    assert second != first
    assert zygote.answer() == (second, 1)


def test_who_comes_first_is_not_kept_waiting(start: Callable[..., Zygote]) -> None:
    """Of requests that wait already, none waits for a rehearsal as well; each has a fork of its own."""
    zygote = start()
    os.kill(zygote.spare(), signal.SIGSTOP)
    [stopped] = zygote.forks()
    asked = [zygote.ask() for _ in range(4)]
    os.kill(stopped, signal.SIGCONT)
    answers = [tuple(map(int, mine.recv(64).split())) for mine in asked]
    for mine in asked:
        mine.close()
    assert answers[0] == (stopped, 1)
    assert len({pid for pid, _ in answers}) == 4
    assert [times for _, times in answers[1:]] == [0, 0, 0]


def test_a_killed_spare(start: Callable[..., Zygote]) -> None:
    """The next request is served by a fork that is made for it, and then there is a spare again."""
    zygote = start()
    first = zygote.spare()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: process_state(first) is None, "its end")
    pid, times = zygote.answer()
    assert (pid != first, times) == (True, 0)
    wait_for(lambda: zygote.forks() not in ([], [pid]), "a spare")
    second = zygote.spare()
    assert zygote.answer() == (second, 1)


def test_a_spare_ends_with_its_zygote(start: Callable[..., Zygote]) -> None:
    zygote = start()
    spare = zygote.spare()
    zygote.process.kill()
    zygote.process.wait()
    wait_for(lambda: process_state(spare) in (None, "Z"), "its end")


@pytest.mark.parametrize("fork", ["works", "broken"])
def test_the_end_of_the_owner(start: Callable[..., Zygote], fork: str) -> None:
    """Of its process, though its end of the socket is open still."""
    zygote = start(fork)
    spare = zygote.spare() if fork == "works" else 0
    zygote.owner.kill()
    assert zygote.process.wait(20) == 0
    wait_for(lambda: not spare or process_state(spare) in (None, "Z"), "the end of the spare")


@pytest.mark.parametrize("fork", ["works", "broken"])
def test_what_came_before_the_end_is_served(start: Callable[..., Zygote], fork: str) -> None:
    """The owner closes its socket. No child is left by then, but for those that are at work."""
    zygote = start(fork)
    asked = [zygote.ask() for _ in range(3)]
    zygote.control.close()
    assert zygote.process.wait(20) == 0
    answers = [mine.recv(64) for mine in asked]
    for mine in asked:
        mine.close()
    assert all(answers), answers
    assert len(set(answers)) == (3 if fork == "works" else 1)


def test_where_there_can_be_no_fork(start: Callable[..., Zygote]) -> None:
    """It is said by the zygote itself, each time."""
    zygote = start("broken")
    for _ in range(2):
        with zygote.ask() as mine:
            assert mine.recv(64) == b"no fork"
    assert zygote.forks() == []
