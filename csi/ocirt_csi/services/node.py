"""Node: volumes at paths of this machine."""

from __future__ import annotations

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks, parameters
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.services import answers
from ocirt_csi.uses import Uses

_CAPABILITIES = (
    "STAGE_UNSTAGE_VOLUME",
    "GET_VOLUME_STATS",
    "EXPAND_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
    "VOLUME_MOUNT_GROUP",
    "GET_VOLUME_HEALTH",
    "GET_STORAGE_HEALTH",
)


class NodeService:
    """What a kubelet asks for."""

    def __init__(self, driver: Driver, uses: Uses) -> None:
        self._driver = driver
        self._uses = uses

    def NodeGetInfo(self, _: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        """Which node this is, and how many volumes it takes."""
        settings = self._driver.settings
        return csi.NodeGetInfoResponse(
            node_id=settings.node, max_volumes_per_node=settings.most, accessible_topology=answers.topology(self._driver)
        )

    def NodeGetCapabilities(self, _: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        """Which calls there are."""
        one = csi.NodeServiceCapability
        found = [one(rpc=one.RPC(type=one.RPC.Type.Value(name))) for name in _CAPABILITIES]
        return csi.NodeGetCapabilitiesResponse(capabilities=found)

    def NodeStageVolume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        """Mount a volume's file system, or make its block device."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        path = checks.path(request.staging_target_path, "staging_target_path")
        self._uses.stage(identifier, path, checks.capability(request.volume_capability))
        return csi.NodeStageVolumeResponse()

    def NodeUnstageVolume(self, request: csi.NodeUnstageVolumeRequest) -> csi.NodeUnstageVolumeResponse:
        """Undo it."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        self._uses.unstage(identifier, checks.path(request.staging_target_path, "staging_target_path"))
        return csi.NodeUnstageVolumeResponse()

    def NodePublishVolume(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """Have a staged volume, or one that is made for it, at a pod's path."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        path = checks.path(request.target_path, "target_path")
        access = checks.capability(request.volume_capability, read_only=request.readonly)
        context = checks.mapping(request.volume_context, "volume_context")
        if context.get(parameters.EPHEMERAL) == "true":
            given = parameters.checked(context, parameters.INLINE, "volumeAttributes")
            if not given.get("size"):
                raise Error("invalid", "is missing", subject="volumeAttributes: size", hint="such as 100Mi")
            size = parameters.size(given["size"], "volumeAttributes: size")
            if not size:
                raise Error("invalid", "is nothing", subject="volumeAttributes: size")
            self._uses.publish_inline(identifier, path, access, size, given)
        else:
            staging = checks.path(request.staging_target_path, "staging_target_path")
            self._uses.publish(identifier, path, staging, access)
        return csi.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        """Undo it, and take the path away."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        self._uses.unpublish(identifier, checks.path(request.target_path, "target_path"))
        return csi.NodeUnpublishVolumeResponse()

    def NodeExpandVolume(self, request: csi.NodeExpandVolumeRequest) -> csi.NodeExpandVolumeResponse:
        """Let a file system follow its volume."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        path = checks.known_path(request.volume_path, "volume_path")
        required, _ = checks.capacity(request.capacity_range)
        return csi.NodeExpandVolumeResponse(capacity_bytes=self._uses.expand(identifier, path, required).size)

    def NodeGetVolumeStats(self, request: csi.NodeGetVolumeStatsRequest) -> csi.NodeGetVolumeStatsResponse:
        """Bytes and inodes, as a user of the volume can have them."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        path = checks.known_path(request.volume_path, "volume_path")
        volume, use = self._uses.point(identifier, path)
        pool = self._driver.pool_of(volume)
        found = pool.back_end(volume).usage(pool.place(volume), volume, use.id)
        one = csi.VolumeUsage
        if volume.block:
            return csi.NodeGetVolumeStatsResponse(usage=[one(total=found.size, unit=one.BYTES)])
        usage = [one(total=found.size, used=found.used, available=found.left, unit=one.BYTES)]
        if found.inodes:
            left = found.inodes - found.inodes_used
            usage.append(one(total=found.inodes, used=found.inodes_used, available=left, unit=one.INODES))
        return csi.NodeGetVolumeStatsResponse(usage=usage)
