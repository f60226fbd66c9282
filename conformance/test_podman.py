"""podman with `--runtime ocirt`, beside the same podman with runc.

Every test of the second half runs once with each of them, so what it expects is what runc does, too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.drivers import IMAGE, Machine, Podman, User, call, need, ours, peer, podman_storage, program
from conformance.runs import CODES, RUNS, Runs, comparable
from tests.support.build import copy_clone
from tests.support.runtime import wait_for
from tests.support.terminal import Terminal

SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module", params=["root", "user"])
def caller(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Podman]:
    """podman with the image and with ocirt, by root, and by a user who has subordinate ids."""
    need("podman", "conmon")
    if request.param == "root":
        with podman_storage(Podman(machine, ours())) as made:
            yield made
        return
    need("newuidmap", "newgidmap", "setpriv")
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-clone-"))
    user = User(machine)
    try:
        runtime = ours()
        if not user.can_read(runtime):
            runtime = str(copy_clone(place))
        with podman_storage(Podman(machine, runtime, user)) as made:
            yield made
    finally:
        user.remove()
        shutil.rmtree(place)


@pytest.fixture
def shared(caller: Podman, no_leaks: list[Path]) -> Path:
    """A directory that podman and its containers can read and write."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(place)
    place.chmod(0o711)
    if caller.user:
        os.chown(place, caller.user.uid, caller.user.uid)
    return place


def write(path: Path, text: str) -> None:
    """Make a file that belongs to its directory's owner."""
    path.write_text(text)
    os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)


@pytest.fixture(params=["ocirt", "runc"])
def podman(request: pytest.FixtureRequest, caller: Podman, no_leaks: list[Path]) -> Iterator[Podman]:
    """podman with ocirt, then with runc; its containers are removed afterwards."""
    made = caller if request.param == "ocirt" else with_peer(caller)
    yield made
    made.clean_up()


@pytest.fixture
def ocirt(caller: Podman, no_leaks: list[Path]) -> Iterator[Podman]:
    """podman with ocirt."""
    yield caller
    caller.clean_up()


def with_peer(podman: Podman) -> Podman:
    """The same podman with runc. Skips the test where there is none."""
    path = peer()
    if podman.user and not podman.user.can_read(path):
        pytest.skip(f"{path} is closed to users who are not root")
    return podman.with_runtime(path)


# What podman has beside it.
PODMAN: Runs = {
    "new-directory": (["--workdir", "/made/on/demand"], ["pwd"]),
    "umask": (["--umask", "077"], ["sh", "-c", "umask"]),
    "read-only-tmpfs": (["--read-only", "--read-only-tmpfs=false"], ["sh", "-c", "touch /tmp/file"]),
    "mount-tmpfs": (["--mount", "type=tmpfs,destination=/home,tmpfs-size=1m,ro"], ["sh", "-c", "touch /home/x"]),
    "swap": (["--memory", "64m", "--memory-swap", "-1", "--memory-reservation", "32m"], ["true"]),
    "mask": (["--security-opt", "mask=/proc/version"], ["sh", "-c", "cat /proc/version | wc -c"]),
    "unmask": (["--security-opt", "unmask=ALL"], ["sh", "-c", "ls -d /proc/acpi/* /proc/sys/kernel/msgmax"]),
    "user-namespace": (
        ["--uidmap", "0:1000:5000", "--gidmap", "0:1000:5000", "--network", "none"],
        ["sh", "-c", "cat /proc/self/uid_map; id; touch /file && stat -c %u /file; ls /dev"],
    ),
    "entrypoint": (["--entrypoint", '["/bin/sh", "-c"]'], ["echo by $0"]),
    "annotation": (["--annotation", "org.example.a=b"], ["true"]),
    "systemd": (["--systemd", "always"], ["sh", "-c", "grep -c -E ' (/run|/run/lock|/tmp|/var/log/journal) ' /proc/mounts"]),
    "no-hosts": (["--no-hosts", "--timeout", "20"], ["true"]),
}


