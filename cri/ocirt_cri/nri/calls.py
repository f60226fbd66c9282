"""The methods of NRI's two services, by name and by the number of their event."""

from __future__ import annotations

from google.protobuf.message import Message

from ocirt_api.nri import api_pb2 as nri

RUNTIME_SERVICE = "nri.pkg.api.v1alpha1.Runtime"
PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
METHODS: dict[int, str] = {
    nri.RUN_POD_SANDBOX: "RunPodSandbox",
    nri.UPDATE_POD_SANDBOX: "UpdatePodSandbox",
    nri.POST_UPDATE_POD_SANDBOX: "PostUpdatePodSandbox",
    nri.STOP_POD_SANDBOX: "StopPodSandbox",
    nri.REMOVE_POD_SANDBOX: "RemovePodSandbox",
    nri.CREATE_CONTAINER: "CreateContainer",
    nri.POST_CREATE_CONTAINER: "PostCreateContainer",
    nri.START_CONTAINER: "StartContainer",
    nri.POST_START_CONTAINER: "PostStartContainer",
    nri.UPDATE_CONTAINER: "UpdateContainer",
    nri.POST_UPDATE_CONTAINER: "PostUpdateContainer",
    nri.STOP_CONTAINER: "StopContainer",
    nri.REMOVE_CONTAINER: "RemoveContainer",
    nri.VALIDATE_CONTAINER_ADJUSTMENT: "ValidateContainerAdjustment",
}
REQUESTS: dict[str, type[Message]] = {name: getattr(nri, f"{name}Request") for name in METHODS.values()}


def snake(method: str) -> str:
    """A method's name as Python has it: `CreateContainer` is `create_container`."""
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in method).lstrip("_")
