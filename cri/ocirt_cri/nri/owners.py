"""Which plugin has changed what. Two plugins may not set the same thing, unless the second takes it away first. No I/O."""

from __future__ import annotations

from ocirt.errors import Error
from ocirt_api.nri import owners_pb2 as proto

_SIMPLE_RDT = ("RdtClosID", "RdtSchemata", "RdtEnableMonitoring")
_REMOVED = "-"


class Owners:
    """Claims on fields of containers. Fields have the names of NRI's enum `Field`; `key`: an entry of a list or a map."""

    def __init__(self) -> None:
        self._claims: dict[str, dict[tuple[str, str | None], str]] = {}

    def claim(self, container: str, field: str, plugin: str, key: str | None = None) -> None:
        """`plugin` sets it. Raises Error("state") if another one has."""
        claims = self._claims.setdefault(container, {})
        other = claims.get((field, key))
        # Who has taken a thing away may set it anew, and nobody else.
        if other is not None and other != _REMOVED + plugin:
            what = field if key is None else f"{field} {key}"
            who = other.removeprefix(_REMOVED)
            raise Error("state", f"plugins {plugin!r} and {who!r} both tried to set {what}", subject=container)
        claims[field, key] = plugin

    def clear(self, container: str, field: str, plugin: str, key: str | None = None) -> None:
        """`plugin` has taken away what another one, or nobody, had set."""
        self._claims.setdefault(container, {})[field, key] = _REMOVED + plugin

    def clear_rdt(self, container: str, plugin: str) -> None:
        """The same, of everything about RDT."""
        for field in _SIMPLE_RDT:
            self.clear(container, field, plugin)

    def add_hooks(self, container: str, plugin: str) -> None:
        """`plugin` adds hooks, which others may have done as well."""
        claims = self._claims.setdefault(container, {})
        had = claims.get(("OciHooks", None))
        claims["OciHooks", None] = plugin if had is None else f"{had},{plugin}"

    def message(self) -> proto.OwningPlugins:
        """The same, as validating plugins are told."""
        found = proto.OwningPlugins()
        for container, claims in self._claims.items():
            fields = found.owners[container]
            for (field, key), plugin in claims.items():
                number = proto.Field.Value(field)
                if key is None:
                    fields.simple[number] = plugin
                else:
                    fields.compound[number].owners[key] = plugin
        return found
