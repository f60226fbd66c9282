"""The life of a container: run, create, start, exec, state, kill, delete."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.support.runtime import Runtime, process_state, wait_for
from tests.system.conftest import MakeBundle

SLEEP = ["/bin/sleep", "1000"]


def test_run_prints_the_output(runtime: Runtime, bundle: MakeBundle) -> None:
    """Both streams come through, apart."""
    result = runtime.shell(bundle(), "echo out; echo err >&2").ok()
    assert (result.out, result.err) == ("out\n", "err\n")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_run_exits_as_its_process_did(runtime: Runtime, bundle: MakeBundle, script: str, code: int) -> None:
    """The exit code, or 128+N for signal N. The process is not init of its pid namespace: init is deaf to its own signals."""
    made = bundle(namespaces=["network", "ipc", "uts", "mount"])
    assert runtime.shell(made, script).rc == code


def test_run_reports_the_signal_that_kills_init(runtime: Runtime, bundle: MakeBundle) -> None:
    """SIGKILL from outside the pid namespace: 137 (the whole life of an attached run)."""
    container = runtime.new_id()
    made = bundle(args=["/bin/probe", "catch"])
    waiting = runtime.spawn_run(made, container=container)
    wait_for(lambda: runtime.call("state", container).rc == 0 and runtime.status(container) == "running", "running")
    runtime.kill(container, "KILL").ok()
    assert waiting.wait(10) == 137


def test_run_removes_its_container(runtime: Runtime, bundle: MakeBundle) -> None:
    """After an attached run there is no such container."""
    container = runtime.new_id()
    runtime.run(bundle(), container=container).ok()
    runtime.call("state", container).failed("container does not exist", rc=1)


def test_run_keep(runtime: Runtime, bundle: MakeBundle) -> None:
    """`run --keep` leaves a stopped container."""
    container = runtime.new_id()
    runtime.run(bundle(), "--keep", container=container).ok()
    assert runtime.status(container) == "stopped"
    runtime.delete(container).ok()


def test_create_start_delete(runtime: Runtime, bundle: MakeBundle) -> None:
    """Each step, and what `state` says after it."""
    made = bundle(args=["/bin/sh", "-c", "echo started; exec sleep 1000"], annotations={"org.example.key": "value"})
    container = runtime.create(made)
    state = runtime.state(container)
    pid = state["pid"]
    assert {key: state[key] for key in ("id", "status", "bundle", "rootfs")} == {
        "id": container,
        "status": "created",
        "bundle": str(made.path),
        "rootfs": str(made.rootfs),
    }
    assert state["annotations"] == {"org.example.key": "value"}
    assert state["owner"] == ""
    assert process_state(pid) is not None
    assert runtime.output_of(container).read_text() == ""  # the program does not run before `start`

    assert runtime.start(container).ok().out == ""
    runtime.wait_output(container, "started")
    assert (runtime.status(container), runtime.pid(container)) == ("running", pid)
    runtime.start(container).failed("cannot start an already running container", rc=1)
    runtime.delete(container).failed(f"cannot delete container {container} that is not stopped: running", rc=1)

    runtime.kill(container, "KILL").ok()
    assert runtime.wait(container, pid) == 137
    assert (runtime.status(container), runtime.pid(container)) == ("stopped", 0)
    runtime.start(container).failed("cannot start a container that has stopped", rc=1)
    assert runtime.delete(container).ok().out == ""
    runtime.call("state", container).failed("container does not exist", rc=1)


def test_nothing_is_said_on_success(runtime: Runtime, bundle: MakeBundle) -> None:
    """Callers parse what a runtime says: no word on either stream."""
    container = runtime.new_id()
    result = runtime.try_create(bundle(args=SLEEP), container=container).ok()
    assert result.out + result.err == ""
    for verb in (["start", container], ["kill", container, "KILL"], ["delete", "--force", container]):
        result = runtime.call(*verb).ok()
        assert result.out + result.err == ""


def test_a_zombie_is_stopped(runtime: Runtime, bundle: MakeBundle) -> None:
    """A container whose init nobody has waited for yet is stopped, and can be deleted."""
    container = runtime.run_detached(bundle(args=SLEEP))
    pid = runtime.pid(container)
    runtime.kill(container, "9").ok()
    wait_for(lambda: process_state(pid) == "Z", "the zombie")
    assert (runtime.status(container), runtime.pid(container)) == ("stopped", 0)
    runtime.delete(container).ok()


def test_init_becomes_a_child_of_the_caller(runtime: Runtime, bundle: MakeBundle) -> None:
    """After `create` init's parent is the nearest subreaper above: the caller can wait for it."""
    container = runtime.create(bundle(args=["/bin/sh", "-c", "exit 7"]))
    pid = runtime.pid(container)
    stat = Path(f"/proc/{pid}/stat").read_text()
    assert int(stat.rpartition(")")[2].split()[1]) == os.getpid()
    runtime.start(container).ok()
    assert runtime.wait(container, pid) == 7


