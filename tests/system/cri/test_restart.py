"""ocirtd dies, and another takes its place: what ran goes on, what was half done is undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def shim_of(node: Ocirtd, identifier: str) -> int:
    """The pid of a container's shim: the one process whose socket is in its directory."""
    import json  # noqa: PLC0415

    return int(json.loads((node.place / "v/shims" / identifier / "state.json").read_text())["pid"])


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_containers_go_on(node: Ocirtd, how: str) -> None:
    """Running, created and ended ones are found again, and no line of a log is missing."""
    pod = node.run_pod()
    counter = node.run(pod, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    waiting = node.create(pod, node.container_config("sleep", "1000"))
    ended = node.run(pod, "sh", "-c", "exit 4")
    node.wait(ended)
    brief = node.run(pod, "sh", "-c", "sleep 0.7; exit 9")
    getattr(node, how)()
    time.sleep(1.2)  # meanwhile one of them ends
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    assert node.status(counter).state == cri.CONTAINER_RUNNING
    assert node.status(waiting).state == cri.CONTAINER_CREATED
    assert (node.status(ended).exit_code, node.status(ended).state) == (4, cri.CONTAINER_EXITED)
    assert (node.wait(brief).exit_code, node.status(brief).reason) == (9, "Error")
    assert node.exec(counter, "echo", "here").stdout == b"here\n"
    node.start_container(waiting)
    assert node.status(waiting).state == cri.CONTAINER_RUNNING
    node.stop_container(counter)
    numbers = [int(text) for _, _, text in node.logged(counter)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 40
    node.remove_pod(pod)
    assert node.left() == []


def test_a_lost_shim_is_told(node: Ocirtd) -> None:
    """Whether it dies while ocirtd runs, or while it does not: the pod's containers are gone, with reason Unknown and 255."""
    pod, other = node.run_pod(), node.run_pod()
    second = node.run(other, "sleep", "1000")
    lost = [node.run(pod, "sleep", "1000") for _ in range(2)]
    os.kill(shim_of(node, lost[0]), signal.SIGKILL)
    for one in lost:
        status = node.wait(one)
        assert (status.exit_code, status.reason) == (255, "Unknown")
    assert node.exec(second, "true").exit_code == 0
    assert node.exec(node.run(pod, "sleep", "1000"), "true").exit_code == 0  # in a process of its own
    shim = shim_of(node, second)
    node.kill()
    os.kill(shim, signal.SIGKILL)
    node.start()
    status = node.status(second)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")
    node.remove_pod(pod)
    node.remove_pod(other)
    assert node.left() == []


def test_containers_of_a_pod_share_a_process(node: Ocirtd) -> None:
    """Their shims do, as long as one is there, and over a restart of ocirtd; those of another pod have another."""
    pod = node.run_pod()
    first, second = (node.run(pod, "sleep", "1000") for _ in range(2))
    ended = node.run(pod, "sh", "-c", "echo one; exit 3")
    assert node.wait(ended).exit_code == 3
    shims = {shim_of(node, one) for one in (first, second, ended)}
    assert len(shims) == 1
    assert shim_of(node, node.run(node.run_pod(), "sleep", "1000")) not in shims
    node.kill()
    node.start()
    node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=first))
    node.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=ended))
    third = node.run(pod, "sh", "-c", "echo three; sleep 1000")
    assert {shim_of(node, one) for one in (second, third)} == shims
    assert node.exec(second, "echo", "here").stdout == b"here\n"
    node.until(lambda: node.logged(third) == [("stdout", "F", "three")], "its log")
    for sandbox in node.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
        node.remove_pod(sandbox.id)
    assert node.left() == []
    node.until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in shims), "the end of the process")


def test_containers_with_a_process_of_their_own(node: Ocirtd) -> None:
    """As the configuration has it; one that is killed takes no other along."""
    with node.config.open("a") as file:
        file.write("[containers]\nown_process = true\n")
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: "containers.own_process: true, was false" in node.log.read_text(), "the change in the log")
    pod = node.run_pod()
    lost, kept = (node.run(pod, "sleep", "1000") for _ in range(2))
    assert shim_of(node, lost) != shim_of(node, kept)
    os.kill(shim_of(node, lost), signal.SIGKILL)
    assert node.wait(lost).exit_code == 255
    assert node.exec(kept, "true").exit_code == 0