@pytest.mark.parametrize("name", RUNS | PODMAN)
def test_run_as_with_runc(ocirt: Podman, name: str) -> None:
    """Exit code and output are runc's, word for word; of an error what it is about."""
    if name == "init" and not any(map(program, ("catatonit", "/usr/libexec/podman/catatonit"))):
        pytest.skip("podman's --init needs catatonit, which is not installed")
    flags, command = (RUNS | PODMAN)[name]
    results = [
        podman.run(*command, flags=flags, stdin="a word\n" if name == "stdin" else None) for podman in (ocirt, with_peer(ocirt))
    ]
    seen, expected = map(comparable, results)
    assert seen == expected, results[0].err
    if name in CODES:
        assert results[0].rc == CODES[name]


def test_errors_are_understood(ocirt: Podman) -> None:
    """podman reads the runtime's log as JSON and shows its text, in one line."""
    result = ocirt.run("/no/such/program").failed(rc=127)
    assert result.err.count("\n") == 1
    assert re.fullmatch(
        r"Error: .*ocirt.*/no/such/program.*: OCI runtime attempted to invoke a command that was not found\n", result.err
    )


def test_life(podman: Podman) -> None:
    """run --detach, exec, logs, inspect, stop, start again, rm."""
    container = podman.start("sh", "-c", "echo begun; trap 'echo ended; exit 5' TERM; while :; do sleep 0.05; done")
    wait_for(lambda: "begun" in podman.call("logs", container).out, "output in the log")
    assert podman.inspect(container, ".State.Status") == "running"
    assert podman.inspect(container, ".OCIRuntime") == podman.runtime
    pid = int(podman.inspect(container, ".State.Pid"))
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")

    assert podman.call("exec", container, "echo", "inside").ok().out == "inside\n"
    assert podman.call("exec", container, "sh", "-c", "exit 9").rc == 9
    assert podman.call("exec", container, "/no/such/program").rc == 127
    assert podman.call("exec", container, "/etc/passwd").rc == 126

    podman.call("stop", "--time", "10", container).ok()
    assert podman.inspect(container, ".State.Status") == "exited"
    assert podman.inspect(container, ".State.ExitCode") == "5"
    assert podman.call("logs", container).ok().out == "begun\nended\n"
    podman.call("exec", container, "true").failed("container state improper|not running", rc=255)

    podman.call("start", container).ok()
    assert podman.inspect(container, ".State.Status") == "running"
    podman.call("rm", "--force", "--time", "0", container).ok()
    assert podman.call("container", "exists", container).rc == 1


def test_exec_gets_what_it_asks_for(podman: Podman, tmp_path: Path) -> None:
    """User, environment, directory, capabilities, stdin, preserved descriptors."""
    container = podman.start(*SLEEP, flags=["--cap-drop", "all"])

    def in_it(*args: str, **options: object) -> str:
        return podman.call("exec", *args, **options).ok().out

    assert in_it("--user", "alice", container, "id", "-u") == "1000\n"
    assert in_it("--env", "A=b", "--workdir", "/tmp", container, "sh", "-c", "echo $A; pwd") == "b\n/tmp\n"
    assert in_it("--interactive", container, "cat", stdin="text\n") == "text\n"
    assert "CapEff:\t0000000000000000" in in_it(container, "cat", "/proc/self/status")
    assert "CapEff:\t0000000000000000" not in in_it("--privileged", container, "cat", "/proc/self/status")
    (tmp_path / "file").write_text("from outside\n")
    words = podman.argv("exec", "--preserve-fds", "1", container, "sh", "-c", "cat <&3")
    command = ["sh", "-c", 'exec "$@" 3<"$0"', str(tmp_path / "file"), *words]
    assert call(command, env=podman.env).ok().out == "from outside\n"


def test_exec_detached(podman: Podman) -> None:
    """It goes on when podman has returned."""
    container = podman.start(*SLEEP)
    podman.call("exec", "--detach", container, "sh", "-c", "echo $$ >/tmp/pid; exec sleep 1000").ok()
    wait_for(lambda: podman.call("exec", container, "test", "-s", "/tmp/pid").rc == 0, "the process")
    assert podman.call("top", container, "args").ok().out.split()[1:] == ["sleep", "1000"] * 2


