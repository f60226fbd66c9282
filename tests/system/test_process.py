"""What the process in a container is given: identity, limits, environment, signals, seccomp."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import PATH
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle

# include/uapi/linux/capability.h
CAP = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_AUDIT_WRITE": 29,
}


def bits(*names: str) -> int:
    """A set of capabilities as the kernel writes it."""
    return sum(1 << CAP[name] for name in names)


def test_identity(runtime: Runtime, bundle: MakeBundle) -> None:
    """Uid, gid, supplementary groups, all three of each id."""
    seen = runtime.probe(bundle(user={"uid": 1000, "gid": 1001, "additionalGids": [29, 5000]}))
    assert (seen["uid"], seen["gid"], seen["groups"]) == ([1000] * 3, [1001] * 3, [29, 5000])
    seen = runtime.probe(bundle())
    assert (seen["uid"], seen["gid"], seen["groups"]) == ([0] * 3, [0] * 3, [])


def test_pid_and_session(runtime: Runtime, bundle: MakeBundle) -> None:
    """Init is 1, its parent outside, and it leads a session of its own."""
    seen = runtime.probe(bundle())
    assert (seen["pid"], seen["ppid"], seen["pgid"], seen["sid"]) == (1, 0, 1, 1)


def test_directory(runtime: Runtime, bundle: MakeBundle) -> None:
    """The working directory; one that is missing is made."""
    assert runtime.probe(bundle(cwd="/usr/bin"))["cwd"] == "/usr/bin"
    made = bundle(cwd="/not/there/yet")
    assert runtime.probe(made)["cwd"] == "/not/there/yet"
    assert (made.rootfs / "not/there/yet").is_dir()


def test_environment(runtime: Runtime, bundle: MakeBundle) -> None:
    """What config.json says and HOME from /etc/passwd; nothing of the caller's; of two values the last."""
    env = [PATH, "A=first", "B=two words", "A=last", "EMPTY="]
    environment = {**os.environ, "LC_ALL": "C", "OCIRT_TEST_SECRET": "1"}
    made = bundle(args=["/bin/probe"], env=env)
    seen = runtime.run(made, env=environment).ok().json()
    assert sorted(seen["env"]) == sorted([PATH, "B=two words", "A=last", "EMPTY=", "HOME=/root"])
    assert "HOME=/home" in runtime.probe(made, user={"uid": 1000, "gid": 1000})["env"]
    assert "HOME=/mine" in runtime.probe(made, env=[PATH, "HOME=/mine"])["env"]
    assert "HOME=/" in runtime.probe(made, env=[PATH], user={"uid": 4242, "gid": 0})["env"]


def test_arguments_are_bytes(runtime: Runtime, bundle: MakeBundle) -> None:
    """Words outside ASCII, empty ones, ones with newlines."""
    args = ["/bin/probe", "dump", "", "a\nb", "ä€😀", '"\\']
    seen = runtime.probe(bundle(), args=args)
    as_bytes = [word.encode("latin-1").decode() for word in seen["args"]]
    assert as_bytes == args


def test_program_is_found_in_path(runtime: Runtime, bundle: MakeBundle) -> None:
    """In the PATH of config.json, not in ours."""
    made = bundle(args=["tool"], env=["PATH=/opt/tools:/bin"])
    tool = made.rootfs / "opt/tools/tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert runtime.run(made).ok().out == "found\n"
    runtime.run(made.edit(env=["PATH=/bin"])).failed("executable file not found", rc=1)
    runtime.run(made.edit(env=[], cwd="/opt/tools")).failed("executable file not found", rc=1)


def test_capabilities(runtime: Runtime, bundle: MakeBundle) -> None:
    """The five sets as they are asked for."""
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    seen = runtime.probe(bundle(capabilities=sets, user={"uid": 1000, "gid": 1000}))["caps"]
    # What exec makes of them for a user that is not root: permitted and effective are the ambient set.
    assert seen == {
        "bounding": bits(*sets["bounding"]),
        "inheritable": bits("CAP_KILL"),
        "ambient": bits("CAP_KILL"),
        "permitted": bits("CAP_KILL"),
        "effective": bits("CAP_KILL"),
    }
    root = runtime.probe(bundle(capabilities={kind: ["CAP_CHOWN"] for kind in ("bounding", "permitted", "effective")}))["caps"]
    assert root == {"bounding": 1, "permitted": 1, "effective": 1, "inheritable": 0, "ambient": 0}


