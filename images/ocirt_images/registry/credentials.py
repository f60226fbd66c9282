"""Credentials: as whom a registry is asked, and where we know that from.

Looked at in this order; the first that has something decides:
- what the caller gave, for the registry that it gave it for, and for no mirror of it;
- $REGISTRY_AUTH_FILE, and then nothing else; or
- docker's config.json ($DOCKER_CONFIG, else ~/.docker), $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json.

In a file the longest name counts (`host/team/app` before `host/team` before `host`); for a host its helper, then the store for
all hosts, then the file's own entry.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.registry.authfile import (
    DOCKER_KEY,
    AuthFile,
    decode,
    encode_auth,
    keys,
    prefixes,
    server_of,
)
from ocirt_images.registry.helpers import Helper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_images.fields import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Who we are to a registry; as text without its secrets.

    identity_token: for a token server (OAuth2 refresh token); registry_token: for the registry itself, used as it is
    source: where it was found, for a person
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = ""

    @classmethod
    def parse(cls, value: Json, source: str, pointer: str = "") -> Credential | None:
        """CRI's AuthConfig, or an entry of a file; None if it is empty.

        Keys as in JSON: auth, username, password, identitytoken, registrytoken. Raises Error("invalid") that names the key below
        `pointer` (or `source`).
        """
        name, password, identity, registry = decode(value, pointer or source)
        if not (name or identity or registry):
            return None
        return cls(username=name, password=password, identity_token=identity, registry_token=registry, source=source)

    def __str__(self) -> str:
        if self.registry_token:
            who = "a registry token"
        elif self.identity_token:
            who = f"the identity token of {self.username!r}" if self.username else "an identity token"
        else:
            who = f"user {self.username!r}"
        return f"{who} from {self.source}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: a credential or none, where it was searched, and what went wrong with helpers on the way."""

    credential: Credential | None
    looked: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For "unauthorized": what was tried."""
        text = f"tried: {self.credential}" if self.credential else "no credentials were found"
        if self.credential is None and self.looked:
            text += f" in {', '.join(self.looked)}"
        return "; ".join([text, *self.troubles])


NOBODY = Found(None)


class Credentials:
    """What there is for a name (a host and perhaps a repository). Files are read when asked for.

    given: a caller's own credentials, by the host that they are for
    `Credentials()` knows no files; `Credentials.load()` those of the user.
    """

    def __init__(
        self,
        *,
        given: Mapping[str, Credential] | None = None,
        files: Iterable[Path] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.files = tuple(AuthFile(path) for path in files)
        self._given = {server_of(host): one for host, one in (given or {}).items()}
        self._environ = os.environ if environ is None else environ

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, given: Mapping[str, Credential] | None = None) -> Credentials:
        """With the files of the user whose environment this is."""
        environ = os.environ if environ is None else environ
        return cls(given=given, files=paths(environ), environ=environ)

    def find(self, name: str) -> Found:
        """The credential for a repository, such as `docker.io/library/busybox`.

        A helper that fails is among the troubles of what is found: a public image needs none.
        Raises Error("invalid") that names a file and its key, OSError.
        """
        host = server_of(name)
        if host in self._given:
            return Found(self._given[host])
        name = "/".join((host, *name.split("/")[1:]))
        troubles: list[str] = []
        for file in self.files:
            found = self._in(file, name, host, troubles)
            if found is not None:
                return Found(found, (), tuple(troubles))
        return Found(None, tuple(str(file.path) for file in self.files), tuple(troubles))

    def save(self, server: str, credential: Credential) -> tuple[str, bool]:
        """Keep a credential for a server, in the first file or its helper. Where it is, and whether anybody can read it there who
        can read the file. Raises Error("unavailable", "invalid"), OSError.
        """
        file = self._first()
        host = server_of(server)
        key = DOCKER_KEY if host == "docker.io" else host
        value = file.read()
        name = file.helpers(value).get(host) or file.store(value)
        if name:
            helper = Helper(name, self._environ)
            helper.store(key, credential.username, credential.password, credential.identity_token)
            entry: Json = {}
        else:
            entry = {"auth": encode_auth(credential.username, credential.password)}
            if credential.identity_token:
                entry = {"auth": encode_auth(credential.username, ""), "identitytoken": credential.identity_token}

        def change(value: Json) -> None:
            auths = value.get("auths") or {}
            value["auths"] = {one: old for one, old in auths.items() if one not in keys(host)} | {key: entry}

        if not name or file.auths(value).get(key) != entry:
            file.update(change)
        return (f"docker-credential-{name}", False) if name else (str(file.path), True)

    def erase(self, server: str) -> list[str]:
        """Forget what all files and helpers keep for a server. Where there was something. Raises as `save` does."""
        host = server_of(server)
        key = DOCKER_KEY if host == "docker.io" else host
        gone: list[str] = []
        for file in self.files:
            value = file.read()
            for name in dict.fromkeys(one for one in (file.helpers(value).get(host), file.store(value)) if one):
                helper = Helper(name, self._environ)
                if helper.get(key) is not None:
                    helper.erase(key)
                    gone.append(helper.program)
            if any(one in file.auths(value) for one in keys(host)):
                file.update(lambda value: _without(value, host))
                gone.append(str(file.path))
        return gone

    def _first(self) -> AuthFile:
        if not self.files:
            raise Error("invalid", "no file to keep credentials in", hint="set HOME or DOCKER_CONFIG")
        return self.files[0]

    def _in(self, file: AuthFile, name: str, host: str, troubles: list[str]) -> Credential | None:
        """What one file has for a repository."""
        value = file.read()
        auths, helpers = file.auths(value), file.helpers(value)
        for one in prefixes(name)[:-1]:
            if found := self._entry(file, auths, [one]):
                return found
        own = keys(host)
        asked = [helpers[one] for one in own if one in helpers][:1] + [one for one in (file.store(value),) if one]
        for helper in asked:
            try:
                if found := self._from_helper(helper, own[0], file):
                    return found
            except Error as err:
                troubles.append(str(err))
        return self._entry(file, auths, own)

    def _from_helper(self, name: str, key: str, file: AuthFile) -> Credential | None:
        helper = Helper(name, self._environ)
        found = helper.get(key)
        if found is None:
            return None
        source = f"{helper.program} (named in {file.path})"
        return Credential(username=found[0], password=found[1], identity_token=found[2], source=source)

    @staticmethod
    def _entry(file: AuthFile, auths: dict[str, Json], names: list[str]) -> Credential | None:
        """The first of these entries that says something."""
        found = (Credential.parse(auths[one], str(file.path), f"{file.path}: /auths/{one}") for one in names if auths.get(one))
        return next((one for one in found if one is not None), None)


def paths(environ: Mapping[str, str]) -> list[Path]:
    """The files of a user, in the order in which they are read; the first is the one that is written."""
    if named := environ.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    found: list[Path] = []
    home = environ.get("HOME")
    if docker := environ.get("DOCKER_CONFIG"):
        found.append(Path(docker) / "config.json")
    elif home:
        found.append(Path(home) / ".docker/config.json")
    runtime = environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else "")
    if environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "containers/auth.json")
    elif runtime:
        found.append(Path(runtime) / f"containers/{os.geteuid()}/auth.json")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    if config:
        found.append(Path(config) / "containers/auth.json")
    return found


def _without(value: Json, host: str) -> None:
    value["auths"] = {one: entry for one, entry in (value.get("auths") or {}).items() if one not in keys(host)}
