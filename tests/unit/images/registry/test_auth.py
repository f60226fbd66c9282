"""Authentication without a network: what is asked of whom, in which order, with what."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.errors import Error
from ocirt_images.registry.auth import Authority, Challenge, basic, challenges, scopes
from ocirt_images.registry.credentials import NOBODY, Credential, Found
from ocirt_images.registry.messages import Answer, Headers, Request

REGISTRY = "https://r.example/v2/a/manifests/x"
REALM = "https://auth.example/token"
PULL = ("repository:a:pull",)
BEARER = f'Bearer realm="{REALM}",service="svc",scope="repository:a:pull"'
BASIC = 'Basic realm="R"'
USER = Found(Credential(username="bob", password="pa:ss", source="here"))
IDENTITY = Found(Credential(username="bob", identity_token="refresh", source="here"))
REGISTRY_TOKEN = Found(Credential(registry_token="ready", source="here"))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (["Basic"], [("basic", {})]),
        ([BEARER], [("bearer", {"realm": REALM, "service": "svc", "scope": "repository:a:pull"})]),
        (
            ['Basic realm="a", Bearer realm="b",service=c'],
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "service": "c"})],
        ),
        (['Bearer realm="b" , Basic'], [("bearer", {"realm": "b"}), ("basic", {})]),
        ([BASIC, 'Bearer realm="b"'], [("basic", {"realm": "R"}), ("bearer", {"realm": "b"})]),
        (['bEaReR REALM = "q\\"uo, ted" ,scope="a:b:pull,push"'], [("bearer", {"realm": 'q"uo, ted', "scope": "a:b:pull,push"})]),
        (['Negotiate abc==, Basic realm="x"'], [("negotiate", {}), ("basic", {"realm": "x"})]),
        ([', ,Basic realm="x",,'], [("basic", {"realm": "x"})]),
        (['realm="lost", Basic realm="x"'], [("basic", {"realm": "x"})]),
        (['"Bearer" ?, Basic realm="x"'], [("basic", {"realm": "x"})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="open'], [("bearer", {"realm": ""})]),
        ([""], []),
    ],
)
def test_challenges(values: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in challenges(values)] == found


TOKEN = st.from_regex(r"[A-Za-z][A-Za-z0-9!#$&'*+.^_|~-]{0,9}", fullmatch=True)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUE, max_size=3)), max_size=4), st.booleans())
def test_challenges_are_read_as_they_were_written(wanted: list[tuple[str, dict[str, str]]], joined: bool) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    written = [
        " ".join((scheme, ", ".join(f"{name}={quoted(value)}" for name, value in fields.items()))) for scheme, fields in wanted
    ]
    found = challenges([", ".join(written)] if joined else written)
    assert found == [Challenge(scheme.lower(), fields) for scheme, fields in wanted]


@given(st.lists(st.text()))
def test_challenges_take_anything(values: list[str]) -> None:
    challenges(values)


@pytest.mark.parametrize(
    ("texts", "merged"),
    [
        (["repository:a:push,pull"], ("repository:a:pull,push",)),
        (["repository:a:pull", "repository:a:push repository:b:pull"], ("repository:a:pull,push", "repository:b:pull")),
        (["repository:h:5000/a:pull"], ("repository:h:5000/a:pull",)),
        (["registry:catalog:*", "openid"], ("openid", "registry:catalog:*")),
        (["", "repository:a:"], ("repository:a",)),
    ],
)
def test_scopes(texts: list[str], merged: tuple[str, ...]) -> None:
    assert scopes(*texts) == merged


@dataclass
class World:
    """Answers by host: `registry` for r.example, `server` for the token server. What was sent is in `sent`."""

    registry: Callable[[Request], Answer]
    server: Callable[[Request], Answer] = field(default=lambda request: token("t1"))
    clock: float = 0.0
    sent: list[Request] = field(default_factory=list)
    looked: int = 0

    def __post_init__(self) -> None:
        self.authority = Authority(lambda: self.clock)

    def ask(self, found: Found, wanted: tuple[str, ...] = PULL, url: str = REGISTRY) -> Answer:
        def find() -> Found:
            self.looked += 1
            return found

        flow = self.authority.flow(Request(method="GET", url=url), wanted, find)
        request = next(flow)
        while True:
            self.sent.append(request)
            host = urlsplit(request.url).hostname
            answer = self.registry(request) if host == "r.example" else self.server(request)
            answer.url = answer.url or request.url
            try:
                request = flow.send(answer)
            except StopIteration as done:
                assert isinstance(done.value, Answer)
                return done.value

    @property
    def trace(self) -> list[str]:
        """Who was asked, with which kind of Authorization."""
        return [f"{urlsplit(one.url).hostname} {one.headers.get('Authorization', '-').split()[0]}" for one in self.sent]


def answer(status: int = 200, *asking: str, url: str = "") -> Answer:
    return Answer(status=status, url=url, headers=Headers([("WWW-Authenticate", one) for one in asking]))


def token(value: str, **more: object) -> Answer:
    return Answer(status=200, url="", body=json.dumps({"token": value, **more}).encode())


def wants(good: Callable[[str], bool], *asking: str) -> Callable[[Request], Answer]:
    """A registry that is content with an Authorization that is `good`."""
    return lambda request: answer() if good(request.headers.get("Authorization", "")) else answer(401, *asking)


def bearer(*good: str) -> Callable[[str], bool]:
    return lambda value: value in [f"Bearer {one}" for one in good]


@pytest.mark.parametrize(
    ("asking", "credential", "good", "trace"),
    [
        ((), NOBODY, "", ["r.example -"]),
        ((BEARER,), NOBODY, "Bearer t1", ["r.example -", "auth.example -", "r.example Bearer"]),
        ((BEARER,), USER, "Bearer t1", ["r.example -", "auth.example Basic", "r.example Bearer"]),
        ((BEARER,), IDENTITY, "Bearer t1", ["r.example -", "auth.example -", "r.example Bearer"]),
        ((BEARER,), REGISTRY_TOKEN, "Bearer ready", ["r.example -", "r.example Bearer"]),
        ((BASIC,), REGISTRY_TOKEN, "Bearer ready", ["r.example -", "r.example Bearer"]),
        ((BASIC,), USER, basic("bob", "pa:ss"), ["r.example -", "r.example Basic"]),
        ((BASIC, BEARER), USER, "Bearer t1", ["r.example -", "auth.example Basic", "r.example Bearer"]),
        ((f"{BASIC}, {BEARER}",), USER, "Bearer t1", ["r.example -", "auth.example Basic", "r.example Bearer"]),
        (
            (BEARER, BASIC),
            USER,
            basic("bob", "pa:ss"),
            ["r.example -", "auth.example Basic", "r.example Bearer", "r.example Basic"],
        ),
        (("Negotiate", "Digest realm=x", BASIC), USER, basic("bob", "pa:ss"), ["r.example -", "r.example Basic"]),
        (("Bearer service=x", BASIC), USER, basic("bob", "pa:ss"), ["r.example -", "r.example Basic"]),
    ],
)
def test_ways_in(asking: tuple[str, ...], credential: Found, good: str, trace: list[str]) -> None:
    world = World(wants(lambda value: value == good, *asking))
    assert world.ask(credential).status == 200
    assert world.trace == trace
    assert world.looked == (1 if asking else 0)


@pytest.mark.parametrize(
    ("asking", "credential", "trace"),
    [
        ((BASIC,), NOBODY, ["r.example -"]),
        ((BASIC,), IDENTITY, ["r.example -", "r.example Basic"]),
        ((BASIC,), USER, ["r.example -", "r.example Basic"]),
        ((BEARER,), USER, ["r.example -", "auth.example Basic", "r.example Bearer"]),
        ((), USER, ["r.example -"]),
        (("Negotiate",), USER, ["r.example -"]),
    ],
)
def test_no_way_in(asking: tuple[str, ...], credential: Found, trace: list[str]) -> None:
    world = World(lambda request: answer(401, *asking))
    assert world.ask(credential).status == 401
    assert world.trace == trace


def test_what_a_token_server_is_asked() -> None:
    world = World(wants(bearer("t1"), f'Bearer realm="{REALM}?x=1",service="s v",scope="repository:b:push"'))
    world.ask(USER)
    url = urlsplit(world.sent[1].url)
    assert parse_qsl(url.query) == [
        ("x", "1"),
        ("service", "s v"),
        ("scope", "repository:a:pull"),
        ("scope", "repository:b:push"),
        ("account", "bob"),
        ("client_id", "ocirt"),
    ]
    assert base64.b64decode(world.sent[1].headers["Authorization"].split()[1]) == b"bob:pa:ss"


def test_an_identity_token_goes_by_oauth2() -> None:
    world = World(wants(bearer("t1"), BEARER), lambda request: token("", access_token="t1", refresh_token="other"))
    world.ask(IDENTITY)
    asked = world.sent[1]
    assert (asked.method, asked.url) == ("POST", REALM)
    assert isinstance(asked.body, bytes)
    assert {name: value for name, (value,) in parse_qs(asked.body.decode()).items()} == {
        "service": "svc",
        "scope": "repository:a:pull",
        "client_id": "ocirt",
        "grant_type": "refresh_token",
        "refresh_token": "refresh",
    }


def test_a_password_goes_by_oauth2_where_there_is_no_other_form() -> None:
    world = World(wants(bearer("t1"), BEARER), lambda request: answer(405) if request.method == "GET" else token("t1"))
    assert world.ask(USER).status == 200
    assert isinstance(world.sent[2].body, bytes)
    assert b"grant_type=password&username=bob&password=pa%3Ass" in world.sent[2].body


def test_what_was_learned_saves_requests() -> None:
    world = World(wants(bearer("t1"), BEARER))
    world.ask(NOBODY)
    world.sent.clear()
    assert world.ask(NOBODY, url="https://r.example/v2/a/blobs/y").status == 200
    assert world.trace == ["r.example Bearer"]


@pytest.mark.parametrize(
    ("life", "seconds"), [({}, 60), ({"expires_in": 300}, 300), ({"expires_in": 5}, 60), ({"expires_in": "x"}, 60)]
)
def test_tokens_live_as_long_as_they_say(life: dict[str, object], seconds: float) -> None:
    world = World(wants(bearer("t1"), BEARER), lambda request: token("t1", **life))
    world.ask(NOBODY)
    world.clock = seconds - 1
    world.sent.clear()
    world.ask(NOBODY)
    assert world.trace == ["r.example Bearer"]
    world.clock = seconds
    world.sent.clear()
    world.ask(NOBODY)
    assert world.trace == ["auth.example -", "r.example Bearer"]


def test_tokens_are_for_one_scope_and_one_user() -> None:
    numbers = iter(range(1, 100))
    issued: list[str] = []

    def server(request: Request) -> Answer:
        issued.append(f"t{next(numbers)}")
        return token(issued[-1], expires_in=900)

    world = World(lambda request: answer() if request.headers.get("Authorization") else answer(401, BEARER), server)
    for found, wanted in [
        (NOBODY, PULL),
        (NOBODY, PULL),
        (USER, PULL),
        (USER, ("repository:a:pull,push",)),
        (USER, PULL),
        (NOBODY, PULL),
    ]:
        world.ask(found, wanted)
    assert len(issued) == 3


def test_a_token_that_is_refused_is_asked_for_once_more() -> None:
    good = ["t1"]
    served = iter(["t1", "t2", "t3"])
    world = World(wants(lambda value: value == f"Bearer {good[0]}", BEARER), lambda request: token(next(served), expires_in=900))
    world.ask(NOBODY)
    good[:] = ["t2"]
    world.sent.clear()
    assert world.ask(NOBODY).status == 200
    assert world.trace == ["r.example Bearer", "auth.example -", "r.example Bearer"]


def test_scopes_that_the_registry_names_are_added() -> None:
    more = f'Bearer realm="{REALM}",service="svc",scope="repository:a:pull,push",error="insufficient_scope"'
    world = World(wants(bearer("t1"), more))
    world.ask(NOBODY, ("repository:b:pull",))
    assert "scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull" in world.sent[1].url


def test_a_401_of_another_host_is_not_answered() -> None:
    """A storage service that a registry sent us to may not ask for the registry's credentials."""
    world = World(lambda request: answer(401, BASIC, url="https://storage.example/x"))
    assert world.ask(USER).status == 401
    assert (world.trace, world.looked) == (["r.example -"], 0)


