"""The network of a pod, by CNI: which one, and with what. `request["cni"]` has: config_dir, bin_dirs, args, capabilities,
pod_cidr (of the network that is built in), timeout (of a plugin that is executed, in seconds).

The first network of the folder counts, as everywhere. Where none is configured there is one that is built in, so that pods have a
network at once.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from ocirt.errors import Error
from ocirt_cni.addresses import Prefix
from ocirt_cni.errors import Error as CniError
from ocirt_cni.netlink import links, routes
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.runner import execute, lists
from ocirt_cni.runner.lists import Network
from ocirt_cni.runner.operations import Endpoint, Runner

_INTERFACE = "eth0"
_NAME = "ocirt"
_BRIDGE = "ocirt0"
_SUBNETS = tuple(f"10.{number}.0.0/16" for number in (*range(85, 256), *range(85)))


def embedded(subnet: str = _SUBNETS[0]) -> Network:
    """The network that is built in: a bridge, with masquerade and ports of the host."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {"type": "bridge", "bridge": _BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    document = {"cniVersion": "1.1.0", "name": _NAME, "plugins": plugins}
    return lists.parse(json.dumps(document).encode(), "the network that is built in")


def free(taken: list[Prefix], ours: list[Prefix]) -> str:
    """The addresses of the network that is built in: those that its bridge has, else the first that no route of the host has.

    Were they the host's too, the host would lose its way to some. Raises Error if none is left.
    """
    own = {str(one) for one in ours}
    for subnet in _SUBNETS:
        if subnet in own:
            return subnet
    for subnet in _SUBNETS:
        if not any(_meet(Prefix.parse(subnet), one) for one in taken):
            return subnet
    hint = "configure a network of pods (CNI)"
    raise Error("unavailable", "the host has routes to all addresses that pods could have", subject="10.0.0.0/8", hint=hint)


def _meet(one: Prefix, other: Prefix) -> bool:
    length = min(one.length, other.length)
    if not length:
        return False  # the default route leads to what is nowhere else
    shift = 32 - length
    first, second = (int.from_bytes(prefix.address.packed, "big") >> shift for prefix in (one, other))
    return first == second


def _free_subnet() -> str:
    with Netlink() as netlink:
        bridge = links.find(netlink, _BRIDGE)
        index = bridge.index if bridge else -1
        found = routes.every(netlink, socket.AF_INET)
    ours = [one.destination for one in found if one.output == index]
    return free([one.destination for one in found if one.output != index], ours)


def choose(given: dict[str, Any]) -> Network:
    """The network of pods. Raises ocirt.errors.Error if there are files, and none can be used."""
    folder = str(given.get("config_dir") or "")
    networks, errors = lists.scan(folder) if folder else ([], [])
    if networks:
        return networks[0]
    if errors:
        raise Error("unavailable", "no network can be used", subject=folder, cause=str(errors[0]), hint="ocirt-cni check-config")
    return embedded(str(given.get("pod_cidr") or _free_subnet()))


def _runner(given: dict[str, Any]) -> Runner:
    return Runner(given.get("bin_dirs") or (), timeout=float(given.get("timeout") or execute.TIMEOUT))


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
