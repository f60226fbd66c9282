"""The JSON schema of the runtime specification: fetched as a Go module, listed, and applied to documents.

Draft 4, and of that the keywords which the specification uses; any other one is an error here, so that none is passed over.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULE = "github.com/opencontainers/runtime-spec@v1.3.0"
# Sections that are for other platforms.
OTHERS = ("windows", "solaris", "vm", "zos", "freebsd")
_KEYWORDS = {
    "$ref",
    "$schema",
    "additionalProperties",
    "allOf",
    "anyOf",
    "definitions",
    "description",
    "enum",
    "items",
    "maximum",
    "minItems",
    "minimum",
    "pattern",
    "patternProperties",
    "properties",
    "required",
    "type",
}
_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}


class MissingError(Exception):
    """Why there is no schema on this machine."""


@functools.cache
def directory() -> Path:
    """The module's folder, from Go's cache or by way of its proxy. Raises MissingError."""
    go = shutil.which("go", path="/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin") or shutil.which("go")
    if not go:
        raise MissingError("no Go on this machine, by which the specification's schema comes")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "go.mod").write_text("module throwaway\n")
        done = subprocess.run(
            [go, "mod", "download", "-json", MODULE], cwd=place, capture_output=True, text=True, timeout=120, check=False
        )
    if done.returncode:
        raise MissingError(f"the Go module {MODULE} cannot be had: {done.stdout.strip()[-200:]} {done.stderr.strip()[-200:]}")
    return Path(json.loads(done.stdout)["Dir"])


class Schema:
    """One schema file and those that it refers to."""

    def __init__(self, name: str = "config-schema.json") -> None:
        self.name = name
        self._files: dict[str, Any] = {}

    def _load(self, name: str) -> Any:
        if name not in self._files:
            self._files[name] = json.loads((directory() / "schema" / name).read_text())
        return self._files[name]

    def _follow(self, reference: str, name: str) -> tuple[Any, str]:
        file, _, fragment = reference.partition("#")
        name = file or name
        node = self._load(name)
        # 1.3.0 has one reference without its slash: "#definitions/uint32".
        for token in fragment.strip("/").split("/"):
            node = node[token] if token else node
        return node, name

    def entries(self) -> list[str]:
        """Every property and every value of an enumeration, as pointers: `*` stands for an index, `{}` for a name of one's own.

        A value is written behind a `=`. Sections for other platforms are one entry each.
        """
        found: dict[str, None] = {}
        self._list(self._load(self.name), self.name, "", found)
        return list(found)

    def _list(self, node: Any, name: str, pointer: str, found: dict[str, None]) -> None:
        assert set(node) <= _KEYWORDS, set(node) - _KEYWORDS
        if "$ref" in node:
            self._list(*self._follow(node["$ref"], name), pointer, found)
        for value in node.get("enum", ()):
            found[f"{pointer}={value}"] = None
        for inner in (*node.get("allOf", ()), *node.get("anyOf", ())):
            self._list(inner, name, pointer, found)
        for member, inner in node.get("properties", {}).items():
            found[f"{pointer}/{member}"] = None
            if pointer or member not in OTHERS:
                self._list(inner, name, f"{pointer}/{member}", found)
        if "items" in node:
            self._list(node["items"], name, pointer + "/*", found)
        for inner in node.get("patternProperties", {}).values():
            self._list(inner, name, pointer + "/{}", found)
        if isinstance(node.get("additionalProperties"), dict):
            self._list(node["additionalProperties"], name, pointer + "/{}", found)

    def violations(self, document: Any) -> list[str]:
        """Where a document breaks the schema, and how."""
        return [f"{pointer}: {text}" for pointer, text in self._hold(document, self._load(self.name), self.name, "")]

    def _hold(self, value: Any, node: Any, name: str, pointer: str) -> Iterator[tuple[str, str]]:
        if "$ref" in node:
            yield from self._hold(value, *self._follow(node["$ref"], name), pointer)
            return  # draft 4: what stands beside a reference is ignored
        if "type" in node:
            kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
            # A bool is no integer, and 1.0 is none either (draft 4).
            if not any(type(value) is _TYPES[kind] for kind in kinds):
                yield pointer, f"not of the type {node['type']}"
                return
        if "enum" in node and value not in node["enum"]:
            yield pointer, "not one of the enumeration"
        for inner in node.get("allOf", ()):
            yield from self._hold(value, inner, name, pointer)
        if "anyOf" in node and all(list(self._hold(value, inner, name, pointer)) for inner in node["anyOf"]):
            yield pointer, "none of anyOf"
        if type(value) is int:
            if value < node.get("minimum", value) or value > node.get("maximum", value):
                yield pointer, "out of range"
        elif isinstance(value, str):
            if "pattern" in node and not re.search(node["pattern"], value):
                yield pointer, f"does not match {node['pattern']}"
        elif isinstance(value, list):
            if len(value) < node.get("minItems", 0):
                yield pointer, "too few items"
            for index, item in enumerate(value):
                yield from self._hold(item, node.get("items", {}), name, f"{pointer}/{index}")
        elif isinstance(value, dict):
            for member in node.get("required", ()):
                if member not in value:
                    yield pointer, f"lacks {member}"
            for member, item in value.items():
                yield from self._hold_member(member, item, node, name, f"{pointer}/{member}")

    def _hold_member(self, member: str, item: Any, node: Any, name: str, pointer: str) -> Iterator[tuple[str, str]]:
        known = False
        if member in node.get("properties", {}):
            known = True
            yield from self._hold(item, node["properties"][member], name, pointer)
        for pattern, inner in node.get("patternProperties", {}).items():
            if re.search(pattern, member):
                known = True
                yield from self._hold(item, inner, name, pointer)
        more = node.get("additionalProperties", True)
        if not known and isinstance(more, dict):
            yield from self._hold(item, more, name, pointer)
        elif not known and not more:
            yield pointer, "is not allowed"
