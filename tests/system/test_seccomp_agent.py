"""SCMP_ACT_NOTIFY: an agent gets the listener of a container's filter, and what it answers is what calls return."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.seccomp_profiles import docker_default
from tests.support.agent import Agent, Call
from tests.support.build import ROOT
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_rootless import ONE, owned, rootless  # noqa: F401  (fixtures)
from tests.system.test_tail import exits  # noqa: F401

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="uses x86_64's numbers")
ocirt_only = pytest.mark.ocirt_only("runc cannot load such a filter")

# x86_64
WRITE, EXECVE, MKDIR, EXIT_GROUP, KEYCTL, OPENAT = 1, 59, 83, 231, 250, 257
MAKE = ["sh", "-c", "mkdir /made; echo $?; test ! -e /made || echo made"]


@pytest.fixture
def place(no_leaks: list[Path]) -> Path:
    """Where an agent can listen, below a short path that every user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(directory)
    directory.chmod(0o755)
    return directory / "agent"


def notifying(path: Path, *names: str, **more: Any) -> dict[str, Any]:
    """A profile that asks an agent about some calls, and allows the rest."""
    rules = [{"names": list(names or ("mkdir", "mkdirat")), "action": "SCMP_ACT_NOTIFY"}]
    return {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path), "syscalls": rules, **more}


def refuse(call: Call) -> None:
    """No directory is made."""
    call.fail(errno.EXDEV)


def pretend(call: Call) -> None:
    """No directory is made, but nobody is told."""
    call.give(0)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_run(runtime: Runtime, bundle: MakeBundle, place: Path, no_new_privileges: bool) -> None:  # noqa: FBT001
    """One message with one descriptor: what the specification wants to be in it. Then what the agent answers counts."""
    made = bundle(args=MAKE, noNewPrivileges=no_new_privileges, annotations={"a": "b"})
    container = runtime.new_id()
    with Agent(place, refuse) as agent:
        made.edit(seccomp=notifying(place, listenerMetadata='some "words"'))
        done = runtime.run(made, container=container)
        assert done.out == "1\n"
        assert "cross-device" in done.err
        (told,) = agent.states
        assert agent.calls == [MKDIR]
    assert told.keys() == {"ociVersion", "fds", "pid", "metadata", "state"}
    assert told["fds"] == ["seccompFd"]
    assert told["metadata"] == 'some "words"'
    assert told["pid"] == told["state"]["pid"] > 1
    assert told["state"]["id"] == container
    assert told["state"]["status"] == "creating"
    assert told["state"]["bundle"] == str(made.path)
    assert told["state"]["annotations"] == {"a": "b"}
    assert told["ociVersion"].startswith("1.")
    assert not (made.rootfs / "made").exists()


