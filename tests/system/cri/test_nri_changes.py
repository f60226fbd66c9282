"""What plugins of NRI change: containers that are being made, and limits of those that run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from tests.support.nricalls import Make
from tests.support.ocirtd import PATIENCE, Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def test_adjustments(node: Ocirtd, plugin: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    adjust = {
        "annotations": {"nri": "yes"},
        "env": [{"key": "ADDED", "value": "1"}, {"key": "-TAKEN"}, {"key": "CHANGED", "value": "2"}],
        "mounts": [{"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["bind", "ro"]}],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": "77", "hard": "88"}],
        "linux": {
            "oomScoreAdj": {"value": "321"},
            "resources": {"memory": {"limit": {"value": str(64 << 20)}}, "cpu": {"shares": {"value": "300"}}},
            "devices": [{"path": "/dev/nri", "type": "c", "major": "1", "minor": "3", "fileMode": {"value": 0o666}}],
        },
        "hooks": {
            "createRuntime": [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", f"echo $MARK > {tmp_path}/hooked; cat > {tmp_path}/state"],
                    "env": ["MARK=x"],
                }
            ]
        },
    }
    plugin(CreateContainer={"adjust": adjust})
    pod = node.run_pod()
    envs = [cri.KeyValue(key="TAKEN", value=b"0"), cri.KeyValue(key="CHANGED", value=b"0")]
    script = (
        "env; cat /mnt/file; touch /mnt/x; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; echo z > /dev/nri && echo device"
    )
    box = node.run(pod, "sh", "-c", f"{script}; sleep 1000", envs=envs)
    node.until(lambda: ("stdout", "F", "device") in node.logged(box), "all that it says")
    said = [text for _, _, text in node.logged(box)]
    assert {"ADDED=1", "CHANGED=2", "from the host", "77", "88", "321"} <= set(said)
    assert not any(text.startswith("TAKEN") for text in said)
    assert any("Read-only file system" in text for text in said)
    assert (tmp_path / "hooked").read_text() == "x\n"
    bundle = Path(json.loads((tmp_path / "state").read_text())["bundle"])
    assert "ADDED=1" in json.loads((bundle / "config.json").read_text())["process"]["env"]
    limits = node.status(box).resources.linux
    assert (limits.memory_limit_in_bytes, limits.cpu_shares) == (64 << 20, 300)
    cgroup = next(line for line in node.exec(box, "cat", "/proc/self/cgroup").stdout.decode().splitlines() if ":memory:" in line)
    assert box in cgroup or cgroup.endswith(":/")
    assert node.exec(box, "sh", "-c", "echo $ADDED$TAKEN").stdout == b"1\n"


def test_plugins_are_asked_in_the_order_of_their_index(node: Ocirtd, plugin: Make) -> None:
    """Each sees what those before have changed; a second may take a thing away and set it anew."""
    last = plugin("90", CreateContainer={"adjust": {"env": [{"key": "-WORD"}, {"key": "WORD", "value": "last"}]}})
    first = plugin("10", CreateContainer={"adjust": {"env": [{"key": "WORD", "value": "first"}]}})
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "echo $WORD")
    node.wait(box)
    assert "WORD=first" not in first.container("CreateContainer").env
    assert "WORD=first" in last.container("CreateContainer").env
    assert node.logged(box) == [("stdout", "F", "last")]
    assert "WORD=last" in first.container("StartContainer").env


def test_two_plugins_that_want_the_same(node: Ocirtd, plugin: Make) -> None:
    for index in ("10", "20"):
        plugin(index, CreateContainer={"adjust": {"env": [{"key": "WORD", "value": index}]}})
    pod = node.run_pod()
    left = node.left()
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        node.create(pod, node.container_config("true"))
    assert "plugins '20-test1' and '10-test0' both tried to set Env WORD" in words[0]
    assert (node.left(), node.containers()) == (left, [])


def test_an_adjustment_that_cannot_be_made(node: Ocirtd, plugin: Make) -> None:
    one = plugin(CreateContainer={"adjust": {"mounts": [{"destination": "relative", "type": "bind", "source": "/tmp"}]}})
    pod = node.run_pod()
    left = node.left()
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.create(pod, node.container_config("true"))
    assert "NRI adjustment: mounts: 'relative' is not an absolute path" in words[0]
    assert node.left() == left
    one.order(CreateContainer={"adjust": {"linux": {"namespaces": [{"type": "network", "path": "/proc/nothing"}]}}})
    with pytest.raises(grpc.RpcError, match="/linux/namespaces"):
        node.create(pod, node.container_config("true"))
    assert node.left() == left


def test_a_validating_plugin_rejects(node: Ocirtd, plugin: Make) -> None:
    plugin(
        "10", CreateContainer={"adjust": {"env": [{"key": "WORD", "value": "x"}], "hooks": {"poststop": [{"path": "/bin/true"}]}}}
    )
    judge = plugin("05", events=["ValidateContainerAdjustment"], ValidateContainerAdjustment={"fail": "no words"})
    pod = node.run_pod()
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.create(pod, node.container_config("true"))
    assert "no words" in words[0]
    assert node.containers() == []
    [event] = judge.events(method="ValidateContainerAdjustment")
    request = nri.ValidateContainerAdjustmentRequest.FromString(base64.b64decode(event["request"]))
    assert [(one.index, one.name) for one in request.plugins] == [("05", "test1"), ("10", "test0")]
    assert [(one.key, one.value) for one in request.adjust.env] == [("WORD", "x")]
    owners = request.owners.owners[request.container.id]
    assert owners.compound[6].owners["WORD"] == "10-test0"
    assert owners.simple[3] == "10-test0"
    judge.order()
    node.create(pod, node.container_config("true"))


def shares(node: Ocirtd, box: str) -> int:
    """CPU shares that are in force."""
    return int(node.status(box).resources.linux.cpu_shares)


def change(identifier: str, value: int, **more: Any) -> dict[str, Any]:
    """An update of a container's CPU shares."""
    return {"containerId": identifier, "linux": {"resources": {"cpu": {"shares": {"value": str(value)}}}}, **more}


