"""A folder of certs.d: containerd's hosts.toml, or certificates as docker lays them out (containerd, docs/hosts.md).

server = "https://registry.example"          # the registry itself, asked last; left out: the one of the folder's name
[host."https://mirror.example"]              # asked before it, in the file's order
  capabilities = ["pull", "resolve"]
  ca = "mirror.crt"                          # relative to the folder
  client = [["client.cert", "client.key"]]
  skip_verify = false
  override_path = false                      # true: the URL's path stands for /v2
  dial_timeout = "5s"
  [host."https://mirror.example".header]
    x-team = "a"
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ocirt_images.errors import Error
from ocirt_images.registry.messages import origin
from ocirt_images.registry.tls import Tls
from ocirt_images.registry.toml import Table

if TYPE_CHECKING:
    from pathlib import Path

PULL, RESOLVE, PUSH = "pull", "resolve", "push"
ALL = frozenset((PULL, RESOLVE, PUSH))
_KNOWN_CAPABILITIES = ALL | {"referrers"}
_KEYS = ("capabilities", "ca", "client", "skip_verify", "override_path", "dial_timeout", "header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a folder says of one host. `base` is the URL in place of `/v2`, "" for the registry that the folder is named after."""

    base: str = ""
    capabilities: frozenset[str] = ALL
    headers: tuple[tuple[str, str], ...] = ()
    tls: Tls = field(default_factory=Tls)
    dial_timeout: float | None = None
    source: str = ""


def folder(folders: tuple[Path, ...], host: str) -> Path | None:
    """The folder for a host (`_default` for that of all others): `HOST_PORT_` or `HOST:PORT`, in the first place that has it."""
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_", host] if colon and port.isdigit() else [host]
    return next((place / one for place in folders for one in names if (place / one).is_dir()), None)


def read(where: Path) -> list[Entry]:
    """The hosts of a folder, in the order to ask them; the last one is the registry itself. Raises OSError, Error("invalid")."""
    table = Table.read(where / "hosts.toml")
    if table is None or not table.value:
        return [Entry(tls=certificates(where), source=str(where))]
    table.check(("server", "host", *_KEYS))
    hosts = table.table("host")
    entries = [_entry(hosts.table(url), url, where) for url in hosts.value]
    server = table.text("server")
    return [*entries, _entry(table, server, where)]


def certificates(where: Path) -> Tls:
    """docker's way: *.crt is trusted, *.cert with the *.key of the same name is ours."""
    names = sorted(one for one in where.iterdir() if one.is_file())
    keys = [(one, one.with_suffix(".key")) for one in names if one.suffix == ".cert"]
    return Tls(
        ca=tuple(one for one in names if one.suffix == ".crt"),
        client=tuple((one, key if key in names else None) for one, key in keys),
    )


def _entry(table: Table, url: str, where: Path) -> Entry:
    table.check(("server", "host", *_KEYS))
    capabilities = frozenset(one.lower() for one in table.texts("capabilities"))
    if unknown := sorted(capabilities - _KNOWN_CAPABILITIES):
        raise table.error("capabilities", f"{unknown[0]!r} is none", hint="pull, resolve and push")
    return Entry(
        base=_base(table, url) if url else "",
        capabilities=capabilities & ALL if capabilities else ALL,
        headers=_headers(table.table("header")),
        tls=Tls(ca=_paths(table, "ca", where), client=_pairs(table, where), verify=not table.boolean("skip_verify")),
        dial_timeout=table.seconds("dial_timeout"),
        source=str(table.path),
    )


def _base(table: Table, url: str) -> str:
    """The URL that stands for `/v2`."""
    whole = url if "://" in url else f"https://{url}"
    try:
        origin(whole)
    except Error as err:
        # The root table's own URL is a value, the others are keys.
        what = f"{url[:200]!r} is {err.message}"
        raise (table.error("server", what) if not table.key else Error("invalid", what, subject=str(table.path))) from None
    parts = urlsplit(whole)
    if parts.query or parts.fragment or parts.username is not None:
        raise Error("invalid", f"{place_of(url)}: a host's URL has neither user nor query", subject=str(table.path))
    path = posixpath.normpath(parts.path).rstrip("/") if parts.path else ""
    if not table.boolean("override_path") and not path.endswith("/v2"):
        path += "/v2"
    return f"{parts.scheme}://{parts.netloc}{path}"


def place_of(url: str) -> str:
    """A URL without what may be a password."""
    return url.rpartition("@")[2][:200]


def _headers(table: Table) -> tuple[tuple[str, str], ...]:
    found = []
    for name, value in table.value.items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise table.error(name, "neither a string nor a list of strings")
        text = ", ".join(values)
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or "\n" in text or "\r" in text:
            raise table.error(name, "not a header")
        found.append((name, text))
    return tuple(found)


def _paths(table: Table, key: str, where: Path) -> tuple[Path, ...]:
    found = table.value.get(key, [])
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise table.error(key, "neither a path nor a list of paths")
    return tuple(where / one for one in found)


def _pairs(table: Table, where: Path) -> tuple[tuple[Path, Path | None], ...]:
    found = table.value.get("client", [])
    pairs: list[tuple[Path, Path | None]] = []
    for one in [found] if isinstance(found, str) else found if isinstance(found, list) else [None]:
        if isinstance(one, str):
            pairs.append((where / one, None))
        elif isinstance(one, list) and len(one) in (1, 2) and all(isinstance(path, str) and path for path in one):
            pairs.append((where / one[0], where / one[1] if len(one) == 2 else None))
        else:
            raise table.error("client", "neither a path nor a list of pairs", hint='[["client.cert", "client.key"]]')
    return tuple(pairs)
