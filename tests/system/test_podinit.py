"""The init of a pod: it holds a PID namespace, and is of no use to anybody inside."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.cgroups import control
from ocirt.cgroups.layout import detect
from tests.support.build import ROOT
from tests.support.isolation import Isolation
from tests.support.kills import Watch, chosen, killed_at, of_process, of_runtime, trace, who
from tests.support.runtime import Runtime, process_state, reap_orphans, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import KERNEL, with_user_namespace

pytestmark = pytest.mark.ocirt_only("the library's own")

START = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ocirt.containers import podinit
from ocirt.errors import Error
try:
    pid, pidfd = podinit.start(*json.loads(sys.argv[2]))
except Error as err:
    sys.exit(str(err))
print(pid, pidfd)
"""


class Pod:
    """A pod's init, a child of ours since who started it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.proc = Path(f"/proc/{pid}")

    def end(self) -> None:
        """Kill it, and wait for it."""
        if process_state(self.pid) not in (None, "Z"):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int | None:
        """Its exit code once it has ended, for which the others of its namespace have to be waited for; None if that is known."""

        def reaped() -> tuple[int | None] | None:
            reap_orphans({self.pid})
            try:
                done, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return (None,)
            return (os.waitstatus_to_exitcode(status),) if done else None

        return wait_for(reaped, "the end of a pod's init")[0]  # type: ignore[index]

    def ends(self, seconds: float = 0) -> bool:
        """Whether it ends by then."""
        fd = os.pidfd_open(self.pid)
        try:
            return bool(select.select([fd], [], [], seconds)[0])
        finally:
            os.close(fd)

    def container(self, made: Any, *kinds: str) -> Any:
        """A bundle in its PID namespace, and in others of the pod's."""
        rest = [entry for entry in made.config["linux"]["namespaces"] if entry["type"] not in ("pid", *kinds)]
        paths = [{"type": kind, "path": f"{self.proc}/ns/{KERNEL[kind]}"} for kind in ("pid", *kinds)]
        return made.edit(namespaces=[*rest, *paths])


def argv(namespaces: dict[str, str], cgroups: dict[str, str], score: int) -> list[str]:
    return [sys.executable, "-I", "-c", START, str(ROOT), json.dumps([namespaces, cgroups, score])]


Start = Callable[..., Pod]


@pytest.fixture
def start(runtime: Runtime) -> Iterator[Start]:
    """Starts a pod's init, which is gone in the end."""
    del runtime
    pods: list[Pod] = []

    def begin(namespaces: dict[str, str] | None = None, cgroups: dict[str, str] | None = None, score: int = 0) -> Pod:
        done = subprocess.run(
            argv(namespaces or {}, cgroups or {}, score), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        pods.append(Pod(int(done.stdout.split()[0])))
        return pods[-1]

    yield begin
    for pod in pods:
        pod.end()


def test_what_it_is(start: Start) -> None:
    """The first process of its PID namespace, without descriptors, capabilities, a root, or anything to be looked into."""
    pod = start()
    status = (pod.proc / "status").read_text()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert fields["Name"] == ["ocirt-pod"]
    assert fields["NSpid"] == [str(pod.pid), "1"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name][0], 16) == 0, name
    assert fields["NoNewPrivs"] == ["1"]
    assert fields["Threads"] == ["1"]
    assert fields.get("Groups") == []
    assert os.listdir(pod.proc / "fd") == []
    assert os.listdir(pod.proc / "root") == []
    assert len((pod.proc / "mountinfo").read_text().splitlines()) == 1
    options = (pod.proc / "mountinfo").read_text().split()[5].split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    assert (pod.proc / "environ").read_bytes() == b""
    assert (pod.proc / "cmdline").read_bytes() == b"ocirt-pod\0"
    assert os.readlink(pod.proc / "cwd") == "/"
    assert "ocirt-pod" in os.readlink(pod.proc / "exe")
    assert int((pod.proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 64 << 10


def test_it_takes_no_mount_of_the_host_s(start: Start) -> None:
    """And adds none."""
    before = Path("/proc/self/mountinfo").read_text()
    pod = start()
    assert Path("/proc/self/mountinfo").read_text() == before
    pod.end()
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_asked_to_from_outside(start: Start, number: int) -> None:
    """At once, also in the moment in which it was started."""
    pod = start()
    os.kill(pod.pid, number)
    assert pod.ends(5)
    assert pod.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGALRM, signal.SIGCHLD])
def test_other_signals_are_nothing_to_it(start: Start, number: int) -> None:
    pod = start()
    os.kill(pod.pid, number)
    assert not pod.ends(0.05)


