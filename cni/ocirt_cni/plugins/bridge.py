"""bridge: a pair of links, one end in the container, the other a port of a bridge of the host.

`bridge_settings` is its configuration, `bridge_attach` ADD, `bridge_check` CHECK, `bridge_device` the bridge, `bridge_vlans` its
VLANs. What a command does not need is not loaded, which takes an executable milliseconds.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

from ocirt_cni.call import Call
from ocirt_cni.plugins import owners, pairs, steps
from ocirt_cni.results import Result

_NAME = "bridge"


def add(call: Call) -> Result:
    """The bridge, the two ends of the pair, and what the IPAM plugin gave."""
    from ocirt_cni.ipam import config, delegate
    from ocirt_cni.netlink.socket import Netlink
    from ocirt_cni.netns import Namespace
    from ocirt_cni.plugins import bridge_attach
    from ocirt_cni.plugins.bridge_settings import Settings

    settings = Settings(call)
    with Namespace.open(call.netns) as namespace:
        pairs.refuse_taken(namespace, call)
        late = settings.ipam and config.needs_interface(call)
        addressed = delegate.add(call) if settings.ipam and not late else Result()
        try:
            with Netlink() as host:
                made = bridge_attach.attach(call, settings, namespace, host, addressed, ask=late)
        except BaseException:
            steps.attempt(lambda: delete(call))
            raise
    return made if call.previous is None else call.previous.joined(made)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    from ocirt_cni.plugins.bridge_settings import Settings

    Settings(call)


def delete(call: Call) -> None:
    """The pair, the rules, the addresses."""
    pairs.detach(call, _NAME)


def check(call: Call) -> None:
    """The bridge, the pair, the container's addresses and routes, the rules."""
    from ocirt_cni.plugins import bridge_check
    from ocirt_cni.plugins.bridge_settings import Settings

    bridge_check.check(call, Settings(call))


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
    """Whether there are addresses, and the bridge's name is free for one."""
    from ocirt_cni.ipam import delegate
    from ocirt_cni.plugins import bridge_check
    from ocirt_cni.plugins.bridge_settings import Settings

    bridge_check.available(Settings(call))
    delegate.status(call)
