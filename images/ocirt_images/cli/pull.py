"""`ocirt pull`: images from registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.cli import names, output, progress
from ocirt_images.platforms import Platform
from ocirt_images.pull import pull
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.trust.policy import Policy

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command
    from ocirt_images.reference import Reference


def run(command: Command, args: list[str]) -> int:
    """Pull each image; one that fails does not keep the others from coming. Raises Error, OSError."""
    references = [names.reference(one) for one in args]
    platform = Platform.named(command.text("platform")) if command.text("platform") else None
    quiet, as_json = command.flag("quiet"), command.flag("json")
    everything = command.flag("all-platforms")
    policy = Policy.load()
    registry = Registry(hosts=Hosts.load(), credentials=Credentials.load(), insecure=command.flag("insecure"))
    with command.store(sync=not command.flag("no-sync")) as store, registry:
        command.settled()

        def one(reference: Reference) -> None:
            with progress.choose(quiet=quiet, as_json=as_json) as shown:
                by = "ocirt pull"
                record = pull(store, registry, reference, platform, shown, pulled_by=by, policy=policy, everything=everything)
            if not as_json:
                output.out(f"{record.id if quiet else record.name}\n")

        command.for_each(references, one)
    return 0
