"""docker with `--runtime ocirt`: a dockerd of our own, without a network, beside the same dockerd with runc.

Every test of the second half runs once with each of them, so what it expects is what runc does, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import Containerd, Machine, call, need, ours, program, runtime_path
from conformance.runs import CODES, RUNS, Runs, comparable
from tests.support.runtime import Result, wait_for
from tests.support.terminal import Terminal

IMAGE = "ocirt-test"
SLEEP = ("sleep", "1000")


class Dockerd:
    """A dockerd of our own, with a containerd of our own: one that dockerd starts makes a directory in /opt."""

    def __init__(self, machine: Machine, runtimes: dict[str, str], name: str = "docker") -> None:
        self.machine = machine
        self.containerd = Containerd(machine, name)
        self.address = f"unix://{machine.path}/{name}.sock"
        self.env = {**machine.env, "DOCKER_HOST": self.address, "DOCKER_CONFIG": str(machine.path)}
        place = machine.path / f"{name}d"
        place.mkdir()
        # Else it is made in /etc/docker.
        (place / "daemon.json").write_text(json.dumps({"deprecated-key-path": f"{place}/key.json"}))
        words = [
            *("--config-file", f"{place}/daemon.json", "--host", self.address, "--containerd", self.containerd.address),
            *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec", "--pidfile", f"{place}/pid"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
            *("--storage-driver", {"overlay": "overlay2"}.get(machine.driver, machine.driver)),
            *("--cgroup-parent", machine.cgroup_parent),
            *(f"--add-runtime={name}={path}" for name, path in runtimes.items()),
        ]
        self.log = place / "log"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            wait_for(self.containerd.ready, "containerd", 20)
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [program("dockerd") or "dockerd", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=machine.env
                )
        except BaseException:
            self.stop()
            raise

    def ready(self) -> bool:
        """Whether it answers. Raises RuntimeError with its last words when it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text().strip().rpartition("\n")[2])
        return call([program("docker") or "docker", "version"], env=self.env).rc == 0

    def stop(self) -> None:
        """End both."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.containerd.stop()


@pytest.fixture(scope="module")
def dockerd(machine: Machine) -> Iterator[Dockerd]:
    """A dockerd with the image, for as long as this file's tests last. Skips them with its own words where it cannot run."""
    need("docker", "dockerd", "containerd", "containerd-shim-runc-v2")
    made = Dockerd(machine, {"ocirt": ours(), "peer": _peer()})
    try:
        try:
            wait_for(made.ready, "dockerd", 60)
        except RuntimeError as error:
            if "failed to start daemon" not in str(error):  # it did not get as far as the machine
                raise
            pytest.skip(f"dockerd does not start on this machine: {error}")
        first = Docker(made, "ocirt")
        first.call("import", machine.image, IMAGE).ok()
        # dockerd keeps the host's network namespace from the first of these on. Whatever comes of it: the tests will say.
        first.run("true", flags=["--network", "host"])
        yield made
    finally:
        made.stop()


def _peer() -> str:
    # The tests with the peer are skipped where there is none; dockerd only notes the path.
    try:
        return runtime_path("runc")
    except pytest.skip.Exception:
        return "runc"


