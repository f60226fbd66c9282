"""What a pod wants, before any of its containers is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import podresources, sysctls, usernamespace, validate

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import PodSandboxConfig
    from ocirt_cri.spec.inputs import Host, Json, Settings
    from ocirt_cri.spec.usernamespace import IdMap


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWants:
    """network, ipc, uts, pid: whether the pod has a namespace of its own of that kind, which all its containers share; for pid
    there must be an init in it

    ids: of its user namespace, which owns the others; None: the host's. The pod's files and its /dev/shm belong to their root
    hostname: what is set, and what HOSTNAME says; sysctls: paths below /proc/sys and values
    resources: for a cgroup of its own, "linux.resources" of all containers together
    """

    network: bool
    ipc: bool
    uts: bool
    pid: bool
    ids: IdMap | None
    hostname: str
    sysctls: dict[str, str]
    resources: Json
    shm_size: int

    @property
    def owner(self) -> tuple[int, int]:
        """Whom the pod's files belong to on the host."""
        return (0, 0) if self.ids is None else (self.ids.uid, self.ids.gid)


def pod_of(config: PodSandboxConfig, handler: str, host: Host, settings: Settings) -> PodWants:
    """What RunPodSandbox's request means. Raises Error; nothing was made then."""
    validate.check_pod(config, handler, host, settings)
    options = config.linux.security_context.namespace_options
    place = "config.linux.security_context.namespace_options"
    ids = usernamespace.check(options, place, host)
    network = options.network != cri.NODE
    return PodWants(
        network=network,
        ipc=options.ipc != cri.NODE,
        uts=network,
        pid=options.pid == cri.POD,
        ids=ids,
        hostname=(config.hostname or host.hostname) if network else host.hostname,
        sysctls=sysctls.of_pod(
            config.linux.sysctls, settings.sysctls, options, "config.linux.sysctls", user_namespace=ids is not None
        ),
        resources=podresources.of_pod(config.linux.overhead, config.linux.resources, host, "config.linux."),
        shm_size=settings.shm_size,
    )
