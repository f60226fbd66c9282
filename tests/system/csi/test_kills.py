"""The driver is killed at each call that changes something, in each of its calls: the next attempt gets what was asked for.

Each change announces itself to `sys.audit`: the driver runs in a child whose hook counts, and ends it at the Nth. What a fresh
start leaves is looked at before the attempt, and once more when all was taken away.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.kernel import calls
from ocirt_csi.model import Snapshot, Volume
from ocirt_csi.store import AUDIT
from tests.support.csi import MIB, NODE, Plugin, in_child
from tests.support.kills import chosen
from tests.system.csi.conftest import WAYS

MOST = 8  # points of one call, unless all are tried
EVENTS = {
    calls.AUDIT, AUDIT, "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.setxattr",
    "subprocess.Popen",
}  # fmt: skip

Step = Callable[[Plugin], object]


def counted(plugin: Plugin, step: Step, kill_at: int) -> int:
    """Run a step in a child, which is killed at an event; how many there were if it was not (0: it was)."""
    note = plugin.work / "count"

    def work() -> int:
        seen = 0
        on = False

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if on and event in EVENTS:
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        plugin.start()
        on = True
        step(plugin)
        on = False
        note.write_text(str(seen))
        return 0

    status = in_child(work)
    assert status in (0, -signal.SIGKILL), f"the step failed at its event {kill_at}"
    return 0 if status else int(note.read_text())


def sound(plugin: Plugin) -> None:
    """After a fresh start nothing is half done, and what lies in the pool is what the state knows."""
    assert plugin.parts is not None
    store = plugin.parts.driver.store
    for rows in store._objects.values():
        assert {one.phase for one in rows.values()} <= {"ready"}
    pool = Path(plugin.pool.directory)
    assert {one.place for one in store.all(Volume)} == set(os.listdir(pool / "volumes"))
    assert {one.place for one in store.all(Snapshot)} == set(os.listdir(pool / "snapshots"))
    for one in store.things():
        owner = plugin.parts.driver.pool_of(one)
        assert owner.back_end(one).damage(owner.place(one), one) == ""


def volume(plugin: Plugin) -> str:
    return plugin.create("a", 24 * MIB).volume_id


def of_volume(plugin: Plugin) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume(plugin)))


def create(plugin: Plugin) -> object:
    return volume(plugin)


def clone(plugin: Plugin) -> object:
    return plugin.create("b", 24 * MIB, volume_content_source=of_volume(plugin))


def snapshot(plugin: Plugin) -> object:
    return plugin.call("CreateSnapshot", name="s", source_volume_id=volume(plugin))


def delete_snapshot(plugin: Plugin) -> object:
    found = plugin.call("ListSnapshots").entries
    return [plugin.call("DeleteSnapshot", snapshot_id=one.snapshot.snapshot_id) for one in found]


def group(plugin: Plugin) -> object:
    other = plugin.create("b", 24 * MIB).volume_id
    return plugin.call("CreateVolumeGroupSnapshot", name="g", source_volume_ids=[volume(plugin), other])


def expand(plugin: Plugin) -> object:
    larger = csi.CapacityRange(required_bytes=40 * MIB)
    answer = plugin.call("ControllerExpandVolume", volume_id=volume(plugin), capacity_range=larger)
    assert answer.capacity_bytes == 40 * MIB
    return answer


def attach(plugin: Plugin) -> object:
    return plugin.call("ControllerPublishVolume", volume_id=volume(plugin), node_id=NODE, volume_capability=plugin.capability)


def stage(plugin: Plugin) -> object:
    return plugin.stage(volume(plugin))


def publish(plugin: Plugin) -> object:
    place = plugin.publish(volume(plugin))
    assert os.path.ismount(place) or place.is_block_device()
    return place


def unpublish(plugin: Plugin) -> object:
    place = plugin.target("pod")
    plugin.call("NodeUnpublishVolume", volume_id=volume(plugin), target_path=place)
    assert not os.path.lexists(place)
    return place


def unstage(plugin: Plugin) -> object:
    return plugin.call("NodeUnstageVolume", volume_id=volume(plugin), staging_target_path=plugin.staging(volume(plugin)))


def delete(plugin: Plugin) -> object:
    found = [one.volume.volume_id for one in plugin.call("ListVolumes").entries]
    for one in found:
        plugin.call("DeleteVolume", volume_id=one)
    assert plugin.call("ListVolumes").entries == []
    return found


def inline(plugin: Plugin) -> object:
    context = {"csi.storage.k8s.io/ephemeral": "true", "size": "24Mi"}
    return plugin.publish("csi-1", volume_context=context, staging_target_path="")


def end_inline(plugin: Plugin) -> object:
    return plugin.call("NodeUnpublishVolume", volume_id="csi-1", target_path=plugin.target("pod"))


# What was done before the step: its name to those steps.
STEPS: dict[Step, tuple[Step, ...]] = {
    create: (),
    clone: (create, stage),
    snapshot: (create, stage),
    delete_snapshot: (create, snapshot),
    group: (create, stage),
    expand: (create,),
    attach: (create,),
    stage: (create,),
    publish: (create, stage),
    unpublish: (create, stage, publish),
    unstage: (create, stage),
    delete: (create,),
    inline: (),
    end_inline: (inline,),
}


def take_away_all(plugin: Plugin) -> None:
    """By the driver's own calls, until it is as it was."""
    found = [one.volume.volume_id for one in plugin.call("ListVolumes").entries]
    for one in found:
        plugin.call("NodeUnpublishVolume", volume_id=one, target_path=plugin.target("pod"))
        plugin.call("NodeUnstageVolume", volume_id=one, staging_target_path=plugin.staging(one))
        plugin.call("ControllerUnpublishVolume", volume_id=one)
        plugin.call("DeleteVolume", volume_id=one)
    end_inline(plugin)
    assert plugin.parts is not None
    groups = list(plugin.parts.driver.store._objects["group"])
    for one in groups:
        plugin.call("DeleteVolumeGroupSnapshot", group_snapshot_id=one)
    delete_snapshot(plugin)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_killed_at_each_change(plugin: Plugin, way: str, step: Step) -> None:
    if "inline" in step.__name__ and "block" in way:
        step = publish  # an inline volume is mounted: what a block volume has instead once more
    plugin.stop()

    def prepared() -> None:
        plugin.start()
        for before in STEPS[step]:
            if way != "memory" or before is not stage or step not in (clone, snapshot, group):  # copied while it is not in use
                before(plugin)
        plugin.stop()

    def undone() -> None:
        take_away_all(plugin)
        assert plugin.left() == []
        plugin.stop()

    prepared()
    number = counted(plugin, step, 0)
    plugin.start()
    undone()
    assert number > 0
    for point in chosen(list(range(1, number + 1)), MOST):
        prepared()
        # A device that was busy a moment ago is asked for a few times more, so the last points may not be there again.
        if counted(plugin, step, point) and point < number * 3 // 4:
            pytest.fail(f"{step.__name__} has not so many changes any more: {point}")
        plugin.start()
        sound(plugin)
        step(plugin)
        sound(plugin)
        undone()
    plugin.start()
