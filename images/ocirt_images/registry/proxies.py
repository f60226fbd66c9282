"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go programs read them: a node's settings are made for those.

So NO_PROXY may hold networks (`10.0.0.0/8`), a domain stands for all below it (`.corp` for those below alone), and this machine
itself is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from urllib3.util import make_headers

from ocirt_images.errors import Error
from ocirt_images.registry.messages import origin

if TYPE_CHECKING:
    from collections.abc import Mapping


def find(url: str, environ: Mapping[str, str]) -> str:
    """The proxy for a URL, as a URL; "" for none. Raises Error("invalid", "unsupported") that names the variable."""
    scheme, host, port = origin(url)
    variable = f"{scheme}_proxy"
    name, value = next(((one, environ[one]) for one in (variable.upper(), variable) if environ.get(one)), ("", ""))
    excluded = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not value or _direct(host, port, excluded):
        return ""
    proxy = value if "://" in value else f"http://{value}"
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https"):
        raise Error("unsupported", f"a proxy of kind {parts.scheme}", subject=name, hint="http and https proxies are known")
    try:
        origin(proxy)
    except Error:
        raise Error("invalid", "not the URL of a proxy", subject=name, hint="http://HOST:PORT") from None
    return proxy


def bare(proxy: str) -> str:
    """A proxy's URL without user and password."""
    parts = urlsplit(proxy)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))


def headers(proxy: str) -> dict[str, str]:
    """What a proxy wants to see of us."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return dict(make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}"))


def _direct(host: str, port: int, excluded: str) -> bool:
    """Whether no proxy is used for a host."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_excludes(entry.strip().lower(), host, port, address) for entry in excluded.split(","))


def _excludes(entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass  # it has a port, or is a name
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and not name.endswith(":"):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if address is not None:
        return entry == str(address)
    if entry.startswith("*."):
        entry = entry[1:]
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")
