"""`ocirt-cni gc`."""

from __future__ import annotations

from ocirt_cni.cli import target
from ocirt_cni.cli.options import Options
from ocirt_cni.errors import INVALID_ENVIRONMENT, Error
from ocirt_cni.netns import Namespace


def run(given: Options) -> int:
    """Undo what belongs to attachments that are gone. Raises Error."""
    runner, network = target.runner(given), target.network(given)
    if given.get("keep") is None and not given.get("keep-live"):
        runner.gc(network, None)
        return 0
    valid = [_kept(text) for text in given.get("keep") or ()]
    if given.get("keep-live"):
        for entry in runner.attachments(network=network.name):
            if is_there(entry.netns):
                valid.append((entry.attachment.container, entry.attachment.ifname))
    runner.gc(network, valid)
    return 0


def is_there(netns: str) -> bool:
    """Whether a path is a network namespace; yes if it cannot be told."""
    try:
        found = Namespace.find(netns)
    except Error:
        return True
    if found is None:
        return False
    found.close()
    return True


def _kept(text: str) -> tuple[str, str]:
    container, slash, ifname = text.partition("/")
    if not slash or not container or not ifname:
        raise Error(INVALID_ENVIRONMENT, f"{text!r} is no attachment", subject="--keep", hint="it is CONTAINER/INTERFACE")
    return container, ifname
