"""Authentication, without I/O: a flow yields requests, is sent their answers, and returns the last one.

A registry answers 401 with one challenge or several. `Bearer` names a token server, which is asked for a token of the scopes that
are wanted (distribution's "Token Authentication Specification" and its OAuth2 form); `Basic` takes user and password.
What was learned is kept in an `Authority`: which host asks for what, and tokens until they expire.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from ocirt_images.errors import Error
from ocirt_images.registry.messages import Answer, Request, origin, place, words

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from ocirt_images.registry.credentials import Credential, Found

CLIENT = "ocirt"  # what token servers may write into their logs
_LIFE = 60.0  # seconds that a token lives if its server does not say, and at least (token specification)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))", re.ASCII)
_VALUE = re.compile(r'\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in: `scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)
    token68: str = ""


def challenges(values: Iterable[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers (RFC 9110, 11.6.1). What does not parse is left out."""
    found: list[Challenge] = []
    for value in values:
        found.extend(_challenges(value))
    return found


def _challenges(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while at < len(value):
        if value[at] in ", \t":
            at += 1
            continue
        word = _TOKEN.match(value, at)
        if not word:
            at = _comma(value, at)
            continue
        parameter = _VALUE.match(value, word.end())
        if parameter and found:
            quoted, bare = parameter.groups()
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            found[-1].parameters.setdefault(word[0].lower(), text)
            at = parameter.end()
            continue
        if parameter:
            at = _comma(value, parameter.end())
            continue
        at = word.end()
        blank = re.compile(r"[ \t]+").match(value, at)
        token68 = _TOKEN68.match(value, blank.end()) if blank else None
        found.append(Challenge(word[0].lower(), {}, token68[0] if token68 else ""))
        at = token68.end() if token68 else at
    return found


def _comma(value: str, at: int) -> int:
    """The next comma that stands in no quotes."""
    quoted = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,])*').match(value, at)
    return max(at + 1, quoted.end() if quoted else len(value))


def scopes(*texts: str) -> tuple[str, ...]:
    """Scopes (several in a text are separated by blanks), those of one resource merged, in a fixed order.

    A scope is `type:name:actions`; a name may hold colons.
    """
    merged: dict[str, set[str]] = {}
    for one in " ".join(texts).split():
        resource, colon, actions = one.rpartition(":")
        if colon and ":" in resource:
            merged.setdefault(resource, set()).update(one for one in actions.split(",") if one)
        else:
            merged.setdefault(one, set())
    return tuple(
        f"{resource}:{','.join(sorted(actions))}" if actions else resource for resource, actions in sorted(merged.items())
    )


