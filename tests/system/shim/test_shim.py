"""A shim holds one container from its creation to its removal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocirt.containers.delete import delete
from ocirt.errors import Error
from ocirt_api.messages.shim import CREATED, PAUSED, RUNNING, STOPPED, KillRequest, UpdateRequest
from ocirt_shim import record
from tests.support.build import ROOT
from tests.support.runtime import wait_for
from tests.system.shim.conftest import Boxes

HEAVY = ("grpc", "asyncio", "google", "typing", "re", "json", "logging", "enum", "dataclasses", "socket", "subprocess")


def test_a_life(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "echo out; echo err >&2; exit 7")
    state = box.call("State")
    assert (state.status, state.started_at, state.exit_code) == (CREATED, 0, 0)
    assert box.call("Start").pid == state.pid
    ended = box.call("Wait")
    assert (ended.status, ended.exit_code, ended.oom_killed) == (STOPPED, 7, False)
    assert ended.created_at < ended.started_at <= ended.exited_at
    assert sorted(box.entries()) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    assert box.call("Delete").exit_code == 7
    wait_for(lambda: not box.shim.directory.exists(), "the end of the shim's files", 5)
    wait_for(lambda: not Path(f"/proc/{box.shim.pid}").exists(), "the end of the shim", 5)


def test_what_it_writes_down(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    found = record.load(str(box.shim.directory))
    assert (found["status"], found["init"], found["instance"]) == ("running", box.call("State").pid, "t")
    assert record.is_alive(found)
    box.call("Kill", KillRequest(signal=9))
    assert box.call("Wait").exit_code == 137
    found = record.load(str(box.shim.directory))
    assert (found["status"], found["exit_code"]) == ("stopped", 137)


def test_nothing_of_it_hangs_in_the_host_tree(boxes: Boxes) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    box = boxes("sh", "-c", "echo x >/new; exec sleep 1000")
    box.call("Start")
    assert Path("/proc/self/mountinfo").read_text() == before
    name = box.shim.directory.name
    wait_for((boxes.place / name / "upper" / "new").exists, "the file", 5)


def test_two_wait(boxes: Boxes) -> None:
    box = boxes("sleep", "0.2")
    box.call("Start")
    other = box.shim.again()
    with other.socket:
        first, second = box.shim.send("Wait"), other.send("Wait")
        assert box.shim.receive("Wait", first).exit_code == other.receive("Wait", second).exit_code == 0


def test_a_program_that_is_not_there(boxes: Boxes) -> None:
    with pytest.raises(Error, match="/no/such"):
        boxes("/no/such")
    assert boxes.made[-1].call("State").status == 0


def test_a_wrong_document(boxes: Boxes) -> None:
    with pytest.raises(Error, match="/process/cwd"):
        boxes("true", process={"cwd": "relative"})
    assert boxes.made[-1].call("State").status == 0


def test_signals(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done")
    box.call("Start")
    wait_for(lambda: box.log.exists() and box.entries(), "the trap", 5)
    box.call("Kill", KillRequest(signal=15))
    assert box.call("Wait").exit_code == 3
    with pytest.raises(Error, match="stopped"):
        box.call("Kill", KillRequest(signal=15))


def test_pause_and_kill(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    box.call("Pause")
    assert box.call("State").status == PAUSED
    box.call("Resume")
    assert box.call("State").status == RUNNING
    box.call("Pause")
    box.call("Kill", KillRequest(signal=9))
    assert box.call("Wait").exit_code == 137


def test_memory_runs_out(boxes: Boxes) -> None:
    """Init itself is killed."""
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    box = boxes("sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1", linux={"resources": limits})
    if "memory" not in Path("/proc/self/cgroup").read_text() and not Path("/sys/fs/cgroup/memory.stat").exists():
        pytest.skip("no memory controller in this view of the cgroups")
    ended = box.run()
    assert (ended.exit_code, ended.oom_killed) == (137, True)


def test_limits_change(boxes: Boxes) -> None:
    box = boxes("sleep", "1000", linux={"resources": {"pids": {"limit": 100}}})
    box.call("Start")
    box.call("Update", UpdateRequest(resources=json.dumps({"pids": {"limit": 50}}).encode()))
    with pytest.raises(Error, match="pids"):
        box.call("Update", UpdateRequest(resources=json.dumps({"pids": {"limit": "many"}}).encode()))


def test_its_maker_goes(boxes: Boxes) -> None:
    """The container runs on, and another finds it by the socket."""
    box = boxes("sh", "-c", "read x; sleep 1000", stdin=True)
    box.call("Start")
    box.shim.socket.close()
    box.shim = box.shim.again()
    state = box.call("State")
    assert state.status == RUNNING
    assert box.call("Pids").pids == [state.pid]


def test_no_container_was_made(boxes: Boxes) -> None:
    """Such a shim ends with its maker."""
    shim = boxes.zygote.shim(boxes.place, "nothing")
    shim.socket.close()
    wait_for(lambda: not shim.directory.exists(), "the end of the shim", 5)


def test_one_without_a_container_is_deleted(boxes: Boxes) -> None:
    """It ends well: nothing comes after the answer."""
    shim = boxes.zygote.shim(boxes.place, "nothing")
    shim.call("Delete")
    assert shim.socket.recv(1) == b""
    shim.socket.close()
    wait_for(lambda: not shim.directory.exists(), "the end of the shim", 5)


def test_it_is_killed(boxes: Boxes) -> None:
    """The runtime's own delete finds what is left of the container."""
    box = boxes("sleep", "1000")
    box.call("Start")
    os.kill(box.shim.pid, signal.SIGKILL)
    wait_for(lambda: not record.is_alive(record.load(str(box.shim.directory))), "the end of the shim", 5)
    delete(str(boxes.place / "runtime"), box.shim.directory.name, force=True)
    for name in os.listdir(box.shim.directory):
        (box.shim.directory / name).unlink()
    box.shim.directory.rmdir()