def test_a_401_of_another_host_after_a_token() -> None:
    def registry(request: Request) -> Answer:
        there = request.headers.get("Authorization") == "Bearer t1"
        return answer(401, BASIC, url="https://storage.example/x") if there else answer(401, BEARER, BASIC)

    world = World(registry)
    assert world.ask(USER).status == 401
    assert world.trace == ["r.example -", "auth.example Basic", "r.example Bearer"]


@pytest.mark.parametrize(
    ("asking", "served", "code", "text"),
    [
        (BEARER, answer(401), "unauthorized", "auth.example gives no token (HTTP 401) (tried: user 'bob' from here)"),
        (BEARER, answer(403), "unauthorized", "gives no token"),
        (BEARER, answer(500), "unavailable", "auth.example answers HTTP 500"),
        (BEARER, answer(200), "unavailable", "without a token"),
        (BEARER, Answer(status=200, url="", body=b"[]"), "unavailable", "without a token"),
        (BEARER, token("a\r\nX: y"), "unavailable", "without a token"),
        (BEARER, token(""), "unavailable", "without a token"),
        ('Bearer realm="http://auth.example/t"', answer(), "unavailable", "plain HTTP"),
        ('Bearer realm="file:///etc/shadow"', answer(), "unavailable", "no URL"),
        ('Bearer realm="/token"', answer(), "unavailable", "no URL"),
    ],
)
def test_token_servers_that_fail(asking: str, served: Answer, code: str, text: str) -> None:
    world = World(lambda request: answer(401, asking), lambda request: served)
    with pytest.raises(Error) as caught:
        world.ask(USER)
    assert caught.value.code == code
    assert text in str(caught.value)
    assert "pa:ss" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    for found in (USER, IDENTITY, REGISTRY_TOKEN):
        for text in (str(found), repr(found)):
            assert not any(secret in text for secret in ("pa:ss", "refresh", "ready"))
    assert "pa:ss" not in repr(Request(method="POST", url="x", body=b"pa:ss"))
