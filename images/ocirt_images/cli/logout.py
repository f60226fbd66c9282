"""`ocirt logout`: forget names and passwords for registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.cli import output
from ocirt_images.errors import Error
from ocirt_images.registry.authfile import server_of
from ocirt_images.registry.credentials import Credentials

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command


def run(command: Command, args: list[str]) -> int:
    """Forget those for args[0], or docker.io, or with --all for all. It is no failure if there are none.

    Raises Error("unavailable") for a helper that fails, Error("invalid") for a file that cannot be read, OSError.
    """
    credentials = Credentials.load()
    if command.flag("all"):
        if args:
            raise Error("usage", "a registry and --all", hint="one of them")
        servers = set()
        for file in credentials.files:
            value = file.read()
            servers |= {server_of(key) for key in (*file.auths(value), *file.helpers(value))}
    else:
        servers = {server_of(args[0]) if args else "docker.io"}

    def forget(server: str) -> None:
        places = credentials.erase(server)
        text = f"Removed from {' and '.join(places)}" if places else "Not logged in"
        output.out(f"{text}: {server}\n")

    command.for_each(sorted(servers), forget)
    return 0
