"""What is executed, with which environment, and where."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ocirt_cri.spec.document import text
from ocirt_cri.spec.refuse import invalid

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig
    from ocirt_images.config import ImageConfig

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """The program and its arguments.

    `command` stands for the image's Entrypoint, `args` for its Cmd; with a command of the request's, the image's Cmd, which was
    meant for another program, is left out (as docker has it). Raises Error for no program at all.
    """
    words = list(config.command)
    more = list(config.args)
    if not words:
        entrypoint = tuple(image.entrypoint or ())
        words = [] if entrypoint == ("",) else list(entrypoint)  # an old builder's way to say: none
        more = more or list(image.cmd or ())
    words += more
    if not words:
        raise invalid("config.command", "no command", "give one: the image has neither Entrypoint nor Cmd")
    if not words[0]:
        field = "config.command" if config.command else "config.args" if config.args else "config.image"
        raise invalid(field, "the name of the program is empty", 'such as "sh" or "/bin/sh"')
    return words


def environment(config: ContainerConfig, image: ImageConfig, hostname: str) -> list[str]:
    """PATH, TERM and HOSTNAME where nobody says them, then the image's, then the request's, each name once.

    The last of a name counts, in the place of the first. What the image has that is no variable is passed over.
    """
    found = {"PATH": "PATH=" + PATH}
    if config.tty:
        found["TERM"] = "TERM=xterm"
    if hostname:
        found["HOSTNAME"] = "HOSTNAME=" + hostname
    for entry in image.env:
        name, equals, _ = entry.partition("=")
        if name and equals and "\0" not in entry:
            found[name] = entry
    for variable in config.envs:
        found[variable.key] = f"{variable.key}={text(variable.value)}"
    return list(found.values())


def directory(config: ContainerConfig, image: ImageConfig) -> str:
    """The working directory of a request that was checked; the runtime makes it where it is missing."""
    # Some builders write `app` for what is /app to docker.
    return clean(config.working_dir or "/" + image.working_dir.replace("\0", ""))


def clean(path: str) -> str:
    """An absolute path in its shortest form."""
    return posixpath.normpath("/" + path.lstrip("/"))
