"""Filters in the kernel: what programs see under them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt.kernel import ffi
from ocirt.seccomp import FLAG_WAIT_KILLABLE_RECV, INSTRUCTION_SIZE, SET_MODE_FILTER, Filter, cache
from ocirt.seccomp.compile import compile_filter
from tests.seccomp_profiles import docker_default, small

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="uses x86_64's numbers")

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS = 38

# x86_64: calls of no consequence, and some with consequences
NANOSLEEP, GETPPID, PERSONALITY, UNSHARE, FACCESSAT2 = 35, 110, 135, 272, 439
NEVER = 1000  # no kernel has it
# What this interpreter needs to report and to end.
NEEDED = ["write", "exit_group", "brk", "mmap", "munmap", "futex", "close", "rt_sigreturn", "rt_sigaction", "rt_sigprocmask"]


def install(made: Filter) -> int:
    """Load a filter into this process; the descriptor of its listener, or 0."""
    program = struct.pack("HxxxxxxQ", len(made.program) // INSTRUCTION_SIZE, ffi.address_of(made.program))
    ffi.syscall("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return ffi.syscall("seccomp", SET_MODE_FILTER, made.flags, program)


def call(number: int, *arguments: int) -> int:
    """syscall(2): the result, or the negative errno."""
    result = int(_libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(argument) for argument in arguments]))
    return -ctypes.get_errno() if result == -1 else result


def under(section: dict[str, Any], action: Callable[[], int]) -> tuple[int | None, int]:
    """What `action` returns in a child with the filter, and the child's wait status; None if it could not tell."""
    made = compile_filter(section)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            install(made)
            os.write(writer, struct.pack("q", action()))
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 8)
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    return (struct.unpack("q", told)[0] if told else None), status


