"""The network of a pod, by CNI: which one, and with what. `request["cni"]` has: config_dir, bin_dirs, args, capabilities.

The first network of the folder counts, as everywhere. Where none is configured there is one that is built in, so that pods have a
network at once.
"""

from __future__ import annotations

import json
from typing import Any

from ocirt.errors import Error
from ocirt_cni.errors import Error as CniError
from ocirt_cni.runner import lists
from ocirt_cni.runner.lists import Network
from ocirt_cni.runner.operations import Endpoint, Runner

_INTERFACE = "eth0"
_NAME = "ocirt"
_SUBNET = "10.85.0.0/16"


def embedded(subnet: str = _SUBNET) -> Network:
    """The network that is built in: a bridge, with masquerade and ports of the host."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {"type": "bridge", "bridge": "ocirt0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    document = {"cniVersion": "1.1.0", "name": _NAME, "plugins": plugins}
    return lists.parse(json.dumps(document).encode(), "the network that is built in")


def choose(given: dict[str, Any]) -> Network:
    """The network of pods. Raises ocirt.errors.Error if there are files, and none can be used."""
    folder = str(given.get("config_dir") or "")
    networks, errors = lists.scan(folder) if folder else ([], [])
    if networks:
        return networks[0]
    if errors:
        raise Error("unavailable", "no network can be used", subject=folder, cause=str(errors[0]), hint="ocirt-cni check-config")
    return embedded(str(given.get("pod_cidr") or _SUBNET))


def _runner(given: dict[str, Any]) -> Runner:
    return Runner(given.get("bin_dirs") or ())


def add(request: dict[str, Any]) -> dict[str, Any]:
    """Attach a pod: {"ips", "interface", "result"}, IPv4 or IPv6 first as the plugins have it. Raises Error, CniError."""
    given = request["cni"]
    network = choose(given)
    endpoint = Endpoint(
        request["pod"],
        request["netns"],
        _INTERFACE,
        args=list((given.get("args") or {}).items()),
        capabilities=given.get("capabilities") or {},
    )
    result = _runner(given).add(network, endpoint)
    ips = [str(one.address.address) for one in result.ips]
    return {"ips": ips, "interface": _INTERFACE, "result": result.document(network.version)}


def delete(request: dict[str, Any]) -> None:
    """Detach a pod from all that it was attached to; nothing if that is nothing. Raises the first CniError."""
    runner = _runner(request["cni"])
    failures: list[CniError] = []
    for entry in runner.attachments(container=request["pod"]):
        attachment = entry.attachment
        try:
            network = lists.parse(entry.config, f"the network {attachment.network}, as it was")
            runner.delete(network, Endpoint(attachment.container, request["netns"], attachment.ifname, lazy=True))
        except CniError as err:
            failures.append(err)
    if failures:
        raise failures[0]


def status(request: dict[str, Any]) -> dict[str, Any]:
    """{"ready", "message"}."""
    try:
        given = request.get("cni") or {}
        _runner(given).status(choose(given))
    except (Error, CniError) as err:
        return {"ready": False, "message": str(err)}
    return {"ready": True, "message": ""}
