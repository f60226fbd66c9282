"""Identity, on the driver's socket, and Registration, on the one that a kubelet looks for."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue

from ocirt_api.csi import api_pb2 as csi
from ocirt_api.kubelet import registration_pb2 as registration
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error

_SERVICES = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")
_OF_SNAPSHOTS = ("GROUP_CONTROLLER_SERVICE", "SNAPSHOT_METADATA_SERVICE", "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS")


class IdentityService:
    """Who the driver is."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def GetPluginInfo(self, _: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        """Its name and version."""
        settings = self._driver.settings
        return csi.GetPluginInfoResponse(name=settings.name, vendor_version=settings.version)

    def GetPluginCapabilities(self, _: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
        """Its services."""
        one = csi.PluginCapability
        found = [
            one(service=one.Service(type=one.Service.Type.Value(name)))
            for name in (*_SERVICES, *(_OF_SNAPSHOTS if self._driver.has_snapshots else ()))
        ]
        found.append(one(volume_expansion=one.VolumeExpansion(type=one.VolumeExpansion.ONLINE)))
        return csi.GetPluginCapabilitiesResponse(capabilities=found)

    def Probe(self, _: csi.ProbeRequest) -> csi.ProbeResponse:
        """Whether a pool is there. Raises Error("unavailable") with the first if none is; of the others their own calls tell."""
        errors = []
        for name in self._driver.classes:
            try:
                self._driver.pool(name).check()
            except Error as err:
                errors.append(err)
        if len(errors) == len(self._driver.classes):
            raise errors[0]
        return csi.ProbeResponse(ready=BoolValue(value=True))


class RegistrationService:
    """What a kubelet asks of the socket that it finds. endpoint: the path of the driver's."""

    def __init__(self, driver: Driver, endpoint: str) -> None:
        self._driver = driver
        self._endpoint = endpoint
        self.error = ""

    def GetInfo(self, _: registration.InfoRequest) -> registration.PluginInfo:
        """Which driver serves where."""
        name = self._driver.settings.name
        return registration.PluginInfo(type="CSIPlugin", name=name, endpoint=self._endpoint, supported_versions=["1.0.0"])

    def NotifyRegistrationStatus(self, request: registration.RegistrationStatus) -> registration.RegistrationStatusResponse:
        """What came of it."""
        self.error = "" if request.plugin_registered else request.error or "the kubelet did not say why"
        return registration.RegistrationStatusResponse()
