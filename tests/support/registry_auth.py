"""Who may ask a `LocalRegistry` for what: Basic, and Bearer with its token endpoint `/token`."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from tests.support.registry_http import Reply, Seen, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.registry import LocalRegistry


class Auth(Protocol):
    def check(self, seen: Seen, registry: LocalRegistry) -> Reply | None:
        """None if the request may go on, else what it is answered. Its own requests, such as for a token, it answers too."""


def user_of(seen: Seen) -> tuple[str, str] | None:
    """User and password of Basic authentication."""
    kind, _, value = seen.authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    name, _, password = base64.b64decode(value).decode().partition(":")
    return name, password


def denied(*challenges: str) -> Reply:
    """401 with these challenges, a header for each."""
    reply = error(401, "UNAUTHORIZED", "authentication required")
    reply.more = [("WWW-Authenticate", one) for one in challenges]
    return reply


@dataclass
class Basic:
    """User and password with each request."""

    users: Mapping[str, str]

    def check(self, seen: Seen, registry: LocalRegistry) -> Reply | None:
        del registry
        found = user_of(seen)
        if found is not None and self.users.get(found[0]) == found[1]:
            return None
        return denied('Basic realm="a registry, \\"ours\\""')


@dataclass
class Bearer:
    """Tokens by scope.

    users: passwords by name; identities: names by identity token; anonymous: scopes' actions for those without a name
    realm: where tokens are to be had, if not here; service: as it calls itself; life: seconds of a token, None: it does not say
    challenges: what a 401 says, from the challenge of Bearer; get: it knows the GET form
    refused: resources for which there is no token, for nobody
    """

    users: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)
    anonymous: tuple[str, ...] = ("pull",)
    realm: str = ""
    service: str = "registry.test"
    life: float | None = 300
    get: bool = True
    refused: frozenset[str] = frozenset()
    challenges: Callable[[str], list[str]] = field(default=lambda bearer: [bearer])
    tokens: dict[str, tuple[dict[str, set[str]], float]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def check(self, seen: Seen, registry: LocalRegistry) -> Reply | None:
        if seen.path == "/token":
            return self._issue(seen)
        if seen.path.startswith("/data/"):
            return None
        resource, actions = self._needed(seen, registry)
        kind, _, token = seen.authorization.partition(" ")
        scopes, until = self.tokens.get(token, ({}, 0.0)) if kind.lower() == "bearer" else ({}, 0.0)
        if time.monotonic() < until and actions <= scopes.get(resource, set()):
            return None
        realm = self.realm or f"{registry.url}/token"
        scope = f',scope="{resource}:{",".join(sorted(actions))}"' if resource else ""
        trouble = ',error="insufficient_scope"' if scopes else ""
        return denied(*self.challenges(f'Bearer realm="{realm}",service="{self.service}"{scope}{trouble}'))

    def revoke(self) -> None:
        """No token is good any more."""
        self.tokens.clear()

    @staticmethod
    def _needed(seen: Seen, registry: LocalRegistry) -> tuple[str, set[str]]:
        rest = seen.path.removeprefix(f"{registry.root}/")
        for word in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
            if word in rest:
                actions = {"pull"} if seen.method in ("GET", "HEAD") else {"pull", "push"}
                return f"repository:{rest.partition(word)[0]}", actions
        return "", set()

    def _issue(self, seen: Seen) -> Reply:
        if seen.method == "GET" and not self.get:
            return error(405, "UNSUPPORTED")
        fields = parse_qs(seen.body.decode()) if seen.method == "POST" else {}
        name = self._who(seen, fields)
        if name is None:
            return error(401, "UNAUTHORIZED", "incorrect username or password")
        # All that is asked for counts, not only the last one of a name, so the query is read anew.
        asked = " ".join(fields.get("scope", [])) if fields else " ".join(seen.scopes)
        if self.refused & {scope.rpartition(":")[0] for scope in asked.split()}:
            return error(403, "DENIED", "access to the resource is denied")
        granted: dict[str, set[str]] = {}
        for scope in asked.split():
            resource, _, actions = scope.rpartition(":")
            allowed = set(actions.split(",")) if name else set(actions.split(",")) & set(self.anonymous)
            granted.setdefault(resource, set()).update(allowed)
        granted.setdefault("", set())
        token = f"token-{next(self._numbers)}"
        self.tokens[token] = granted, time.monotonic() + (self.life if self.life is not None else 60)
        body: dict[str, object] = {"token": token} if seen.method == "GET" else {"access_token": token}
        if self.life is not None:
            body["expires_in"] = self.life
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _who(self, seen: Seen, fields: Mapping[str, list[str]]) -> str | None:
        """The name of who asks, "" for nobody, None for a wrong password."""
        if fields.get("grant_type") == ["refresh_token"]:
            return self.identities.get(fields["refresh_token"][0])
        if fields.get("grant_type") == ["password"]:
            found: tuple[str, str] | None = (fields["username"][0], fields["password"][0])
        else:
            found = user_of(seen)
        if found is None:
            return ""
        return found[0] if self.users.get(found[0]) == found[1] else None
