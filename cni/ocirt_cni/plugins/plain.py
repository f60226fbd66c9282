"""Configure a link of a container: addresses, up, routes."""

from __future__ import annotations

from ocirt_cni.errors import CHECK_FAILED, Error
from ocirt_cni.netlink import addrs, links, routes
from ocirt_cni.netns import Namespace
from ocirt_cni.results import Result


def configure(namespace: Namespace, index: int, ifname: str, result: Result) -> None:
    """Give the link the addresses and routes of a result, and bring it up. Raises Error."""
    requests = [addrs.add(index, ip.address, ifname) for ip in result.ips]
    requests.append(links.set_up(index, ifname))
    for route in result.routes:
        gateway = route.gateway
        if gateway is None:
            gateway = next((ip.gateway for ip in result.ips if ip.address.version == route.destination.version), None)
        requests.append(routes.add(index, route.destination, gateway, priority=route.priority, table=route.table))
    namespace.netlink.execute(*requests)


def check(namespace: Namespace, index: int, ifname: str, result: Result) -> None:
    """That it has the addresses of a result. Raises Error."""
    have = {one.prefix for one in addrs.of(namespace.netlink, index)}
    for ip in result.ips:
        if ip.address not in have:
            raise Error(CHECK_FAILED, f"the address {ip.address} is missing", subject=ifname)