def test_exec(runtime: Runtime, bundle: MakeBundle) -> None:
    """Output, exit codes, environment, directory and user of a process that joins a container."""
    container = runtime.run_detached(bundle(args=SLEEP))
    assert runtime.exec(container, "/bin/echo", "hello").ok().out == "hello\n"
    assert runtime.exec(container, "/bin/sh", "-c", "exit 42").rc == 42
    assert runtime.exec(container, "/bin/sh", "-c", "kill -9 $$").rc == 137
    assert runtime.exec(container, "cat", stdin="through").ok().out == "through"
    flags = ["--cwd", "/tmp", "--env", "A=1", "--env", "B=2", "--user", "1000:1000", "--additional-gids", "29"]
    seen = runtime.exec(container, "/bin/probe", flags=flags).ok().json()
    assert seen["cwd"] == "/tmp"
    assert {"A=1", "B=2"} <= set(seen["env"])
    assert (seen["uid"], seen["gid"], set(seen["groups"])) == ([1000] * 3, [1000] * 3, {29})
    own = runtime.exec(container, "/bin/probe").ok().json()
    theirs = {kind: os.readlink(f"/proc/{runtime.pid(container)}/ns/{kind}") for kind in own["namespaces"]}
    assert own["namespaces"] == theirs


@pytest.mark.parametrize(
    ("program", "message"),
    [("/nope", "no such file or directory"), ("nope", "executable file not found"), ("/etc/passwd", "permission denied")],
)
def test_exec_of_what_cannot_be_executed(runtime: Runtime, bundle: MakeBundle, program: str, message: str) -> None:
    """Exit code 255 and the words that callers look for."""
    container = runtime.run_detached(bundle(args=SLEEP))
    runtime.exec(container, program).failed(message, rc=255)


@pytest.mark.parametrize(
    ("program", "message"),
    [("/nope", "no such file or directory"), ("nope", "executable file not found"), ("/etc/passwd", "permission denied")],
)
def test_create_of_what_cannot_be_executed(runtime: Runtime, bundle: MakeBundle, program: str, message: str) -> None:
    """`create` finds out, in the words that callers look for."""
    runtime.try_create(bundle(args=[program])).failed(message, rc=1)


