"""Files of networks, looked at as a whole."""

from __future__ import annotations

import json
import os

from ocirt_cni import jsonio, plugins, versions
from ocirt_cni.call import ADD, Call, check_name
from ocirt_cni.cli.checks import tables
from ocirt_cni.cli.checks.kinds import WARNING, Finding, Kind, ListOf, Object, Switch, Text, below
from ocirt_cni.cli.nearest import nearest
from ocirt_cni.errors import INVALID_CONFIG, NOT_AVAILABLE, UNSUPPORTED, Error
from ocirt_cni.plugins import PLUGINS
from ocirt_cni.runner import execute, lists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_SWITCHES = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
_LIST = Object(
    {
        "cniVersion": Text(),
        "cniVersions": ListOf(Text()),
        "name": Text(),
        "plugins": ListOf(Kind(), least=1),
        **dict.fromkeys(_SWITCHES, Switch()),
    },
    needs=["name"],
    level=WARNING,  # it is passed over
)
# What the runtime makes.
_RESERVED = ("runtimeConfig", "prevResult")
_PREFIX = "cni.dev/"


def check_folder(folder: str, path: tuple[str, ...]) -> list[Finding]:
    """All findings of a folder's files, and of the names that hide each other. `path`: of CNI_PATH. Raises Error."""
    found: list[Finding] = []
    names: dict[str, str] = {}
    for file in lists.files(folder):
        found += check_file(file, path)
        try:
            name = _Document(file).value.get("name")
        except Error:
            continue
        if not isinstance(name, str):
            continue
        if name in names:
            hint = "it comes first; lists come before single plugins"
            found.append(Finding("/name", f"{names[name]} hides this network {name!r}", hint, WARNING, file))
        names.setdefault(name, file)
    for directory in lists.drop_in_folders(folder):
        if os.path.basename(directory) not in names and any(name.endswith(".conf") for name in os.listdir(directory)):
            message = f"there is no network {os.path.basename(directory)!r}, which these plugins would belong to"
            found.append(Finding("", message, "", WARNING, directory))
    return found


def check_file(file: str, path: tuple[str, ...]) -> list[Finding]:
    """All findings of a file, and of the drop-in plugins that belong to it."""
    try:
        loaded = _Document(file)
    except Error as err:
        return [Finding("", err.message + (f": {err.cause}" if err.cause else ""), err.hint, file=file)]
    document = loaded.value
    found = list(loaded.twice())
    if file.endswith(lists.LIST) or "plugins" in document:
        found += _list(document, file, path)
        if not file.endswith(lists.LIST):
            found.append(Finding("/plugins", "this is a list of plugins", "name the file *.conflist"))
    else:
        found += _single(document, path)
    return [_of_file(one, file) for one in found]