def test_answers(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """A return value, going on, and a descriptor of the agent's own."""
    made = bundle(args=MAKE, seccomp=notifying(place))
    with Agent(place, pretend):
        assert runtime.run(made).out == "0\n"
    assert not (made.rootfs / "made").exists()
    place.unlink()
    with Agent(place):
        assert runtime.run(made).ok().out == "0\nmade\n"
    place.unlink()
    secret = made.path / "secret"
    secret.write_text("the agent's\n")

    def answer(call: Call) -> None:
        """Whoever opens the file gets another one."""
        with open(f"/proc/{call.pid}/mem", "rb") as memory:
            memory.seek(call.arguments[call.number == OPENAT])
            path = memory.read(64).partition(b"\0")[0]
        if path != b"/asked":
            call.go_on()
            return
        with secret.open() as file:
            call.give_descriptor(file.fileno())

    with Agent(place, answer):
        made.edit(args=["cat", "/asked"], seccomp=notifying(place, "open", "openat"))
        assert runtime.run(made).ok().out == "the agent's\n"


def test_create_start_and_exec(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Init's listener, then those of two processes more, each about its own process."""
    made = bundle(args=["sh", "-c", "mkdir /made; echo $?; sleep 1000"])
    with Agent(place, pretend) as agent:
        container = runtime.create(made.edit(seccomp=notifying(place)))
        assert runtime.status(container) == "created"
        runtime.start(container).ok()
        runtime.wait_output(container, "0\n")
        assert runtime.status(container) == "running"
        assert [(told["pid"], told["state"]["status"]) for told in agent.states] == [(runtime.pid(container), "creating")]
        assert runtime.exec(container, *MAKE).out == "0\n"
        out = runtime.work / "detached"
        pid_file = runtime.work / "pid"
        runtime.detached("exec", "--detach", "--pid-file", pid_file, container, *MAKE, out=out).ok()
        wait_for(lambda: out.read_text() == "0\n", "the end of a detached process")
        _, second, third = agent.states
        assert third["pid"] == int(pid_file.read_text())
        for told in (second, third):
            assert told["pid"] != told["state"]["pid"] == runtime.pid(container)
            assert told["state"]["status"] == "running"
        assert runtime.wait(container, third["pid"]) == 0
    assert not (made.rootfs / "made").exists()


@pytest.mark.ocirt_only("the agent gets it at create")
def test_nothing_is_sent_before_start(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """The filter is loaded last. What `start` needs until then is a socket that only the caller can use."""
    with Agent(place, pretend) as agent:
        container = runtime.create(bundle(args=["true"], seccomp=notifying(place)))
        assert agent.states == []
        way = runtime.root / container / "listener"
        assert way.stat().st_mode == 0o140600
        pid = runtime.pid(container)
        runtime.start(container).ok()
        wait_for(lambda: len(agent.states) == 1, "what the agent's thread takes down")
        assert runtime.wait(container, pid) == 0
        runtime.delete(container).ok()
        assert not way.exists()


@pytest.mark.ocirt_only("it has no such program")
@pytest.mark.parametrize("how", ["missing", "no program"])
def test_init_waits_itself(runtime: Runtime, bundle: MakeBundle, place: Path, tmp_path: Path, how: str) -> None:
    """Where the small program that would wait in its place is not there, or cannot be executed."""
    copy = tmp_path / "clone"
    shutil.copytree(ROOT / "ocirt", copy / "ocirt")
    shutil.copytree(ROOT / "build", copy / "build", ignore=shutil.ignore_patterns("venv"))
    waiter = copy / "ocirt" / "kernel" / "waiter"
    waiter.unlink()
    if how == "no program":
        waiter.write_text("no program\n")
    runtime.command = [str(copy / "build" / "ocirt")]
    made = bundle(args=MAKE, seccomp=notifying(place))
    with Agent(place, pretend) as agent:
        container = runtime.create(made)
        pid = runtime.pid(container)
        assert "/memfd:ocirt-init" not in os.readlink(f"/proc/{pid}/exe")
        assert agent.states == []
        runtime.start(container).ok()
        assert runtime.wait(container, pid) == 0
        assert runtime.output_of(container).read_text() == "0\n"
        assert [told["pid"] for told in agent.states] == [pid]


@pytest.mark.parametrize("verb", ["run", "create", "exec"])
def test_nobody_listens(runtime: Runtime, bundle: MakeBundle, place: Path, verb: str) -> None:
    """It is said before a process is made; a socket that nobody has any more is nobody either."""
    container = ""
    made = bundle(args=["sleep", "1000"], seccomp=notifying(place))
    if verb == "exec":
        with Agent(place):
            container = runtime.run_detached(made)
        place.unlink()
    for there in (False, True):
        if there:
            with socket.socket(socket.AF_UNIX) as gone:
                gone.bind(str(place))
        if verb == "exec":
            done = runtime.exec(container, "true").failed(rc=255)
        else:
            done = runtime.run(made) if verb == "run" else runtime.try_create(made)
        words = "failed to connect with seccomp agent specified in the seccomp profile: .*"
        done.failed(words + ("connection refused" if there else "no such file or directory"))


@pytest.mark.ocirt_only("the agent gets it at create")
def test_the_agent_ends_before_start(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Then `start` fails, and the container is at its end."""
    with Agent(place):
        container = runtime.create(bundle(args=["true"], seccomp=notifying(place)))
    pid = runtime.pid(container)
    runtime.start(container).failed("failed to connect with seccomp agent .*connection refused", rc=1)
    assert runtime.status(container) == "stopped"
    assert runtime.wait(container, pid) == 128 + signal.SIGKILL
    runtime.delete(container).ok()


def test_a_path_beside_the_bundle(runtime: Runtime, bundle: MakeBundle) -> None:
    """A relative one counts from there."""
    made = bundle(args=MAKE, seccomp=notifying(Path("agent")))
    with Agent(made.path / "agent", pretend):
        assert runtime.run(made).out == "0\n"


@pytest.mark.ocirt_only("a longer path than connect(2) takes")
def test_a_long_path(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Longer than a socket's address, as those below a kubelet's directory may be."""
    directory = place.parent / ("d" * 120)
    directory.mkdir()
    with Agent(place, pretend):
        place.rename(directory / "agent")
        made = bundle(args=MAKE, seccomp=notifying(directory / "agent"))
        assert runtime.run(made).out == "0\n"


def test_a_profile_without_an_agent(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Refused: its calls would fail for no reason that anybody could see. One that notifies nobody needs no agent."""
    profile = notifying(place)
    del profile["listenerPath"]
    runtime.run(bundle(seccomp=profile)).failed("seccomp listenerPath is not set", rc=1)
    runtime.run(bundle(seccomp={**notifying(place), "syscalls": []})).ok()


@ocirt_only
@pytest.mark.parametrize("verb", ["run", "create", "exec"])
def test_any_call_may_be_notified(runtime: Runtime, bundle: MakeBundle, place: Path, verb: str) -> None:
    """Even all of them: the first that the agent hears of is execve(2), as there is none before it."""
    made = bundle(args=["echo", "hello"])
    profile = {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": str(place), "syscalls": []}
    with Agent(place) as agent:
        made.edit(seccomp=profile)
        if verb == "run":
            assert runtime.run(made).ok().out == "hello\n"
        elif verb == "create":
            container = runtime.create(made)
            pid = runtime.pid(container)
            runtime.start(container).ok()
            assert runtime.wait(container, pid) == 0
            assert runtime.output_of(container).read_text() == "hello\n"
        else:
            container = runtime.run_detached(made.edit(args=["sleep", "1000"]))
            agent.calls.clear()
            assert runtime.exec(container, "echo", "hello").ok().out == "hello\n"
            runtime.delete(container, "--force").ok()
        assert EXECVE in agent.calls[: 1 if verb != "exec" else None]
        assert WRITE in agent.calls


@ocirt_only
@pytest.mark.parametrize("default", ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ERRNO"])
def test_a_filter_that_allows_next_to_nothing(runtime: Runtime, exits: Bundle, place: Path, default: str) -> None:  # noqa: F811
    """The one call that the program makes beside execve is the agent's to decide."""
    profile = notifying(place, "exit_group", defaultAction=default)
    profile["syscalls"].append({"names": ["execve"], "action": "SCMP_ACT_ALLOW"})
    sizes = (("AS", 1 << 20), ("NPROC", 1), ("NOFILE", 32))
    limits = [{"type": "RLIMIT_" + name, "soft": size, "hard": size} for name, size in sizes]
    exits.edit(seccomp=profile, rlimits=limits, user={"uid": 1234, "gid": 1234})
    with Agent(place) as agent:
        assert runtime.run(exits).rc == 42
        container = runtime.create(exits)
        pid = runtime.pid(container)
        runtime.start(container).ok()
        assert runtime.wait(container, pid) == 42
        assert agent.calls == [EXIT_GROUP] * 2


@ocirt_only
@pytest.mark.parametrize("verb", ["run", "create"])
def test_no_call_between_filter_and_program(runtime: Runtime, bundle: MakeBundle, place: Path, tmp_path: Path, verb: str) -> None:
    """As without an agent; and what has sent the listener is gone by then. Of init, and of what waits in its place."""
    made = bundle(args=["true"], seccomp=notifying(place))
    container = runtime.new_id()
    runtime.prepare(made, container)
    # A file for each process; each line begins with the time. Signals that are ignored, as SIGCHLD is, show too.
    strace = ["strace", "-ff", "-qq", "-ttt", "-o", str(tmp_path / "calls")]
    null = subprocess.DEVNULL
    with Agent(place), subprocess.Popen([*strace, *runtime.argv(verb, "--bundle", made.path, container)], stdin=null) as traced:
        if verb == "create":
            wait_for(lambda: container in runtime.call("list", "-q").out and runtime.status(container) == "created", "it", 30)
            assert os.readlink(f"/proc/{runtime.pid(container)}/exe").startswith("/memfd:ocirt-init")
            runtime.start(container).ok()
        assert traced.wait(30) == 0
    calls = {path: [each for each in path.read_text().splitlines() if " --- " not in each] for path in tmp_path.glob("calls.*")}
    (init,) = [
        lines for lines in calls.values() if any(re.search(r"SET_MODE_FILTER, SECCOMP_F.* = [1-9]", each) for each in lines)
    ]
    (sender,) = [lines for lines in calls.values() if any(" sendmsg(" in each and 'iov_base="l"' in each for each in lines)]
    loaded = next(index for index, each in enumerate(init) if "SET_MODE_FILTER" in each)
    assert " execve(" in init[loaded + 1]
    assert sender is not init
    assert " exit_group(0)" in sender[-1]
    assert float(sender[-1].split()[0]) < float(init[loaded + 1].split()[0])


def test_the_program_has_no_strange_child(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Nor a descriptor too many, nor a disposition of SIGCHLD that is not the default."""
    with Agent(place):
        made = bundle(args=["sh", "-c", "ps -o pid,stat,args; wait"], seccomp=notifying(place))
        for _ in range(20):
            listed = runtime.run(made).ok().out.splitlines()[1:]
            assert [line for line in listed if line.split()[1].startswith("Z")] == []
        seen = runtime.probe(bundle(seccomp=notifying(place)))
    assert sorted(seen["fds"]) == ["0", "1", "2"]
    assert seen["seccomp"] == 2


@pytest.mark.ocirt_only("peers differ in what a user may do")
def test_rootless(rootless: Runtime, bundle: MakeBundle, place: Path) -> None:  # noqa: F811
    """run, create, start and exec of a user: his init cannot be looked into by him, so its descriptor comes by itself."""
    made = owned(bundle(), ONE, seccomp=notifying(place), args=MAKE)
    with Agent(place, pretend) as agent:
        assert rootless.run(made).ok().out == "0\n"
        container = rootless.create(made.edit(args=["sh", "-c", "mkdir /made; echo $?; sleep 1000"]))
        rootless.start(container).ok()
        rootless.wait_output(container, "0\n")
        assert rootless.exec(container, *MAKE).out == "0\n"
        assert [told["state"]["status"] for told in agent.states] == ["creating", "creating", "running"]
        assert [told["pid"] for told in agent.states][1] == rootless.pid(container)
        rootless.delete(container, "--force").ok()
    assert not (made.rootfs / "made").exists()


@pytest.mark.ocirt_only("its own way to pass it on")
@pytest.mark.parametrize("verb", ["start", "run"])
def test_who_passes_it_on_is_killed(runtime: Runtime, bundle: MakeBundle, place: Path, verb: str) -> None:
    """Init ends by itself then, and does not wait for ever."""
    made = bundle(args=["sleep", "1000"], seccomp=notifying(place))
    with socket.socket(socket.AF_UNIX) as silent:  # its queue is full, so nobody gets through
        silent.bind(str(place))
        silent.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(place))
            container = runtime.new_id() if verb == "run" else runtime.create(made)
            if verb == "run":
                process = runtime.spawn_run(made, container=container)
            else:
                process = subprocess.Popen(runtime.argv("start", container), stderr=subprocess.DEVNULL)
            with process:
                wait_for(lambda: connecting(process.pid), f"`{verb}` to connect")
                pid = runtime.pid(container)
                process.kill()
    assert runtime.wait(container, pid, 2) != 0
    assert runtime.status(container) == "stopped"
    runtime.delete(container, "--force").ok()


@pytest.mark.ocirt_only("it waits")
def test_an_agent_that_takes_its_time(runtime: Runtime, bundle: MakeBundle, place: Path) -> None:
    """The program does not run before the agent has its listener."""
    made = bundle(args=["echo", "hello"], seccomp=notifying(place))
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(place))
        slow.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(place))
            process = runtime.spawn_run(made, container=runtime.new_id())
            wait_for(lambda: connecting(process.pid), "`run` to connect")
            time.sleep(0.5)
            assert connecting(process.pid)
            slow.accept()[0].close()
            with slow.accept()[0] as connection:
                out, _ = process.communicate(timeout=10)
                assert out == b"hello\n"
                assert b"seccompFd" in connection.recv(4096)


def connecting(pid: int) -> bool:
    """Whether a process sleeps in connect(2)."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith("42 ")


# Allowed by docker's profile, and newer than faccessat2 (439).
NEWER = """
    cachestat epoll_pwait2 fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat landlock_add_rule
    landlock_create_ruleset landlock_restrict_self listmount listxattrat map_shadow_stack memfd_secret mseal process_mrelease
    removexattrat setxattrat statmount
"""


@pytest.mark.parametrize("number", [441, 451, 462, 4000])
def test_a_call_newer_than_the_profile(runtime: Runtime, bundle: MakeBundle, number: int) -> None:
    """epoll_pwait2, cachestat, mseal and one that no kernel has are ENOSYS for a profile of 2020, what it knows is EPERM."""
    profile = docker_default()
    profile["syscalls"][0]["names"] = [name for name in profile["syscalls"][0]["names"] if name not in NEWER.split()]
    made = bundle(args=["/bin/probe", "call", str(number), "-1"], seccomp=profile)
    assert runtime.run(made).ok().json()["errno"] == errno.ENOSYS
    assert runtime.run(made.edit(args=["/bin/probe", "call", str(KEYCTL), "-1"])).ok().json()["errno"] == errno.EPERM
    # To whoever lets unknown calls pass, newer ones are no different.
    made.edit(args=["/bin/probe", "call", str(number), "-1"])
    passing = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]}
    assert runtime.run(made.edit(seccomp=passing)).ok().out == runtime.run(made.edit(seccomp=None)).ok().out
