"""Where a repository is asked for: the registry itself, or mirrors before it.

For a registry it is said by, in this order: its folder in certs.d, a rule of podman's registries.conf, certs.d's `_default`. The
files are read anew for each operation. What registries.conf blocks is blocked in any case.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from ocirt_images.reference import DOCKER, Reference
from ocirt_images.registry import certsd, registriesconf
from ocirt_images.registry.certsd import ALL, PULL, PUSH, RESOLVE
from ocirt_images.registry.messages import place
from ocirt_images.registry.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALL", "PULL", "PUSH", "RESOLVE", "Host", "Hosts", "loopback"]

DOCKER_HOST = "registry-1.docker.io"
READ = frozenset((PULL, RESOLVE))
FOLDERS = "/etc/ocirt/certs.d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One place that serves a repository.

    base: the URL that stands for `/v2`, without a slash at its end; repository: the path there; account: the name under which
    credentials are looked up; namespace: the registry that a mirror is asked for (`?ns=`), "" for the registry itself; headers:
    sent to it alone; dial_timeout: seconds, None for the default; attempts: per request, None for the default
    source: the file that names it, "" for none
    """

    base: str
    repository: str
    account: str
    namespace: str = ""
    capabilities: frozenset[str] = ALL
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: Tls = field(default_factory=Tls)
    dial_timeout: float | None = None
    attempts: int | None = None
    source: str = ""

    @property
    def name(self) -> str:
        """Host and port, for a person."""
        return place(self.base)

    def url(self, path: str, query: list[tuple[str, str]] | None = None) -> str:
        """The URL of `path` below the repository, such as `manifests/latest`."""
        query = [*(query or []), *([("ns", self.namespace)] if self.namespace else [])]
        return f"{self.base}/{self.repository}/{path}" + (f"?{urlencode(query)}" if query else "")

    def relaxed(self) -> list[Host]:
        """The same for who asks for no security: any certificate, and plain HTTP if it speaks no TLS."""
        loose = replace(self, tls=replace(self.tls, verify=False))
        plain = replace(loose, base=f"http://{self.base.partition('://')[2]}")
        return [loose] if plain == loose else [loose, plain]


def loopback(host: str) -> bool:
    """Whether `host` (with or without a port) can only be this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Hosts:
    """Where to ask. Thread-safe.

    folders: as certs.d; registries: podman's files; plain_http: ask registries themselves without TLS (mirrors have their URLs)
    `Hosts()` knows no files; `Hosts.load()` those of the machine.
    """

    def __init__(
        self,
        *,
        folders: tuple[Path, ...] = (),
        registries: registriesconf.Files | None = None,
        plain_http: bool = False,
    ) -> None:
        self._folders = folders
        self._registries = registries
        self._plain_http = plain_http
        self._lock = threading.Lock()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, plain_http: bool = False) -> Hosts:
        """As the machine has them: $OCIRT_CERTS_D (folders, separated by colons) or /etc/ocirt/certs.d, and registries.conf."""
        environ = os.environ if environ is None else environ
        folders = tuple(Path(one) for one in (environ.get("OCIRT_CERTS_D") or FOLDERS).split(":") if one)
        return cls(folders=folders, registries=registriesconf.Files(environ), plain_http=plain_http)

    def registries(self) -> registriesconf.RegistriesConf:
        """What registries.conf says, for short names. Raises Error("invalid", "unsupported") that names file and key."""
        if self._registries is None:
            return registriesconf.RegistriesConf()
        with self._lock:
            return self._registries.read()

    def lookup(self, reference: Reference, *, insecure: bool = False) -> list[Host]:
        """The places that may serve `reference`, in the order to try them.

        Raises Error("invalid", "unsupported") that names file and key, Error("untrusted") for what is blocked, OSError.
        """
        rule = self.registries().rule(reference)
        places = rule.places(reference) if rule is not None else []
        folder = certsd.folder(self._folders, reference.host)
        if folder is None and places:
            found = self._ruled(reference, places)
        else:
            folder = folder or certsd.folder(self._folders, "_default")
            entries = [certsd.Entry()] if folder is None else certsd.read(folder)
            found = [self._host(reference, entry) for entry in entries]
        return [one for host in found for one in host.relaxed()] if insecure else found

    def _host(self, reference: Reference, entry: certsd.Entry) -> Host:
        """A place that a folder names; one without a URL is the registry itself."""
        base = entry.base or self._base(reference.host, entry.tls)
        itself = place(base) == _real(reference.host)
        return Host(
            base=base,
            repository=reference.path,
            account=reference.name if itself else _account(base, reference.path),
            namespace="" if itself else reference.host,
            capabilities=entry.capabilities,
            headers=entry.headers,
            tls=entry.tls,
            dial_timeout=entry.dial_timeout,
            source=entry.source,
        )

    def _ruled(self, reference: Reference, places: list[tuple[str, str, bool]]) -> list[Host]:
        """The places that registries.conf names. It moves what is read; what is written goes to the registry itself."""
        own = (reference.host, reference.path)
        read = [
            replace(one, capabilities=ALL if (host, path) == own else READ)
            for host, path, loose in places
            for one in self._place(host, path, loose=loose)
        ]
        write = [replace(one, capabilities=frozenset((PUSH,))) for one in self._place(*own, loose=places[-1][2])]
        return read if places[-1][:2] == own else [*read, *write]

    def _place(self, host: str, path: str, *, loose: bool) -> list[Host]:
        """One of them."""
        folder = certsd.folder(self._folders, host)
        tls = Tls() if folder is None else certsd.certificates(folder)
        found = Host(base=self._base(host, tls), repository=path, account=f"{host}/{path}", tls=tls, source="registries.conf")
        return found.relaxed() if loose else [found]

    def _base(self, host: str, tls: Tls) -> str:
        """A registry's own URL. This machine's are asked in plain HTTP, unless they have certificates or TLS's own port."""
        local = loopback(host) and tls == Tls() and not host.endswith(":443")
        return f"{'http' if local or self._plain_http else 'https'}://{_real(host)}/v2"


def _real(host: str) -> str:
    """The host that a registry's name stands for."""
    return DOCKER_HOST if host == DOCKER else host


def _account(base: str, path: str) -> str:
    """The name of a mirror's repository as credentials have it."""
    parts = urlsplit(base)
    prefix = parts.path.removesuffix("/v2").strip("/")
    host = DOCKER if parts.netloc == DOCKER_HOST else parts.netloc
    return "/".join(part for part in (host, prefix, path) if part)