def test_updates_of_other_containers(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    first, second = (node.run(pod, "sleep", "1000") for _ in range(2))
    one.order(CreateContainer={"update": [change(first, 111), change("nobody", 5), change("nobody2", 5, ignoreFailure=True)]})
    third = node.run(pod, "sleep", "1000")
    assert (shares(node, first), shares(node, second)) == (111, 1024)
    log = node.log.read_text()
    assert "container nobody: an NRI plugin's update failed" in log
    assert "nobody2" not in log
    # In the place of what the request wants, and beside it.
    one.order(UpdateContainer={"update": [change(first, 222), change(second, 333)]})
    wanted = cri.LinuxContainerResources(cpu_shares=444, cpu_quota=50000)
    node.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=first, linux=wanted), timeout=PATIENCE)
    assert (shares(node, first), shares(node, second)) == (222, 333)
    assert node.status(first).resources.linux.cpu_quota == 50000
    one.order(StopContainer={"update": [change(first, 555)]})
    node.stop_container(third)
    assert shares(node, first) == 555
    # Unasked, in the middle of an answer.
    one.order(StartContainer={"unsolicited": [change(second, 666), change("nobody", 7)]})
    node.run(pod, "sleep", "1000")
    assert shares(node, second) == 666
    assert one.events(method="failed")[-1]["containers"] == ["nobody"]


def test_the_kernel_has_the_limits(node: Ocirtd, plugin: Make) -> None:
    """Of an adjustment, of a change by a plugin, and of a plugin that synchronises."""
    one = plugin(CreateContainer={"adjust": {"linux": {"resources": {"memory": {"limit": {"value": str(32 << 20)}}}}}})
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    one.end()

    def limit() -> int:
        for name in ("memory/memory.limit_in_bytes", "memory.max"):
            found = node.exec(box, "cat", f"/sys/fs/cgroup/{name}")
            if found.exit_code == 0:
                return int(found.stdout)
        raise AssertionError("no memory cgroup is to be seen")

    assert limit() == 32 << 20
    given = {"memory": {"limit": {"value": str(48 << 20)}}}
    plugin("60", Synchronize={"update": [{"containerId": box, "linux": {"resources": given}}]})
    assert limit() == 48 << 20