def test_exec_process_file(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`exec --process FILE` takes everything from the file, `--detach` returns once it runs, `--pid-file` names it."""
    made = bundle(args=SLEEP)
    container = runtime.run_detached(made)
    process = {
        **made.config["process"],
        "args": ["/bin/sh", "-c", "echo $WORD; exec sleep 100"],
        "env": ["WORD=hi"],
        "cwd": "/tmp",
    }
    path = tmp_path / "process.json"
    path.write_text(json.dumps(process))
    out, pid_file = tmp_path / "out", tmp_path / "pid"
    runtime.detached("exec", "--process", path, "--detach", "--pid-file", pid_file, container, out=out).ok()
    pid = int(pid_file.read_text())
    assert pid_file.read_text() == str(pid)
    wait_for(lambda: out.read_text() == "hi\n", "the output")
    assert os.readlink(f"/proc/{pid}/cwd") == "/tmp"
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{runtime.pid(container)}/ns/pid")
    process["args"] = ["/nope"]
    path.write_text(json.dumps(process))
    runtime.detached("exec", "--process", path, "--detach", container, out=out).failed("no such file or directory", rc=255)


def test_exec_needs_a_live_container(runtime: Runtime, bundle: MakeBundle) -> None:
    """Stopped: an error with runc's words."""
    container = runtime.create(bundle())
    pid = runtime.pid(container)
    runtime.start(container).ok()
    runtime.wait(container, pid)
    runtime.exec(container, "true").failed("cannot exec in a stopped container", rc=255)


@pytest.mark.parametrize("form", ["10", "USR1", "SIGUSR1", "usr1", "sigusr1"])
def test_kill_takes_a_number_or_a_name(runtime: Runtime, bundle: MakeBundle, form: str) -> None:
    """With and without SIG, in any case."""
    container = runtime.run_detached(bundle(args=["/bin/probe", "catch"]))
    runtime.wait_output(container, "ready")
    runtime.kill(container, form).ok()
    runtime.wait_output(container, "10\n")


def test_kill_sends_term_by_default(runtime: Runtime, bundle: MakeBundle) -> None:
    """No signal named: SIGTERM."""
    container = runtime.run_detached(bundle(args=["/bin/probe", "catch"]))
    runtime.wait_output(container, "ready")
    pid = runtime.pid(container)
    runtime.kill(container).ok()
    assert runtime.wait(container, pid) == 0
    runtime.wait_output(container, "15\n")
    runtime.kill(container).failed("container not running", rc=1)
    runtime.call("kill", "--all", container).ok()  # hidden in runc, still used: success when nothing runs


def test_kill_complains(runtime: Runtime, bundle: MakeBundle) -> None:
    """An unknown signal."""
    container = runtime.run_detached(bundle(args=SLEEP))
    runtime.kill(container, "NOPE").failed("(?i)(unknown|invalid) signal", rc=1)


def test_delete_of_a_created_container(runtime: Runtime, bundle: MakeBundle) -> None:
    """Allowed: its init is killed."""
    container = runtime.create(bundle(args=SLEEP))
    pid = runtime.pid(container)
    runtime.delete(container).ok()
    assert process_state(pid) in (None, "Z")


def test_delete_force(runtime: Runtime, bundle: MakeBundle) -> None:
    """Kills what runs, with all its children; does not mind a container that does not exist."""
    container = runtime.run_detached(bundle(args=["/bin/sh", "-c", "sleep 1001 & sleep 1002 & echo up; wait"]))
    runtime.wait_output(container, "up")
    runtime.delete(container, "--force").ok()
    runtime.call("state", container).failed("container does not exist", rc=1)
    runtime.delete("nobody", "--force").ok()
    runtime.delete("nobody").failed("container does not exist", rc=1)


def test_delete_force_without_a_pid_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """Children of init that outlive it are found by the cgroup."""
    made = bundle(args=["/bin/sh", "-c", "sleep 1001 & exec sleep 1002"], namespaces=["network", "ipc", "uts", "mount"])
    container = runtime.run_detached(made)
    runtime.delete(container, "--force").ok()


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "exec", "pause", "resume", "ps"])
def test_unknown_container(runtime: Runtime, verb: str) -> None:
    """Every verb says so."""
    words = ["exec", "nobody", "true"] if verb == "exec" else [verb, "nobody"]
    runtime.call(*words).failed("container does not exist", rc=255 if verb == "exec" else 1)


def test_ids(runtime: Runtime, bundle: MakeBundle) -> None:
    """One container a name, and no name that leads out of the state directory."""
    made = bundle(args=SLEEP)
    container = runtime.create(made)
    runtime.try_create(made, container=container).failed("container with given ID already exists", rc=1)
    for name in ("a/b", "..", "", "a b", "ä"):
        runtime.try_create_named(made, name).failed("(?i)invalid container id|container id cannot be empty", rc=1)
    assert runtime.status(container) == "created"


