"""loopback: bring `lo` up in the container's namespace."""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, Error
from ocirt_cni.netlink import addrs, links
from ocirt_cni.netns import Namespace
from ocirt_cni.results import IP, Interface, Result

_NAME = "lo"


def add(call: Call) -> Result:
    """`lo`, with the addresses that the kernel gives it. A previous result is returned as it came."""
    with Namespace.open(call.netns) as namespace:
        index = _index(namespace)
        namespace.netlink.execute(links.set_up(index, _NAME))
        if call.previous is not None:
            return call.previous
        link = links.find_index(namespace.netlink, index)
        mac, mtu = (link.mac, link.mtu) if link is not None else ("", 0)
        ips = [IP(Prefix(one.prefix.address, one.prefix.length), None, 0) for one in addrs.of(namespace.netlink, index)]
        return Result([Interface(_NAME, mac, sandbox=call.netns, mtu=mtu)], ips)


def delete(call: Call) -> None:
    """`lo` down again, if the namespace is there."""
    namespace = Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        namespace.netlink.execute(links.set_up(_index(namespace), _NAME, up=False))


def check(call: Call) -> None:
    """That it is up."""
    with Namespace.open(call.netns) as namespace:
        link = links.find(namespace.netlink, _NAME)
        if link is None or not link.is_up:
            raise Error(CHECK_FAILED, "it is not up", subject=_NAME)


def _index(namespace: Namespace) -> int:
    link = links.find(namespace.netlink, _NAME)
    assert link is not None, "every network namespace has it"
    return link.index
