"""Redirects, and hosts where nobody answers."""

from __future__ import annotations

import socket
import threading

import pytest

from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support import registry_faults as faults
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import FAST, MakeClient


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects(make_registry: MakeRegistry, client: Registry, image: images.Image, code: int) -> None:
    registry, storage = make_registry(), make_registry()
    registry.plant(faults.redirect(f"{storage.url}/data/{{digest}}?sig=a%2Fb", code), times=None)
    assert drain(client.blob(ref(registry), layer(image), 1000)) == image.layers[0].blob[1000:]
    (seen,) = storage.seen
    assert (seen.range, seen.query) == (f"bytes=1000-{layer(image).size - 1}", {"sig": "a/b"})
    registry.plant(faults.redirect("/v2/team/app/manifests/1.3", code), path="/latest")
    assert client.resolve(ref(registry)).data == image.manifest


def test_a_cut_after_a_redirect_begins_at_the_registry(
    make_registry: MakeRegistry, client: Registry, image: images.Image
) -> None:
    """A signed URL may have expired."""
    registry, storage = make_registry(), make_registry()
    registry.plant(faults.redirect(f"{storage.url}/data/{{digest}}"), times=None)
    storage.plant(faults.cut(5000), path="/data/")
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert (registry.asked("GET"), storage.asked("GET")) == (2, 2)


def test_refused_connections(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = Reference.parse(f"127.0.0.1:{port}/a")
    err = refused("unavailable", f"127.0.0.1:{port} refuses the connection", lambda: make_client().resolve(found))
    assert str(err) == f"127.0.0.1:{port}/a:latest: 127.0.0.1:{port} refuses the connection"


def test_unknown_names(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def unknown(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    text = "the name r.invalid is not known: Name or service not known (is it spelled right"
    refused("unavailable", text, lambda: make_client().resolve(Reference.parse("r.invalid/a")))
    assert len(calls) == 1


def test_unreachable_networks(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    text = "no connection to 10.0.0.1:5000: Network is unreachable"
    refused("unavailable", text, lambda: make_client().resolve(Reference.parse("10.0.0.1:5000/a")))


def test_a_server_that_takes_no_connection(make_client: MakeClient) -> None:
    """Its queue is full: nobody accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        client = make_client(limits=Limits(dial=0.1, stall=0.3, attempts=1))
        refused(
            "unavailable", "did not take the connection in time", lambda: client.resolve(Reference.parse(f"127.0.0.1:{port}/a"))
        )
        for one in waiting:
            one.close()


def test_something_that_is_no_registry(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            for _ in range(FAST.attempts):
                taken, _ = server.accept()
                with taken:
                    taken.recv(10_000)
                    taken.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        text = f"the connection to 127.0.0.1:{port} broke: SSH-2.0-OpenSSH_9.2"
        refused("unavailable", text, lambda: make_client().resolve(Reference.parse(f"127.0.0.1:{port}/a")))
        thread.join()
