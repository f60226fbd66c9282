"""Controller and GroupController: snapshots, and groups of them."""

from __future__ import annotations

from collections.abc import Iterable

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks, parameters
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.model import READY, Group, Snapshot
from ocirt_csi.services import answers
from ocirt_csi.snapshots import Snapshots


class SnapshotService:
    """Volumes as they were."""

    def __init__(self, driver: Driver, snapshots: Snapshots) -> None:
        self._driver = driver
        self._snapshots = snapshots

    def CreateSnapshot(self, request: csi.CreateSnapshotRequest) -> csi.CreateSnapshotResponse:
        """Keep what a volume holds now."""
        name = checks.text(request.name, "name")
        volume = checks.identifier(request.source_volume_id, "source_volume_id")
        parameters.checked(checks.mapping(request.parameters, "parameters"), (), "parameters")
        settings = self._driver.settings
        wanted = [one.segments.get(settings.topology, settings.node) for one in request.accessibility_requirements.requisite]
        if wanted and settings.node not in wanted:
            text = f"a snapshot is where its volume is, on the node {settings.node!r}"
            raise Error("exhausted", text, subject="accessibility_requirements")
        return csi.CreateSnapshotResponse(snapshot=answers.snapshot(self._driver, self._snapshots.create(name, volume)))

    def DeleteSnapshot(self, request: csi.DeleteSnapshotRequest) -> csi.DeleteSnapshotResponse:
        """Take a snapshot away; what was made of it stays."""
        self._snapshots.delete(checks.identifier(request.snapshot_id, "snapshot_id"))
        return csi.DeleteSnapshotResponse()

    def GetSnapshot(self, request: csi.GetSnapshotRequest) -> csi.GetSnapshotResponse:
        """One snapshot."""
        found = self._driver.snapshot(checks.identifier(request.snapshot_id, "snapshot_id"))
        return csi.GetSnapshotResponse(snapshot=answers.snapshot(self._driver, found))

    def ListSnapshots(self, request: csi.ListSnapshotsRequest) -> csi.ListSnapshotsResponse:
        """All snapshots, those of a volume, or one."""
        entries, after = checks.page(request.max_entries, request.starting_token)
        kept = [
            one
            for one in self._driver.store.all(Snapshot)
            if one.phase == READY
            and request.snapshot_id in ("", one.id)
            and request.source_volume_id in ("", one.volume)
        ]  # fmt: skip
        found, token = answers.page(kept, entries, after)
        answer = csi.ListSnapshotsResponse(next_token=token)
        for one in found:
            answer.entries.add(snapshot=answers.snapshot(self._driver, one))
        return answer


class GroupService:
    """Snapshots of several volumes."""

    def __init__(self, driver: Driver, snapshots: Snapshots) -> None:
        self._driver = driver
        self._snapshots = snapshots

    def GroupControllerGetCapabilities(
        self, _: csi.GroupControllerGetCapabilitiesRequest
    ) -> csi.GroupControllerGetCapabilitiesResponse:
        """There is all that there can be."""
        one = csi.GroupControllerServiceCapability
        found = one(rpc=one.RPC(type=one.RPC.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT))
        return csi.GroupControllerGetCapabilitiesResponse(capabilities=[found])

    def CreateVolumeGroupSnapshot(self, request: csi.CreateVolumeGroupSnapshotRequest) -> csi.CreateVolumeGroupSnapshotResponse:
        """Keep what volumes hold now, all of them or none."""
        name = checks.text(request.name, "name")
        if not request.source_volume_ids:
            raise Error("invalid", "is missing", subject="source_volume_ids")
        volumes = [checks.identifier(one, "source_volume_ids") for one in request.source_volume_ids]
        parameters.checked(checks.mapping(request.parameters, "parameters"), (), "parameters")
        group = self._snapshots.create_group(name, volumes)
        return csi.CreateVolumeGroupSnapshotResponse(group_snapshot=answers.group(self._driver, group))

    def DeleteVolumeGroupSnapshot(self, request: csi.DeleteVolumeGroupSnapshotRequest) -> csi.DeleteVolumeGroupSnapshotResponse:
        """Take a group away. Raises Error("invalid") for snapshots that are not those of the group."""
        identifier = checks.identifier(request.group_snapshot_id, "group_snapshot_id")
        group = self._driver.store.get(Group, identifier)
        if group is not None:
            _compare(group, request.snapshot_ids)
        self._snapshots.delete_group(identifier)
        return csi.DeleteVolumeGroupSnapshotResponse()

    def GetVolumeGroupSnapshot(self, request: csi.GetVolumeGroupSnapshotRequest) -> csi.GetVolumeGroupSnapshotResponse:
        """One group."""
        identifier = checks.identifier(request.group_snapshot_id, "group_snapshot_id")
        group = self._driver.store.get(Group, identifier)
        if group is None or group.phase != READY:
            raise Error("not-found", "there is no such group", subject=identifier)
        _compare(group, request.snapshot_ids)
        return csi.GetVolumeGroupSnapshotResponse(group_snapshot=answers.group(self._driver, group))


def _compare(group: Group, identifiers: Iterable[str]) -> None:
    given = set(identifiers)
    if given and given != set(group.snapshots):
        raise Error("invalid", "are not the snapshots of this group", subject="snapshot_ids", hint=", ".join(group.snapshots))