def basic(username: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Key:
    """What a token is good for. `account`: whose it is."""

    realm: str
    service: str
    scopes: tuple[str, ...]
    account: str


class Authority:
    """What hosts asked for and the tokens that they gave. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str, int], Challenge] = {}
        self._tokens: dict[_Key, tuple[str, float]] = {}

    def flow(
        self,
        request: Request,
        wanted: tuple[str, ...],
        credential: Callable[[], Found],
    ) -> Generator[Request, Answer, Answer]:
        """Send a request with what its host asks for.

        wanted: scopes, such as `repository:library/busybox:pull`; credential: called at most once, and only if it is needed
        Returns the last answer: a 401 if nothing helped. Raises Error("unauthorized") if a token server refuses a token,
        Error("unavailable") if it fails or its answer cannot be used.
        """
        found = _Once(credential)
        where = origin(request.url)
        with self._lock:
            remembered = self._asked.get(where)
        used = ""
        if remembered is not None:
            used = yield from self._header(request, remembered, wanted, found)
        answer = yield request.having("Authorization", used) if used else request
        if answer.status != 401 or origin(answer.url) != where:
            return answer
        self._forget(used)
        for challenge in _usable(challenges(answer.headers.all("www-authenticate"))):
            header = yield from self._header(request, challenge, wanted, found)
            if not header or header == used:
                continue
            used = header
            answer = yield request.having("Authorization", header)
            if answer.status != 401 or origin(answer.url) != where:
                with self._lock:
                    self._asked[where] = challenge
                return answer
            self._forget(header)
        return answer

    def _header(
        self, request: Request, challenge: Challenge, wanted: tuple[str, ...], credential: _Once
    ) -> Generator[Request, Answer, str]:
        """The Authorization that a challenge wants, or "" if we have nothing for it."""
        found = credential().credential
        if found is not None and found.registry_token:
            return f"Bearer {found.registry_token}"
        if challenge.scheme == "basic":
            return basic(found.username, found.password) if found is not None and found.username else ""
        realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
        # What the registry names is what this request needs; what we want may be more: that of a whole pull or push.
        asked = scopes(*wanted, challenge.parameters.get("scope", ""))
        key = _Key(realm, service, asked, "" if found is None else repr((found.username, found.source)))
        with self._lock:
            token, until = self._tokens.get(key, ("", 0.0))
        if token and self._clock() < until:
            return f"Bearer {token}"
        _check_realm(request, realm)
        answer = yield token_request(realm, service, asked, found)
        if answer.status in (404, 405) and found is not None and found.password and not found.identity_token:
            answer = yield oauth_request(realm, service, asked, found)
        token, life = _token(answer, credential())
        with self._lock:
            self._tokens[key] = (token, self._clock() + life)
        return f"Bearer {token}"

    def _forget(self, header: str) -> None:
        """A token that was refused is not to be used again."""
        with self._lock:
            for key in [key for key, (token, _) in self._tokens.items() if header == f"Bearer {token}"]:
                del self._tokens[key]


class _Once:
    """A credential that is looked up when it is first needed: looking may start a program, or read a file that is bad."""

    def __init__(self, find: Callable[[], Found]) -> None:
        self._find = find
        self._found: Found | None = None

    def __call__(self) -> Found:
        if self._found is None:
            self._found = self._find()
        return self._found


def token_request(realm: str, service: str, wanted: tuple[str, ...], credential: Credential | None) -> Request:
    """What a token server is asked: with an identity token by OAuth2, else by GET, with user and password if there are any."""
    if credential is not None and credential.identity_token:
        return oauth_request(realm, service, wanted, credential)
    query = [("service", service)] if service else []
    query += [("scope", one) for one in wanted]
    headers = {}
    if credential is not None and credential.username:
        query.append(("account", credential.username))
        headers["Authorization"] = basic(credential.username, credential.password)
    query.append(("client_id", CLIENT))
    separator = "&" if urlsplit(realm).query else "?"
    return Request(method="GET", url=f"{realm}{separator}{urlencode(query)}", headers=headers)


def oauth_request(realm: str, service: str, wanted: tuple[str, ...], credential: Credential) -> Request:
    """The same by OAuth2 (distribution, "Docker Registry v2 Bearer token specification, OAuth2")."""
    fields = {"service": service, "scope": " ".join(wanted), "client_id": CLIENT}
    if credential.identity_token:
        fields |= {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
    else:
        fields |= {"grant_type": "password", "username": credential.username, "password": credential.password}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(method="POST", url=realm, headers=headers, body=urlencode(fields).encode())


def _usable(found: list[Challenge]) -> list[Challenge]:
    """Those that we can answer: tokens before passwords, the order kept otherwise."""
    bearers = [one for one in found if one.scheme == "bearer" and one.parameters.get("realm")]
    return bearers + [one for one in found if one.scheme == "basic"]


def _check_realm(request: Request, realm: str) -> None:
    """Raises Error("unavailable") for a token server that cannot be, or would get a password in the clear."""
    try:
        scheme = origin(realm)[0]
    except Error:
        what = f"{place(request.url)} names a token server that is no URL"
        raise Error("unavailable", what, cause=repr(realm[:200])) from None
    if scheme == "http" and origin(request.url)[0] == "https":
        what = f"{place(request.url)} wants us to ask for a token over plain HTTP, at {place(realm)}"
        raise Error("unavailable", what, hint="the password would be readable on the way")


def _token(answer: Answer, tried: Found) -> tuple[str, float]:
    """A token and how many seconds it lives, from a token server's answer."""
    server = place(answer.url)
    if answer.status in (400, 401, 403):
        what = f"the token server {server} gives no token (HTTP {answer.status})"
        raise Error("unauthorized", what, cause=words(answer), hint=str(tried))
    if answer.status != 200:
        raise Error("unavailable", f"the token server {server} answers HTTP {answer.status}", cause=words(answer))
    try:
        found = json.loads(answer.body)
        token = found.get("token") or found.get("access_token")
        life = found.get("expires_in")
    except (ValueError, AttributeError, RecursionError):
        token, life = None, None
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise Error("unavailable", f"the token server {server} answers without a token")
    return token, max(_LIFE, float(life)) if type(life) in (int, float) else _LIFE
