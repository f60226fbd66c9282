"""Mirrors before a registry: who is asked in which order, and what is said when nobody answers well."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt_images.descriptor import Descriptor
from ocirt_images.reference import Reference
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Fault
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.registry.asking import drain, layer, refused
from tests.unit.images.registry.conftest import MakeClient

APP = Reference.parse("r.example/team/app")
MakeHosts = Callable[..., Hosts]


@pytest.fixture
def make_hosts(tmp_path: Path) -> MakeHosts:
    """Hosts for r.example: mirrors, and the registry itself; options for the mirrors."""

    def make(*mirrors: LocalRegistry, server: LocalRegistry | str, more: str = "") -> Hosts:
        where = tmp_path / "certs.d/r.example"
        where.mkdir(parents=True, exist_ok=True)
        url = server if isinstance(server, str) else server.url
        tables = [f'[host."{one.url}"]\n{more}\n' for one in mirrors]
        (where / "hosts.toml").write_text(f'server = "{url}"\n' + "".join(tables))
        return Hosts(folders=(tmp_path / "certs.d",))

    return make


@pytest.fixture
def nobody() -> str:
    """The URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


def test_the_first_that_has_it(
    make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, image: images.Image
) -> None:
    first, second, upstream = make_registry(), make_registry(), make_registry()
    client = make_client(hosts=make_hosts(first, second, server=upstream))
    found = client.resolve(APP)
    assert (found.data, found.host) == (image.manifest, first.address)
    first.tags.clear()
    assert client.resolve(APP).host == second.address
    first.links.clear()
    with client.blob(APP, layer(image)) as body:
        assert body.host == second.address
        assert drain(body) == image.layers[0].blob
    with client.blob(APP, layer(image), avoid={second.address}) as body:
        assert body.host == upstream.address
    assert {one.query["ns"] for one in first.seen + second.seen} == {"r.example"}
    # The registry is another one than its name says, so it is told as well.
    assert {one.query["ns"] for one in upstream.seen} == {"r.example"}


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(404),
        faults.status(401),
        faults.status(403),
        faults.too_many("86400"),
        faults.hang_up(),
        faults.redirect("ftp://x/"),
        faults.wrong_bytes,
        faults.wrong_size(-1),
        faults.content(b"<html>", "text/html"),
    ],
)
def test_a_mirror_that_fails(
    make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, image: images.Image, fault: Fault
) -> None:
    mirror, upstream = make_registry(), make_registry()
    client = make_client(hosts=make_hosts(mirror, server=upstream))
    mirror.plant(fault, path="/manifests/", times=None)
    found = client.resolve(APP.with_digest(Descriptor.parse(image.descriptor, "x").digest))
    assert (found.data, found.host) == (image.manifest, upstream.address)


def test_a_mirror_that_ends_in_the_middle(
    make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, image: images.Image
) -> None:
    mirror, upstream = make_registry(), make_registry()
    client = make_client(hosts=make_hosts(mirror, server=upstream))
    mirror.plant(faults.cut(1000))
    mirror.plant(faults.status(500), times=None, skip=1)
    assert drain(client.blob(APP, layer(image))) == image.layers[0].blob
    assert [one.range for one in upstream.seen] == [f"bytes=1000-{layer(image).size - 1}"]


def test_a_mirror_that_is_down_is_left_out_for_a_while(
    make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, image: images.Image
) -> None:
    mirror, upstream = make_registry(), make_registry()
    client = make_client(hosts=make_hosts(mirror, server=upstream))
    mirror.plant(faults.hang_up(), path="", times=None)
    for _ in range(5):
        client.resolve(APP)
    assert mirror.asked("GET") == 2


def test_the_last_one_is_asked_in_any_case(make_client: MakeClient, make_registry: MakeRegistry, make_hosts: MakeHosts) -> None:
    upstream = make_registry()
    client = make_client(hosts=make_hosts(server=upstream), limits=Limits(attempts=1))
    upstream.plant(faults.status(500), path="")
    refused("unavailable", "HTTP 500", lambda: client.resolve(APP))
    client.resolve(APP)


def test_what_all_of_them_say(make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, nobody: str) -> None:
    first, second = make_registry(), make_registry()
    client = make_client(hosts=make_hosts(first, second, server=nobody))
    first.plant(faults.status(503, "BUSY", "later"), path="", times=None)
    second.plant(faults.status(403, "DENIED", "no"), path="", times=None)
    err = refused("unavailable", "refuses the connection", lambda: client.resolve(APP))
    assert str(err) == (
        f"r.example/team/app:latest: {nobody.removeprefix('http://')} refuses the connection: "
        f"{first.address} answers HTTP 503 when asked for tag latest: BUSY: later; "
        f"{second.address} refuses tag latest (HTTP 403): DENIED: no"
    )


def test_capabilities(make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, image: images.Image) -> None:
    mirror, upstream = make_registry(), make_registry()
    client = make_client(hosts=make_hosts(mirror, server=upstream, more='capabilities = ["pull"]'))
    assert client.resolve(APP).host == upstream.address
    with client.blob(APP, layer(image)) as body:
        assert body.host == mirror.address
    client = make_client(hosts=make_hosts(server=upstream, more=""))
    client = make_client(hosts=make_hosts(mirror, server=f'{upstream.url}"\ncapabilities = ["push"]\n#'))
    assert client.resolve(APP).host == mirror.address


def test_headers_and_a_path_of_its_own(
    make_registry: MakeRegistry, make_client: MakeClient, make_hosts: MakeHosts, tmp_path: Path
) -> None:
    mirror, storage = make_registry(root="/api/images"), make_registry()
    hosts = make_hosts(server="https://unused.example")
    file = tmp_path / "certs.d/r.example/hosts.toml"
    url = f"{mirror.url}/api/images"
    file.write_text(f'[host."{url}"]\noverride_path = true\n[host."{url}".header]\nx-team = "a"\nAuthorization = "Custom c"\n')
    mirror.plant(faults.redirect(f"{storage.url}/data/{{digest}}"), times=None)
    client = make_client(hosts=hosts)
    client.resolve(APP)
    assert {(one.headers["x-team"], one.authorization) for one in mirror.seen} == {("a", "Custom c")}
    image = images.random_image(1, layers=2)
    drain(client.blob(APP, layer(image)))
    assert [(one.headers["x-team"], one.authorization) for one in storage.seen] == [(None, "")]
