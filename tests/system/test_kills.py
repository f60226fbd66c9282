"""SIGKILL of the runtime, and of init, at every step of what they do: `delete --force` then leaves nothing, and nothing hangs.

OCIRT_TEST_ALL_KILLS=1 tries every point; see tests/support/kills.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.seccomp_profiles import small
from tests.support.agent import Agent
from tests.support.bundle import Bundle
from tests.support.kills import EVERY, Watch, chosen, killed_at, of_process, of_runtime, trace, who
from tests.support.runtime import PATIENCE, Runtime, reap_orphans, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available

pytestmark = pytest.mark.ocirt_only("runc leaves things behind here (opencontainers/runc issue 4534)")


@pytest.fixture
def rich(bundle: MakeBundle) -> Bundle:
    """A bundle that needs many kinds of calls; of limits those that this view has controllers for."""
    limits = {"pids": {"limit": 100}, "memory": {"limit": 1 << 28}}
    return bundle(
        args=["/bin/true"],
        seccomp=small(),
        cwd="/made/on/demand",
        sysctl={"net.ipv4.ip_forward": "1"},
        add_mounts=[
            {"destination": "/data", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "rslave"]},
            {"destination": "/home", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        edit=lambda config: config["linux"]["resources"].update({name: limits[name] for name in limits if available(name)}),
    )


def test_create_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `create`, with a filter that is translated and put into the cache each time."""
    container = runtime.new_id()
    runtime.prepare(rich, container)
    # `run` does what `create` does, and ends by itself under strace.
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for number, point in enumerate(chosen(points), 100):
        container = runtime.new_id()
        rich.config["linux"]["seccomp"]["syscalls"][1]["errnoRet"] = number
        runtime.prepare(rich, container)
        watch.count(killed_at(runtime.argv("create", "--bundle", rich.path, container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_run_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of an attached `run`, up to its end."""
    runtime.run(rich).ok()  # the filter is known from here on
    container = runtime.new_id()
    runtime.prepare(rich, container)
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for point in chosen(points):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        watch.count(killed_at(runtime.argv("run", "--bundle", rich.path, container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_a_killed_create_can_be_looked_at(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """`state` and `list` of what is left say stopped, created or nothing; its name is free again after `delete --force`."""
    runtime.run(rich).ok()
    container = runtime.new_id()
    runtime.prepare(rich, container)
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for point in points[:: max(1, len(points) // 8)]:
        watch.count(killed_at(runtime.argv("create", "--bundle", rich.path, container), point))
        state = runtime.call("state", container)
        if state.rc == 0 and state.json()["status"] not in ("stopped", "created", "creating"):
            watch.complain(point, state.out)
        if state.rc != 0 and "does not exist" not in state.err:
            watch.complain(point, state.err)
        runtime.call("list").ok()
        watch.delete(point, container)
        runtime.create(rich, container=container)
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_init_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of its own: the runtime says so, exits with 1, and takes everything back."""
    runtime.run(rich).ok()
    container = runtime.new_id()
    runtime.prepare(rich, container)
    calls = trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log")
    points = of_process(calls, who(calls, r"^\d+ +pivot_root"))
    for point in chosen(points):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        death = killed_at(runtime.argv("run", "--bundle", rich.path, container), point, children=True)
        if watch.count(death, 1) and death.said.count("\n") != 1:
            watch.complain(point, f"it says {death.said!r}")
        if death.code not in (0, 1):
            watch.complain(point, f"exit code {death.code}: {death.said!r}")
        watch.nothing_left(point, container)


def test_start_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `start`: the container is created or runs, and can be deleted."""
    container = runtime.create(rich.edit(args=["/bin/sleep", "1000"]))
    # Here reading is a step, too: there is not much else.
    calls = [call for call in trace(runtime.argv("start", container), tmp_path / "log") if call.line]
    watch.delete("first", container)
    begin = next(index for index, call in enumerate(calls) if f"{container}/" in call.line)
    for point in chosen([call.point for call in calls[begin:]])[::2]:
        container = runtime.create(rich)
        watch.count(killed_at(runtime.argv("start", container), point))
        state = runtime.state(container)["status"]
        if state not in ("created", "running"):
            watch.complain(point, f"the container is {state}")
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_exec_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `exec`: what it began is gone or goes on to its end, the container lives."""
    container = runtime.run_detached(rich.edit(args=["/bin/sleep", "1000"]))
    init = runtime.pid(container)
    points = of_runtime(trace(runtime.argv("exec", container, "/bin/true"), tmp_path / "log"), f"{container}/")

    def alone() -> bool:
        reap_orphans()
        return bool(json.loads(runtime.call("ps", "--format", "json", container).ok().out) == [init])

    for point in chosen(points):
        watch.count(killed_at(runtime.argv("exec", container, "/bin/true"), point))
        try:
            wait_for(alone, "the end of what exec began", 5)
        except AssertionError as err:
            watch.complain(point, str(err))
    assert runtime.exec(container, "/bin/echo", "still here").ok().out == "still here\n"
    watch.delete("the end", container)
    watch.nothing_left("the end", container)


@pytest.mark.parametrize("running", [False, True], ids=["created", "running"])
def test_delete_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path, running: bool) -> None:  # noqa: FBT001
    """At every step of `delete --force`: the next one does the rest."""
    rich.edit(args=["/bin/sleep", "1000"])

    def make() -> str:
        return runtime.run_detached(rich) if running else runtime.create(rich)

    container = make()
    pid = runtime.pid(container)
    points = of_runtime(trace(runtime.argv("delete", "--force", container), tmp_path / "log"), f"{container}/")
    reap_orphans()
    assert not Path(f"/proc/{pid}").exists()
    for point in chosen(points):
        container = make()
        watch.count(killed_at(runtime.argv("delete", "--force", container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def at_random(action: Callable[[], subprocess.Popen[bytes]], seconds: float) -> int:
    """Start a command, kill it after so many seconds; its exit code."""
    with action() as process:
        time.sleep(seconds)
        process.kill()
        return process.wait(PATIENCE)


def test_create_is_killed_at_random(runtime: Runtime, rich: Bundle, watch: Watch) -> None:
    """Without strace, which changes who is quicker: from half a millisecond after the start to beyond the end."""
    moments = random.Random(4)
    watch.share = 0.1  # how long a create takes is the machine's affair
    for number in range(400 if EVERY else 40):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        argv = runtime.argv("create", "--bundle", rich.path, container)
        seconds = moments.uniform(0.0005, 0.04)

        def start(argv: list[str] = argv) -> subprocess.Popen[bytes]:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        watch.points += 1
        watch.killed += at_random(start, seconds) == -signal.SIGKILL
        where = f"{number}, after {seconds * 1000:.1f} ms"
        watch.delete(where, container)
        watch.nothing_left(where, container)


@pytest.fixture
def agent(no_leaks: list[Path]) -> Iterator[Agent]:
    """A seccomp agent at a short path; what it hears of those that are killed may be cut short."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(place)
    with Agent(place / "agent") as made:
        yield made
        made.trouble.clear()


def listened_to(made: Bundle, agent: Agent) -> Bundle:
    """The bundle with a filter whose listener goes to the agent."""
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    return made.edit(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(agent.path), "syscalls": rules})


@pytest.mark.parametrize("victim", ["run", "init"])
def test_a_listener_is_handed_over_while(
    runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path, agent: Agent, victim: str
) -> None:
    """One side is killed: the other does not wait for it, and neither does the process between them."""
    runtime.run(listened_to(rich, agent)).ok()
    container = runtime.new_id()
    runtime.prepare(rich, container)
    calls = trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log")
    if victim == "run":
        points = of_runtime(calls, f'root/{container}"')
    else:
        points = of_process(calls, who(calls, r"^\d+ +pivot_root"))
    # The rest is as without an agent.
    for point in chosen(points[len(points) * 2 // 3 :], 16):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        death = killed_at(runtime.argv("run", "--bundle", rich.path, container), point, children=victim == "init")
        if victim == "init":
            watch.count(death, 1)
        else:
            watch.count(death)
            watch.delete(point, container)
        watch.nothing_left(point, container)
