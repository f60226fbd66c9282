"""A plan is made of what is given: nothing is looked at, nothing is touched."""

from __future__ import annotations

import posix
from typing import Any

import pytest

from ocirt.kernel import ffi
from tests.support.bundle import default_config
from tests.unit.plan.plans import CGROUP, cases, executions, host, made, request, rootless_executions, staged_cases

CASES = cases() | staged_cases()
# All that reads or changes anything; what only takes a value apart (WIFEXITED, fspath, major) stays.
CALLS = (
    "access chdir chmod chown chroot close dup dup2 execve fchmod fchown fork fstat getcwd geteuid getegid getgid getgroups "
    "getpid getuid kill link listdir lseek lstat mkdir mkfifo mknod open openpty pidfd_open pipe pipe2 posix_spawn pread "
    "pwrite read readlink rename rmdir scandir sendfile setsid stat statvfs symlink "
    "truncate umask uname unlink urandom utime waitpid write "
)


def forbidden(*args: Any, **named: Any) -> Any:
    """Stands for a system call."""
    raise AssertionError(f"a system call while planning: {args} {named}")


@pytest.fixture
def no_system_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No system call is made as long as this holds. What is imported when met has to be there before."""
    for build, on, asked in CASES.values():
        made(build(), on, asked)
    executions()
    for name in CALLS.split():
        if hasattr(posix, name):
            monkeypatch.setattr(posix, name, forbidden)
    monkeypatch.setattr(ffi, "_syscall", forbidden)


@pytest.mark.usefixtures("no_system_calls")
@pytest.mark.parametrize("name", CASES)
def test_planning_a_container_calls_nothing(name: str) -> None:
    build, on, asked = CASES[name]
    paths = {controller: place + "/c1" for controller, place in on.layout.mounts.items()}
    plan = made(build(), on, asked, paths)
    assert plan[-1][0] == "start"


@pytest.mark.usefixtures("no_system_calls")
def test_planning_an_exec_calls_nothing() -> None:
    assert {plan[-1][1] for plan in (executions() | rootless_executions()).values()} == {"program.execve"}


@pytest.mark.usefixtures("no_system_calls")
@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
def test_nothing_is_made_up_about_the_machine(mode: str) -> None:
    """The same on every machine: descriptions that are equal give plans that are equal."""
    paths = {"": CGROUP + "/c1"}
    assert made(default_config(), host(mode), request(), paths) == made(default_config(), host(mode), request(), paths)
