"""What the daemon is: Version, Status, RuntimeConfig, UpdateRuntimeConfig."""

from __future__ import annotations

import ipaddress
import json
import logging
from typing import TYPE_CHECKING

import ocirt
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri

if TYPE_CHECKING:
    from ocirt_cri.node import Node
    from ocirt_cri.spec.inputs import Host

_KUBE_VERSION = "0.1.0"  # the only one that a kubelet knows
_API_VERSION = "v1"
_NAME = "ocirt"
POD_CIDR = "pod_cidr"  # the name under which the store keeps it
_FIELD = "runtime_config.network_config.pod_cidr"
_log = logging.getLogger(__name__)


class RuntimeService:
    """Answers at once, also while an earlier daemon's pods are looked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._missing: set[str] = set()  # handlers of which the log has said so

    async def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """All four fields are read by somebody."""
        del request
        return cri.VersionResponse(
            version=_KUBE_VERSION,
            runtime_name=_NAME,
            runtime_version=ocirt.__version__,
            runtime_api_version=_API_VERSION,
        )

    async def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """Two conditions, handlers and features; verbose: the configuration, with where its values come from."""
        node = self._node
        ready = node.recovered.is_set()
        network, why = (await node.networks.status()) if ready else (False, "recovering")
        ours = _features(node.host)
        return cri.StatusResponse(
            status=cri.RuntimeStatus(
                conditions=[
                    _condition("RuntimeReady", ready, "Recovering", "looking for the pods of an earlier ocirtd"),
                    _condition("NetworkReady", network, "NetworkPluginNotReady", why),
                ]
            ),
            runtime_handlers=[
                cri.RuntimeHandler(name=name, features=await self._features_of(name)) for name in node.settings.handlers
            ],
            features=cri.RuntimeFeatures(
                supplemental_groups_policy=True, user_namespaces_host_network=ours.user_namespaces, mount_options=True
            ),
            info={"config": self._config()} if request.verbose else {},
        )

    async def _features_of(self, handler: str) -> cri.RuntimeHandlerFeatures:
        """None of one whose runtime is not there: its pods are refused."""
        try:
            return _features(await self._node.host_of(handler))
        except Error as err:
            if handler not in self._missing:
                _log.warning("runtime handler %s: %s", handler, err)
                self._missing.add(handler)
            return cri.RuntimeHandlerFeatures()

    def _config(self) -> str:
        """critest reads stateDir."""
        config = self._node.config
        return json.dumps(
            {
                "stateDir": self._node.directory,
                "rootDir": config["root"],
                "file": config.file,
                "values": {name: list(value) if isinstance(value, tuple) else value for name, value in config.values.items()},
                "sources": dict(config.sources),
            }
        )

    async def RuntimeConfig(self, request: cri.RuntimeConfigRequest) -> cri.RuntimeConfigResponse:
        """Who makes cgroups: the kubelet does as we do."""
        del request
        by_systemd = self._node.config["cgroups.manager"] == "systemd"
        return cri.RuntimeConfigResponse(
            linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.SYSTEMD if by_systemd else cri.CGROUPFS)
        )

    async def UpdateRuntimeConfig(self, request: cri.UpdateRuntimeConfigRequest) -> cri.UpdateRuntimeConfigResponse:
        """The node's ranges of pod addresses, for the network that is built in; "" says nothing. It is kept for the next start.

        Raises Error("invalid").
        """
        cidr = request.runtime_config.network_config.pod_cidr
        if cidr:
            ranges = pod_cidr(cidr)
            self._node.pod_cidr = ranges
            await self._node.store.put_meta(POD_CIDR, ranges)
            _log.info("the node's pods have addresses of %s, says the kubelet", ranges)
        return cri.UpdateRuntimeConfigResponse()


def _features(host: Host) -> cri.RuntimeHandlerFeatures:
    return cri.RuntimeHandlerFeatures(
        recursive_read_only_mounts=host.recursive_read_only,
        user_namespaces=host.user_namespaces and host.idmapped_mounts and host.mapped_layers,
    )


def pod_cidr(text: str) -> str:
    """One range, or one of each IP version with a comma between them. Raises Error("invalid")."""
    ranges = []
    for word in text.split(","):
        try:
            ranges.append(ipaddress.ip_network(word.strip()))
        except ValueError as err:
            raise Error("invalid", f"{word[:80]!r} is no range of addresses", subject=_FIELD, cause=str(err)) from None
    if len({one.version for one in ranges}) != len(ranges):
        raise Error("invalid", "has two ranges of one IP version", subject=_FIELD, hint="such as 10.1.0.0/24,fd00:1::/64")
    return ",".join(map(str, ranges))


def _condition(name: str, holds: bool, reason: str, message: str) -> cri.RuntimeCondition:
    return cri.RuntimeCondition(type=name, status=holds, reason="" if holds else reason, message="" if holds else message)
