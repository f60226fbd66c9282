"""TLS: whom we trust, who we are, and what is said when it does not come about."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from ocirt_images.registry.tls import Tls
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.certificates import Authority, Pair
from tests.support.registry import LocalRegistry
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import MakeClient

Configure = Callable[..., Hosts]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def me(authority: Authority) -> Pair:
    return authority.sign("me")


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Hosts with a hosts.toml for a registry: it is asked over TLS, with these further lines."""

    def make(registry: LocalRegistry, *lines: str) -> Hosts:
        where = tmp_path / "certs.d" / registry.address
        where.mkdir(parents=True, exist_ok=True)
        (where / "hosts.toml").write_text("\n".join([f'server = "https://{registry.address}"', *lines]))
        return Hosts(folders=(tmp_path / "certs.d",))

    return make


def trusts(authority: Authority) -> str:
    return f'ca = "{authority.certificate}"'


def test_a_ca_of_our_own(
    make_registry: MakeRegistry, make_client: MakeClient, configure: Configure, authority: Authority, image: images.Image
) -> None:
    registry = make_registry(tls=authority.server("127.0.0.1"))
    client = make_client(hosts=configure(registry, trusts(authority)))
    assert client.resolve(ref(registry)).data == image.manifest
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob


def test_certificates_as_docker_has_them(
    make_registry: MakeRegistry, make_client: MakeClient, authority: Authority, me: Pair, tmp_path: Path, image: images.Image
) -> None:
    registry = make_registry(tls=authority.server("127.0.0.1", clients=ssl.CERT_REQUIRED))
    where = tmp_path / f"127.0.0.1_{registry.port}_"
    where.mkdir()
    (where / "ca.crt").symlink_to(authority.certificate)
    (where / "me.cert").symlink_to(me.certificate)
    (where / "me.key").symlink_to(me.key)
    client = make_client(hosts=Hosts(folders=(tmp_path,)))
    assert client.resolve(ref(registry)).data == image.manifest
    assert registry.seen[0].certificate


@pytest.mark.parametrize(
    ("names", "days", "trusted", "text"),
    [
        (("127.0.0.1",), 30, False, "is not trusted: unable to get local issuer certificate (give its certificate authority"),
        (("r.example",), 30, True, "the certificate is made out to another name"),
        (("127.0.0.1",), -5, True, "is not trusted: certificate has expired"),
    ],
)
def test_certificates_that_are_not_taken(
    make_registry: MakeRegistry,
    make_client: MakeClient,
    configure: Configure,
    authority: Authority,
    names: tuple[str, ...],
    days: int,
    trusted: bool,
    text: str,
) -> None:
    registry = make_registry(tls=authority.server(*names, days=days))
    client = make_client(hosts=configure(registry, *([trusts(authority)] if trusted else [])))
    err = refused("unavailable", text, lambda: client.resolve(ref(registry)))
    assert f"the certificate of {registry.address} is not trusted" in str(err)
    assert registry.connections <= 1
    assert registry.seen == []


@pytest.mark.parametrize("insecure", [False, True])
def test_any_certificate_when_asked_for(
    make_registry: MakeRegistry, make_client: MakeClient, configure: Configure, authority: Authority, insecure: bool
) -> None:
    registry = make_registry(tls=authority.server("r.example", days=-5))
    client = make_client(hosts=configure(registry, *([] if insecure else ["skip_verify = true"])), insecure=insecure)
    client.resolve(ref(registry))


def test_a_client_certificate_that_is_wanted(
    make_registry: MakeRegistry, make_client: MakeClient, configure: Configure, authority: Authority, me: Pair
) -> None:
    registry = make_registry(tls=authority.server("127.0.0.1", clients=ssl.CERT_REQUIRED))
    hosts = configure(registry, trusts(authority), f'client = [["{me.certificate}", "{me.key}"]]')
    make_client(hosts=hosts).resolve(ref(registry))
    hosts = configure(registry, trusts(authority))
    err = refused("unavailable", "", lambda: make_client(hosts=hosts).resolve(ref(registry)))
    # A reset may come before the server's alert is read.
    assert "it may want a client certificate" in str(err) or "broke" in str(err)
    assert registry.asked("GET") == 1


def test_our_certificate_is_for_the_registry_alone(
    make_registry: MakeRegistry,
    make_client: MakeClient,
    configure: Configure,
    authority: Authority,
    me: Pair,
    image: images.Image,
) -> None:
    registry, storage = (make_registry(tls=authority.server("127.0.0.1", clients=ssl.CERT_OPTIONAL)) for _ in range(2))
    registry.plant(faults.redirect(f"{storage.url}/data/{{digest}}"), times=None)
    hosts = configure(registry, trusts(authority), f'client = [["{me.certificate}", "{me.key}"]]')
    drain(make_client(hosts=hosts).blob(ref(registry), layer(image)))
    assert [one.certificate for one in registry.seen] == [True]
    assert [one.certificate for one in storage.seen] == [False]


def test_a_redirect_to_plain_http(
    make_registry: MakeRegistry, make_client: MakeClient, configure: Configure, authority: Authority, image: images.Image
) -> None:
    registry, storage = make_registry(tls=authority.server("127.0.0.1")), make_registry()
    registry.plant(faults.redirect(f"{storage.url}/data/{{digest}}"), times=None)
    client = make_client(hosts=configure(registry, trusts(authority)))
    text = f"{registry.address} sends us on to plain HTTP, at {storage.address}"
    refused("unavailable", text, lambda: client.blob(ref(registry), layer(image)))
    assert storage.seen == []