class Docker:
    """The client, and containers with one runtime: `ocirt` or `peer`."""

    def __init__(self, dockerd: Dockerd, runtime: str) -> None:
        self.dockerd = dockerd
        self.runtime = runtime
        self.env = dockerd.env

    def argv(self, *args: str | Path) -> list[str]:
        """The whole command line of one call."""
        return [program("docker") or "docker", *map(str, args)]

    def call(self, *args: str | Path, **options: Any) -> Result:
        """Any verb."""
        return call(self.argv(*args), env=self.env, **options)

    def flags(self, *flags: str | Path) -> list[str | Path]:
        """What `run` and `create` get: the runtime, and no network unless the flags choose one."""
        named = any(str(flag).partition("=")[0] in ("--network", "--net") for flag in flags)
        return ["--runtime", self.runtime, *([] if named else ["--network", "none"]), *flags]

    def run(self, *args: str | Path, flags: Sequence[str | Path] = (), **options: Any) -> Result:
        """`run --rm` of a command in the image."""
        return self.call("run", "--rm", *self.flags(*flags), IMAGE, *args, **options)

    def start(self, *args: str | Path, flags: Sequence[str | Path] = ()) -> str:
        """`run --detach` of a command in the image, which has to succeed; the container's id."""
        return self.call("run", "--detach", *self.flags(*flags), IMAGE, *args).ok().out.strip()

    def inspect(self, container: str, field: str) -> str:
        """One field of `inspect`, as `.State.Status`."""
        return self.call("inspect", "--format", f"{{{{{field}}}}}", container).ok().out.strip()

    def clean_up(self) -> None:
        """Remove every container and wait for the shims' end."""
        if names := self.call("ps", "--all", "--quiet").ok().out.split():
            self.call("rm", "--force", "--volumes", *names).ok()
        assert self.dockerd.process is not None
        keep = {self.dockerd.process.pid, self.dockerd.containerd.process.pid}
        wait_for(lambda: set(self.dockerd.machine.processes()) <= keep, "the end of the shims", 10)


@pytest.fixture(params=["ocirt", "runc"])
def docker(request: pytest.FixtureRequest, dockerd: Dockerd, no_leaks: list[Path]) -> Iterator[Docker]:
    """docker with ocirt, then with runc; its containers are removed afterwards."""
    runtime_path(request.param)  # skips where there is no runc
    made = Docker(dockerd, {"runc": "peer"}.get(request.param, request.param))
    yield made
    made.clean_up()


@pytest.fixture
def ocirt(dockerd: Dockerd, no_leaks: list[Path]) -> Iterator[Docker]:
    """docker with ocirt."""
    made = Docker(dockerd, "ocirt")
    yield made
    made.clean_up()


# What docker has beside the common forms.
DOCKER: Runs = {
    "swap": (["--memory", "64m", "--memory-swap", "-1", "--memory-reservation", "32m"], ["true"]),
    "privileged": (["--privileged"], ["sh", "-c", "grep ^Cap /proc/self/status; grep -c ' /proc/' /proc/mounts; ls /dev"]),
    "unmask": (["--security-opt", "systempaths=unconfined"], ["sh", "-c", "grep -c ' /proc/' /proc/mounts"]),
    "entrypoint": (["--entrypoint", "/bin/echo"], ["by", "echo"]),
    "device-rule": (["--device-cgroup-rule", "c 1:11 rwm"], ["sh", "-c", "mknod /tmp/k c 1 11 && : <>/tmp/k && echo opened"]),
    "block-weight": (["--blkio-weight", "300"], ["true"]),
    "no-oom-killer": (["--memory", "32m", "--oom-kill-disable"], ["true"]),
    "cpu-period": (["--cpu-period", "50000", "--cpu-quota", "20000", "--cpuset-mems", "0"], ["true"]),
    "no-init": (["--init=false"], ["sh", "-c", "echo $$"]),
    "domain": (["--hostname", "a", "--domainname", "b.example"], ["sh", "-c", "cat /proc/sys/kernel/domainname; hostname"]),
    "unknown-network": (["--network", "no-such-network"], ["true"]),
    "bad-user": (["--user", "nobody-there"], ["true"]),
    "bad-directory": (["--workdir", "/etc/passwd"], ["true"]),
}


@pytest.mark.parametrize("name", RUNS | DOCKER)
def test_run_as_with_runc(ocirt: Docker, name: str) -> None:
    """Exit code and output are runc's, word for word; of an error what it is about."""
    runtime_path("runc")
    if name == "init" and program("docker-init") is None:
        pytest.skip("docker's --init needs docker-init, which is not installed")
    flags, command = (RUNS | DOCKER)[name]
    results = [
        Docker(ocirt.dockerd, runtime).run(*command, flags=flags, stdin="a word\n" if name == "stdin" else None)
        for runtime in ("ocirt", "peer")
    ]
    seen, expected = map(comparable, results)
    assert seen == expected, results[0].err
    if name in CODES:
        assert results[0].rc == CODES[name]


