"""SnapshotMetadata: what of a block volume has data, and what changed between two snapshots; limits of its device for a pod."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ocirt_api import status
from ocirt_csi import iolimits
from tests.support.csi import MIB, Plugin, block, refused

BLOCKS = pytest.mark.parametrize("way", ["block", "shared-block"], indirect=True)


def write(place: Path, at: int, text: bytes) -> None:
    with place.open("r+b") as file:
        file.seek(at)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def ranges(answers: list[Any]) -> list[tuple[int, int]]:
    return [(one.byte_offset, one.size_bytes) for answer in answers for one in answer.block_metadata]


@BLOCKS
def test_what_has_data_and_what_changed(plugin: Plugin) -> None:
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    write(place, MIB, b"a" * MIB)
    write(place, 10 * MIB, b"b" * 4096)
    ids = [plugin.call("CreateSnapshot", name="one", source_volume_id=volume).snapshot.snapshot_id]
    write(place, 10 * MIB, b"c" * 4096)
    write(place, 30 * MIB, b"d" * 3 * MIB)
    write(place, MIB, b"a" * MIB)  # as it was
    ids.append(plugin.call("CreateSnapshot", name="two", source_volume_id=volume).snapshot.snapshot_id)
    base, target = ids
    found = plugin.call("GetMetadataAllocated", snapshot_id=base)
    assert {one.volume_capacity_bytes for one in found} == {64 * MIB}
    covered = {at // 4096 for start, length in ranges(found) for at in range(start, start + length, 4096)}
    assert {MIB // 4096, 2 * MIB // 4096 - 1, 10 * MIB // 4096} <= covered
    assert len(covered) < 3 * MIB // 4096
    delta = {"base_snapshot_id": base, "target_snapshot_id": target}
    changed = ranges(plugin.call("GetMetadataDelta", **delta))
    assert changed == [(10 * MIB, 64 << 10), (30 * MIB, 3 * MIB)]
    pages = plugin.call("GetMetadataDelta", max_results=1, **delta)
    assert [len(one.block_metadata) for one in pages] == [1, 1]
    rest = ranges(plugin.call("GetMetadataDelta", starting_offset=31 * MIB, **delta))
    assert rest == [(31 * MIB, 2 * MIB)]
    assert ranges(plugin.call("GetMetadataDelta", base_snapshot_id=base, target_snapshot_id=base)) == []
    assert refused(lambda: plugin.call("GetMetadataDelta", starting_offset=64 * MIB, **delta)) == status.OUT_OF_RANGE
    assert refused(lambda: plugin.call("GetMetadataDelta", starting_offset=-1, **delta)) == status.OUT_OF_RANGE
    assert refused(lambda: plugin.call("GetMetadataAllocated", snapshot_id="x")) == status.NOT_FOUND
    plugin.end(volume)


def test_files_have_no_blocks(plugin: Plugin) -> None:
    volume = plugin.create("a").volume_id
    snapshot = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    assert refused(lambda: plugin.call("GetMetadataAllocated", snapshot_id=snapshot)) == status.INVALID_ARGUMENT


def test_snapshots_of_two_volumes(plugin: Plugin) -> None:
    plugin.capability = block()
    ids = []
    for name in "ab":
        volume = plugin.create(name).volume_id
        ids.append(plugin.call("CreateSnapshot", name=name, source_volume_id=volume).snapshot.snapshot_id)
    delta = {"base_snapshot_id": ids[0], "target_snapshot_id": ids[1]}
    assert refused(lambda: plugin.call("GetMetadataDelta", **delta)) == status.INVALID_ARGUMENT


@BLOCKS
def test_limits_of_a_device(plugin: Plugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They hold for the pod's cgroup from its publication on, and change at once."""
    uid = "12345678-1234-1234-1234-123456789abc"
    group = tmp_path / "blkio" / "kubepods" / "burstable" / f"pod{uid}"
    group.mkdir(parents=True)
    monkeypatch.setattr(iolimits.folders, "__defaults__", (str(tmp_path),))
    volume = plugin.create("a", mutable_parameters={"readBps": "10M"}).volume_id
    plugin.stage(volume)
    place = plugin.publish(volume, f"pods/{uid}/volumes/x")
    number = place.stat().st_rdev
    device = f"{os.major(number)}:{os.minor(number)}"
    assert (group / "blkio.throttle.read_bps_device").read_text() == f"{device} 10000000"
    plugin.call("ControllerModifyVolume", volume_id=volume, mutable_parameters={"readBps": "0", "writeIops": "100"})
    assert (group / "blkio.throttle.read_bps_device").read_text() == f"{device} 0"
    assert (group / "blkio.throttle.write_iops_device").read_text() == f"{device} 100"
    wrong = lambda: plugin.call("ControllerModifyVolume", volume_id=volume, mutable_parameters={"readBps": "fast"})  # noqa: E731
    assert refused(wrong) == status.INVALID_ARGUMENT
    plugin.end(volume, f"pods/{uid}/volumes/x")


def test_compression_of_a_subvolume(plugin: Plugin) -> None:
    """What is written after it was asked for takes less of the disk, and a size is as it was."""
    volume = plugin.create("a", mutable_parameters={"compression": "none"}).volume_id
    place = plugin.use(volume)
    plugin.call("ControllerModifyVolume", volume_id=volume, mutable_parameters={"compression": "zstd"})
    assert os.getxattr(place, "btrfs.compression") == b"zstd"
    (place / "file").write_bytes(bytes(16 * MIB))
    os.sync()
    assert (place / "file").stat().st_blocks * 512 >= 16 * MIB  # as the file says
    used = plugin.call("NodeGetVolumeStats", volume_id=volume, volume_path=str(place)).usage[0].used
    assert used < 4 * MIB
    plugin.end(volume)


def test_lists_in_pages(plugin: Plugin) -> None:
    """Entries that come and go between pages neither hide others nor show them twice."""
    names = [plugin.create(f"v{number}", MIB).volume_id for number in range(7)]
    first = plugin.call("ListVolumes", max_entries=3)
    assert [one.volume.volume_id for one in first.entries] == names[:3]
    for gone in (names[2], names[3]):  # the last of the page, and the first of the next
        plugin.call("DeleteVolume", volume_id=gone)
    names.append(plugin.create("new", MIB).volume_id)
    second = plugin.call("ListVolumes", max_entries=3, starting_token=first.next_token)
    third = plugin.call("ListVolumes", max_entries=3, starting_token=second.next_token)
    assert [one.volume.volume_id for one in (*second.entries, *third.entries)] == names[4:]
    assert third.next_token == ""
    for token in ("x", "-1", "1" * 30, "\u0661"):
        assert refused(lambda token=token: plugin.call("ListVolumes", starting_token=token)) == status.ABORTED  # type: ignore[misc]
    assert refused(lambda: plugin.call("ListVolumes", max_entries=-1)) == status.INVALID_ARGUMENT
    for number in range(5):
        plugin.call("CreateSnapshot", name=f"s{number}", source_volume_id=names[number % 2])
    page = plugin.call("ListSnapshots", max_entries=2, source_volume_id=names[0])
    assert len(page.entries) == 2
    rest = plugin.call("ListSnapshots", source_volume_id=names[0], starting_token=page.next_token)
    assert [one.snapshot.source_volume_id for one in rest.entries] == [names[0]]
    assert plugin.call("ListSnapshots", snapshot_id="x").entries == []
