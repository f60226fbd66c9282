"""The same actions with ocirt's shim and with runc's, by containerd 1.6, 2.2 and 2.4: each version starts shims in another way.

`test_ctr.py` and `test_cri.py` run with our shim, too. Here is what is about shims themselves, and a table of what both did.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import SHIM, Containerd, Machine, call, need, peer
from conformance.goprograms import containerd2
from conformance.test_cri import IMAGE, Crictl, make_archive
from conformance.test_ctr import Ctr
from tests.support.runtime import wait_for
from tests.support.terminal import Terminal

RUNC = "runc"
VERSIONS = {"1.6": "", "2.2": "v2.2.9", "2.4": "v2.4.2"}
LOGGER = '#!/bin/sh\nexec 5>&-\ncat <&3 >>"$2" &\ncat <&4 >>"$2" &\nwait\n'
_numbers = itertools.count()


class Shimmed(Ctr):
    """ctr, and containers with one of the two shims: `kind` is SHIM or RUNC."""

    def __init__(self, containerd: Containerd, kind: str) -> None:
        super().__init__(containerd, SHIM if kind == SHIM else peer())
        self.kind = kind
        self.place = containerd.machine.path / f"actions-{next(_numbers)}"
        self.place.mkdir()

    def execute(self, container: str, *args: str, name: str = "", flags: tuple[str, ...] = (), **options: Any) -> Any:
        """`task exec`."""
        name = name or f"e{next(_numbers)}"
        return self.call("task", "exec", "--exec-id", name, *flags, container, *args, **options)

    def shim(self, container: str) -> int:
        """The pid of the shim: the parent of the container's first process."""
        rows = [line.split() for line in self.call("task", "ls").ok().out.splitlines()]
        pid = next(row[1] for row in rows if row[0] == container)
        status = Path(f"/proc/{pid}/status").read_text()
        return int(re.findall(r"^PPid:\s+(\d+)", status, re.MULTILINE)[0])

    def kill(self, container: str, *flags: str) -> None:
        """SIGKILL, and its end."""
        self.call("task", "kill", *flags, "--signal", "SIGKILL", container).ok()
        wait_for(lambda: self.status(container) == "STOPPED", "the end", 10)


Action = Callable[[Shimmed], Any]
ACTIONS: dict[str, Action] = {}


def action(call: Action) -> Action:
    """A line of the table."""
    ACTIONS[call.__name__.strip("_").replace("_", " ")] = call
    return call


@action
def _run(ctr: Shimmed) -> Any:
    done = ctr.run("sh", "-c", "echo out; echo err >&2; exit 7")
    return done.rc, done.out, done.err.splitlines()[-1]


@action
def _run_with_input(ctr: Shimmed) -> Any:
    return _within(
        lambda: ctr.run("sh", "-c", "read line; echo $line; read line; echo $line", stdin="some\nlines\n", timeout=8).out
    )


@action
def _run_on_a_terminal(ctr: Shimmed) -> Any:
    words = ctr.words("sh", "-c", "sleep 0.5; stty size; exit 4", flags=("--rm", "--tty"))
    with Terminal([*ctr.containerd.argv(), *words], env=ctr.env, rows=33, columns=99) as terminal:
        return terminal.wait(), b"33 99" in terminal.output


@action
def _much_output(ctr: Shimmed) -> Any:
    done = ctr.run("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x")
    return done.rc, len(done.out)


@action
def _killed_by_a_signal(ctr: Shimmed) -> Any:
    return ctr.run("sh", "-c", "kill -TERM $$; sleep 1").rc, ctr.run("sh", "-c", "sh -c 'kill -SEGV $$'; exit $?").rc


@action
def _no_such_program(ctr: Shimmed) -> Any:
    done = ctr.run("/no/such/program")
    return done.rc, "no such file or directory" in done.err