@pytest.mark.parametrize(
    "words",
    [
        ["C", "/no/such/program"],
        ["C", "no-such-program"],
        ["C", "/etc/passwd"],
        ["--workdir", "/nowhere", "C", "true"],
        ["--user", "nobody-there", "C", "true"],
        ["--privileged", "C", "grep", "^Cap", "/proc/self/status"],  # on a machine without some of them an error
        ["--tty", "C", "/no/such/program"],
    ],
    ids=["not-found", "not-in-path", "not-executable", "bad-directory", "bad-user", "privileged", "not-found-tty"],
)
def test_exec_as_with_runc(ocirt: Docker, words: list[str]) -> None:
    """The exit code is the one that this docker makes of runc's words."""
    runtime_path("runc")
    results = []
    for runtime in ("ocirt", "peer"):
        docker = Docker(ocirt.dockerd, runtime)
        container = docker.start(*SLEEP, flags=["--cap-drop", "all"])
        results.append(docker.call("exec", *(container if word == "C" else word for word in words)))
    assert results[0].rc == results[1].rc, results
    if results[0].rc == 0:
        assert results[0].out == results[1].out


def test_errors_are_understood(ocirt: Docker) -> None:
    """The shim finds the runtime's message in its log; docker makes an exit code of its words."""
    result = ocirt.run("/no/such/program").failed("OCI runtime create failed: .*/no/such/program", rc=127)
    assert "no such file or directory" in result.err


def test_life(docker: Docker) -> None:
    """run --detach, exec, logs, inspect, stop, start again, rm."""
    container = docker.start("sh", "-c", "echo begun; trap 'echo ended; exit 5' TERM; while :; do sleep 0.05; done")
    wait_for(lambda: "begun" in docker.call("logs", container).out, "output in the log")
    assert docker.inspect(container, ".State.Status") == "running"
    assert docker.inspect(container, ".HostConfig.Runtime") == docker.runtime
    pid = int(docker.inspect(container, ".State.Pid"))
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")

    assert docker.call("exec", container, "echo", "inside").ok().out == "inside\n"
    assert docker.call("exec", container, "sh", "-c", "exit 9").rc == 9

    docker.call("stop", "--time", "10", container).ok()
    assert docker.inspect(container, ".State.Status") == "exited"
    assert docker.inspect(container, ".State.ExitCode") == "5"
    assert docker.call("logs", container).ok().out == "begun\nended\n"
    docker.call("exec", container, "true").failed("is not running", rc=1)

    docker.call("start", container).ok()
    assert docker.inspect(container, ".State.Status") == "running"
    docker.call("rm", container).failed("running container|container is running", rc=1)
    docker.call("rm", "--force", container).ok()
    assert docker.call("inspect", container).rc == 1


def test_exec_gets_what_it_asks_for(docker: Docker) -> None:
    """User, environment, directory, capabilities, stdin, detached."""
    container = docker.start(*SLEEP, flags=["--cap-drop", "all"])

    def in_it(*args: str, **options: Any) -> str:
        return docker.call("exec", *args, **options).ok().out

    assert in_it("--user", "alice", container, "id", "-u") == "1000\n"
    assert in_it("--env", "A=b", "--workdir", "/tmp", container, "sh", "-c", "echo $A; pwd") == "b\n/tmp\n"
    assert in_it("--interactive", container, "cat", stdin="text\n") == "text\n"
    assert "CapEff:\t0000000000000000" in in_it(container, "cat", "/proc/self/status")
    in_it("--detach", container, "sh", "-c", "echo x >/tmp/there; exec sleep 1000")
    wait_for(lambda: docker.call("exec", container, "test", "-s", "/tmp/there").rc == 0, "the detached process")
    assert docker.call("top", container, "-o", "pid,args").ok().out.count("sleep 1000\n") == 2


