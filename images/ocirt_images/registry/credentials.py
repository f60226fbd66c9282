"""Credentials: as whom a registry is asked, and where we know that from."""

from __future__ import annotations

from dataclasses import dataclass, field


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

    def __str__(self) -> str:
        if self.registry_token:
            who = "a registry token"
        elif self.identity_token:
            who = f"the identity token of {self.username!r}" if self.username else "an identity token"
        else:
            who = f"user {self.username!r}"
        return f"{who} from {self.source}"


class Credentials:
    """What there is for a name (a host and perhaps a repository)."""

    def find(self, name: str) -> Credential | None:
        """The credential for the repository `name`, or None."""
        del name
        return None

    def looked(self, name: str) -> str:
        """Where a credential for `name` was looked for, for a person."""
        del name
        return ""
