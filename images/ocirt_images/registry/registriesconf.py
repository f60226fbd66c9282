"""podman's registries.conf, version 2, and its drop-ins; only read (containers-registries.conf(5)).

It says of an image's name what it is short for, whether it may be pulled, and from where: the `[[registry]]` with the longest
`prefix` decides, and its mirrors come first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.toml import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

_ETC = Path("/etc/containers")
_MODES = ("", "enforcing", "permissive", "disabled")
_PULLS = ("all", "digest-only", "tag-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where images are really kept: a host, perhaps with a path. insecure: without TLS, or with anybody's certificate."""

    location: str
    insecure: bool = False
    pulls: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What holds for the names below `prefix`. An empty location is the name itself."""

    prefix: str
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Location, ...] = ()
    source: str = ""

    def matches(self, reference: Reference) -> bool:
        """Whether `reference` stands below the prefix: it ends where a part of the name does."""
        if self.prefix.startswith("*."):
            return reference.host.partition(":")[0].endswith(self.prefix[1:])
        name = str(reference)
        after = name[len(self.prefix) : len(self.prefix) + 1]
        # A colon after a host begins its port, which makes it another registry (podman lets it match, and regrets it).
        return name.startswith(self.prefix) and after in ("/", ":", "@", "") and not (after == ":" and "/" not in self.prefix)

    def places(self, reference: Reference) -> list[tuple[str, str, bool]]:
        """Host, path and insecure of each place to ask, in order. Raises Error("untrusted") if it is blocked.

        Raises Error("invalid", "unsupported") for a location that cannot stand for this name.
        """
        if self.blocked:
            raise Error("untrusted", f"{self.source} blocks {self.prefix}", subject=str(reference))
        found = [Location(location=self.location, insecure=self.insecure)]
        kind = "tag-only" if reference.digest is None else "digest-only"
        found = [one for one in self.mirrors if one.pulls in ("all", kind)] + found
        return [(*self._moved(reference, one.location), one.insecure) for one in found]

    def _moved(self, reference: Reference, location: str) -> tuple[str, str]:
        if not location or self.prefix.startswith("*."):
            if not location:
                return reference.host, reference.path
            name = f"{location}/{reference.path}"
        elif len(self.prefix) > len(reference.name):
            raise Error("unsupported", f"a prefix with a tag or digest and another location: {self.prefix}", subject=self.source)
        else:
            name = location + reference.name[len(self.prefix) :]
        host, _, path = name.partition("/")
        if not path:
            raise Error("invalid", f"location {location!r} leaves no repository of {reference.name}", subject=self.source)
        return host, path


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistriesConf:
    """All files together. search: registries for short names; mode: of `short-name-mode`; aliases: short name to full name."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    mode: str = "permissive"

    def rule(self, reference: Reference) -> Rule | None:
        """The rule for a name: of those that match, the one with the longest prefix; patterns come last."""

        def weight(rule: Rule) -> tuple[bool, int]:
            return not rule.prefix.startswith("*."), len(rule.prefix)

        return max((one for one in self.rules if one.matches(reference)), key=weight, default=None)

    def expand(self, short: str) -> list[Reference]:
        """What a short name (perhaps with tag and digest) may stand for: its alias, or that name at each registry to search."""
        name, at, digest = short.partition("@")
        name, colon, tag = name.partition(":")
        alias = self.aliases.get(name)
        full = [alias] if alias else [f"{host}/{name}" for host in self.search]
        return [Reference.parse(f"{one}{colon}{tag}{at}{digest}") for one in full]


