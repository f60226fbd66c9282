"""Authentication over the network: ways in, what "unauthorized" says, and that no credential reaches another host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_images.reference import Reference
from ocirt_images.registry.credentials import Credential, Credentials
from ocirt_images.registry.hosts import Hosts
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Auth, Basic, Bearer
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import MakeClient

BOB = Credential(username="bob", password="se:cret", source="the test")
TOKEN = Credential(identity_token="refresh", source="the test")


def own(registry: LocalRegistry, credential: Credential) -> Credentials:
    return Credentials(given={registry.address: credential})


def both(bearer: str) -> list[str]:
    """Several challenges, some of them in one header."""
    return ["Negotiate", f'Basic realm="x, y", {bearer}']


@pytest.mark.parametrize(
    ("auth", "credential", "tokens"),
    [
        (Basic({"bob": "se:cret"}), BOB, 0),
        (Bearer(), None, 1),
        (Bearer(users={"bob": "se:cret"}, anonymous=()), BOB, 1),
        (Bearer(users={"bob": "se:cret"}, anonymous=(), get=False), BOB, 2),
        (Bearer(identities={"refresh": "bob"}, anonymous=()), TOKEN, 1),
        (Bearer(users={"bob": "se:cret"}, anonymous=(), challenges=both), BOB, 1),
        (Bearer(life=None), None, 1),
        (Bearer(life=0.01), None, 1),
    ],
)
def test_ways_in(
    make_registry: MakeRegistry,
    make_client: MakeClient,
    image: images.Image,
    auth: Auth,
    credential: Credential | None,
    tokens: int,
) -> None:
    registry = make_registry(auth=auth)
    client = make_client(credentials=own(registry, credential) if credential else None)
    if isinstance(auth, Bearer) and auth.life == 0.01:
        auth.life = 300  # what it says is less than what is true: a token lives a minute at least
    assert client.resolve(ref(registry)).data == image.manifest
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert "1.3" in client.tags(ref(registry))
    assert sum(one.path == "/token" for one in registry.seen) == tokens
    assert sum(one.status == 401 for one in registry.seen) == 1


def test_a_token_that_is_revoked_in_the_middle(make_registry: MakeRegistry, make_client: MakeClient, image: images.Image) -> None:
    auth = Bearer()
    registry = make_registry(auth=auth)
    client = make_client()
    registry.plant(faults.cut(1000), skip=1)
    with client.blob(ref(registry), layer(image)) as body:
        first = body.read(1000)
        auth.revoke()
        assert first + b"".join(iter(lambda: body.read(10_000), b"")) == image.layers[0].blob
    assert [one.status for one in registry.seen] == [401, 200, 200, 401, 200, 206]


@pytest.mark.parametrize(
    ("auth", "credential", "text"),
    [
        (Basic({}), None, "refuses tag latest (HTTP 401): UNAUTHORIZED: authentication required (no credentials were found)"),
        (Basic({}), BOB, "(tried: user 'bob' from the test)"),
        (
            Bearer(),
            BOB,
            "gives no token (HTTP 401): UNAUTHORIZED: incorrect username or password (tried: user 'bob' from the test)",
        ),
        (Bearer(anonymous=()), None, "refuses tag latest (HTTP 401): UNAUTHORIZED"),
        (Bearer(anonymous=()), TOKEN, "(tried: an identity token from the test)"),
        (Basic({}), Credential(registry_token="se:cret", source="there"), "(tried: a registry token from there)"),
    ],
)
def test_unauthorized_says_what_was_tried(
    make_registry: MakeRegistry, make_client: MakeClient, auth: Auth, credential: Credential | None, text: str
) -> None:
    registry = make_registry(auth=auth)
    client = make_client(credentials=own(registry, credential) if credential else None)
    err = refused("unauthorized", text, lambda: client.resolve(ref(registry)))
    assert str(err).startswith(f"{registry.address}/team/app:latest: ")
    assert "se:cret" not in str(err)
    assert "refresh" not in str(err)


def test_a_token_server_that_is_down(make_registry: MakeRegistry, make_client: MakeClient) -> None:
    registry = make_registry(auth=Bearer())
    registry.plant(faults.status(503), path="/token", times=None)
    refused("unavailable", f"the token server {registry.address} answers HTTP 503", lambda: make_client().resolve(ref(registry)))
    assert registry.asked("GET", "/token") == 3


def test_a_token_server_that_wavers(make_registry: MakeRegistry, make_client: MakeClient, image: images.Image) -> None:
    registry = make_registry(auth=Bearer())
    registry.plant(faults.too_many("0"), path="/token")
    assert make_client().resolve(ref(registry)).data == image.manifest


# No credential reaches another host


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["basic", "bearer", "registry token"])
def test_a_redirect_takes_no_credential_along(
    make_registry: MakeRegistry, make_client: MakeClient, image: images.Image, kind: str, code: int
) -> None:
    auth = Basic({"bob": "se:cret"}) if kind == "basic" else Bearer(users={"bob": "se:cret"}, anonymous=())
    registry, storage = make_registry(auth=auth), make_registry()
    credential = BOB
    if isinstance(auth, Bearer) and kind == "registry token":
        auth.tokens["ready"] = {"repository:team/app": {"pull"}}, float("inf")
        credential = Credential(registry_token="ready")
    client = make_client(credentials=own(registry, credential))
    registry.plant(faults.redirect(f"{storage.url}/data/{{digest}}", code), path="/blobs/", times=None, skip=1)
    registry.plant(faults.redirect(f"{storage.url}/v2/team/app/manifests/latest", code), path="/manifests/", times=None, skip=1)
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert client.resolve(ref(registry)).data == image.manifest
    assert len(storage.seen) >= 1
    assert {one.authorization for one in storage.seen} == {""}
    assert any(one.authorization for one in registry.seen)


def test_a_host_that_was_redirected_to_may_not_ask_for_credentials(
    make_registry: MakeRegistry, make_client: MakeClient, image: images.Image
) -> None:
    registry, evil = make_registry(), make_registry(auth=Basic({"bob": "se:cret"}))
    client = make_client(credentials=own(registry, BOB))
    registry.plant(faults.redirect(f"{evil.url}/v2/team/app/blobs/{{digest}}"), times=None)
    refused("unauthorized", f"{evil.address} refuses", lambda: client.blob(ref(registry), layer(image)))
    assert {one.authorization for one in evil.seen} == {""}


def test_back_to_the_registry_goes_no_credential_either(
    make_registry: MakeRegistry, make_client: MakeClient, image: images.Image
) -> None:
    """What came by way of another host may have been made up there."""
    registry, other = make_registry(auth=Basic({"bob": "se:cret"})), make_registry()
    client = make_client(credentials=own(registry, BOB))
    client.resolve(ref(registry))
    registry.plant(faults.redirect(f"{other.url}/v2/team/app/manifests/latest"), path="/manifests/latest")
    other.plant(faults.redirect(f"{registry.url}/v2/team/app/manifests/1.3"), path="/manifests/latest")
    refused("unauthorized", "HTTP 401", lambda: client.resolve(ref(registry)))
    assert registry.seen[-1].authorization == ""


def test_a_url_that_a_registry_hands_out_gets_no_credential(make_registry: MakeRegistry, make_client: MakeClient) -> None:
    """The Location of an upload, say, at another host that asks for a password."""
    registry, evil = make_registry(), make_registry(auth=Basic({"bob": "se:cret"}))
    client = make_client(credentials=own(registry, BOB))
    (found,) = Hosts().lookup(ref(registry))
    host = replace(found, headers=(("x-secret", "s"),))
    refused("unauthorized", f"{evil.address} refuses", lambda: client.session.request(host, "PUT", f"{evil.url}/v2/x"))
    assert {(one.authorization, one.headers["x-secret"]) for one in evil.seen} == {("", None)}


def test_a_token_goes_to_no_other_registry(make_registry: MakeRegistry, make_client: MakeClient) -> None:
    """Two registries that name the same token server."""
    first, second = make_registry(), make_registry()
    tokens = Bearer(users={"bob": "se:cret"}, anonymous=())
    server = make_registry(auth=tokens)
    for one, service in ((first, "first"), (second, "second")):
        one.auth = Bearer(realm=f"{server.url}/token", service=service, anonymous=(), tokens=tokens.tokens)
    client = make_client(credentials=own(first, BOB))
    client.resolve(ref(first))
    refused("unauthorized", "no credentials were found", lambda: client.resolve(ref(second)))
    mine = {one.authorization for one in first.seen if one.authorization}
    assert mine.isdisjoint({one.authorization for one in second.seen})
    # The token server got the password for the first one alone.
    assert [one.query["service"] for one in server.seen if one.authorization] == ["first"]


@pytest.mark.parametrize(("method", "credential", "code"), [("GET", BOB, "unauthorized"), ("POST", TOKEN, "unavailable")])
def test_a_token_servers_redirect_takes_no_password_along(
    make_registry: MakeRegistry, make_client: MakeClient, method: str, credential: Credential, code: str
) -> None:
    registry, evil = make_registry(auth=Bearer(identities={"refresh": "bob"}, anonymous=())), make_registry(auth=Bearer())
    registry.plant(faults.redirect(f"{evil.url}/token"), method=method, path="/token", times=None)
    client = make_client(credentials=own(registry, credential))
    refused(code, "HTTP ", lambda: client.resolve(ref(registry)))
    assert all(not one.authorization and b"refresh" not in one.body for one in evil.seen)


def test_a_mirror_gets_its_own_credential(make_registry: MakeRegistry, make_client: MakeClient, tmp_path: Path) -> None:
    mirror, upstream = make_registry(auth=Basic({"mirror": "m"})), make_registry(auth=Basic({"bob": "se:cret"}))
    where = tmp_path / f"127.0.0.1_{upstream.port}_"
    where.mkdir()
    (where / "hosts.toml").write_text(f'server = "{upstream.url}"\n[host."{mirror.url}"]')
    client = make_client(hosts=Hosts(folders=(tmp_path,)), credentials=own(upstream, BOB))
    assert client.resolve(ref(upstream)).host == upstream.address
    assert {one.authorization for one in mirror.seen} == {""}
    given = {mirror.address: Credential(username="mirror", password="m"), upstream.address: BOB}
    client = make_client(hosts=Hosts(folders=(tmp_path,)), credentials=Credentials(given=given))
    assert client.resolve(Reference.parse(f"{upstream.address}/team/app")).host == mirror.address