def test_no_capabilities(runtime: Runtime, bundle: MakeBundle) -> None:
    """Empty sets: none; an exec into it has none either, and `--cap` adds."""
    made = bundle(capabilities={})
    assert set(runtime.probe(made)["caps"].values()) == {0}
    container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    assert set(runtime.exec(container, "/bin/probe").ok().json()["caps"].values()) == {0}
    seen = runtime.exec(container, "/bin/probe", flags=["--cap", "CAP_CHOWN", "--cap", "CAP_KILL"]).ok().json()["caps"]
    assert seen == {
        **dict.fromkeys(("bounding", "permitted", "effective"), bits("CAP_CHOWN", "CAP_KILL")),
        "inheritable": 0,
        "ambient": 0,
    }


def test_rlimits(runtime: Runtime, bundle: MakeBundle) -> None:
    """Those that are named; the others are the caller's."""
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 21},
    ]
    seen = runtime.probe(bundle(rlimits=limits))["rlimits"]
    for limit in limits:
        assert seen[limit["type"]] == [limit["soft"], limit["hard"]]


@pytest.mark.parametrize("mask", [None, 0o022, 0o077, 0])
def test_umask(runtime: Runtime, bundle: MakeBundle, mask: int | None) -> None:
    """022 unless config.json says something else, whatever the caller's is."""
    user: dict[str, Any] = {"uid": 0, "gid": 0}
    if mask is not None:
        user["umask"] = mask
    before = os.umask(0o017)
    try:
        seen = runtime.probe(bundle(user=user))
    finally:
        os.umask(before)
    assert seen["umask"] == (0o022 if mask is None else mask)


KEYCTL = {"x86_64": 250, "aarch64": 219}


def test_session_keyring(runtime: Runtime, bundle: MakeBundle) -> None:
    """One of the container's own, which `exec` joins; with `--no-new-keyring` the caller's."""
    ask = ["/bin/probe", "call", str(KEYCTL[os.uname().machine]), "0", "-3", "0"]  # KEYCTL_GET_KEYRING_ID of the session
    made = bundle(args=["sh", "-c", " ".join(ask) + "; sleep 1000"])
    container = runtime.run_detached(made)
    ring = json.loads(runtime.wait_output(container, "}"))["result"]
    (line,) = [line for line in Path("/proc/keys").read_text().splitlines() if line.startswith(f"{ring:08x} ")]
    assert f"_ses.{container}" in line
    assert runtime.exec(container, *ask).ok().json()["result"] == ring
    own = ctypes.CDLL(None).syscall(KEYCTL[os.uname().machine], 0, -3, 0)
    assert own not in (ring, -1)
    other = runtime.run_detached(made, "--no-new-keyring")
    assert json.loads(runtime.wait_output(other, "}"))["result"] == own
    assert runtime.exec(other, *ask).ok().json()["result"] == own


def test_oom_score(runtime: Runtime, bundle: MakeBundle) -> None:
    """Set when it is named; otherwise the caller's."""
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    assert runtime.probe(bundle())["oom_score_adj"] == own
    higher = int(own) + 7
    assert runtime.probe(bundle(oomScoreAdj=higher))["oom_score_adj"] == str(higher)


def test_signals_are_reset(runtime: Runtime, bundle: MakeBundle) -> None:
    """No signal is ignored or blocked, in init, in exec and in hooks, even if the caller of the runtime did so."""
    made = bundle(args=["/bin/probe"])
    seen = runtime.run(made).ok().json()
    assert (seen["signals_ignored"], seen["signals_blocked"]) == ([], 0)
    container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    seen = runtime.exec(container, "/bin/probe").ok().json()
    assert (seen["signals_ignored"], seen["signals_blocked"]) == ([], 0)
    assert seen["pdeathsig"] == 0


def test_nothing_else_is_inherited(runtime: Runtime, bundle: MakeBundle) -> None:
    """Not a subreaper, dumpable again, no securebits, all processors, ordinary priority."""
    seen = runtime.probe(bundle())
    found = {key: seen[key] for key in ("subreaper", "dumpable", "securebits", "cpus", "priority", "pdeathsig")}
    assert found == {"subreaper": 0, "dumpable": 1, "securebits": 0, "cpus": os.cpu_count(), "priority": 0, "pdeathsig": 0}