def test_nobody_inside_can_end_it(start: Start, runtime: Runtime, bundle: MakeBundle) -> None:
    """Not even root with all capabilities; nor look at its memory, root, or file."""
    pod = start()
    every = {name: ["CAP_SYS_PTRACE", "CAP_KILL", "CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    made = pod.container(bundle(capabilities=every))
    script = "for n in TERM INT KILL STOP HUP; do kill -$n 1; done; sleep 0.1; cat /proc/1/comm; ls /proc/1/root/ /proc/1/fd"
    assert runtime.shell(made, script).ok().out.split() == ["ocirt-pod", "/proc/1/fd:", "/proc/1/root/:"]
    assert process_state(pod.pid) == "S"
    # Without that capability it cannot be looked into.
    less = {name: ["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"] for name in ("bounding", "effective", "permitted")}
    script = "for f in exe mem environ maps ns/mnt; do cat /proc/1/$f && echo looked; done; ls /proc/1/root/ || ls /proc/1/cwd/"
    said = runtime.shell(made.edit(capabilities=less), script)
    assert (said.out, said.err.count("Permission denied")) == ("", 7)


def test_it_reaps(start: Start, runtime: Runtime, bundle: MakeBundle) -> None:
    """Orphans of containers do not stay."""
    pod = start()
    made = pod.container(bundle(args=["/bin/sh", "-c", "for n in 1 2 3 4 5; do (sleep 0.05 & ); done; echo up; exec sleep 1000"]))
    container = runtime.run_detached(made)
    runtime.wait_output(container, "up")

    def alone() -> bool:
        said = runtime.exec(container, "/bin/sh", "-c", "cat /proc/[0-9]*/comm | grep -vc -e cat -e grep -e sh").out
        return said.strip() == "2"  # our init, and the container's

    wait_for(alone, "the end of the orphans")
    runtime.delete(container, "--force").ok()
    assert process_state(pod.pid) == "S"


def test_its_end_is_that_of_all(start: Start, runtime: Runtime, bundle: MakeBundle) -> None:
    """Two containers see each other; both end with it."""
    pod = start()
    containers = [runtime.run_detached(pod.container(bundle(args=["sleep", "1000"]))) for _ in range(2)]
    assert runtime.exec(containers[0], "/bin/ps").ok().out.count("sleep 1000") == 2
    pids = [runtime.pid(container) for container in containers]
    os.kill(pod.pid, signal.SIGTERM)
    wait_for(lambda: all(process_state(pid) in (None, "Z") for pid in pids), "the containers' end")
    reap_orphans()
    for container in containers:
        assert runtime.status(container) == "stopped"
        runtime.delete(container).ok()


@pytest.mark.parametrize("way", ["path", "descriptor"])
def test_namespaces_of_the_pod(start: Start, runtime: Runtime, bundle: MakeBundle, way: str) -> None:
    """Those that are given are joined, a user namespace among them; containers join all of it."""
    made = with_user_namespace(bundle(args=["sleep", "1000"], namespaces=["mount", "pid", "network", "ipc", "uts"]))
    holder = runtime.run_detached(made)
    place = f"/proc/{runtime.pid(holder)}/ns"
    links = {kind: os.readlink(f"{place}/{KERNEL[kind]}") for kind in ("user", "network", "ipc", "uts")}
    paths = {kind: f"{place}/{KERNEL[kind]}" for kind in links}
    fds = []
    if way == "descriptor":
        fds = [os.open(path, os.O_RDONLY) for path in paths.values()]
        paths = {kind: f"/proc/{os.getpid()}/fd/{fd}" for kind, fd in zip(paths, fds, strict=True)}
        runtime.delete(holder, "--force").ok()
    pod = start(paths)
    for fd in fds:
        os.close(fd)
    assert {kind: os.readlink(pod.proc / "ns" / KERNEL[kind]) for kind in links} == links
    assert "\nUid:\t100000\t" in (pod.proc / "status").read_text()
    assert "\nCapBnd:\t0000000000000000\n" in (pod.proc / "status").read_text()
    pod.container(made, *links).edit(args=["/bin/probe"], uidMappings=None, gidMappings=None, hostname=None)
    seen = runtime.run(made).ok().json()["namespaces"]
    assert seen["pid"] == os.readlink(pod.proc / "ns/pid")
    assert seen["user"] == links["user"]
    if way == "path":
        runtime.delete(holder, "--force").ok()


def test_its_cgroup(start: Start, isolation: Isolation) -> None:
    """In those that are there; the score of the OOM killer is what was asked for."""
    parent = isolation.cgroup_parent
    assert parent is not None
    found = detect()
    made = {name: Path(f"{place}{parent}/pod") for name, place in found.mounts.items() if found.mode != "none"}
    control.create({name: str(directory) for name, directory in made.items()})
    try:
        pod = start({}, {name: str(directory) for name, directory in made.items()}, 321)
        for directory in set(made.values()):
            assert str(pod.pid) in (directory / "cgroup.procs").read_text().split(), directory
        assert (pod.proc / "oom_score_adj").read_text().strip() == "321"
        pod.end()
    finally:
        for directory in set(made.values()):
            directory.rmdir()


def test_a_wrong_namespace(start: Start) -> None:
    """It is said which, and nothing is left."""
    del start
    done = subprocess.run(argv({"ipc": "/proc/self/ns/uts"}, {}, 0), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "/linux/namespaces/2/path: open namespace: /proc/self/ns/uts" in done.stderr


@pytest.mark.parametrize("victim", ["starter", "init"])
def test_kills(runtime: Runtime, watch: Watch, tmp_path: Path, victim: str) -> None:
    """At every step: there is a pod's init, which is ours to end, or nothing."""
    del runtime
    calls = trace_until(argv({}, {}, 0), tmp_path)
    if victim == "starter":
        points = of_runtime(calls, "memfd_create")
    else:
        points = of_process(calls, who(calls, r"^\d+ +pivot_root"))
    assert len(points) > 10
    for point in chosen(points, 60):
        death = killed_at(argv({}, {}, 0), point, children=victim == "init")
        watch.count(death, -signal.SIGKILL if victim == "starter" else 1)
        end_pods()
        watch.nothing_left(point, "nothing")


def trace_until(command: list[str], place: Path) -> Any:
    """The calls of starting one, which is then killed by who traces it."""
    ending = [*command[:3], command[3] + "import os, signal; os.kill(pid, signal.SIGTERM)", *command[4:]]
    return trace(ending, place / "log")


def end_pods() -> None:
    """Those that a killed starter has left are children of ours."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                status = Path(f"/proc/{name}/status").read_text()
            except OSError:
                continue
            if f"\nPPid:\t{os.getpid()}\n" in status and status.startswith("Name:\tocirt-pod\n"):
                Pod(int(name)).end()
    reap_orphans()
