"""Controller: giving volumes to nodes, as bookkeeping (a volume is on its node already), and changing what can be changed."""

from __future__ import annotations

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.model import Attachment
from ocirt_csi.volumes import Volumes


class AttachmentService:
    """What a CO that attaches asks for; with `attachRequired: false` nobody does."""

    def __init__(self, driver: Driver, volumes: Volumes) -> None:
        self._driver = driver
        self._volumes = volumes

    def ControllerPublishVolume(self, request: csi.ControllerPublishVolumeRequest) -> csi.ControllerPublishVolumeResponse:
        """Note that a node has a volume. Raises Error("exists") if it has it in another way, Error("exhausted") at its limit."""
        driver = self._driver
        identifier = checks.identifier(request.volume_id, "volume_id")
        node = checks.node(request.node_id)
        access = checks.capability(request.volume_capability, read_only=request.readonly)
        checks.mapping(request.volume_context, "volume_context")
        with driver.keys.hold(f"volume {identifier}", f"attachments of {node}"):
            volume = driver.volume(identifier)
            if node != driver.settings.node:
                raise Error("not-found", "there is no such node", subject=node, hint=f"this is {driver.settings.node}")
            if volume.block != access.block:
                raise Error("invalid", "the volume is of another kind", subject="volume_capability")
            there = driver.store.get(Attachment, _key(identifier, node))
            if there is not None:
                if there.asked != access.asked:
                    raise Error("exists", "is published there in another way", subject=identifier, hint=f"node {node}")
                return csi.ControllerPublishVolumeResponse()
            most = driver.settings.most
            if most and len(driver.store.all(Attachment)) >= most:
                raise Error("exhausted", f"has its {most} volumes", subject=node)
            made = Attachment(
                id=_key(identifier, node), volume=identifier, node=node, read_only=request.readonly, asked=access.asked
            )
            driver.store.put(made)
        return csi.ControllerPublishVolumeResponse()

    def ControllerUnpublishVolume(self, request: csi.ControllerUnpublishVolumeRequest) -> csi.ControllerUnpublishVolumeResponse:
        """Forget it; without a node's name, of all nodes."""
        driver = self._driver
        identifier = checks.identifier(request.volume_id, "volume_id")
        node = checks.node(request.node_id) if request.node_id else ""
        with driver.keys.hold(f"volume {identifier}"):
            found = [one for one in driver.store.of(Attachment, identifier) if node in ("", one.node)]
            if found:
                driver.store.delete(*found)
        return csi.ControllerUnpublishVolumeResponse()

    def ControllerModifyVolume(self, request: csi.ControllerModifyVolumeRequest) -> csi.ControllerModifyVolumeResponse:
        """Change mutable parameters; they take effect at once."""
        identifier = checks.identifier(request.volume_id, "volume_id")
        self._volumes.modify(identifier, checks.mapping(request.mutable_parameters, "mutable_parameters"))
        return csi.ControllerModifyVolumeResponse()


def _key(volume: str, node: str) -> str:
    return f"{volume} {node}"