def test_the_zygote_is_killed(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    os.kill(boxes.zygote.pid, signal.SIGKILL)
    assert box.call("State").status == RUNNING


def test_what_it_loads() -> None:
    """Neither grpc nor asyncio nor protobuf, nor what the runtime does without: memory of every pod."""
    code = "import sys; sys.path += sys.argv[1:]; import ocirt_shim.hot; from ocirt_shim import zygote; "
    code += "zygote._load(sys.argv[1]); print(*sys.modules)"

    homes = [str(ROOT), str(ROOT / "api"), str(ROOT / "shim")]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, *homes], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "ocirt_shim.shim" in loaded
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_a_container_of_its_own_files(boxes: Boxes) -> None:
    """A shim's memory: what is not shared is below three MiB."""
    box = boxes("sleep", "1000")
    box.call("Start")
    time.sleep(0.2)
    text = Path(f"/proc/{box.shim.pid}/smaps_rollup").read_text()
    own = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty:", "Private_Clean:")))
    assert own < 3072, text


def test_an_earlier_memory_kill_is_not_the_last_word(boxes: Boxes) -> None:
    """A program in the container ran out of memory; later init is killed by who stops it."""
    if "memory" not in Path("/proc/self/cgroup").read_text() and not Path("/sys/fs/cgroup/memory.stat").exists():
        pytest.skip("no memory controller in this view of the cgroups")
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    box = boxes("sleep", "1000", linux={"resources": limits})
    box.call("Start")
    assert box.execute("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1").exit_code == 137
    box.call("Kill", KillRequest(signal=9))
    ended = box.call("Wait")
    assert (ended.exit_code, ended.oom_killed) == (137, False)


def test_its_maker_goes_while_the_container_is_made(boxes: Boxes) -> None:
    """The container is there all the same, and has a shim."""
    for _ in range(5):
        box = boxes.begin("sleep", "1000")
        box.shim.socket.close()
        wait_for(lambda box=box: record.load(str(box.shim.directory))["status"] == "created", "the container", 10)  # type: ignore[misc]
        box.shim = box.shim.again()
        assert box.call("State").status == CREATED
