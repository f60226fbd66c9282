"""A driver with its services, as the daemon serves them, and as a command has one of them done itself."""

from __future__ import annotations

from ocirt_csi.driver import Driver, Settings
from ocirt_csi.recovery import boot, recover
from ocirt_csi.services.attachments import AttachmentService
from ocirt_csi.services.controller import ControllerService
from ocirt_csi.services.health import HealthService
from ocirt_csi.services.identity import IdentityService
from ocirt_csi.services.metadata import MetadataService
from ocirt_csi.services.moves import MoveService
from ocirt_csi.services.node import NodeService
from ocirt_csi.services.snapshots import GroupService, SnapshotService
from ocirt_csi.snapshots import Snapshots
from ocirt_csi.uses import Uses
from ocirt_csi.volumes import Volumes


class Parts:
    """All of it. What a life before left half done is ended or undone when this is made. Raises Error, OSError."""

    def __init__(self, settings: Settings, *, serves: bool = False) -> None:
        self.driver = driver = Driver(settings, serves=serves)
        try:
            self.volumes = Volumes(driver)
            self.snapshots = Snapshots(driver, self.volumes)
            self.uses = Uses(driver, self.volumes)
            recover(driver, self.volumes, self.snapshots, self.uses, boot())
        except BaseException:
            driver.close()
            raise
        self.services: tuple[object, ...] = (
            IdentityService(driver),
            ControllerService(driver, self.volumes),
            AttachmentService(driver, self.volumes),
            SnapshotService(driver, self.snapshots),
            GroupService(driver, self.snapshots),
            MetadataService(driver),
            NodeService(driver, self.uses),
            HealthService(driver, self.uses),
            MoveService(driver, self.snapshots),
        )

    def close(self) -> None:
        """Let go of the state."""
        self.driver.close()