class Files:
    """The files of a machine and a user. They are read again when one has changed. Not to be shared by threads without a lock."""

    def __init__(self, environ: Mapping[str, str], *, etc: Path = _ETC) -> None:
        home = Path(environ.get("HOME") or "/root")
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers"
        cache = Path("/var/cache") if os.geteuid() == 0 else Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
        named = environ.get("CONTAINERS_REGISTRIES_CONF")
        self._main = [Path(named)] if named else [config / "registries.conf", etc / "registries.conf"]
        self._folders = [etc / "registries.conf.d", config / "registries.conf.d"]
        self._aliases = cache / "containers/short-name-aliases.conf" if etc == _ETC else config / "short-name-aliases.conf"
        self._signature: list[tuple[str, int, int, int]] = []
        self._found = RegistriesConf()

    def read(self) -> RegistriesConf:
        """What they say together. Raises Error("invalid", "unsupported") that names file and key, OSError."""
        files = self._files()
        signature = []
        for path in files:
            state = path.stat()
            signature.append((str(path), state.st_ino, state.st_mtime_ns, state.st_size))
        if signature != self._signature:
            self._found = load(files)
            self._signature = signature
        return self._found

    def _files(self) -> list[Path]:
        main = next(([one] for one in self._main if one.is_file()), [])
        drops = [one for folder in self._folders if folder.is_dir() for one in sorted(folder.glob("*.conf")) if one.is_file()]
        return [*main, *drops, *([self._aliases] if self._aliases.is_file() else [])]


def load(files: list[Path]) -> RegistriesConf:
    """Files, a later one over an earlier one: rules by prefix, aliases by name, the rest as a whole."""
    rules: dict[str, Rule] = {}
    aliases: dict[str, str] = {}
    search: tuple[str, ...] = ()
    mode = "permissive"
    for path in files:
        table = Table.read(path)
        if table is None:
            continue
        if "registries" in table.value:
            hint = "version 2 has [[registry]] and unqualified-search-registries; see containers-registries.conf(5)"
            raise Error("unsupported", "registries.conf of version 1", subject=str(path), hint=hint)
        table.check(("unqualified-search-registries", "short-name-mode", "registry", "aliases", "credential-helpers"))
        if "unqualified-search-registries" in table.value:
            search = tuple(table.texts("unqualified-search-registries"))
        mode = _one_of(table, "short-name-mode", _MODES, "") or mode
        rules |= {rule.prefix: rule for rule in (_rule(one) for one in table.tables("registry"))}
        found = table.table("aliases")
        aliases |= {name: found.text(name) for name in found.value}
    # An empty alias takes back an earlier one.
    kept = {name: full for name, full in aliases.items() if full}
    return RegistriesConf(rules=tuple(rules.values()), search=search, aliases=kept, mode=mode)


def _rule(table: Table) -> Rule:
    table.check(("prefix", "location", "insecure", "blocked", "mirror", "mirror-by-digest-only"))
    location = _location(table)
    prefix = table.text("prefix").rstrip("/") or location
    if not prefix:
        raise table.error("location", "missing", hint="a rule needs a location or a prefix")
    if "*" in prefix and (not prefix.startswith("*.") or "*" in prefix[1:] or "/" in prefix):
        raise table.error("prefix", f"{prefix[:80]!r} is no pattern", hint="*.example.com")
    by_digest = table.boolean("mirror-by-digest-only")
    return Rule(
        prefix=prefix,
        location="" if location == prefix else location,
        insecure=table.boolean("insecure"),
        blocked=table.boolean("blocked"),
        mirrors=tuple(_mirror(one, by_digest=by_digest) for one in table.tables("mirror")),
        source=str(table.path),
    )


def _mirror(table: Table, *, by_digest: bool) -> Location:
    table.check(("location", "insecure", "pull-from-mirror"))
    location = _location(table)
    if not location:
        raise table.error("location", "missing")
    pulls = _one_of(table, "pull-from-mirror", _PULLS, "digest-only" if by_digest else "all")
    if by_digest and pulls != "digest-only":
        raise table.error("pull-from-mirror", f"{pulls} contradicts mirror-by-digest-only")
    return Location(location=location, insecure=table.boolean("insecure"), pulls=pulls)


def _location(table: Table) -> str:
    found = table.text("location").rstrip("/")
    if "://" in found or "*" in found:
        raise table.error("location", f"{found[:80]!r} is no location", hint="HOST[:PORT][/PATH], without a scheme")
    return found


def _one_of(table: Table, key: str, words: tuple[str, ...], default: str) -> str:
    found = table.text(key, default)
    if found not in words:
        raise table.error(key, f"{found[:40]!r} is none of {', '.join(word for word in words if word)}")
    return found or default