@action
def _life(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    seen: list[Any] = [ctr.status(container)]
    for verb in ("pause", "resume"):
        ctr.call("task", verb, container).ok()
        seen.append(ctr.status(container))
    seen.append(len(ctr.call("task", "ps", container).ok().out.splitlines()))
    ctr.kill(container)
    seen += [ctr.call("task", "rm", container).rc, ctr.status(container)]
    return seen


@action
def _metrics(ctr: Shimmed) -> Any:
    out = ctr.call("task", "metrics", ctr.start("sleep", "1000")).ok().out
    return sorted({line.split()[0].partition(".")[0] for line in out.splitlines()[4:] if line.strip()})


@action
def _metrics_as_JSON(ctr: Shimmed) -> Any:
    document = ctr.call("task", "metrics", "--format", "json", ctr.start("sleep", "1000")).ok().json()
    return sorted(name for name, value in document.items() if value not in (None, [], {}))


@action
def _add_a_process(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    done = ctr.execute(container, "sh", "-c", "cat; exit 3", stdin="given\n")
    user = ctr.execute(container, "sh", "-c", "id -u; pwd", flags=("--user", "1000", "--cwd", "/tmp"))
    bad = ctr.execute(container, "/no/such/program")
    return done.rc, done.out, user.out, bad.rc, "no such file or directory" in bad.err


@action
def _add_a_process_on_a_terminal(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    words = ["task", "exec", "--exec-id", "t", "--tty", container, "sh", "-c", "sleep 0.5; stty size; exit 6"]
    with Terminal([*ctr.containerd.argv(), *words], env=ctr.env, rows=20, columns=50) as terminal:
        return terminal.wait(), b"20 50" in terminal.output


@action
def _add_two_of_one_name(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    ctr.execute(container, "sleep", "1001", name="same", flags=("--detach",)).ok()
    again = ctr.execute(container, "true", name="same")
    ctr.call("task", "kill", "--exec-id", "same", "--signal", "KILL", container).ok()
    wait_for(lambda: len(ctr.call("task", "ps", container).out.splitlines()) == 2, "its end")
    return again.rc, "already exists" in again.err, ctr.status(container)


@action
def _leave_one_behind(ctr: Shimmed) -> Any:
    """What an added process has put into the background keeps its output open."""
    container = ctr.start("sleep", "1000")
    return _within(lambda: ctr.execute(container, "sh", "-c", "sleep 1001 & echo done", timeout=8).out)


@action
def _attach(ctr: Shimmed) -> Any:
    container = ctr.start("sh", "-c", "while read x; do echo got $x; test $x = end && exit 9; done")
    words = [*ctr.containerd.argv(), "task", "attach", container]
    with subprocess.Popen(words, env=ctr.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = []
        for word in ("a", "b", "end"):
            process.stdin.write(word + "\n")
            process.stdin.flush()
            found.append(process.stdout.readline())
        return found, process.wait(10)


@action
def _kill_all(ctr: Shimmed) -> Any:
    container = ctr.start("sh", "-c", "sleep 1001 & exec sleep 1000")
    wait_for(lambda: len(ctr.call("task", "ps", container).out.splitlines()) == 3, "both processes")
    ctr.kill(container, "--all")
    return ctr.status(container)


@action
def _what_is_refused(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    found = [ctr.call("task", "rm", container).rc != 0]
    ctr.call("task", "pause", container).ok()
    found.append("paus" in ctr.execute(container, "true").err)
    ctr.call("task", "resume", container).ok()
    ctr.kill(container)
    found.append("not found" in ctr.call("task", "kill", container).err)
    found.append(ctr.call("task", "pause", container).rc != 0)
    return found


@action
def _checkpoint(ctr: Shimmed) -> Any:
    """What CRIU cannot do on this kernel is said, and the container goes on."""
    if subprocess.run(["sh", "-c", "PATH=$PATH:/usr/sbin criu check"], capture_output=True, check=False).returncode == 0:
        pytest.skip("criu works here: system tests say more of it")
    container = ctr.start("sleep", "1000")
    done = ctr.call("task", "checkpoint", "--image-path", str(ctr.place / "images"), container)
    return done.rc != 0, "criu" in done.err, ctr.status(container)


@action
def _events(ctr: Shimmed) -> Any:
    with Topics(ctr) as topics:
        container = ctr.start("sleep", "1000")
        ctr.execute(container, "true").ok()
        ctr.call("task", "pause", container).ok()
        ctr.call("task", "resume", container).ok()
        ctr.kill(container)
        ctr.call("task", "rm", container)
        return topics.until("delete")


@action
def _memory_runs_out(ctr: Shimmed) -> Any:
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        pytest.skip("no memory controller of version 1")
    with Topics(ctr) as topics:
        done = ctr.run("tail", "/dev/zero", flags=("--memory-limit", str(16 << 20)))
        return done.rc, topics.until("delete")


@action
def _log_into_a_file(ctr: Shimmed) -> Any:
    container = ctr.start("sh", "-c", "echo out; echo err >&2; exec sleep 1000", flags=("--log-uri", f"file://{ctr.place}/log"))
    return wait_for(lambda: _lines(ctr.place / "log", 2), "the log", 5), ctr.status(container)


@action
def _log_into_a_program(ctr: Shimmed) -> Any:
    logger = ctr.place / "logger"
    logger.write_text(LOGGER)
    logger.chmod(0o755)
    container = ctr.start("sh", "-c", "echo out; echo err >&2", flags=("--log-uri", f"binary://{logger}?to={ctr.place}/log"))
    wait_for(lambda: ctr.status(container) == "STOPPED", "the end", 10)
    return wait_for(lambda: _lines(ctr.place / "log", 2), "the log", 5)


@action
def _a_root_of_layers(ctr: Shimmed) -> Any:
    """containerd says what the shim is to mount."""
    name = f"{ctr.machine.token}-layers-{next(_numbers)}"
    ctr.made.append(name)
    runtime = ["--runtime", SHIM] if ctr.kind == SHIM else ["--runc-binary", ctr.runtime]
    group = ["--cgroup", f"{ctr.machine.cgroup_parent}/{name}"]
    done = ctr.call("run", "--rm", "--snapshotter", "native", *runtime, *group, IMAGE, name, "sh", "-c", "echo x >/new; cat /new")
    return done.rc, done.out, [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]


@action
def _containerd_is_killed(ctr: Shimmed) -> Any:
    """The container goes on, and the next containerd takes it over, with its end."""
    own = Containerd(ctr.machine, f"again-{next(_numbers)}", programs=ctr.containerd.programs)
    try:
        wait_for(own.ready, "containerd", 20)
        ctr = Shimmed(own, ctr.kind)
        try:
            return _over_a_restart(ctr)
        finally:
            ctr.clean_up()
    finally:
        own.stop()


def _over_a_restart(ctr: Shimmed) -> Any:
    container = ctr.start("sleep", "1000")
    other = ctr.start("sleep", "1000")
    pid = ctr.shim(other)
    ctr.containerd.process.kill()
    ctr.containerd.process.wait()
    init = next(iter(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    os.kill(int(init), signal.SIGKILL)
    ctr.containerd.start()
    wait_for(ctr.containerd.ready, "containerd", 20)
    seen = [ctr.status(container), ctr.execute(container, "echo", "here").out]
    wait_for(lambda: ctr.status(other) in ("STOPPED", ""), "the end", 10)
    seen += [ctr.status(other), re.findall(r"137", ctr.call("task", "rm", other).err)]
    ctr.kill(container)
    return seen


@action
def _the_shim_is_killed(ctr: Shimmed) -> Any:
    container = ctr.start("sh", "-c", "sleep 1001 & exec sleep 1000")
    pids = [int(line.split()[0]) for line in ctr.call("task", "ps", container).ok().out.splitlines()[1:]]
    os.kill(ctr.shim(container), signal.SIGKILL)
    wait_for(lambda: ctr.status(container) in ("", "STOPPED"), "what containerd makes of it", 10)
    wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "the end of its processes", 10)
    ctr.call("task", "rm", "--force", container)
    return ctr.status(container)


def _within(call: Callable[[], Any]) -> Any:
    """What a call with a time limit returns."""
    try:
        return call()
    except subprocess.TimeoutExpired:
        return "hangs"


def _lines(path: Path, count: int) -> list[str]:
    found = sorted(path.read_text().splitlines()) if path.exists() else []
    return found if len(found) >= count else []


class Topics:
    """What `ctr events` says of the containers that are made meanwhile."""

    def __init__(self, ctr: Shimmed) -> None:
        self._ctr = ctr
        self._log = ctr.place / "events"

    def __enter__(self) -> Topics:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen([*self._ctr.containerd.argv(), "events"], stdout=out, stderr=out, env=self._ctr.env)

        def listens() -> bool:
            self._ctr.call("namespace", "label", "default", f"probe={next(_numbers)}").ok()
            return "/namespaces/update" in self._log.read_text()

        wait_for(listens, "the first event", 10)
        return self

    def until(self, last: str) -> list[str]:
        """The topics of tasks, sorted, once there is this one."""

        def ended() -> list[str]:
            found = re.findall(r" /tasks/(\S+) ", self._log.read_text())
            return sorted(found) if last in found else []

        try:
            wait_for(ended, last, 10)
        except AssertionError:
            if self._ctr.kind == SHIM:
                raise
        time.sleep(0.5)  # runc's shim may tell of the end after that
        return sorted(re.findall(r" /tasks/(\S+) ", self._log.read_text()))

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._process.wait()


_LATE = "runc's shim may tell of the end after the deletion, and of neither if it is gone by then"
_OOM = [137, ["create", "delete", "exit", "oom", "start"]]
_ALL = ["create", "delete", "exec-added", "exec-started", "exit", "exit", "paused", "resumed", "start"]
_OPEN = "runc's shim waits for the end of the output, which what was left behind keeps open"
# What need not be the same: what ours does, and why the other may not.
DIFFERENCES: dict[str, tuple[Any, str]] = {
    "leave one behind": ("done\n", _OPEN),
    "events": (_ALL, _LATE),
    "memory runs out": (_OOM, _LATE),
}


def _start(machine: Machine, name: str, version: str) -> Containerd:
    """One version, with its CRI plugin and an image."""
    if not VERSIONS[version]:
        need("containerd", "containerd-shim-runc-v2", "ctr")
    programs = containerd2(VERSIONS[version]) if VERSIONS[version] else None
    made = Containerd(machine, name, runtimes={"shim": SHIM, "peer": peer()}, sandbox_image=IMAGE, programs=programs)
    made.version = version
    try:
        wait_for(made.ready, "containerd", 20)
        archive = make_archive(machine)
        native = (
            "--snapshotter",
            "native",
            *(["--local"] if programs else []),
        )  # a server of version 2 unpacks for overlayfs alone
        for namespace, more in (("k8s.io", ()), ("default", native)):
            call([*made.argv(), "--namespace", namespace, "images", "import", *more, str(archive)], env=machine.env).ok()
    except BaseException:
        made.stop()
        raise
    return made


@pytest.fixture(scope="module", params=VERSIONS)
def containerd(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Containerd]:
    """One for all actions."""
    made = _start(machine, f"shims-{request.param}", request.param)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def table(containerd: Containerd, request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Any, Any]]]:
    """What both did, printed at the end."""
    made: dict[str, tuple[Any, Any]] = {}
    yield made
    lines = ["", f"containerd {containerd.version}: {SHIM} beside io.containerd.runc.v2"]
    for name, (mine, theirs) in made.items():
        lines.append(f"  {name:30} {'same' if mine == theirs else 'other'}  {json.dumps(mine)[:90]}")
        if mine != theirs:
            lines += [
                f"  {'':30} runc:  {json.dumps(theirs)[:90]}",
                f"  {'':30} {DIFFERENCES[name][1] if name in DIFFERENCES else ''}",
            ]
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n".join(lines))


@pytest.mark.parametrize("name", ACTIONS)
def test_action(containerd: Containerd, table: dict[str, tuple[Any, Any]], no_leaks: list[Path], name: str) -> None:
    """Both do the same, but for what DIFFERENCES explains."""
    seen = []
    for kind in (SHIM, RUNC):
        ctr = Shimmed(containerd, kind)
        try:
            seen.append(ACTIONS[name](ctr))
        finally:
            ctr.clean_up()
    mine, theirs = (json.loads(json.dumps(one)) for one in seen)
    table[name] = mine, theirs
    assert mine == (DIFFERENCES[name][0] if name in DIFFERENCES else theirs)


@pytest.fixture(params=["shim", "peer"])
def crictl(request: pytest.FixtureRequest, version: str, machine: Machine, no_leaks: list[Path]) -> Iterator[Crictl]:
    """Pods of a containerd that a test may kill."""
    own = _start(machine, f"pods-{next(_numbers)}", version)
    made = Crictl(own, request.param)
    yield made
    try:
        made.clean_up()
    finally:
        own.stop()


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """Of containerd."""
    found: str = request.param
    return found


def _parent(pid: int) -> int:
    return int(re.findall(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0])


def test_a_pod_has_one_shim(crictl: Crictl) -> None:
    """Its containers come and go; containerd dies and comes back; the shim is the same until the pod is gone."""
    pod = crictl.pod()
    containers = [crictl.start(pod, "sh", "-c", f"trap 'exit {code}' TERM; while :; do sleep 0.05; done") for code in (3, 4)]

    def shims() -> set[int]:
        infos = [crictl.call("inspect", one).ok().json()["info"]["pid"] for one in containers]
        infos.append(crictl.call("inspectp", pod[0]).ok().json()["info"]["pid"])
        return {_parent(pid) for pid in infos}

    first = shims()
    assert len(first) == 1
    crictl.containerd.process.kill()
    crictl.containerd.process.wait()
    crictl.containerd.start()
    wait_for(crictl.containerd.ready, "containerd", 20)
    wait_for(lambda: crictl.call("ps").rc == 0, "its CRI", 20)
    containers.append(crictl.start(pod, "sleep", "1000"))
    assert shims() == first
    assert crictl.call("exec", "--sync", containers[0], "echo", "here").ok().out.strip() == "here"
    crictl.call("stop", "--timeout", "10", containers[0]).ok()
    assert crictl.ended(containers[0])["exitCode"] == 3
    crictl.call("rm", containers[0]).ok()
    assert crictl.inspect(containers[1])["state"] == "CONTAINER_RUNNING"
    crictl.call("stopp", pod[0]).ok()
    assert crictl.ended(containers[1])["exitCode"] == 137  # a pod's end waits for nobody
    crictl.call("rmp", pod[0]).ok()


def test_the_shim_of_a_pod_is_killed(crictl: Crictl) -> None:
    """containerd sees the end of all that was in it, and the pod can be removed."""
    if crictl.runtime == "peer":
        pytest.skip("runc's shim leaves the pod's other containers running, and nobody reaps them")
    # In one PID namespace the end of the first process waits until the others are reaped, which nobody does in these tests.
    own = {"network": 2, "pid": 1}
    pod = crictl.pod(namespaces=own)
    container = crictl.start(pod, "sleep", "1000", linux={"security_context": {"namespace_options": own}})
    pid = crictl.call("inspect", container).ok().json()["info"]["pid"]
    os.kill(_parent(pid), signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists(), "the end of its processes", 10)
    assert crictl.ended(container)["exitCode"] in (137, 255)
    crictl.call("stopp", pod[0]).ok()
    crictl.call("rmp", "--force", pod[0]).ok()
