"""Whom a verb is about, as cnitool has it: a network of the folder, and a namespace that stands for its container."""

from __future__ import annotations

import os
from hashlib import sha512

from ocirt_cni.call import Attachment
from ocirt_cni.cli.options import Options, args_of_environment, capabilities_of_environment
from ocirt_cni.errors import Error
from ocirt_cni.runner import lists
from ocirt_cni.runner.operations import Endpoint, Runner

_BYTES = 10  # of the hash, in a container's name


def runner(given: Options) -> Runner:
    """What runs networks, with the folders that were given."""
    return Runner(given.path, given.cache)


def network(given: Options) -> lists.Network:
    """The network that the first argument names. Raises Error."""
    return lists.load(given.folder, given.arguments[0])


def endpoint(given: Options) -> Endpoint:
    """What the second argument and the environment say. Raises Error."""
    netns = os.path.normpath(os.path.join(os.getcwd(), given.arguments[1]))
    return Endpoint(
        container_of(netns),
        netns,
        given.ifname,
        args=args_of_environment(),
        capabilities=capabilities_of_environment(),
    )


def container_of(netns: str) -> str:
    """The container that a namespace's absolute path stands for: the name that cnitool makes of it."""
    return f"cnitool-{sha512(os.fsencode(netns)).digest()[:_BYTES].hex()}"


def network_or_cached(given: Options, made: Runner, one: Endpoint) -> lists.Network:
    """The network; if its file is gone, as it was when the endpoint was attached. Raises Error."""
    try:
        return network(given)
    except Error:
        entry = made.cache.find(Attachment(given.arguments[0], one.container, one.ifname))
        if entry is None or not entry.config:
            raise
        return lists.parse(entry.config, f"the cached configuration of {entry.attachment}")
