"""What is wrong with volumes and with the storage behind them: Controller's and Node's health calls (alpha)."""

from __future__ import annotations

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.model import READY, Volume
from ocirt_csi.services import answers
from ocirt_csi.uses import Uses

_RESERVE = 20  # a pool with less than a part of this many left is noted


class HealthService:
    """It looks each time: nothing is remembered."""

    def __init__(self, driver: Driver, uses: Uses) -> None:
        self._driver = driver
        self._uses = uses

    def ControllerGetVolumeHealth(self, request: csi.ControllerGetVolumeHealthRequest) -> csi.ControllerGetVolumeHealthResponse:
        """Of one volume, by what the pool holds."""
        volume = self._driver.volume(checks.identifier(request.volume_id, "volume_id"))
        return csi.ControllerGetVolumeHealthResponse(volume_health=self.of(volume))

    def ControllerListVolumeHealth(
        self, request: csi.ControllerListVolumeHealthRequest
    ) -> csi.ControllerListVolumeHealthResponse:
        """Of all volumes, in pages."""
        entries, after = checks.page(request.max_entries, request.starting_token)
        kept = [one for one in self._driver.store.all(Volume) if one.phase == READY and not one.ephemeral]
        found, token = answers.page(kept, entries, after)
        return csi.ControllerListVolumeHealthResponse(entries=map(self.of, found), next_token=token)

    def NodeGetVolumeHealth(self, request: csi.NodeGetVolumeHealthRequest) -> csi.NodeGetVolumeHealthResponse:
        """Of one volume, with the mounts of it. Raises Error("not-found") for a path where it was not put."""
        volume = self._driver.volume(checks.identifier(request.volume_id, "volume_id"))
        path = request.volume_publish_path or request.staging_target_path
        if path and all(one.id != path.rstrip("/") for one in self._driver.uses(volume.id)):
            raise Error("not-found", "is not there", subject=volume.id, hint=f"volume_publish_path {path}")
        return csi.NodeGetVolumeHealthResponse(volume_health=self.of(volume))

    def NodeGetStorageHealth(self, _: csi.NodeGetStorageHealthRequest) -> csi.NodeGetStorageHealthResponse:
        """Of the pools."""
        answer = csi.NodeGetStorageHealthResponse()
        for name in self._driver.classes:
            try:
                pool = self._driver.pool(name)
                space = pool.space(self._driver.volumes_in(pool))
            except (Error, OSError) as err:
                answer.backend_health.add(status=csi.STORAGE_UNREACHABLE, reason="PoolAway", message=str(err))
                continue
            if space.promised > space.free:
                text = f"the pool {pool.name} has promised {space.promised} bytes and has {space.free}"
                answer.backend_health.add(status=csi.STORAGE_DEGRADED, reason="OverPromised", message=text)
            elif space.free < space.total // _RESERVE:
                text = f"the pool {pool.name} has {space.free} bytes of {space.total} left"
                answer.backend_health.add(status=csi.STORAGE_DEGRADED, reason="AlmostFull", message=text)
        return answer

    def of(self, volume: Volume) -> csi.VolumeHealth:
        """What is wrong with a volume."""
        answer = csi.VolumeHealth(volume_id=volume.id)
        try:
            pool = self._driver.pool_of(volume)
            damage = pool.back_end(volume).damage(pool.place(volume), volume)
        except (Error, OSError) as err:
            answer.health_statuses.add(status=csi.INACCESSIBLE, reason="PoolAway", message=str(err))
            return answer
        if damage:
            kind = csi.DATA_LOSS if damage.endswith("gone") else csi.DEGRADED
            answer.health_statuses.add(status=kind, reason="Damaged", message=damage)
            return answer
        lost = [use.id for use in self._driver.uses(volume.id) if use.phase == READY and not self._uses.is_whole(use, volume)]
        if lost:
            answer.health_statuses.add(status=csi.DEGRADED, reason="MountLost", message=f"is not at {', '.join(lost)} any more")
        return answer
