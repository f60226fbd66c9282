"""Files that keep credentials: docker's config.json, and the auth.json of podman and skopeo (containers-auth.json(5)).

{"auths": {"registry.example": {"auth": "dXNlcjpwYXNz"}}, "credsStore": "pass", "credHelpers": {"gcr.io": "gcloud"}}
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, strings, text
from ocirt_images.reference import DOCKER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOCKER_KEY = "https://index.docker.io/v1/"  # what docker files its own registry under
_DOCKER_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")


class AuthFile:
    """One of them. Reading raises Error("invalid") that names file and key, OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Json:
        """All of it; empty if there is no such file."""
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        try:
            found = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as err:
            raise Error("invalid", "not JSON", subject=str(self.path), cause=str(err)[:200]) from None
        return mapping(found, str(self.path))

    def auths(self, value: Json) -> dict[str, Json]:
        """Entries by server."""
        return {name: mapping(one, f"{self.path}: /auths/{name}") for name, one in self._table(value, "auths").items()}

    def helpers(self, value: Json) -> dict[str, str]:
        """Credential helpers by host."""
        return strings(value, "credHelpers", f"{self.path}: ")

    def store(self, value: Json) -> str:
        """The credential helper for all hosts, or ""."""
        return text(value, "credsStore", f"{self.path}: ", "")

    def update(self, change: Callable[[Json], None]) -> None:
        """Change the file as a whole: what is read by others is the old or the new one, readable for its owner alone.

        Raises OSError.
        """
        path = self.path.resolve()  # a link stays one
        value = self.read()
        change(value)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(value, file, indent="\t")
                file.write("\n")
                file.flush()
                os.fsync(fd)
            if path.exists():
                state = path.stat()
                os.chmod(name, state.st_mode & 0o600)
                if (state.st_uid, state.st_gid) != (os.geteuid(), os.getegid()):
                    os.chown(name, state.st_uid, state.st_gid)  # root wrote into a user's home
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def _table(self, value: Json, key: str) -> Json:
        found = value.get(key)
        return {} if found is None else mapping(found, f"{self.path}: /{key}")


def decode(entry: Json, subject: str) -> tuple[str, str, str, str]:
    """User, password, identity token and registry token of an entry; each may be "". Raises Error("invalid")."""
    name, password = text(entry, "username", subject, ""), text(entry, "password", subject, "")
    if auth := text(entry, "auth", subject, ""):
        name, password = decode_auth(auth, f"{subject}/auth")
    return name, password, text(entry, "identitytoken", subject, ""), text(entry, "registrytoken", subject, "")


def decode_auth(auth: str, subject: str) -> tuple[str, str]:
    """User and password from base64 of `USER:PASSWORD`. Raises Error("invalid")."""
    try:
        name, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = colon = password = ""
    if not colon or not name:
        raise Error("invalid", "not base64 of USER:PASSWORD", subject=subject)
    return name, password.strip("\0")


def encode_auth(username: str, password: str) -> str:
    """The other way round."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def server_of(key: str) -> str:
    """The host of an entry's name: docker writes some as URLs, and its own registry in a way of its own."""
    host = key.partition("://")[2] if "://" in key else key
    host = host.partition("/")[0]
    return DOCKER if host in _DOCKER_HOSTS else host


def keys(server: str) -> list[str]:
    """The names under which a server's own entry may stand, the one that docker writes first."""
    plain = [server, f"https://{server}", f"https://{server}/v1/", f"https://{server}/v2/", f"http://{server}"]
    if server != DOCKER:
        return plain
    return [DOCKER_KEY, *plain, *(f"{scheme}{host}" for host in _DOCKER_HOSTS[1:] for scheme in ("", "https://"))]


def prefixes(name: str) -> list[str]:
    """A repository's name and all above it: `h/a/b`, `h/a`, `h`."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