def test_many_execs_at_once(docker: Docker) -> None:
    """Ten, each with its own exit code."""
    container = docker.start(*SLEEP)
    running = [
        subprocess.Popen(
            docker.argv("exec", container, "sh", "-c", f"sleep 0.1; exit {number}"),
            env=docker.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for number in range(10)
    ]
    assert [process.wait(30) for process in running] == list(range(10))


def test_kill_ends_an_attached_run(docker: Docker) -> None:
    """137 for the one who waits, and for `wait`."""
    with subprocess.Popen(
        docker.argv("run", "--name", "victim", *docker.flags(), IMAGE, "sh", "-c", "echo up; exec sleep 1000"),
        env=docker.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"up\n"
        docker.call("kill", "victim").ok()
        assert waiting.wait(20) == 137
    assert docker.call("wait", "victim").ok().out == "137\n"


def test_signals(docker: Docker) -> None:
    """By name and by number; an attached docker passes on what it is sent; `--stop-signal` is what `stop` sends."""
    container = docker.start("/bin/probe", "catch", flags=["--stop-signal", "HUP"])
    wait_for(lambda: "ready" in docker.call("logs", container).out, "readiness")
    for word in ("USR1", "SIGHUP", "12"):
        docker.call("kill", "--signal", word, container).ok()
    wait_for(lambda: docker.call("logs", container).out == "ready\n10\n1\n12\n", "the signals")
    docker.call("stop", "--time", "1", container).ok()
    assert docker.call("logs", container).out == "ready\n10\n1\n12\n1\n"
    with subprocess.Popen(
        docker.argv("run", "--rm", *docker.flags(), IMAGE, "/bin/probe", "catch"),
        env=docker.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"ready\n"
        waiting.send_signal(signal.SIGTERM)
        assert waiting.stdout.readline() == b"15\n"
        assert waiting.wait(20) == 0


def test_stop_of_the_deaf(docker: Docker) -> None:
    """A program that does not listen to SIGTERM is killed after the time that was given."""
    container = docker.start("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    docker.call("stop", "--time", "1", container).ok()
    assert 0.9 < time.monotonic() - began < 5
    assert docker.inspect(container, ".State.ExitCode") == "137"


def test_pause(docker: Docker) -> None:
    """Paused, and on again; a paused container can be removed by force."""
    container = docker.start("sh", "-c", "while :; do echo tick; sleep 0.02; done")
    docker.call("pause", container).ok()
    assert docker.inspect(container, ".State.Status") == "paused"
    docker.call("exec", container, "true").failed("is paused", rc=1)
    before = docker.call("logs", container).out
    time.sleep(0.2)
    assert docker.call("logs", container).out == before
    docker.call("unpause", container).ok()
    wait_for(lambda: len(docker.call("logs", container).out) > len(before), "more output")
    docker.call("pause", container).ok()
    docker.call("rm", "--force", container).ok()


def test_create_start_attach(docker: Docker) -> None:
    """A container that was created is started later, and waited for; another is attached to while it runs."""
    container = docker.call("create", *docker.flags(), IMAGE, "sh", "-c", "exit 6").ok().out.strip()
    assert docker.inspect(container, ".State.Status") == "created"
    assert docker.call("start", "--attach", container).rc == 6
    container = docker.start("sh", "-c", "read line; echo got $line; exit 2", flags=["--interactive"])
    assert docker.call("attach", container, stdin="a line\n").rc == 2
    assert docker.call("logs", container).ok().out == "got a line\n"


def test_restart(docker: Docker) -> None:
    """Another init, the same files."""
    container = docker.start("sh", "-c", "echo x >>/count; exec sleep 1000")
    wait_for(lambda: docker.call("exec", container, "test", "-s", "/count").rc == 0, "the first start")
    pid = docker.inspect(container, ".State.Pid")
    docker.call("restart", "--time", "0", container).ok()
    assert docker.inspect(container, ".State.Pid") != pid
    wait_for(lambda: docker.call("exec", container, "cat", "/count").out == "x\nx\n", "the second start")


def test_restart_by_policy(docker: Docker) -> None:
    """`--restart on-failure:2`: three lives, then it stays down."""
    container = docker.start("sh", "-c", "echo life; exit 3", flags=["--restart", "on-failure:2"])
    wait_for(
        lambda: docker.inspect(container, ".State.Status .RestartCount".replace(" ", "}} {{")) == "exited 2", "the last end", 20
    )
    assert docker.call("logs", container).ok().out == "life\n" * 3
    assert docker.inspect(container, ".State.ExitCode") == "3"


def test_terminal(docker: Docker) -> None:
    """A terminal of the container's own, with its window's size, and an exit code at the end."""
    # The window's size comes a moment after the start.
    script = "tty; until stty size | grep -q '31 97'; do sleep 0.05; done; stty size; read line; echo got $line; exit 4"
    command = docker.argv("run", "--rm", "--tty", "--interactive", *docker.flags(), IMAGE, "sh", "-c", script)
    with Terminal(command, env=docker.env, rows=31, columns=97) as terminal:
        terminal.expect("31 97")
        terminal.write("word\n")
        assert "got word" in terminal.expect("got word")
        assert terminal.wait() == 4
        assert b"/dev/pts/0" in terminal.output


def test_terminal_of_exec(docker: Docker) -> None:
    """`exec --tty` in a container without a terminal."""
    container = docker.start(*SLEEP)
    script = "tty; until stty size | grep -q '20 50'; do sleep 0.05; done; exit 8"
    command = docker.argv("exec", "--tty", "--interactive", container, "sh", "-c", script)
    with Terminal(command, env=docker.env, rows=20, columns=50) as terminal:
        assert terminal.wait() == 8
        assert b"/dev/pts/" in terminal.output


def test_terminal_of_a_detached_container(docker: Docker) -> None:
    """Its output goes to the log, with a carriage return, as a terminal has it."""
    container = docker.start("sh", "-c", "test -t 0 && test -t 1 && echo yes", flags=["--tty"])
    docker.call("wait", container).ok()
    assert docker.call("logs", container).ok().out == "yes\r\n"


def test_volumes(docker: Docker, tmp_path: Path) -> None:
    """Bound directories, read-only and not, one whose propagation is named; a named volume keeps its files."""
    for name in ("writable", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name + "\n")
    flags = [
        *("--volume", f"{tmp_path}/writable:/data"),
        *("--volume", f"{tmp_path}/closed:/closed:ro"),
        *("--mount", f"type=bind,source={tmp_path},destination=/private,bind-propagation=rprivate,readonly"),
        *("--volume", "ocirt-test:/kept"),
    ]
    script = "cat /data/file /closed/file /private/closed/file; echo new >/data/file; echo x >/closed/file || echo refused"
    try:
        result = docker.run("sh", "-c", script + "; echo kept >/kept/file", flags=flags).ok()
        assert result.out == "writable\nclosed\nclosed\nrefused\n"
        assert docker.run("cat", "/kept/file", flags=["--volume", "ocirt-test:/kept"]).ok().out == "kept\n"
    finally:
        docker.call("volume", "rm", "ocirt-test").ok()
    assert (tmp_path / "writable" / "file").read_text() == "new\n"
    assert (tmp_path / "closed" / "file").read_text() == "closed\n"


def test_namespaces_of_another_container(docker: Docker) -> None:
    """Joined by path: network, IPC and PID namespace."""
    container = docker.start(*SLEEP, flags=["--ipc", "shareable"])
    flags = [word for kind in ("network", "ipc", "pid") for word in (f"--{kind}", f"container:{container}")]
    script = "for kind in net ipc pid; do readlink /proc/1/ns/$kind; readlink /proc/self/ns/$kind; done"
    words = docker.run("sh", "-c", script, flags=[*flags, "--cap-add", "sys_ptrace"]).ok().out.split()
    assert len(words) == 6
    assert words[::2] == words[1::2]


def test_out_of_memory(docker: Docker) -> None:
    """A program that takes more than the limit is killed, and docker hears why."""
    if not os.path.isdir("/sys/fs/cgroup/memory") and "memory" not in _controllers():
        pytest.skip("this machine's cgroups have no memory controller")
    container = docker.start("tail", "/dev/zero", flags=["--memory", "16m", "--memory-swap", "16m"])
    assert docker.call("wait", container).ok().out == "137\n"
    assert docker.inspect(container, ".State.OOMKilled") == "true"


def test_update(docker: Docker) -> None:
    """Another limit of memory, another processor, fewer processes, while it runs."""
    if not os.path.isdir("/sys/fs/cgroup/memory") and not {"memory", "cpu", "cpuset", "pids"} <= set(_controllers()):
        pytest.skip("this machine's cgroups have no controllers of memory and processors")
    container = docker.start(*SLEEP, flags=["--memory", "256m", "--memory-swap", "256m", "--cpu-shares", "512"])
    pid = int(docker.inspect(container, ".State.Pid"))
    take = ("exec", container, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    docker.call(*take).ok()
    docker.call("update", "--memory", "16m", "--memory-swap", "16m", container).ok()
    docker.call(*take).failed("", rc=137)
    docker.call("update", "--cpuset-cpus", "0", container).ok()
    assert os.sched_getaffinity(pid) == {0}
    docker.call("update", "--memory", "256m", "--memory-swap", "256m", "--pids-limit", "20", container).ok()
    docker.call(*take).ok()
    docker.call("exec", container, "sh", "-c", "for i in $(seq 30); do sleep 1 & done").failed("fork|exec failed|unavailable")
    docker.call("update", "--cpuset-cpus", "99", container).failed("cpuset|CPUs|available")
    assert os.sched_getaffinity(pid) == {0}


def _controllers() -> list[str]:
    try:
        return Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    except OSError:
        return []


def test_top_and_stats(docker: Docker) -> None:
    """The container's processes, and its counters."""
    container = docker.start("sh", "-c", "sleep 1001 & exec sleep 1000")
    wait_for(lambda: len(docker.call("top", container).out.splitlines()) == 3, "both processes")
    stats = json.loads(docker.call("stats", "--no-stream", "--format", "json", container).ok().out)
    assert stats["PIDs"] == "2"


def test_copy(docker: Docker, tmp_path: Path) -> None:
    """Files into a running container, and out of it."""
    container = docker.start(*SLEEP)
    (tmp_path / "in").write_text("text\n")
    docker.call("cp", tmp_path / "in", f"{container}:/tmp/file").ok()
    assert docker.call("exec", container, "cat", "/tmp/file").ok().out == "text\n"
    docker.call("cp", f"{container}:/tmp/file", tmp_path / "out").ok()
    assert (tmp_path / "out").read_text() == "text\n"


def test_health_check(docker: Docker) -> None:
    """dockerd runs it by exec: healthy, and then not."""
    flags = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "0.3s", "--health-retries", "1"]
    container = docker.start(*SLEEP, flags=flags)
    wait_for(lambda: docker.inspect(container, ".State.Health.Status") == "healthy", "health", 20)
    docker.call("exec", container, "touch", "/tmp/sick").ok()
    wait_for(lambda: docker.inspect(container, ".State.Health.Status") == "unhealthy", "sickness", 20)


def test_short_lives(docker: Docker) -> None:
    """Ten containers that end at once: each exit code arrives."""
    for number in range(10):
        assert docker.run("sh", "-c", f"exit {number}").rc == number


def test_the_containers_cgroups_go(docker: Docker) -> None:
    """After `rm` no cgroup of the container is left."""
    container = docker.start(*SLEEP)
    pid = docker.inspect(container, ".State.Pid")
    paths = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    assert all(container in path for path in paths)
    docker.call("rm", "--force", container).ok()
    left = [root for root in Path("/sys/fs/cgroup").glob("*") for path in paths if (root / path[1:]).is_dir()]
    assert left == []