def test_a_shim_that_hangs_is_not_shared(node: Ocirtd) -> None:
    """The pod's next container gets one of its own."""
    pod = node.run_pod()
    first = node.run(pod, "sleep", "1000")
    os.kill(shim_of(node, first), signal.SIGSTOP)
    try:
        second = node.run(pod, "sleep", "1000")
    finally:
        os.kill(shim_of(node, first), signal.SIGCONT)
    assert shim_of(node, second) != shim_of(node, first)
    assert node.exec(second, "true").exit_code == node.exec(first, "true").exit_code == 0


def test_a_shim_that_is_slow_keeps_its_container(node: Ocirtd) -> None:
    """It runs all the time, and can be asked for once the shim answers again."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    shim = shim_of(node, box)
    node.kill()
    with node.config.open("a") as file:
        file.write("\n[limits]\nrecovery = 1\n")
    os.kill(shim, signal.SIGSTOP)
    try:
        node.start()
        assert node.status(box).state == cri.CONTAINER_RUNNING
    finally:
        os.kill(shim, signal.SIGCONT)
    assert node.exec(box, "true").exit_code == 0
    node.stop_container(box)
    assert node.status(box).exit_code == 137
    node.remove_pod(pod)
    assert node.left() == []


def test_the_zygote_may_die(node: Ocirtd) -> None:
    """What runs goes on; the next container has a new one."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    assert node.process is not None
    children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
    zygotes = [int(pid) for pid in children if b"ocirt_shim.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(zygotes) == 1
    os.kill(zygotes[0], signal.SIGKILL)
    other = node.run(pod, "sleep", "1000")
    assert node.exec(box, "true").exit_code == node.exec(other, "true").exit_code == 0


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 15, 20, 30, 40, 60])
def test_a_kill_while_a_container_is_made_leaves_nothing(node: Ocirtd, milliseconds: int) -> None:
    """And the retry succeeds."""
    pod = node.run_pod()
    wanted = node.container_config("sleep", "1000")
    call = node.runtime.CreateContainer.future(cri.CreateContainerRequest(pod_sandbox_id=pod, config=wanted))
    time.sleep(milliseconds / 1000)
    node.kill()
    call.cancel()
    node.start()
    assert len(node.containers()) <= 1
    made = node.create(pod, wanted)
    node.start_container(made)
    assert [one.id for one in node.containers()] == [made]
    node.remove_pod(pod)
    assert node.left() == []


def test_after_a_reboot(node: Ocirtd) -> None:
    """The state directory is empty, and the boot another: pods are not ready, containers have ended."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    node.stop_container(box)
    other = node.create(pod, node.container_config("sleep", "1000"))
    shim = shim_of(node, other)
    node.kill()
    with subprocess.Popen([sys.executable, "-c", _FORGET, str(node.place / "r/node.db")]) as forget:
        assert forget.wait() == 0
    os.kill(shim, signal.SIGKILL)
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
    status = node.status(other)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")
    assert "anew" in status.message
    assert node.status(box).exit_code == 137
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.create(pod, node.container_config("true"))
    node.remove_pod(pod)
    assert node.left() == []


_FORGET = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    for table in ("pods", "containers"):
        db.execute(f"UPDATE {table} SET more = json_set(more, '$.boot_id', 'another')")
db.close()
"""


def test_only_one_for_its_directories(node: Ocirtd) -> None:
    """A second names the first's pid, and takes nothing from it."""
    assert node.process is not None
    done = subprocess.run(node.command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"process {node.process.pid}" in done.stderr
    assert node.pods() == []


def test_the_configuration_is_read_again(node: Ocirtd) -> None:
    assert node.process is not None
    node.config.write_text(node.config.read_text() + "[containers]\npids_limit = 77\n")
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: "containers.pids_limit: 77, was 0" in node.log.read_text(), "the change in the log")
    node.config.write_text("nonsense = 1\n")
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: "the configuration stays as it is" in node.log.read_text(), "the refusal in the log")
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    assert node.exec(box, "true").exit_code == 0


def test_the_socket_is_for_root_alone(node: Ocirtd) -> None:
    status = node.socket.stat()
    assert status.st_mode & 0o777 == 0o660
    assert (status.st_uid, status.st_gid) == (0, 0)
    node.clear()
    assert not node.socket.exists()
