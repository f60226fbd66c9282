"""What the services say of volumes, snapshots and groups, and lists of them in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.driver import Driver
from ocirt_csi.model import Attachment, Group, Record, Snapshot, Volume

T = TypeVar("T", bound=Record)


def topology(driver: Driver) -> csi.Topology:
    """Where this node is."""
    return csi.Topology(segments={driver.settings.topology: driver.settings.node})


def volume(driver: Driver, one: Volume) -> csi.Volume:
    """A volume of this node."""
    found = csi.Volume(capacity_bytes=one.size, volume_id=one.id, accessible_topology=[topology(driver)])
    if one.source[:1] == ("snapshot",):
        found.content_source.snapshot.snapshot_id = one.source[1]
    elif one.source:
        found.content_source.volume.volume_id = one.source[1]
    return found


def nodes(driver: Driver, one: Volume) -> list[str]:
    """Where the controller published a volume, or where it is used without that."""
    found = {each.node for each in driver.store.of(Attachment, one.id)}
    if driver.uses(one.id):
        found.add(driver.settings.node)
    return sorted(found)


def snapshot(driver: Driver, one: Snapshot) -> csi.Snapshot:
    """A snapshot, which is ready as soon as there is one."""
    return csi.Snapshot(
        snapshot_id=one.id,
        source_volume_id=one.volume,
        size_bytes=one.size,
        creation_time=_time(one.created),
        ready_to_use=True,
        group_snapshot_id=one.group,
        accessible_topology=[topology(driver)],
    )


def group(driver: Driver, one: Group) -> csi.VolumeGroupSnapshot:
    """A group with its snapshots."""
    members = [driver.snapshot(each) for each in one.snapshots]
    return csi.VolumeGroupSnapshot(
        group_snapshot_id=one.id,
        snapshots=[snapshot(driver, each) for each in members],
        creation_time=_time(one.created),
        ready_to_use=True,
    )


def page(found: Sequence[T], entries: int, after: int) -> tuple[list[T], str]:
    """A part of a list that is in order, and the token that the next part begins with ("": there is none).

    The token is the place of the last entry: it stays right while entries come and go.
    """
    left = [one for one in found if one.sequence > after]
    if not entries or len(left) <= entries:
        return left, ""
    return left[:entries], str(left[entries - 1].sequence)


def _time(nanoseconds: int) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made
