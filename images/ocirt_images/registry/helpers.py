"""Credential helpers: programs `docker-credential-NAME` that keep secrets for others (docker-credential-helpers' protocol).

One word says what to do, JSON goes in on stdin and comes out on stdout.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TOKEN = "<token>"  # the user name that marks an identity token
_SECONDS = 60
# What helpers write where there is nothing; the protocol has no status for it.
_NOTHING = ("credentials not found in native keychain", "no credentials server url", "no credentials username")


class Helper:
    """One of them. Each method raises Error("unavailable") if it is not there or fails, Error("invalid") for an odd name."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        if not _NAME.fullmatch(name):
            raise Error("invalid", f"{name[:80]!r} is no credential helper", hint="the NAME of a program docker-credential-NAME")
        self.program = f"docker-credential-{name}"
        self._environ = dict(environ)

    def get(self, server: str) -> tuple[str, str, str] | None:
        """User, password and identity token kept for a server, or None."""
        out = self._run("get", server)
        if out is None:
            return None
        found = self._json(out)
        name, secret = found.get("Username", ""), found.get("Secret", "")
        if not isinstance(name, str) or not isinstance(secret, str):
            raise Error("unavailable", f"{self.program} answers without Username and Secret")
        return ("", "", secret) if name == _TOKEN else (name, secret, "")

    def store(self, server: str, username: str, password: str, identity_token: str = "") -> None:
        """Keep a secret."""
        name, secret = (_TOKEN, identity_token) if identity_token else (username, password)
        self._run("store", json.dumps({"ServerURL": server, "Username": name, "Secret": secret}))

    def erase(self, server: str) -> None:
        """Keep it no more. It need not be there."""
        self._run("erase", server)

    def list(self) -> dict[str, str]:
        """Users by server."""
        out = self._run("list", "")
        return {str(server): str(name) for server, name in self._json(out or "{}").items()}

    def _json(self, out: str) -> dict[str, object]:
        try:
            found = json.loads(out)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Error("unavailable", f"{self.program} answers with something that is not JSON")
        return found

    def _run(self, verb: str, text: str) -> str | None:
        """What it writes; None if it says that there is nothing."""
        try:
            done = subprocess.run(
                [self.program, verb],
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=self._environ,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise Error("unavailable", f"{self.program} is not installed") from None
        except OSError as err:
            raise Error("unavailable", f"{self.program} does not start", cause=err.strerror or "") from None
        except subprocess.TimeoutExpired:
            raise Error("unavailable", f"{self.program} {verb} takes more than {_SECONDS} seconds") from None
        if done.returncode == 0:
            return done.stdout
        # It may hold the secret that it was given: what it wrote to stdout is shown for `get` alone, where it is a message.
        said = (done.stderr.strip() or (done.stdout.strip() if verb != "store" else "")).splitlines()
        if any(word in line.lower() for line in [*said, done.stdout] for word in _NOTHING):
            return None
        raise Error("unavailable", f"{self.program} {verb} fails", cause=said[0][:200] if said else f"status {done.returncode}")
