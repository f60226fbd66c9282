"""Where a repository is asked for: the registry itself, or mirrors before it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from ocirt_images.reference import DOCKER, Reference
from ocirt_images.registry.messages import place
from ocirt_images.registry.tls import Tls

DOCKER_HOST = "registry-1.docker.io"
PULL, RESOLVE, PUSH = "pull", "resolve", "push"
ALL = frozenset((PULL, RESOLVE, PUSH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One place that serves a repository.

    base: the URL that stands for `/v2`, without a slash at its end; repository: the path there; account: the name under which
    credentials are looked up; namespace: the registry that a mirror is asked for (`?ns=`), "" for the registry itself; headers:
    sent to it alone; dial_timeout: seconds, None for the default; source: the file that names it, "" for none
    """

    base: str
    repository: str
    account: str
    namespace: str = ""
    capabilities: frozenset[str] = ALL
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: Tls = field(default_factory=Tls)
    dial_timeout: float | None = None
    source: str = ""

    @property
    def name(self) -> str:
        """Host and port, for a person."""
        return place(self.base)

    def url(self, path: str, query: list[tuple[str, str]] | None = None) -> str:
        """The URL of `path` below the repository, such as `manifests/latest`."""
        query = [*(query or []), *([("ns", self.namespace)] if self.namespace else [])]
        return f"{self.base}/{self.repository}/{path}" + (f"?{urlencode(query)}" if query else "")


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
    """Where to ask, looked up anew for each operation.

    plain_http: ask every registry without TLS
    """

    def __init__(self, *, plain_http: bool = False) -> None:
        self._plain_http = plain_http

    def lookup(self, reference: Reference) -> list[Host]:
        """The places that may serve `reference`, in the order to try them."""
        host = DOCKER_HOST if reference.host == DOCKER else reference.host
        scheme = "http" if self._plain_http or loopback(host) else "https"
        return [Host(base=f"{scheme}://{host}/v2", repository=reference.path, account=reference.name)]