def test_pid_file(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """The pid without a newline, there when `create` returns; relative to the caller's directory."""
    path = tmp_path / "pid"
    container = runtime.create(bundle(args=SLEEP), "--pid-file", path)
    assert path.read_text() == str(runtime.pid(container))
    assert [entry.name for entry in tmp_path.iterdir() if "pid" in entry.name] == ["pid"]  # no half-written file beside it


@pytest.mark.parametrize("verb", ["create", "run"])
@pytest.mark.parametrize(
    "edits",
    [
        {"root": {"path": "nowhere"}},
        {"process": {"cwd": "relative"}},
        {"process": {"args": []}},
        {"namespaces": ["pid", "pid"]},
        {"add_mounts": [{"destination": "/data", "type": "bind", "source": "/does/not/exist", "options": ["bind"]}]},
        {"add_mounts": [{"destination": "/data", "type": "nosuchfs", "source": "x"}]},
        {"args": ["/nope"]},
        {"hooks": {"createRuntime": [{"path": "/bin/false"}]}},
        {"hooks": {"createContainer": [{"path": "/bin/false"}]}},
        {"cwd": "/bin/busybox"},
        {"sysctl": {"kernel.pid_max": "1000"}},
    ],
    ids=lambda edits: str(next(iter(edits.values())))[:40],
)
def test_bad_input_leaves_nothing(runtime: Runtime, bundle: MakeBundle, verb: str, edits: dict[str, object]) -> None:
    """No state, no cgroup, no mount, no process: without a `delete` (the search for leaks looks after the test)."""
    made = bundle(**edits)
    container = runtime.new_id()
    result = runtime.run(made, container=container) if verb == "run" else runtime.try_create(made, container=container)
    result.failed(rc=1)
    assert not (runtime.root / container).exists()
    runtime.call("state", container).failed("container does not exist", rc=1)


def test_bundles_that_cannot_be_read(runtime: Runtime, bundle: MakeBundle) -> None:
    """No config.json, or one that is not JSON."""
    made = bundle()
    for text in (None, "{", '"text"', ""):
        (made.path / "config.json").unlink(missing_ok=True)
        if text is not None:
            (made.path / "config.json").write_text(text)
        runtime.call("run", "--bundle", made.path, runtime.new_id()).failed("config.json|JSON|json|EOF", rc=1)
    assert not runtime.root.exists() or not [entry for entry in runtime.root.iterdir() if entry.name[0].isalnum()]


def test_bundle_is_the_current_directory(runtime: Runtime, bundle: MakeBundle) -> None:
    """Without --bundle."""
    made = bundle(args=["/bin/echo", "here"], cgroupsPath=runtime.cgroups_path(f"{runtime.token}-here"))
    assert runtime.call("run", runtime.new_id(), cwd=made.path).ok().out == "here\n"


def test_list(runtime: Runtime, bundle: MakeBundle) -> None:
    """As JSON and as bare ids."""
    made = bundle(args=SLEEP)
    containers = [runtime.create(made), runtime.run_detached(made)]
    listed = runtime.call("list", "--format", "json").ok().json()
    assert {item["id"]: item["status"] for item in listed} == dict(zip(containers, ("created", "running"), strict=True))
    assert runtime.call("list", "-q").ok().out.split() == sorted(containers)


def test_ps(runtime: Runtime, bundle: MakeBundle) -> None:
    """The host's pids of all processes in the container."""
    container = runtime.run_detached(bundle(args=["/bin/sh", "-c", "sleep 1001 & echo up; wait"]))
    runtime.wait_output(container, "up")
    pids = runtime.call("ps", "--format", "json", container).ok().json()
    assert runtime.pid(container) in pids
    assert len(pids) == 2


def test_pause_and_resume(runtime: Runtime, bundle: MakeBundle) -> None:
    """A paused container says so, stands still, refuses exec, and goes on."""
    container = runtime.run_detached(bundle(args=["/bin/sh", "-c", "while true; do echo x; sleep 0.01; done"]))
    runtime.wait_output(container, "x")
    runtime.call("pause", container).ok()
    assert runtime.status(container) == "paused"
    size = runtime.output_of(container).stat().st_size
    time.sleep(0.1)
    assert runtime.output_of(container).stat().st_size == size
    runtime.exec(container, "true").failed(r"cannot exec in a paused container \(use --ignore-paused to override\)", rc=255)
    runtime.call("resume", container).ok()
    assert runtime.status(container) == "running"
    wait_for(lambda: runtime.output_of(container).stat().st_size > size, "more output")
    runtime.call("pause", container).ok()
    runtime.delete(container, "--force").ok()


def test_signals_are_forwarded(runtime: Runtime, bundle: MakeBundle) -> None:
    """An attached run passes on what it is sent, and exits as its process does."""
    made = bundle(args=["/bin/probe", "catch"])
    container = runtime.new_id()
    waiting = runtime.spawn_run(made, container=container)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"ready\n"
    for number in (1, 2, 10, 12):
        waiting.send_signal(number)
        assert waiting.stdout.readline() == b"%d\n" % number
    waiting.terminate()
    assert waiting.stdout.readline() == b"15\n"
    assert waiting.wait(10) == 0
