"""ptp: a pair of links between a container and the host, without a bridge: the host routes each address to its link.

The container has its address with the network's length, and sends what goes to its network by way of the gateway, whose address
the host's end has. So containers of one network reach each other through the host. `ptp_attach` is ADD and CHECK.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

from ocirt_cni.call import Call
from ocirt_cni.plugins import owners, pairs, steps
from ocirt_cni.results import Result

_NAME = "ptp"


def add(call: Call) -> Result:
    """The two ends of the pair, and what the IPAM plugin gave."""
    from ocirt_cni.ipam import delegate
    from ocirt_cni.netlink.socket import Netlink
    from ocirt_cni.netns import Namespace
    from ocirt_cni.plugins import ptp_attach

    settings = ptp_attach.Settings(call)
    with Namespace.open(call.netns) as namespace:
        pairs.refuse_taken(namespace, call)
        addressed = delegate.add(call)
        try:
            with Netlink() as host:
                made = ptp_attach.attach(call, settings, namespace, host, addressed)
        except BaseException:
            steps.attempt(lambda: delete(call))
            raise
    return made if call.previous is None else call.previous.joined(made)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    from ocirt_cni.plugins import ptp_attach

    ptp_attach.Settings(call)


def delete(call: Call) -> None:
    """The pair, the rules, the addresses."""
    pairs.detach(call, _NAME)


def check(call: Call) -> None:
    """The pair, addresses and routes on both sides, the rules."""
    from ocirt_cni.plugins import ptp_attach

    ptp_attach.check(call, ptp_attach.Settings(call))


def gc(call: Call) -> None:
    """What belongs to attachments that are not valid any more."""
    from ocirt_cni.ipam import delegate
    from ocirt_cni.nft import changes

    steps.every(
        lambda: changes.collect(call.network, _NAME, call.valid, owners.folder_of(call)),
        lambda: pairs.collect(call),
        lambda: delegate.gc(call),
    )


def status(call: Call) -> None:
    """Whether there are addresses."""
    from ocirt_cni.ipam import delegate
    from ocirt_cni.plugins import ptp_attach

    ptp_attach.Settings(call)
    delegate.status(call)
