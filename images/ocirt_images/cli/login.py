"""`ocirt login`: keep a name and a password for a registry, once it has taken them."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING

from ocirt_images.cli import output
from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.authfile import server_of
from ocirt_images.registry.credentials import Credential, Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.session import Session

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command

_ATTEMPTS = 2  # somebody is waiting
_LONGEST = 64 << 10  # bytes of a password; a token of some clouds has thousands


def run(command: Command, args: list[str]) -> int:
    """Log in to the registry args[0], or docker.io.

    Raises Error("usage") if nobody can be asked, Error("unauthorized") if the registry does not take them, then nothing is kept.
    """
    server = server_of(args[0]) if args else "docker.io"
    username = command.text("username") or _ask_name(server)
    password = _read_password() if command.flag("password-stdin") else _ask_password()
    credential = Credential(username=username, password=password, source="what was typed")
    check(server, credential, insecure=command.flag("insecure"))
    place, readable = Credentials.load().save(server, credential)
    output.out(f"Logged in to {server}. Kept in {place}{', which whoever may read it can read' if readable else ''}.\n")
    return 0


def check(server: str, credential: Credential, *, insecure: bool) -> None:
    """Ask the registry whether it takes a credential. Raises Error("unauthorized"), Error("unavailable")."""
    session = Session(Credentials(given={server: credential}))
    try:
        # Mirrors have credentials of their own. The repository stands for any; it is not asked for.
        hosts = [host for host in Hosts.load().lookup(Reference(server, "any"), insecure=insecure) if not host.namespace]
        for number, host in enumerate(hosts, 1):
            try:
                session.request(host, "GET", f"{host.base}/", whole=1 << 20, attempts=_ATTEMPTS, what="login")
            except Error as err:
                if err.code == "unavailable" and number < len(hosts):
                    continue
                raise Error(err.code, err.message, subject=err.subject or server, cause=err.cause, hint=err.hint) from None
            return
        raise Error("unavailable", "no host is configured for it", subject=server)
    finally:
        session.close()


def _ask_name(server: str) -> str:
    if not (os.isatty(0) and os.isatty(2)):
        raise Error("usage", "no name is given, and there is no terminal to ask on", hint="--username NAME --password-stdin")
    output.out(f"Name at {server}: ", 2)
    name = os.read(0, 1024).decode(errors="replace").strip()
    if not name:
        raise Error("cancelled", "no name was typed")
    return name


def _ask_password() -> str:
    if not (os.isatty(0) and os.isatty(2)):
        raise Error("usage", "no password is given, and there is no terminal to ask on", hint="--password-stdin")
    password = getpass.getpass("Password: ")
    if not password:
        raise Error("cancelled", "no password was typed")
    return password


def _read_password() -> str:
    """All of standard input, without the newline at its end."""
    data = b""
    while len(data) <= _LONGEST and (more := os.read(0, _LONGEST)):
        data += more
    try:
        password = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Error("usage", "the password on standard input is not UTF-8") from None
    if not password or len(data) > _LONGEST:
        raise Error("usage", "no password on standard input" if not password else "more than a password on standard input")
    return password