def test_a_registry_without_tls(make_registry: MakeRegistry, make_client: MakeClient, configure: Configure) -> None:
    registry = make_registry()
    hosts = configure(registry)
    text = f"{registry.address} does not speak TLS (if it is meant to speak plain HTTP, give --plain-http"
    refused("unavailable", text, lambda: make_client(hosts=hosts).resolve(ref(registry)))
    assert make_client(hosts=hosts, insecure=True).resolve(ref(registry)).host == registry.address


def test_a_registry_with_tls_that_is_asked_without(registry: LocalRegistry, make_client: MakeClient) -> None:
    """Go's servers say so."""
    registry.plant(faults.content(b"Client sent an HTTP request to an HTTPS server.\n", "text/plain", 400), path="")
    refused("unavailable", "speaks TLS, and was asked in plain HTTP", lambda: make_client().resolve(ref(registry)))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('ca = "missing.crt"', "missing.crt: not a file of certificates (PEM): No such file or directory"),
        ('ca = "junk"', "junk: not a file of certificates (PEM): "),
        ('client = "missing.pem"', "missing.pem: not a certificate and key (PEM): No such file or directory"),
        ('client = [["junk", "junk"]]', "junk: not a certificate and key (PEM), with "),
    ],
)
def test_files_that_cannot_be_used(
    make_registry: MakeRegistry, make_client: MakeClient, configure: Configure, tmp_path: Path, line: str, text: str
) -> None:
    registry = make_registry()
    hosts = configure(registry, line)
    where = tmp_path / "certs.d" / registry.address
    (where / "junk").write_text("junk")
    refused("invalid", f"{where}/{text}", lambda: make_client(hosts=hosts).resolve(ref(registry)))


def test_a_key_with_a_password_asks_nobody(me: Pair, tmp_path: Path) -> None:
    """OpenSSL would read it from the terminal."""
    key = serialization.load_pem_private_key(me.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(Error, match="not a certificate and key"):
        Tls(client=((me.certificate, locked),)).context()


# Proxies


class Tunnel:
    """A proxy that only knows CONNECT, and leads everywhere to one port. `asked` is what it was asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._port = port
        self._stack = ExitStack()
        self._server = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.url = f"http://bob:secret@127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._stack.close()

    def _serve(self) -> None:
        threads = []
        try:
            while True:
                taken, _ = self._server.accept()
                threads.append(threading.Thread(target=self._tunnel, args=(taken,)))
                threads[-1].start()
        except OSError:
            for thread in threads:
                thread.join()

    def _tunnel(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._port)) as far:
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(1)
            self.asked.append(head.decode())
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(far, near))
            back.start()
            _copy(near, far)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def tunnel(make_registry: MakeRegistry, authority: Authority) -> Iterator[tuple[LocalRegistry, Tunnel]]:
    """A registry r.example, and a proxy that leads to it."""
    registry = make_registry(tls=authority.server("r.example"))
    found = Tunnel(registry.port)
    yield registry, found
    found.close()


def test_tls_through_a_proxy(
    tunnel: tuple[LocalRegistry, Tunnel], make_client: MakeClient, authority: Authority, tmp_path: Path, image: images.Image
) -> None:
    _, proxy = tunnel
    (tmp_path / "r.example").mkdir()
    (tmp_path / "r.example/ca.crt").symlink_to(authority.certificate)
    client = make_client(hosts=Hosts(folders=(tmp_path,)), environ={"HTTPS_PROXY": proxy.url})
    assert client.resolve(Reference.parse("r.example/team/app")).data == image.manifest
    (asked,) = proxy.asked
    assert asked.startswith("CONNECT r.example:443 HTTP/1.")
    assert "proxy-authorization: basic" in asked.lower()
    client.close()


def test_plain_http_through_a_proxy(registry: LocalRegistry, make_client: MakeClient, image: images.Image) -> None:
    """The registry of the tests does not mind being asked as a proxy is."""
    environ = {"HTTP_PROXY": registry.url.replace("://", "://bob:secret@"), "NO_PROXY": "other.example"}
    client = make_client(hosts=Hosts(plain_http=True), environ=environ)
    assert client.resolve(Reference.parse("r.example/team/app")).data == image.manifest
    assert registry.seen[0].headers["Proxy-Authorization"].startswith("Basic ")


@pytest.mark.parametrize("scheme", ["HTTP", "HTTPS"])
def test_a_proxy_that_is_down(make_client: MakeClient, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    hosts = Hosts(plain_http=scheme == "HTTP")
    client = make_client(
        hosts=hosts, environ={f"{scheme}_PROXY": f"http://bob:secret@127.0.0.1:{port}"}, limits=Limits(attempts=1)
    )
    text = f"by the proxy for r.example: 127.0.0.1:{port} refuses the connection (HTTP_PROXY, "
    err = refused("unavailable", text, lambda: client.resolve(Reference.parse("r.example/a")))
    assert "secret" not in str(err)


def test_a_proxy_that_refuses(registry: LocalRegistry, make_client: MakeClient) -> None:
    """Its CONNECT is answered with an error."""
    client = make_client(environ={"HTTPS_PROXY": registry.url}, limits=Limits(attempts=1))
    err = refused("unavailable", "by the proxy for r.example", lambda: client.resolve(Reference.parse("r.example/a")))
    assert "404" in str(err) or "501" in str(err)