class _Document:
    """A file's JSON object. `twice`: the names that stand several times in an object of it, by the object's identity."""

    def __init__(self, file: str) -> None:
        """Raises Error that says where a fault is."""
        try:
            with open(file, "rb") as opened:
                data = opened.read()
        except OSError as err:
            raise Error(INVALID_CONFIG, "the file cannot be read", subject=file, cause=err.strerror or "") from None
        jsonio.load_object(data, file)
        self._twice: dict[int, list[str]] = {}
        self.value: dict[str, Any] = json.loads(data, object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            self._twice[id(made)] = [name for name in made if names.count(name) > 1]
        return made

    def twice(self) -> Iterator[Finding]:
        """A finding for each of these names."""
        yield from self._walk(self.value, "")

    def _walk(self, value: Any, at: str) -> Iterator[Finding]:
        for name in self._twice.get(id(value), ()):
            yield Finding(below(at, name), "it is there twice, and the last one counts", "", WARNING)
        if isinstance(value, dict):
            for name, one in value.items():
                yield from self._walk(one, below(at, name))
        elif isinstance(value, list):
            for number, one in enumerate(value):
                yield from self._walk(one, below(at, number))


def _of_file(finding: Finding, file: str) -> Finding:
    finding.file = finding.file or file
    return finding


def _single(document: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
    yield from _name(document.get("name"))
    yield from _versions(document)
    version = document.get("cniVersion") or versions.DEFAULT
    yield from _plugin(document, "", str(version), path, first=True)


def _list(document: dict[str, Any], file: str, path: tuple[str, ...]) -> Iterator[Finding]:
    yield from _LIST.check(document, "")
    yield from _versions(document)
    name = document.get("name")
    if isinstance(name, str):
        yield from _name(name)
    version = _version(document)
    inlined = document.get("plugins")
    inlined = inlined if isinstance(inlined, list) else []
    for number, one in enumerate(inlined):
        yield from _plugin(one, f"/plugins/{number}", version, path, first=number == 0)
    drop_ins = list(_drop_ins(file, name)) if document.get("loadOnlyInlinedPlugins") not in (True, "true") else []
    for number, dropped in enumerate(drop_ins):
        try:
            loaded = _Document(dropped)
        except Error as err:
            yield Finding("", err.message, err.hint, file=dropped)
            continue
        conf, is_first = loaded.value, not inlined and number == 0
        for one in (*loaded.twice(), *_plugin(conf, "", version, path, first=is_first)):
            yield _of_file(one, dropped)
    if document.get("plugins") is None and not drop_ins:
        yield Finding("/plugins", "it is missing", "a network needs one plugin at least")


def _drop_ins(file: str, name: Any) -> Iterable[str]:
    folder = f"{os.path.dirname(file) or '.'}/{name}"
    if isinstance(name, str) and "/" not in name and os.path.isdir(folder):
        return [f"{folder}/{one}" for one in sorted(os.listdir(folder)) if one.endswith(".conf")]
    return []


def _name(name: Any) -> Iterator[Finding]:
    if not isinstance(name, str):
        if name is not None:
            yield Finding("/name", "this is not a string")
        else:
            yield Finding("/name", "it is missing")
        return
    try:
        check_name(name, "/name", INVALID_CONFIG)
    except Error as err:
        yield Finding("/name", err.message, err.hint)


def _version(document: dict[str, Any]) -> str:
    named = [document.get("cniVersion"), *_strings(document.get("cniVersions"))]
    return next(
        (one for one in reversed(versions.SUPPORTED) if one in named), versions.CURRENT if any(named) else versions.DEFAULT
    )


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _versions(document: dict[str, Any]) -> Iterator[Finding]:
    one, several = document.get("cniVersion"), _strings(document.get("cniVersions"))
    if one is None and not several:
        yield Finding(
            "/cniVersion",
            f"it is missing, so {versions.DEFAULT} counts",
            f"say {versions.CURRENT}, to have CHECK, GC and STATUS",
            WARNING,
        )
    elif isinstance(one, str) and not {one, *several} & set(versions.SUPPORTED):
        hint = f"use one of {', '.join(versions.SUPPORTED)}"
        yield Finding("/cniVersion" if one else "/cniVersions", "no version that is supported is named", hint)


def _plugin(conf: Any, at: str, version: str, path: tuple[str, ...], *, first: bool) -> Iterator[Finding]:
    """All findings of a plugin's configuration. `first`: whether no other one is before it."""
    if not isinstance(conf, dict):
        yield Finding(at, "this is not an object")
        return
    name = conf.get("type")
    if not isinstance(name, str) or not name:
        yield Finding(
            f"{at}/type", "it is missing" if name is None or name == "" else "this is not a string", "the name of a plugin"
        )
        return
    made = _fields(conf, at, name)
    found = [*made, *_executable(name, f"{at}/type", version, path), *_capabilities(conf, at, name), *_place(name, at, first)]
    found += _ipam(conf.get("ipam"), f"{at}/ipam", version, path)
    yield from found
    if name in PLUGINS and not any(one.level != WARNING for one in found):
        yield from _asked(conf, at, name, version)


def _fields(conf: dict[str, Any], at: str, name: str) -> list[Finding]:
    table = tables.of_plugin(name)
    if table is None:
        table = Object(tables.GENERAL)  # of a foreign plugin the rest is its own matter
        conf = {key: value for key, value in conf.items() if key in tables.GENERAL}
    reserved = [key for key in conf if key in _RESERVED or key.startswith(_PREFIX)]
    found = [Finding(below(at, key), "this is for the runtime to say", "leave it out", WARNING) for key in reserved]
    return found + list(table.check({key: value for key, value in conf.items() if key not in reserved}, at))


def _executable(name: str, at: str, version: str, path: tuple[str, ...]) -> Iterator[Finding]:
    """That the plugin is there, and of this version."""
    try:
        known = execute.supported(name, path)
    except Error as err:
        similar = nearest(name, PLUGINS)
        hint = f"did you mean {similar}?" if similar and similar != name else err.hint
        yield Finding(at, err.message + (f": {err.cause}" if err.cause else ""), hint)
        return
    if version not in known:
        yield Finding(at, f"the plugin {name} does not support version {version}", f"it supports {', '.join(known)}")


def _capabilities(conf: dict[str, Any], at: str, name: str) -> Iterator[Finding]:
    declared = conf.get("capabilities")
    declared = declared if isinstance(declared, dict) else {}
    for one in declared:
        if one not in tables.CAPABILITIES and name in PLUGINS:
            similar = nearest(one, tables.CAPABILITIES)
            hint = f"did you mean {similar}?" if similar else ""
            yield Finding(below(f"{at}/capabilities", one), "there is no such capability", hint, WARNING)
    needed = tables.NEEDED.get(name)
    if needed and declared.get(needed) is not True:
        yield Finding(f"{at}/capabilities/{needed}", f"it is not set, so {name} gets nothing to do", "say true", WARNING)


def _place(name: str, at: str, first: bool) -> Iterator[Finding]:
    if name in tables.IPAM:
        yield Finding(f"{at}/type", f"{name} gives addresses and makes no interface", "name it in ipam.type of another plugin")
    elif first and name in tables.CHAINED:
        yield Finding(f"{at}/type", f"{name} works on an interface that a plugin before it made", "put one before it")


def _ipam(conf: Any, at: str, version: str, path: tuple[str, ...]) -> Iterator[Finding]:
    if not isinstance(conf, dict):
        if conf is not None:
            yield Finding(at, "this is not an object")
        return
    if not conf:
        return
    name = conf.get("type")
    if not isinstance(name, str) or not name:
        yield Finding(f"{at}/type", "it is missing", f"there are {', '.join(sorted(tables.IPAM))}")
        return
    if name in PLUGINS and name not in tables.IPAM:
        yield Finding(f"{at}/type", f"{name} gives no addresses", f"there are {', '.join(sorted(tables.IPAM))}")
        return
    yield from _executable(name, f"{at}/type", version, path)
    table = tables.of_ipam(name)
    if table is not None:
        yield from table.check(conf, at)


def _asked(conf: dict[str, Any], at: str, name: str, version: str) -> Iterator[Finding]:
    """What the plugin itself says of a configuration whose fields are right one by one."""
    whole = conf | {"name": "net", "cniVersion": version}  # the network's own name has its findings already
    for part in [name, *([conf["ipam"]["type"]] if isinstance(conf.get("ipam"), dict) and conf["ipam"].get("type") else [])]:
        try:
            configure = getattr(plugins.module(part), "configure", None)
            if configure is not None:
                configure(Call(ADD, whole, container="c", netns="/", ifname="eth0"))
        except (KeyError, ModuleNotFoundError):
            continue  # a foreign IPAM plugin
        except Error as err:
            if err.code not in (UNSUPPORTED, NOT_AVAILABLE):
                pointer = err.subject if err.subject.startswith("/") else ""
                yield Finding(at + pointer, err.message + (f": {err.cause}" if err.cause else ""), err.hint)
