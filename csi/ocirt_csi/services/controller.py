"""Controller: volumes as a whole."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.wrappers_pb2 import Int64Value

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks, parameters
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error, RangeError
from ocirt_csi.flags import read as read_flags
from ocirt_csi.model import DEVICES, Volume
from ocirt_csi.pools.base import BackEnd
from ocirt_csi.services import answers
from ocirt_csi.uses import Access
from ocirt_csi.volumes import Volumes, Wanted

_CAPABILITIES = (
    "CREATE_DELETE_VOLUME",
    "PUBLISH_UNPUBLISH_VOLUME",
    "LIST_VOLUMES",
    "GET_CAPACITY",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "CLONE_VOLUME",
    "PUBLISH_READONLY",
    "EXPAND_VOLUME",
    "MODIFY_VOLUME",
    "LIST_VOLUMES_PUBLISHED_NODES",
    "GET_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
    "GET_SNAPSHOT",
    "GET_VOLUME_HEALTH",
    "LIST_VOLUME_HEALTH",
)
_OF_SNAPSHOTS = ("CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS", "GET_SNAPSHOT")


class ControllerService:
    """Volumes, from anywhere in the cluster: what is not on this node does not exist for it."""

    def __init__(self, driver: Driver, volumes: Volumes) -> None:
        self._driver = driver
        self._volumes = volumes

    def ControllerGetCapabilities(self, _: csi.ControllerGetCapabilitiesRequest) -> csi.ControllerGetCapabilitiesResponse:
        """Which calls there are."""
        one = csi.ControllerServiceCapability
        left_out = () if self._driver.has_snapshots else _OF_SNAPSHOTS
        found = [one(rpc=one.RPC(type=one.RPC.Type.Value(name))) for name in _CAPABILITIES if name not in left_out]
        return csi.ControllerGetCapabilitiesResponse(capabilities=found)

    def CreateVolume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """Make a volume, empty or of a snapshot or another volume."""
        name = checks.text(request.name, "name")
        accesses = checks.capabilities(request.volume_capabilities)
        required, limit = checks.capacity(request.capacity_range)
        given = _parameters(request.parameters)
        self._check_topology(request.accessibility_requirements)
        fs_type = _fs_type(accesses)
        pool = self._driver.pool(given.get(parameters.CLASS) or self._driver.default)
        layout, kind = pool.layout(block=accesses[0].block, fs_type=fs_type)
        for one in accesses:
            read_flags(one.flags, kind)
        wanted = Wanted(
            name=name,
            block=accesses[0].block,
            fs_type=fs_type,
            required=required,
            limit=limit,
            parameters=given,
            mutable=parameters.mutable(checks.mapping(request.mutable_parameters, "mutable_parameters"), layout),
            source=_source(request.volume_content_source),
        )
        return csi.CreateVolumeResponse(volume=answers.volume(self._driver, self._volumes.create(wanted)))

    def DeleteVolume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """Take a volume away."""
        self._volumes.delete(checks.identifier(request.volume_id, "volume_id"))
        return csi.DeleteVolumeResponse()

    def ValidateVolumeCapabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        """Whether a volume can be used like that."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise Error("invalid", "is missing", subject="volume_capabilities")
        volume = self._driver.volume(identifier)
        answer = csi.ValidateVolumeCapabilitiesResponse()
        try:
            accesses = checks.capabilities(request.volume_capabilities)
            _parameters(request.parameters)
            parameters.mutable(checks.mapping(request.mutable_parameters, "mutable_parameters"), volume.layout)
            for one in accesses:
                if one.block != volume.block or (one.fs_type and one.fs_type != (volume.fs_type or "btrfs")):
                    raise Error("invalid", "the volume is of another kind", subject="volume_capabilities")
                read_flags(one.flags, volume.fs_type)
        except Error as err:
            answer.message = str(err)
            return answer
        answer.confirmed.volume_capabilities.extend(request.volume_capabilities)
        for field in ("volume_context", "parameters", "mutable_parameters"):
            getattr(answer.confirmed, field).update(getattr(request, field))
        return answer

    def ListVolumes(self, request: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        """All volumes but inline ones, which no controller made."""
        entries, after = checks.page(request.max_entries, request.starting_token)
        kept = [one for one in self._driver.store.all(Volume) if one.phase not in ("making", "removing") and not one.ephemeral]
        found, token = answers.page(kept, entries, after)
        answer = csi.ListVolumesResponse(next_token=token)
        for one in found:
            entry = answer.entries.add(volume=answers.volume(self._driver, one))
            entry.status.published_node_ids.extend(answers.nodes(self._driver, one))
        return answer

    def ControllerGetVolume(self, request: csi.ControllerGetVolumeRequest) -> csi.ControllerGetVolumeResponse:
        """One volume, and where it is published."""
        volume = self._driver.volume(checks.identifier(request.volume_id, "volume_id"))
        answer = csi.ControllerGetVolumeResponse(volume=answers.volume(self._driver, volume))
        answer.status.published_node_ids.extend(answers.nodes(self._driver, volume))
        return answer

    def GetCapacity(self, request: csi.GetCapacityRequest) -> csi.GetCapacityResponse:
        """What new volumes of a class can have; nothing for what this node does not have."""
        given = _parameters(request.parameters)
        name = given.get(parameters.CLASS) or self._driver.default
        if self._elsewhere(request.accessible_topology) or name not in self._driver.classes:
            return csi.GetCapacityResponse()
        pool = self._driver.pool(name)
        accesses = checks.capabilities(request.volume_capabilities) if request.volume_capabilities else []
        layout, fs_type = pool.layout(block=bool(accesses) and accesses[0].block, fs_type=_fs_type(accesses))
        back_end = pool.back_ends[layout]
        available = _largest(back_end, fs_type, pool.space(self._driver.volumes_in(pool)).available)
        return csi.GetCapacityResponse(
            available_capacity=available,
            maximum_volume_size=Int64Value(value=available),
            minimum_volume_size=Int64Value(value=back_end.least),
        )

    def ControllerExpandVolume(self, request: csi.ControllerExpandVolumeRequest) -> csi.ControllerExpandVolumeResponse:
        """Let a volume be larger; the file system of an image follows on the node."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise Error("invalid", "is missing", subject="capacity_range")
        required, limit = checks.capacity(request.capacity_range)
        if request.HasField("volume_capability"):
            checks.capability(request.volume_capability)
        volume = self._volumes.expand(identifier, required, limit)
        follows = volume.layout in DEVICES and not volume.block
        return csi.ControllerExpandVolumeResponse(capacity_bytes=volume.size, node_expansion_required=follows)

    def _check_topology(self, wanted: csi.TopologyRequirement) -> None:
        if wanted.requisite and all(map(self._elsewhere, wanted.requisite)):
            text = f"this driver makes volumes on the node {self._driver.settings.node!r} alone"
            raise Error("exhausted", text, subject="accessibility_requirements")

    def _elsewhere(self, place: csi.Topology) -> bool:
        settings = self._driver.settings
        return place.segments.get(settings.topology, settings.node) != settings.node


def _parameters(given: Mapping[str, str]) -> dict[str, str]:
    return parameters.checked(checks.mapping(given, "parameters"), parameters.VOLUME, "parameters")


def _source(given: csi.VolumeContentSource) -> tuple[str, ...]:
    kind = given.WhichOneof("type")
    if kind is None:
        return ()
    identifier = given.snapshot.snapshot_id if kind == "snapshot" else given.volume.volume_id
    return kind, checks.identifier(identifier, f"volume_content_source: {kind}_id")


def _fs_type(accesses: list[Access]) -> str:
    return next((one.fs_type for one in accesses if one.fs_type), "")


def _largest(back_end: BackEnd, fs_type: str, available: int) -> int:
    """The largest size whose charge is available."""
    low, high = 0, available
    while low < high:
        middle = (low + high + 1) // 2
        try:
            fits = back_end.charge(middle, fs_type) <= available
        except RangeError:  # too small for the file system
            fits = True
        low, high = (middle, high) if fits else (low, middle - 1)
    return low if low >= back_end.least else 0
