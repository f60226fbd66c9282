"""containerd, driven by ctr, with ocirt as the binary that its shim calls, with runc, and with ocirt's own shim."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import SHIM, Containerd, Machine, call, need, runtime_path
from conformance.goprograms import containerd2
from tests.support.runtime import Result, wait_for
from tests.support.terminal import Terminal

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module", params=["installed", "2"])
def containerd(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Containerd]:
    """The machine's containerd, and one of version 2, for as long as this file's tests last."""
    if request.param == "installed":
        need("containerd", "containerd-shim-runc-v2", "ctr")
    made = Containerd(machine, f"ctr-{request.param}", programs=None if request.param == "installed" else containerd2())
    try:
        wait_for(made.ready, "containerd", 20)
        yield made
    finally:
        made.stop()


class Ctr:
    """ctr, and containers with one runtime."""

    def __init__(self, containerd: Containerd, runtime: str) -> None:
        self.containerd = containerd
        self.runtime = runtime
        self.machine = containerd.machine
        self.env = containerd.machine.env
        self.made: list[str] = []

    def call(self, *args: str, **options: Any) -> Result:
        """Any verb."""
        return call([*self.containerd.argv(), *args], env=self.env, **options)

    def words(self, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
        """`run` of a command in the machine's root file system, as a new container."""
        name = f"{self.machine.token}-{os.path.basename(self.runtime)}-{len(self.made)}-{time.monotonic_ns()}"
        self.made.append(name)
        runtime = ["--runtime", SHIM] if self.runtime == SHIM else ["--runc-binary", self.runtime]
        own = ["--rootfs", *runtime, "--cgroup", f"{self.machine.cgroup_parent}/{name}", "--env", _PATH]
        return ["run", *own, *flags, str(self.machine.rootfs), name, *args]

    def run(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> Result:
        """Attached, and removed at the end."""
        return self.call(*self.words(*args, flags=("--rm", *flags)), **options)

    def start(self, *args: str, flags: tuple[str, ...] = ()) -> str:
        """Detached; the container's name."""
        self.call(*self.words(*args, flags=("--detach", *flags))).ok()
        return self.made[-1]

    def status(self, container: str) -> str:
        """What `task ls` says."""
        rows = [line.split() for line in self.call("task", "ls").ok().out.splitlines()]
        return next((row[2] for row in rows if row[0] == container), "")

    def clean_up(self) -> None:
        """Remove every container."""
        for container in self.made:
            self.call("task", "rm", "--force", container)
            self.call("container", "rm", container)
        left = self.call("container", "ls", "--quiet").ok().out.split()
        assert not set(self.made).intersection(left)
        keep = {self.containerd.process.pid}
        wait_for(lambda: set(self.machine.processes()) <= keep, "the end of the shims", 10)


def runtime_of(name: str) -> str:
    """`shim` for ocirt's own."""
    return SHIM if name == "shim" else runtime_path(name)


@pytest.fixture(params=["ocirt", "runc", "shim"])
def ctr(request: pytest.FixtureRequest, containerd: Containerd, no_leaks: list[Path]) -> Iterator[Ctr]:
    """ctr with ocirt, then with runc, then with our shim."""
    made = Ctr(containerd, runtime_of(request.param))
    yield made
    made.clean_up()


def test_run(ctr: Ctr) -> None:
    """Output, exit code, the cgroup that was named."""
    result = ctr.run("sh", "-c", "echo out; echo err >&2; cut -d : -f 3 /proc/self/cgroup | sort -u; exit 7")
    assert result.rc == 7
    assert result.err.endswith("err\n")  # containerd 2 says before that cgroup version 1 is old
    assert result.out == f"out\n{ctr.machine.cgroup_parent}/{ctr.made[-1]}\n"


def test_run_with_flags(ctr: Ctr) -> None:
    """Directory, seccomp, no_new_privs, limits, read-only root, a mount, the host's network."""
    script = "pwd; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; touch /x || echo refused; head -n 1 /data/passwd"
    flags = ("--cwd", "/tmp", "--seccomp", "--read-only", "--memory-limit", "67108864", "--cpus", "0.5")
    mount = ("--mount", f"type=bind,src={ctr.machine.rootfs}/etc,dst=/data,options=rbind:ro")
    result = ctr.run("sh", "-c", script, flags=(*flags, *mount, "--net-host")).ok()
    assert result.out == "/tmp\nNoNewPrivs:\t1\nSeccomp:\t2\nrefused\nroot:x:0:0:root:/root:/bin/sh\n"


def test_run_privileged(ctr: Ctr) -> None:
    """All capabilities that this machine has, nothing masked."""
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    result = ctr.run("sh", "-c", "grep CapBnd /proc/self/status", flags=("--privileged",))
    assert result.ok().out == own + "\n"


def test_errors(ctr: Ctr) -> None:
    """containerd finds the runtime's message in its log, or gets it from our shim."""
    begin = "" if ctr.runtime == SHIM else "OCI runtime create failed: .*"
    ctr.run("/no/such/program").failed(begin + "/no/such/program.*no such file or directory")
    ctr.run("no-such-program").failed("executable file not found in")
    ctr.run("/etc/passwd").failed("permission denied")


def test_life(ctr: Ctr) -> None:
    """Run detached, exec, pause, resume, list, kill, remove."""
    container = ctr.start("sleep", "1000")
    assert ctr.status(container) == "RUNNING"

    def execute(*args: str) -> Result:
        return ctr.call("task", "exec", "--exec-id", f"e{time.monotonic_ns()}", container, *args)

    result = execute("sh", "-c", "echo inside; exit 3")
    assert (result.rc, result.out) == (3, "inside\n")
    execute("/no/such/program").failed("no such file or directory|executable file not found")
    ctr.call("task", "pause", container).ok()
    assert ctr.status(container) == "PAUSED"
    ctr.call("task", "resume", container).ok()
    assert ctr.status(container) == "RUNNING"
    assert len(ctr.call("task", "ps", container).ok().out.splitlines()) == 2
    assert "METRIC" in ctr.call("task", "metrics", container).ok().out
    ctr.call("task", "kill", "--signal", "SIGKILL", container).ok()
    wait_for(lambda: ctr.status(container) == "STOPPED", "the end")
    assert "137" in ctr.call("task", "rm", container).err
    ctr.call("container", "rm", container).ok()


def test_kill_all(ctr: Ctr) -> None:
    """`kill --all` reaches the children of init."""
    container = ctr.start("sh", "-c", "sleep 1001 & exec sleep 1000")
    wait_for(lambda: len(ctr.call("task", "ps", container).out.splitlines()) == 3, "both processes")
    ctr.call("task", "kill", "--all", "--signal", "KILL", container).ok()
    wait_for(lambda: ctr.status(container) == "STOPPED", "the end")


def test_terminal(ctr: Ctr) -> None:
    """`--tty`: the console goes to the shim over its socket."""
    command = [*ctr.containerd.argv(), *ctr.words("sh", "-c", "tty; stty size; exit 4", flags=("--rm", "--tty"))]
    with Terminal(command, env=ctr.env, rows=33, columns=99) as terminal:
        assert terminal.wait() == 4
        assert b"/dev/pts/0" in terminal.output


def test_an_unclean_end(ctr: Ctr) -> None:
    """`task rm --force` of one that runs, with children."""
    container = ctr.start("sh", "-c", "sleep 1001 & sleep 1002 & wait")
    ctr.call("task", "rm", "--force", container)
    wait_for(lambda: ctr.status(container) == "", "its removal")


RUNS: dict[str, tuple[tuple[str, ...], str]] = {
    "user": (("--user", "1000:29"), "id"),
    "drop": (("--cap-drop", "CAP_KILL", "--cap-drop", "CAP_CHOWN"), "grep ^Cap /proc/self/status"),
    "add": (("--cap-add", "CAP_NET_ADMIN"), "grep ^Cap /proc/self/status"),
    "new-privileges": (("--allow-new-privs",), "grep NoNew /proc/self/status"),
    "cpus": (("--cpu-quota", "20000", "--cpu-period", "50000", "--cpu-shares", "512"), "cat /sys/fs/cgroup/cpu/cpu.cfs_*_us"),
    "device": (("--device", "/dev/net/tun"), "ls -l /dev/net | wc -l"),
    "network-of-another": (("--with-ns", "network:/proc/self/ns/net"), "tail -n +3 /proc/net/dev | wc -l"),
    "user-namespace": (("--uidmap", "0:1000:5000", "--gidmap", "0:1000:5000"), "cat /proc/self/uid_map; id"),
    "no-pivot": (("--no-pivot",), "pwd; ls /"),
    "propagation": (("--rootfs-propagation", "slave"), "grep ' / ' /proc/self/mountinfo | grep -c master"),
    "mounts": ((), "cut -d ' ' -f 2-4 /proc/mounts | grep -v -E '^(/ |/proc/|/sys/)' | sort"),
    "directory": (("--cwd", "/made/on/demand"), "pwd"),
    "killed": ((), "sh -c 'kill -KILL $$'; exit $?"),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_as_with_runc(containerd: Containerd, no_leaks: list[Path], name: str) -> None:
    """Exit code and output are runc's, word for word."""
    flags, script = RUNS[name]
    results = []
    for each in ("ocirt", "shim", "runc"):
        ctr = Ctr(containerd, runtime_of(each))
        results.append(ctr.run("sh", "-c", script, flags=flags))
        ctr.clean_up()
    *seen, expected = ((result.rc, result.out) for result in results)
    assert seen == [expected, expected], results[0].err + results[1].err


def test_stdin(ctr: Ctr) -> None:
    """What ctr reads the container reads, in `run` and in `exec`."""
    assert ctr.run("sh", "-c", "read line; echo got $line", stdin="a word\n").ok().out == "got a word\n"


def test_exec_with_flags(ctr: Ctr) -> None:
    """A terminal, a user, a directory; a signal to the exec'd process alone."""
    container = ctr.start("sleep", "1000")
    words = ["task", "exec", "--exec-id", "terminal", "--tty", container, "sh", "-c", "tty; exit 6"]
    with Terminal([*ctr.containerd.argv(), *words], env=ctr.env, rows=20, columns=50) as terminal:
        assert terminal.wait() == 6
        assert b"/dev/pts/" in terminal.output
    flags = ("--exec-id", "user", "--user", "1000", "--cwd", "/tmp")
    assert ctr.call("task", "exec", *flags, container, "sh", "-c", "id -u; pwd").ok().out == "1000\n/tmp\n"
    ctr.call("task", "exec", "--exec-id", "long", "--detach", container, "sh", "-c", "echo x >/tmp/there; exec sleep 1001").ok()
    wait_for(lambda: len(ctr.call("task", "ps", container).out.splitlines()) == 3, "the second process")
    ctr.call("task", "kill", "--exec-id", "long", "--signal", "KILL", container).ok()
    wait_for(lambda: len(ctr.call("task", "ps", container).out.splitlines()) == 2, "its end")
    assert ctr.status(container) == "RUNNING"


def test_pause_and_remove(ctr: Ctr) -> None:
    """Nothing runs in a paused container; it can be removed by force."""
    container = ctr.start("sh", "-c", "while :; do sleep 0.02; done")
    ctr.call("task", "pause", container).ok()
    ctr.call("task", "exec", "--exec-id", "e", container, "true").failed("paus")
    ctr.call("task", "rm", "--force", container)
    wait_for(lambda: ctr.status(container) == "", "its removal")