def test_no_new_privileges(runtime: Runtime, bundle: MakeBundle) -> None:
    """On and off; `exec` takes it from config.json."""
    assert runtime.probe(bundle(noNewPrivileges=True))["no_new_privs"] == 1
    made = bundle(noNewPrivileges=False)
    assert runtime.probe(made)["no_new_privs"] == 0
    container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    assert runtime.exec(container, "/bin/probe").ok().json()["no_new_privs"] == 0
    assert runtime.exec(container, "/bin/probe", flags=["--no-new-privs"]).ok().json()["no_new_privs"] == 1


# Enough for a static program, and for what peers still do between the filter and execve.
ALLOWED = """
    access arch_prctl brk capget capset chdir clone clone3 close close_range dup3 epoll_create1 epoll_ctl epoll_pwait execve exit
    exit_group faccessat faccessat2 fchdir fcntl fsconfig fsmount fsopen fstat fstatfs futex getcwd getdents64 getpid getppid
    getrandom gettid getuid ioctl lseek madvise mmap mprotect munmap nanosleep newfstatat open openat openat2 pipe2 prctl pread64
    prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list
    set_tid_address sigaltstack statfs statx tgkill uname unlinkat write
"""


def deny(*names: str, action: str = "SCMP_ACT_ERRNO", default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    """A seccomp section with one rule."""
    return {"defaultAction": default, "syscalls": [{"names": list(names), "action": action, **more}]}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp_denies(runtime: Runtime, bundle: MakeBundle, no_new_privileges: bool) -> None:
    """A call of the list fails with EPERM or the errno that is asked for; `exec` has the same filter."""
    made = bundle(seccomp=deny("mkdir", "mkdirat"), noNewPrivileges=no_new_privileges)
    assert runtime.probe(made)["seccomp"] == 2
    assert "Operation not permitted" in runtime.shell(made, "mkdir /tmp/x").failed().err
    made.edit(args=["sleep", "1000"], seccomp=deny("mkdir", "mkdirat", errnoRet=errno.ENOSPC))
    container = runtime.run_detached(made)
    runtime.exec(container, "mkdir", "/tmp/x").failed("No space left")
    assert runtime.exec(container, "/bin/probe").ok().json()["seccomp"] == 2


def test_seccomp_kills(runtime: Runtime, bundle: MakeBundle) -> None:
    """SIGSYS ends the process: 159."""
    made = bundle(seccomp=deny("mkdir", "mkdirat", action="SCMP_ACT_KILL_PROCESS"))
    assert runtime.run(made.edit(args=["mkdir", "/tmp/x"])).rc == 128 + 31


def test_seccomp_arguments(runtime: Runtime, bundle: MakeBundle) -> None:
    """A rule on an argument: personality(8) is refused, personality(0) is not."""
    rule = deny("personality", args=[{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}])
    made = bundle(seccomp=rule)
    number = {"x86_64": "135", "aarch64": "92"}[os.uname().machine]
    refused = runtime.run(made.edit(args=["/bin/probe", "call", number, "8"])).ok().json()
    allowed = runtime.run(made.edit(args=["/bin/probe", "call", number, "0"])).ok().json()
    assert (refused["errno"], allowed) == (errno.EPERM, {"result": 0, "errno": 0})


def test_newer_system_calls_do_not_exist(runtime: Runtime, bundle: MakeBundle) -> None:
    """A call with a number above all that the profile names gets ENOSYS, not EPERM: a new libc falls back."""
    made = bundle(seccomp=deny(*ALLOWED.split(), action="SCMP_ACT_ALLOW", default="SCMP_ACT_ERRNO"))
    result = runtime.run(made.edit(args=["/bin/probe", "call", "1000"])).ok().json()
    assert result["errno"] == errno.ENOSYS
    number = {"x86_64": "135", "aarch64": "92"}[os.uname().machine]  # personality: older than what the profile names
    assert runtime.run(made.edit(args=["/bin/probe", "call", number, "0"])).ok().json()["errno"] == errno.EPERM