def allowing(*names: str, default: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """A profile that allows what this test needs, and `names`."""
    return {"defaultAction": default, "syscalls": [{"names": [*NEEDED, *names], "action": "SCMP_ACT_ALLOW"}], **more}


def denying(action: str, **more: Any) -> dict[str, Any]:
    """A profile that allows all but getppid."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": action, **more}]}


def test_errno() -> None:
    """EPERM unless said otherwise, and the other calls go on."""
    parent = os.getpid()
    assert under(denying("SCMP_ACT_ERRNO"), lambda: call(GETPPID)) == (-errno.EPERM, 0)
    assert under(denying("SCMP_ACT_ERRNO", errnoRet=errno.EXDEV), lambda: call(GETPPID)) == (-errno.EXDEV, 0)
    assert under(denying("SCMP_ACT_LOG"), lambda: call(GETPPID)) == (parent, 0)
    assert under(small(), lambda: call(GETPPID)) == (parent, 0)


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_killed(action: str) -> None:
    """By SIGSYS, before the call is made."""
    told, status = under(denying(action), lambda: call(GETPPID))
    assert told is None
    assert os.WTERMSIG(status) == signal.SIGSYS


def test_nobody_traces() -> None:
    """SCMP_ACT_TRACE without a tracer is ENOSYS."""
    assert under(denying("SCMP_ACT_TRACE"), lambda: call(GETPPID)) == (-errno.ENOSYS, 0)


@pytest.mark.parametrize(
    ("default", "known"),
    [("SCMP_ACT_ERRNO", -errno.EPERM), ("SCMP_ACT_KILL_PROCESS", None), ("SCMP_ACT_TRAP", None)],
)
def test_calls_newer_than_the_profile_are_not_there(default: str, known: int | None) -> None:
    """Above the highest that the profile names: ENOSYS. Below: the default action."""
    assert under(allowing("openat2", default=default), lambda: call(PERSONALITY, 0xFFFFFFFF))[0] == known
    assert under(allowing("openat2", default=default), lambda: call(FACCESSAT2)) == (-errno.ENOSYS, 0)
    assert under(allowing("openat2", default=default), lambda: call(NEVER)) == (-errno.ENOSYS, 0)
    # A profile that knows a newer one has an opinion about the older.
    assert under(allowing("close_range", "futex_waitv", default=default), lambda: call(FACCESSAT2))[0] == known


@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"])
def test_a_profile_that_lets_unknown_calls_pass_lets_newer_ones_pass(default: str) -> None:
    """faccessat2 is asked with a bad address and says so."""
    section = {"defaultAction": default, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
    assert under(section, lambda: call(FACCESSAT2, 0, 0, 0, 0)) == (-errno.EFAULT, 0)


def test_arguments() -> None:
    """All 64 bits of them: personality(2) takes the lower 32, the filter looks at all."""
    query = 0xFFFFFFFF
    rule = {
        "names": ["personality"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno.EXDEV,
        "args": [{"index": 0, "value": 1 << 32, "valueTwo": 1 << 32, "op": "SCMP_CMP_MASKED_EQ"}],
    }
    section = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    assert under(section, lambda: call(PERSONALITY, query)) == (0, 0)
    assert under(section, lambda: call(PERSONALITY, query | 1 << 32)) == (-errno.EXDEV, 0)


def _machine_code(code: bytes) -> Callable[[], int]:
    """A function of machine code that returns an int."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(address)

    def run(memory: mmap.mmap = memory) -> int:
        assert not memory.closed
        return int(function())

    return run


def _int80(number: int) -> Callable[[], int]:
    """A 32-bit call without arguments: push rbx; mov eax, number; int 0x80; pop rbx; ret."""
    return _machine_code(b"\x53\xb8" + struct.pack("<I", number) + b"\xcd\x80\x5b\xc3")


def test_32_bit_calls() -> None:
    """Killed unless the profile names the architecture; then it has numbers and a limit of its own."""
    getppid, mount, never = _int80(64), _int80(21), _int80(NEVER)
    child = os.fork()
    if child == 0:
        os._exit(0 if getppid() == os.getppid() else 1)
    if os.waitpid(child, 0)[1] != 0:
        pytest.skip("this kernel has no 32-bit calls")
    alone = allowing("getppid")
    both = allowing("getppid", architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert os.WTERMSIG(under(alone, getppid)[1]) == signal.SIGSYS
    assert under(both, getppid) == (os.getpid(), 0)
    assert under(both, mount) == (-errno.EPERM, 0)
    assert under(both, never) == (-errno.ENOSYS, 0)
    assert under(both, lambda: call(GETPPID)) == (os.getpid(), 0)


def test_x32_calls() -> None:
    """Whether the kernel has x32 or not, the filter comes first."""
    bit = 0x40000000
    assert os.WTERMSIG(under(allowing("getppid"), lambda: call(GETPPID | bit))[1]) == signal.SIGSYS
    both = allowing("getppid", architectures=["SCMP_ARCH_X32"])
    assert under(both, lambda: call(NANOSLEEP | bit)) == (-errno.EPERM, 0)
    assert under(both, lambda: call(NEVER | bit)) == (-errno.ENOSYS, 0)


@pytest.mark.parametrize(
    "flags",
    [
        None,
        [],
        ["SECCOMP_FILTER_FLAG_TSYNC"],
        ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
        ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
    ],
)
def test_the_kernel_takes_the_flags(flags: list[str] | None) -> None:
    """Also WAIT_KILLABLE_RECV without a listener, and TSYNC with one."""
    section = denying("SCMP_ACT_ERRNO") | ({} if flags is None else {"flags": flags})
    assert under(section, lambda: call(GETPPID)) == (-errno.EPERM, 0)


_NOTIFY_RECEIVE, _NOTIFY_SEND = 0xC0502100, 0xC0182101


def test_a_supervisor_answers() -> None:
    """The listener comes out of seccomp(2), is closed on exec, and what it answers is what the caller gets."""
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]
    made = compile_filter(denying("SCMP_ACT_NOTIFY") | {"flags": flags})
    assert made.listener
    assert made.flags & FLAG_WAIT_KILLABLE_RECV
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            listener = install(made)
            inherited = fcntl.fcntl(listener, fcntl.F_GETFD) & fcntl.FD_CLOEXEC == 0
            os.write(writer, struct.pack("ii", listener, inherited))
            os._exit(call(GETPPID))
        finally:
            os._exit(255)
    listener, inherited = struct.unpack("ii", os.read(reader, 8))
    assert not inherited
    pidfd = os.pidfd_open(pid)
    supervisor = ffi.syscall("pidfd_getfd", pidfd, listener, 0)
    request = bytearray(80)
    fcntl.ioctl(supervisor, _NOTIFY_RECEIVE, request)
    identity, caller, _, number = struct.unpack_from("QIIi", request)
    assert (caller, number) == (pid, GETPPID)
    fcntl.ioctl(supervisor, _NOTIFY_SEND, struct.pack("QqiI", identity, 77, 0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
    for descriptor in (reader, writer, pidfd, supervisor):
        os.close(descriptor)


def _run(made: Filter, *command: str) -> subprocess.CompletedProcess[str]:
    """A program under a filter."""
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: install(made), check=False, timeout=60)


def test_programs_under_docker_s_profile(tmp_path: Path) -> None:
    """From the cache as well as fresh: what containers do works, what they must not do is EPERM even for root."""
    for _ in range(2):
        made = cache.load(str(tmp_path), docker_default())
        assert _run(made, "/bin/sh", "-c", "echo a | cat; ls / >/dev/null; exit 3").returncode == 3
        # clone3 is ENOSYS, so threads come about by clone.
        threads = "import threading, socket; t = threading.Thread(target=socket.socket); t.start(); t.join(); print('done')"
        assert _run(made, sys.executable, "-I", "-c", threads).stdout == "done\n"
        refused = _run(made, "unshare", "--net", "true")
        assert refused.returncode != 0
        assert "Operation not permitted" in refused.stderr
        assert "permission denied" in _run(made, "mount", "-t", "tmpfs", "none", str(tmp_path)).stderr
    assert under(docker_default(), lambda: call(UNSHARE, 0x04000000)) == (-errno.EPERM, 0)
    assert under(docker_default(), lambda: call(NEVER)) == (-errno.ENOSYS, 0)
    status = _run(made, "cat", "/proc/self/status").stdout
    assert "Seccomp:\t2" in status
