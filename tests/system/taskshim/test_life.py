"""A container in containerd's shim, from its creation to its removal, and the events about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api.messages import cgroups_v1, cgroups_v2
from ocirt_api.messages import task as api
from ocirt_api.messages.google import Any as Wrapped
from ocirt_api.messages.options import CheckpointOptions, ProcessDetails
from ocirt_api.messages.types import CREATED, PAUSED, RUNNING, STOPPED
from tests.support.runtime import wait_for
from tests.support.taskshims import TaskShim, kill
from tests.system.taskshim.conftest import RESOURCES, Containers, gone
from tests.system.test_cgroups import available


def test_a_life(containers: Containers) -> None:
    held = containers("sh", "-c", "exit 7")
    state = held.call("State")
    assert (state.status, state.id, state.bundle, state.exec_id) == (CREATED, held.name, str(held.bundle), "")
    assert held.call("Start").pid == state.pid
    ended = held.call("Wait")
    assert ended.exit_status == 7
    assert abs(ended.exited_at.nanoseconds() / 1e9 - time.time()) < 60
    assert (held.status(), held.call("State").exit_status) == (STOPPED, 7)
    done = held.remove()
    assert (done.pid, done.exit_status, done.exited_at) == (state.pid, 7, ended.exited_at)
    gone(held.shim.pid)
    assert not Path(held.shim.address.removeprefix("unix://")).exists()
    events = containers.containerd.events
    assert events.topics() == ["create", "start", "exit", "delete"]
    made, _, exited, deleted = (event for _, event in events.taken)
    assert (made.container_id, made.bundle, made.pid) == (held.name, str(held.bundle), state.pid)
    assert (exited.id, exited.pid, exited.exit_status, exited.exited_at) == (held.name, state.pid, 7, ended.exited_at)
    assert (deleted.container_id, deleted.id, deleted.exit_status) == (held.name, "", 7)
    assert sorted(path.name for path in held.bundle.iterdir()) == ["address", "config.json", "log"]


@pytest.mark.parametrize("service", api.SERVICES)
def test_both_versions(containers: Containers, service: str) -> None:
    held = containers("true")
    held.shim.service = service
    assert held.run().exit_status == 0


def test_what_is_refused(containers: Containers) -> None:
    """By the codes that containerd looks at."""

    def refused(code: str, method: str, **fields: Any) -> None:
        with pytest.raises(Error) as caught:
            held.call(method, **fields)
        assert caught.value.code == code, caught.value

    held = containers.shim("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done")
    for method in ("State", "Start", "Delete", "Pids", "Wait", "Stats", "Pause"):
        refused("not-found", method)
    held.create()
    refused("exists", "Create", bundle=str(held.bundle))
    refused("state", "Pause")
    refused("state", "Checkpoint", path="/tmp/x")
    held.call("Start")
    refused("state", "Start")
    refused("state", "Delete")
    refused("not-found", "State", exec_id="other")
    refused("invalid", "Exec", exec_id="e")
    refused("state", "ResizePty", width=1, height=1)
    refused("invalid", "Update")
    refused("invalid", "Update", resources=Wrapped(type_url=RESOURCES, value=b'{"pids": {"limit": "many"}}'))

    def ended() -> bool:
        """Once the trap is there: the first process of a PID namespace is deaf until then."""
        try:
            held.call("Kill", signal=15)
        except Error:
            return held.status() == STOPPED
        return False

    wait_for(ended, "the trap", 10)
    assert held.call("Wait").exit_status == 3
    refused("not-found", "Kill", signal=15)
    refused("state", "Pause")
    refused("state", "Resume")
    held.call("Delete")
    refused("not-found", "Delete")


def test_a_container_that_cannot_be(containers: Containers) -> None:
    """Nothing is left, the shim goes on, and another attempt may succeed."""
    held = containers.shim("/no/such")
    with pytest.raises(Error, match="/no/such"):
        held.create()
    assert sorted(path.name for path in held.bundle.iterdir()) == ["address", "config.json", "log"]
    config = json.loads((held.bundle / "config.json").read_text())
    config["process"]["args"] = ["true"]
    (held.bundle / "config.json").write_text(json.dumps(config))
    held.create()
    assert held.run().exit_status == 0
    wait_for(lambda: containers.containerd.events.topics() == ["create", "start", "exit"], "the events", 5)


def test_while_it_is_made(containers: Containers) -> None:
    """Nothing else is done to it until it is there."""
    held = containers.shim("true")
    request = api.CreateTaskRequest(id=held.name, bundle=str(held.bundle), options=Wrapped.of(containers.options))
    making = held.shim.send("Create", request)
    for method in ("Delete", "Start", "Kill"):
        with pytest.raises(Error) as caught:
            held.call(method)
        assert caught.value.code == "state"
    assert held.shim.receive("Create", making).pid == held.call("State").pid
    assert held.run().exit_status == 0


def test_it_was_never_started(containers: Containers) -> None:
    held = containers("sleep", "1000")
    done = held.remove()
    assert done.exit_status == 137
    wait_for(lambda: containers.containerd.events.topics() == ["create", "exit", "delete"], "the events", 5)


def test_added_processes(containers: Containers) -> None:
    held = containers("sleep", "1000")
    held.call("Start")
    held.add("one", "sh", "-c", "exit 4")
    assert (held.status("one"), held.call("State", exec_id="one").id) == (CREATED, "one")
    with pytest.raises(Error, match="this name"):
        held.add("one", "true")
    waiting = held.shim.send("Wait", api.WaitRequest(id=held.name, exec_id="one"))
    pid = held.call("Start", exec_id="one").pid
    assert held.shim.receive("Wait", waiting).exit_status == 4
    assert held.call("Delete", exec_id="one").exit_status == 4
    held.add("one", "sleep", "1000")
    other = held.call("Start", exec_id="one").pid
    assert other != pid
    named = {one.pid: one.info and one.info.read(ProcessDetails).exec_id for one in held.call("Pids").processes}
    assert named == {held.call("State").pid: None, other: "one"}
    with pytest.raises(Error, match="runs"):
        held.call("Delete", exec_id="one")
    held.call("Kill", exec_id="one", signal=9)
    assert held.call("Wait", exec_id="one").exit_status == 137
    with pytest.raises(Error, match="ended"):
        held.call("Kill", exec_id="one", signal=9)
    assert held.status() == RUNNING
    topics = ["create", "start", "exec-added", "exec-started", "exit", "exec-added", "exec-started", "exit"]
    wait_for(lambda: containers.containerd.events.topics() == topics, "the events", 5)


def test_an_added_process_that_cannot_be(containers: Containers) -> None:
    held = containers("sleep", "1000")
    held.call("Start")
    held.add("bad", "/no/such")
    with pytest.raises(Error, match="/no/such"):
        held.call("Start", exec_id="bad")
    assert held.status("bad") == STOPPED
    with pytest.raises(Error, match="before"):
        held.call("Start", exec_id="bad")
    held.call("Delete", exec_id="bad")
    held.add("never", "true")
    waiting = held.shim.send("Wait", api.WaitRequest(id=held.name, exec_id="never"))
    held.call("Delete", exec_id="never")
    assert held.shim.receive("Wait", waiting).exit_status == 0


def test_init_ends_last(containers: Containers) -> None:
    """containerd is told of added processes before it is told of init, with a PID namespace or without."""
    taken, before = containers.containerd.events.taken, 0
    shared: dict[str, Any] = {"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}}
    for edits in ({}, shared):
        held = containers("sleep", "1000", **edits)
        held.call("Start")
        for name in ("a", "b"):
            held.add(name, "sleep", "1000")
            held.call("Start", exec_id=name)
        before += 6  # create, start, and two for each process
        wait_for(lambda before=before: len(taken) == before, "the events", 5)  # type: ignore[misc]
        held.call("Kill", signal=9)
        assert held.call("Wait").exit_status == 137
        wait_for(lambda before=before: len(taken) == before + 3, "the events", 5)  # type: ignore[misc]
        assert taken[-1][1].id == held.name
        assert {event.id for _, event in taken[before:-1]} == {"a", "b"}
        held.call("Delete")
        before += 4


def test_pause_and_kill(containers: Containers) -> None:
    held = containers("sleep", "1000")
    held.call("Start")
    held.call("Pause")
    assert held.status() == PAUSED
    held.add("e", "true")
    with pytest.raises(Error, match="paused"):
        held.call("Start", exec_id="e")
    held.call("Resume")
    assert held.status() == RUNNING
    held.call("Pause")
    held.call("Kill", signal=9)
    assert held.call("Wait").exit_status == 137
    topics = ["create", "start", "paused", "exec-added", "resumed", "paused", "exit"]
    wait_for(lambda: containers.containerd.events.topics() == topics, "the events", 5)


def test_statistics_and_limits(containers: Containers) -> None:
    if not available("pids"):
        pytest.skip("no pids controller in this view of the cgroups")
    held = containers("sleep", "1000", linux={"resources": {"pids": {"limit": 100}}})
    held.call("Start")

    def pids() -> Any:
        found = held.call("Stats").stats
        kind = cgroups_v1.Metrics if found.type_url == cgroups_v1.Metrics.TYPE_URL else cgroups_v2.Metrics
        return found.read(kind).pids

    assert (pids().current, pids().limit) == (1, 100)
    held.call("Update", resources=Wrapped(type_url=RESOURCES, value=b'{"pids": {"limit": 50}}'))
    assert pids().limit == 50


def test_memory_runs_out(containers: Containers) -> None:
    if not available("memory"):
        pytest.skip("no memory controller in this view of the cgroups")
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    held = containers("sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1", linux={"resources": limits})
    assert held.run().exit_status == 137
    wait_for(lambda: "exit" in containers.containerd.events.topics(), "the events", 5)
    assert containers.containerd.events.topics()[:3] == ["create", "start", "oom"]


def test_a_checkpoint_needs_criu(containers: Containers) -> None:
    """It says why not, and the container goes on."""
    held = containers("sleep", "1000")
    held.call("Start")
    path = f"{containers.place}/images"
    with pytest.raises(Error, match="absolute"):
        held.call("Checkpoint", path="relative")
    options = Wrapped.of(CheckpointOptions(empty_namespaces=["ipc"]))
    with pytest.raises(Error, match="ipc"):
        held.call("Checkpoint", path=path, options=options)
    if subprocess.run(["sh", "-c", "PATH=$PATH:/usr/sbin criu check"], capture_output=True, check=False).returncode == 0:
        held.call("Checkpoint", path=path, options=Wrapped.of(CheckpointOptions(exit=True)))
        assert held.call("Wait").exit_status == 137
        return
    with pytest.raises(Error, match="criu"):
        held.call("Checkpoint", path=path)
    assert held.status() == RUNNING
    restored = containers.shim("sleep", "1000")
    assert restored.create(checkpoint=path) == 0
    assert restored.status() == CREATED
    with pytest.raises(Error, match="criu|no checkpoint"):
        restored.call("Start")
    restored.call("Delete")


def test_a_pod_has_one_shim(containers: Containers) -> None:
    """Whoever asks for a shim of its group is given the one that is there; it ends with the last."""
    first = containers("sleep", "1000", annotations={"io.kubernetes.cri.sandbox-id": "pod"})
    second = containers("sleep", "1000", annotations={"io.kubernetes.cri.sandbox-id": "pod"})
    alone = containers("sleep", "1000")
    assert first.shim.pid == second.shim.pid != alone.shim.pid
    for held in (first, second):
        held.call("Start")
    first.call("Kill", signal=9)
    first.call("Wait")
    first.remove()
    assert second.status() == RUNNING
    assert containers.containerd.delete(first.name).exit_status == 137  # as containerd 1.6 does, to be sure
    assert second.status() == RUNNING
    second.call("Kill", signal=9)
    second.call("Wait")
    second.remove()
    gone(second.shim.pid)


def test_the_shim_is_killed(containers: Containers) -> None:
    """`delete` removes what it has left: also the other containers of its pod, which nobody would reap."""
    held = [containers("sleep", "1000", annotations={"io.kubernetes.cri.sandbox-id": "pod"}) for _ in range(2)]
    pids = []
    for each in held:
        pids.append(each.call("Start").pid)
    kill(held[0].shim.pid)
    gone(held[0].shim.pid)
    done = containers.containerd.delete(held[0].name)
    assert (done.pid, done.exit_status) == (pids[0], 137)
    for each in held:
        assert not (each.bundle / "ocirt").exists()
    for pid in pids:
        assert not Path(f"/proc/{pid}/exe").exists()
    assert not Path(held[0].shim.address.removeprefix("unix://")).exists()
    assert containers.containerd.delete(held[1].name).exit_status == 137


def test_two_clean_up_at_once(containers: Containers) -> None:
    """containerd loses the connections of all containers of a pod at the same time."""
    held = [containers("sleep", "1000", annotations={"io.kubernetes.cri.sandbox-id": "pod"}) for _ in range(3)]
    for each in held:
        each.call("Start")
    kill(held[0].shim.pid)
    gone(held[0].shim.pid)
    begun = time.monotonic()
    cleaning = []
    for each in held:
        argv = containers.containerd.command(each.name, "delete")
        cleaning.append(subprocess.Popen(argv, cwd=each.bundle, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    for one in cleaning:
        out, err = one.communicate(timeout=20)
        assert (one.returncode, err) == (0, b"")
        assert api.DeleteResponse.decode(out).exit_status == 137
    assert time.monotonic() - begun < 4  # containerd waits for five seconds
    assert not any((each.bundle / "ocirt").exists() for each in held)


def test_the_shim_is_killed_after_the_end(containers: Containers) -> None:
    """What it has written down is what containerd hears."""
    held = containers("sh", "-c", "exit 6")
    held.run()
    kill(held.shim.pid)
    gone(held.shim.pid)
    assert containers.containerd.delete(held.name).exit_status == 6


def test_containerd_has_lost_a_shim(containers: Containers) -> None:
    """`delete` of one that lives, and does not answer, ends it."""
    held = containers("sleep", "1000")
    held.call("Start")
    os.kill(held.shim.pid, signal.SIGSTOP)
    assert containers.containerd.delete(held.name).exit_status == 137
    gone(held.shim.pid)


def test_containerd_restarts(containers: Containers) -> None:
    """The container goes on without it, and what it has missed it hears later, in order."""
    events = containers.containerd.events
    held = containers("sleep", "1000")
    wait_for(lambda: events.topics() == ["create"], "the event", 5)
    events.stop()
    held.shim.socket.close()
    again = held.shim = TaskShim((held.bundle / "address").read_text())
    assert again.pid == held.shim.pid
    held.call("Start")
    held.call("Kill", signal=9)
    assert held.call("Wait").exit_status == 137
    assert events.topics() == ["create"]
    events.start()
    wait_for(lambda: events.topics() == ["create", "start", "exit"], "the events", 10)


def test_an_event_is_refused(containers: Containers) -> None:
    """It is sent again, and what comes after it waits; one that is never taken does not stand in the way for ever."""
    events = containers.containerd.events
    pod = {"io.kubernetes.cri.sandbox-id": "pod"}  # by one shim
    events.refusals = 2
    held = containers("true", annotations=pod)
    held.run()
    wait_for(lambda: events.topics() == ["create", "start", "exit"], "the events", 10)
    events.refusals = 5
    held.call("Delete")
    other = containers("true", annotations=pod)
    wait_for(lambda: len(events.taken) == 4, "the events", 10)
    assert (events.taken[-1][0], events.taken[-1][1].container_id) == ("/tasks/create", other.name)


def test_its_log(containers: Containers) -> None:
    """Lines as containerd's own, for whoever reads the FIFO; nobody is waited for."""
    held = containers.shim("true")
    log = os.open(held.bundle / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        held.create()
        held.run()
        with pytest.raises(Error):
            held.call("Start")
        text = os.read(log, 65536).decode()
    finally:
        os.close(log)
    lines = text.splitlines()
    assert any(f'level=debug msg="Create {held.name}" runtime=io.containerd.ocirt.v2 namespace=tests' in line for line in lines)
    assert all(line.startswith('time="2') for line in lines)
    held.call("State")


def test_a_namespaces_shims_are_its_own(containers: Containers) -> None:
    """Where `start` of an older containerd says the address, and when it cannot be started."""
    name = containers.shim("true").name
    plain = containers.containerd.run(name, "start").decode()
    assert plain == (containers.containerd.bundle(name) / "address").read_text()
    assert plain.startswith("unix:///run/containerd/s/ocirt-")
    old = TaskShim(plain)
    document = json.loads(containers.containerd.run(name, "start", MAX_SHIM_VERSION="2"))
    assert document == {"version": 2, "address": plain, "protocol": "ttrpc"}
    with pytest.raises(AssertionError, match="not defined"):
        containers.containerd.run(name, "-what")
    old.call("Shutdown", api.ShutdownRequest())
    old.socket.close()
    gone(old.pid)