def test_many_execs_at_once(podman: Podman) -> None:
    """Ten, each with its own exit code."""
    container = podman.start(*SLEEP)
    running = [
        subprocess.Popen(
            podman.argv("exec", container, "sh", "-c", f"sleep 0.1; exit {number}"),
            env=podman.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for number in range(10)
    ]
    assert [process.wait(30) for process in running] == list(range(10))


def test_kill_ends_an_attached_run(podman: Podman) -> None:
    """137 for the one who waits, and for `wait`."""
    with subprocess.Popen(
        podman.argv("run", "--name", "victim", *podman.flags(), IMAGE, "sh", "-c", "echo up; exec sleep 1000"),
        env=podman.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"up\n"
        podman.call("kill", "victim").ok()
        assert waiting.wait(20) == 137
    assert podman.call("wait", "victim").ok().out == "137\n"


def test_signals(podman: Podman) -> None:
    """By name and by number; an attached podman passes on what it is sent."""
    container = podman.start("/bin/probe", "catch")
    wait_for(lambda: "ready" in podman.call("logs", container).out, "readiness")
    for word in ("USR1", "SIGHUP", "12"):
        podman.call("kill", "--signal", word, container).ok()
    wait_for(lambda: podman.call("logs", container).out == "ready\n10\n1\n12\n", "the signals")
    with subprocess.Popen(
        podman.argv("run", "--rm", *podman.flags(), IMAGE, "/bin/probe", "catch"),
        env=podman.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"ready\n"
        time.sleep(0.5)  # podman may show output before it is ready to pass signals on
        waiting.send_signal(signal.SIGTERM)
        assert waiting.stdout.readline() == b"15\n"
        assert waiting.wait(20) == 0


def test_stop_of_the_deaf(podman: Podman) -> None:
    """A program that does not listen to SIGTERM is killed after the time that was given."""
    container = podman.start("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    podman.call("stop", "--time", "1", container).ok()
    assert 0.9 < time.monotonic() - began < 5
    assert podman.inspect(container, ".State.ExitCode") == "137"


def test_pause(podman: Podman) -> None:
    """Paused, and on again; a paused container can be removed by force."""
    podman.need_cgroups()
    container = podman.start("sh", "-c", "while :; do echo tick; sleep 0.02; done")
    podman.call("pause", container).ok()
    assert podman.inspect(container, ".State.Status") == "paused"
    podman.call("exec", container, "true").failed("paused|container state improper", rc=255)
    before = podman.call("logs", container).out
    time.sleep(0.2)
    assert podman.call("logs", container).out == before
    podman.call("unpause", container).ok()
    wait_for(lambda: len(podman.call("logs", container).out) > len(before), "more output")
    podman.call("pause", container).ok()
    podman.call("rm", "--force", "--time", "0", container).ok()


def test_create_init_start(podman: Podman) -> None:
    """A container that was created is started later, and waited for."""
    container = podman.call("create", *podman.flags(), IMAGE, "sh", "-c", "exit 6").ok().out.strip()
    podman.call("init", container).ok()
    assert podman.inspect(container, ".State.Status") == "initialized"
    assert int(podman.inspect(container, ".State.Pid")) > 0
    assert podman.call("start", "--attach", container).rc == 6


def test_restart(podman: Podman) -> None:
    """Another init, the same files."""
    container = podman.start("sh", "-c", "echo x >>/count; exec sleep 1000")
    wait_for(lambda: podman.call("exec", container, "test", "-s", "/count").rc == 0, "the first start")
    pid = podman.inspect(container, ".State.Pid")
    podman.call("restart", "--time", "0", container).ok()
    assert podman.inspect(container, ".State.Pid") != pid
    wait_for(lambda: podman.call("exec", container, "cat", "/count").out == "x\nx\n", "the second start")


def test_terminal(podman: Podman) -> None:
    """A terminal of the container's own, with its window's size, and an exit code at the end."""
    script = "tty; stty size; read line; echo got $line; exit 4"
    command = podman.argv("run", "--rm", "--tty", "--interactive", *podman.flags(), IMAGE, "sh", "-c", script)
    with Terminal(command, env=podman.env, rows=31, columns=97) as terminal:
        terminal.expect("31 97")
        terminal.write("word\n")
        assert "got word" in terminal.expect("got word")
        assert terminal.wait() == 4
        assert b"/dev/pts/0" in terminal.output


def test_terminal_of_exec(podman: Podman) -> None:
    """`exec --tty` in a container without a terminal."""
    container = podman.start(*SLEEP)
    command = podman.argv("exec", "--tty", "--interactive", container, "sh", "-c", "tty; stty size; exit 8")
    with Terminal(command, env=podman.env, rows=20, columns=50) as terminal:
        assert terminal.wait() == 8
        assert b"/dev/pts/" in terminal.output
        assert b"20 50" in terminal.output


def test_terminal_of_a_detached_container(podman: Podman) -> None:
    """Its output goes to the log, with a carriage return, as a terminal has it."""
    container = podman.start("sh", "-c", "test -t 0 && test -t 1 && echo yes", flags=["--tty"])
    podman.call("wait", container).ok()
    assert podman.call("logs", container).ok().out == "yes\r\n"


def test_bind_mounts(podman: Podman, shared: Path) -> None:
    """Read-only and not, a file, and one whose propagation is named."""
    for name in ("writable", "closed"):
        (shared / name).mkdir()
        os.chown(shared / name, shared.stat().st_uid, shared.stat().st_gid)
        write(shared / name / "file", name + "\n")
    flags = [
        *("--volume", f"{shared}/writable:/data"),
        *("--volume", f"{shared}/closed:/closed:ro"),
        *("--volume", f"{shared}/closed/file:/one-file:ro,noexec"),
        *("--mount", f"type=bind,source={shared},destination=/slave,bind-propagation=rslave,ro"),
    ]
    script = (
        "cat /data/file /closed/file /one-file /slave/closed/file; echo new >/data/file; echo x >/closed/file || echo refused"
    )
    result = podman.run("sh", "-c", script, flags=flags).ok()
    assert result.out == "writable\nclosed\nclosed\nclosed\nrefused\n"
    assert (shared / "writable" / "file").read_text() == "new\n"
    assert (shared / "closed" / "file").read_text() == "closed\n"


def test_volumes(podman: Podman) -> None:
    """A named volume keeps its files from one container to the next."""
    podman.run("sh", "-c", "echo kept >/data/file", flags=["--volume", "ocirt-test:/data"]).ok()
    try:
        assert podman.run("cat", "/data/file", flags=["--volume", "ocirt-test:/data"]).ok().out == "kept\n"
    finally:
        podman.call("volume", "rm", "ocirt-test").ok()


def test_namespaces_of_another_container(podman: Podman) -> None:
    """Joined by path: network, IPC, UTS and PID namespace."""
    container = podman.start(*SLEEP, flags=["--hostname", "first", "--ipc", "shareable"])
    kinds = ("network", "ipc", "uts", "pid")
    flags = [word for kind in kinds for word in (f"--{kind}", f"container:{container}")]
    assert podman.run("hostname", flags=flags).ok().out == "first\n"
    script = "for kind in net ipc uts pid; do readlink /proc/1/ns/$kind; readlink /proc/self/ns/$kind; done"
    words = podman.run("sh", "-c", script, flags=[*flags, "--cap-add", "sys_ptrace"]).ok().out.split()
    assert words[::2] == words[1::2]


def test_memory_limit_is_felt(podman: Podman) -> None:
    """A program that takes more than the limit is killed."""
    podman.need_cgroups()
    if not os.path.isdir("/sys/fs/cgroup/memory") and "memory" not in _controllers():
        pytest.skip("this machine's cgroups have no memory controller")
    container = podman.start("tail", "/dev/zero", flags=["--memory", "16m", "--memory-swap", "16m"])
    assert podman.call("wait", container).ok().out == "137\n"


def test_update(podman: Podman) -> None:
    """Another limit of memory and another processor, while it runs; what was set before and is not named stays."""
    podman.need_cgroups()
    if not os.path.isdir("/sys/fs/cgroup/memory") and not {"memory", "cpu", "cpuset"} <= set(_controllers()):
        pytest.skip("this machine's cgroups have no controllers of memory and processors")
    container = podman.start(*SLEEP, flags=["--memory", "256m", "--memory-swap", "256m", "--cpu-shares", "512"])
    pid = int(podman.inspect(container, ".State.Pid"))
    take = ("exec", container, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    podman.call(*take).ok()
    podman.call("update", "--memory", "16m", "--memory-swap", "16m", container).ok()
    podman.call(*take).failed("", rc=137)
    podman.call("update", "--cpuset-cpus", "0", container).ok()
    assert os.sched_getaffinity(pid) == {0}
    podman.call(*take).failed("", rc=137)
    podman.call("update", "--memory", "256m", "--memory-swap", "256m", container).ok()
    podman.call(*take).ok()
    podman.call("update", "--cpuset-cpus", "99", container).failed("cpuset")
    podman.call(*take).ok()


def _controllers() -> list[str]:
    try:
        return Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    except OSError:
        return []


def test_top_and_stats(podman: Podman) -> None:
    """The container's processes, and its counters."""
    podman.need_cgroups()
    container = podman.start("sh", "-c", "sleep 1001 & exec sleep 1000")
    wait_for(lambda: len(podman.call("top", container, "args").out.splitlines()) == 3, "both processes")
    stats = json.loads(podman.call("stats", "--no-stream", "--format", "json", container).ok().out)
    assert stats[0]["pids"] == "2"


def test_copy(podman: Podman, shared: Path) -> None:
    """Files into a running container, and out of it."""
    container = podman.start(*SLEEP)
    write(shared / "in", "text\n")
    podman.call("cp", shared / "in", f"{container}:/tmp/file").ok()
    assert podman.call("exec", container, "cat", "/tmp/file").ok().out == "text\n"
    podman.call("cp", f"{container}:/tmp/file", shared / "out").ok()
    assert (shared / "out").read_text() == "text\n"


def test_health_check(podman: Podman) -> None:
    """Run by hand, as there is no systemd to do it: by exec, healthy and not."""
    flags = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "disable"]
    container = podman.start(*SLEEP, flags=flags)
    podman.call("healthcheck", "run", container).ok()
    podman.call("exec", container, "touch", "/tmp/sick").ok()
    assert podman.call("healthcheck", "run", container).rc == 1


def test_attach(podman: Podman) -> None:
    """To a container that waits for a line."""
    container = podman.start("sh", "-c", "read line; echo got $line; exit 2", flags=["--interactive"])
    assert podman.call("attach", container, stdin="a line\n").out.strip() == "got a line"
    assert podman.call("wait", container).ok().out == "2\n"


def test_short_lives(podman: Podman) -> None:
    """Twenty containers that end at once: each exit code arrives."""
    for number in range(20):
        assert podman.run("sh", "-c", f"exit {number}").rc == number


def test_without_cgroups(ocirt: Podman) -> None:
    """`--cgroups disabled` reaches the runtime as `--cgroup-manager disabled`, which runc does not know."""
    words = ["run", "--rm", "--network", "none", "--cgroups", "disabled", IMAGE, "cat", "/proc/self/cgroup"]
    assert ocirt.call(*words).ok().out == Path("/proc/self/cgroup").read_text()


def test_as_runc(ocirt: Podman, shared: Path) -> None:
    """Through a symlink with runc's name, podman sees runc."""
    link = shared / "runc"
    link.symlink_to(ocirt.runtime)
    renamed = ocirt.with_runtime(str(link))
    assert renamed.run("echo", "hello").ok().out == "hello\n"
    info = renamed.call("info", "--format", "{{.Host.OCIRuntime.Version}}").ok().out
    assert info.startswith("runc version ")


def test_the_containers_cgroups_go(podman: Podman) -> None:
    """After `rm` no cgroup of the container is left."""
    podman.need_cgroups()
    container = podman.start(*SLEEP)
    pid = podman.inspect(container, ".State.Pid")
    paths = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    assert all(container in path for path in paths)
    podman.call("rm", "--force", "--time", "0", container).ok()
    left = [root for root in Path("/sys/fs/cgroup").glob("*") for path in paths if (root / path[1:]).is_dir()]
    assert left == []
