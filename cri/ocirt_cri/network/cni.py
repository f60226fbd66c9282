"""The network of a pod, by CNI: which one, and with what. `request["cni"]` has: config_dir, bin_dirs, args, capabilities,
pod_cidr (of the network that is built in: ranges with commas between them), timeout (of a plugin that is executed, in seconds);
and instance and folder, which the helper adds: the daemon's own word, and where its attachments are remembered.

The first network of the folder counts, as everywhere. Where none is configured there is one that is built in, so that pods have a
network at once; each daemon has its own, with a bridge of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from ocirt.errors import Error
from ocirt_cni.addresses import Prefix
from ocirt_cni.errors import Error as CniError
from ocirt_cni.netlink import links, routes
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.runner import execute, lists
from ocirt_cni.runner.lists import Network
from ocirt_cni.runner.operations import Endpoint, Runner
from ocirt_cri import journal

_INTERFACE = "eth0"
_RUN = "/run"
_SUBNETS = tuple(f"10.{number}.0.0/16" for number in (*range(85, 256), *range(85)))


def embedded(mark: str, subnets: Sequence[str]) -> Network:
    """The network that is built in: a bridge, with masquerade and ports of the host. Its name and its bridge's have `mark`."""
    ends = {"::/0" if ":" in subnet else "0.0.0.0/0": None for subnet in subnets}
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in subnets],
        "routes": [{"dst": end} for end in ends],
    }
    bridge = _bridge(mark)
    plugins = [
        {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    document = {"cniVersion": "1.1.0", "name": bridge, "plugins": plugins}
    return lists.parse(json.dumps(document).encode(), "the network that is built in")


def _bridge(mark: str) -> str:
    return f"ocirt{mark}"  # 13 of at most 15 bytes


def _mark(given: dict[str, Any]) -> str:
    """Another for each range that somebody gives: pods of an earlier one keep their bridge."""
    instance, cidr = str(given.get("instance") or ""), str(given.get("pod_cidr") or "")
    return blake2b(f"{instance} {cidr}".encode(), digest_size=4).hexdigest() if cidr else instance


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


def _ways(mark: str) -> tuple[list[Prefix], list[Prefix]]:
    """Where the host has routes to: by way of other links, and by the bridge of this mark."""
    with Netlink() as netlink:
        bridge = links.find(netlink, _bridge(mark))
        index = bridge.index if bridge else -1
        found = routes.every(netlink, socket.AF_INET)
    others = [one.destination for one in found if one.output != index]
    return others, [one.destination for one in found if one.output == index]


def _configured(given: dict[str, Any]) -> Network | None:
    """The first network of the folder; None if there are no files. Raises ocirt.errors.Error if none of them can be used."""
    folder = str(given.get("config_dir") or "")
    networks, errors = lists.scan(folder) if folder else ([], [])
    if errors and not networks:
        raise Error("unavailable", "no network can be used", subject=folder, cause=str(errors[0]), hint="ocirt-cni check-config")
    return networks[0] if networks else None


def _built_in(given: dict[str, Any]) -> Network:
    cidr = str(given.get("pod_cidr") or "")
    mark = _mark(given)
    return embedded(mark, [one.strip() for one in cidr.split(",")] if cidr else [free(*_ways(mark))])


def choose(given: dict[str, Any]) -> Network:
    """The network of pods. Raises ocirt.errors.Error if there are files, and none can be used."""
    return _configured(given) or _built_in(given)


@contextmanager
def _chosen(given: dict[str, Any]) -> Iterator[Network]:
    """The same, for a block that attaches to it.

    Until its bridge has addresses another daemon could choose the same ones: so that is done by one at a time.
    """
    found = _configured(given)
    if found is not None or given.get("pod_cidr") or _ways(_mark(given))[1]:
        yield found or _built_in(given)
        return
    fd = os.open(_RUN, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield _built_in(given)
    finally:
        os.close(fd)


def _runner(given: dict[str, Any]) -> Runner:
    timeout = float(given.get("timeout") or execute.TIMEOUT)
    return Runner(given.get("bin_dirs") or (), str(given.get("folder") or ""), timeout)


def add(request: dict[str, Any]) -> dict[str, Any]:
    """Attach a pod: {"ips", "interface", "result"}, IPv4 or IPv6 first as the plugins have it. Raises Error, CniError."""
    given = request["cni"]
    with _chosen(given) as network:
        runner = _runner(given)
        if request.get("journal") and _runs_others(network, runner.path):
            # What they do may outlive a power cut, somewhere; so has to what says that it was done.
            journal.sync(request["journal"])
        result = runner.add(network, _endpoint(request))
    ips = [str(one.address.address) for one in result.ips]
    return {"ips": ips, "interface": _INTERFACE, "result": result.document(network.version)}


def _runs_others(network: Network, path: tuple[str, ...]) -> bool:
    """Whether a plugin of the network is executed, or may execute one."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        named = [plugin["type"], *([ipam["type"]] if isinstance(ipam, dict) and ipam.get("type") else [])]
        if "delegate" in plugin or not all(isinstance(one, str) and execute.is_ours(one, path) for one in named):
            return True
    return False


def _endpoint(request: dict[str, Any]) -> Endpoint:
    given = request["cni"]
    return Endpoint(
        request["pod"],
        request["netns"],
        _INTERFACE,
        args=list((given.get("args") or {}).items()),
        capabilities=given.get("capabilities") or {},
    )


def delete(request: dict[str, Any]) -> None:
    """Detach a pod from all that it was attached to. Raises the first CniError.

    Of an attachment that was cut short nothing is remembered, so with a namespace the network of today is asked to undo it.
    """
    runner = _runner(request["cni"])
    failures: list[CniError] = []
    entries = runner.attachments(container=request["pod"])
    for entry in entries:
        attachment = entry.attachment
        try:
            network = lists.parse(entry.config, f"the network {attachment.network}, as it was")
            runner.delete(network, Endpoint(attachment.container, request["netns"], attachment.ifname, lazy=True))
        except CniError as err:
            failures.append(err)
    if not entries and request["netns"]:
        try:
            runner.delete(choose(request["cni"]), _endpoint(request))
        except CniError as err:
            failures.append(err)
        except Error:
            pass  # there is no network that could have been attached to
    if failures:
        raise failures[0]


def strays(request: dict[str, Any]) -> list[str]:
    """What this daemon has attached of pods that are not in `request["known"]`; what it has not come to remember is undone.

    Networks that are configured may be others' as well, whose attachments nobody here knows, so they are not asked for GC. The
    one that is built in is this daemon's alone. Raises Error, CniError.
    """
    given = request["cni"]
    known = set(request["known"])
    runner = _runner(given)
    mark = _mark(given)
    with Netlink() as netlink:
        is_there = links.find(netlink, _bridge(mark)) is not None
    found = {entry.attachment.container for entry in runner.attachments()} - known
    if is_there:
        runner.gc(_built_in(given), [(pod, _INTERFACE) for pod in (*known, *found)])
    return sorted(found)


def status(request: dict[str, Any]) -> dict[str, Any]:
    """{"ready", "message"}."""
    try:
        given = request.get("cni") or {}
        _runner(given).status(choose(given))
    except (Error, CniError) as err:
        return {"ready": False, "message": str(err)}
    return {"ready": True, "message": ""}
