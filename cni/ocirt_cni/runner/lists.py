"""Networks: the files of a configuration folder (SPEC.md, section 1), found and read as libcni does it."""

from __future__ import annotations

import os

from ocirt_cni import jsonio, versions
from ocirt_cni.call import check_name, field
from ocirt_cni.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, IO_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/etc/cni/net.d"
LIST, SINGLE = (".conflist",), (".conf", ".json")


class Network:
    """A network: plugins, in the order of ADD.

    name, version: `version` is the highest that the configuration has and we know
    plugins: the configuration of each, as it was written
    data: the whole as JSON, as the cache keeps it: the file's text, if nothing had to be added
    path: of the file, "" without one
    """

    __slots__ = ("data", "disable_check", "disable_gc", "name", "only_inlined", "path", "plugins", "version")

    def __init__(self, document: dict[str, Any], data: bytes, path: str = "") -> None:
        """From a list's document. Raises Error that names the field; that there are no plugins is left to the caller."""
        self.name: str = field(document, "name", str, "")
        check_name(self.name, "/name", INVALID_CONFIG)
        self.version = _version(document)
        self.disable_check = _flag(document, "disableCheck")
        self.disable_gc = _flag(document, "disableGC")
        self.only_inlined = _flag(document, "loadOnlyInlinedPlugins")
        self.data = data
        self.path = path
        inlined = field(document, "plugins", list, None)
        if inlined is None and self.only_inlined:
            raise Error(INVALID_CONFIG, "it is true, and there is no list of plugins", subject="/loadOnlyInlinedPlugins")
        if inlined is not None and not inlined:
            raise Error(INVALID_CONFIG, "the list is empty", subject="/plugins", hint="a network needs one plugin at least")
        self.plugins: list[dict[str, Any]] = [_plugin(one, f"/plugins/{number}") for number, one in enumerate(inlined or ())]

    def types(self) -> list[str]:
        """The plugins' names."""
        return [one["type"] for one in self.plugins]

    def add_plugins(self, more: list[dict[str, Any]]) -> None:
        """Append what came from other files."""
        if more:
            self.plugins += more
            document = jsonio.load_object(self.data, self.path)
            # Whoever reads the cache does not look for files.
            self.data = jsonio.dumps(document | {"plugins": self.plugins, "loadOnlyInlinedPlugins": True}).encode()


def parse(data: bytes, what: str) -> Network:
    """The text of a list, without other files' plugins: from the cache, or from a caller. Raises Error that names `what`."""
    network = _parse(data, what)
    if not network.plugins:
        raise Error(INVALID_CONFIG, "there are no plugins", subject=what)
    return network


def read(path: str) -> Network:
    """The file of a network: a list with its drop-in plugins, or the configuration of one plugin. Raises Error."""
    data = _content(path)
    if not path.endswith(LIST):
        return _single(data, path)
    network = _parse(data, path)
    network.path = path
    if not network.only_inlined:
        network.add_plugins(_drop_ins(f"{os.path.dirname(path) or '.'}/{network.name}"))
    if not network.plugins:
        hint = f"add a list `plugins`, or files {network.name}/*.conf beside it"
        raise Error(INVALID_CONFIG, "there are no plugins", subject=path, hint=hint)
    return network


def files(folder: str) -> list[str]:
    """The files of networks in a folder: lists first, both sorted. A folder that is not there has none. Raises Error."""
    names = _names(folder)
    return [f"{folder}/{name}" for kind in (LIST, SINGLE) for name in names if name.endswith(kind)]


def scan(folder: str) -> tuple[list[Network], list[Error]]:
    """All networks of a folder in the order in which names are looked up, and what is wrong with files. Raises Error."""
    networks, errors = [], []
    for path in files(folder):
        try:
            networks.append(read(path))
        except Error as err:
            errors.append(err)
    return networks, errors


def load(folder: str, name: str) -> Network:
    """The first network of that name. Files with errors are passed over as long as another one has it. Raises Error."""
    networks, errors = scan(folder)
    for network in networks:
        if network.name == name:
            return network
    if not networks and not errors:
        raise Error(INVALID_CONFIG, "there are no networks", subject=folder, hint="it takes files like 10-NAME.conflist")
    if errors:
        raise Error(
            INVALID_CONFIG, f"there is no network {name!r}, but a file with an error", subject=folder, cause=str(errors[0])
        )
    known = ", ".join(sorted({network.name for network in networks}))
    raise Error(INVALID_CONFIG, f"there is no network {name!r}", subject=folder, hint=f"there are: {known}")


def drop_in_folders(folder: str) -> list[str]:
    """The folders in which plugins for the networks of a folder may lie."""
    return [f"{folder}/{name}" for name in sorted(_entries(folder)) if os.path.isdir(f"{folder}/{name}")]


def _parse(data: bytes, what: str) -> Network:
    document = jsonio.load_object(data, what)
    try:
        return Network(document, data)
    except Error as err:
        raise _in(what, err) from None


def _single(data: bytes, path: str) -> Network:
    """The list that stands for the configuration of one plugin."""
    conf = jsonio.load_object(data, path)
    try:
        _plugin(conf, "")
        document = {"cniVersion": field(conf, "cniVersion", str, versions.DEFAULT) or versions.DEFAULT, "name": conf.get("name")}
        document["plugins"] = [conf]
        return Network(document, jsonio.dumps(document).encode(), path)
    except Error as err:
        raise _in(path, err) from None


def _drop_ins(folder: str) -> list[dict[str, Any]]:
    found = []
    for name in _names(folder):
        if name.endswith(".conf"):
            path = f"{folder}/{name}"
            try:
                found.append(_plugin(jsonio.load_object(_content(path), path), ""))
            except Error as err:
                raise err if err.subject == path else _in(path, err) from None
    return found


def _plugin(conf: Any, where: str) -> dict[str, Any]:
    if not isinstance(conf, dict):
        raise Error(INVALID_CONFIG, "this is not an object", subject=where or "/")
    name = field(conf, "type", str, "", where)
    if not name or "/" in name:
        raise Error(
            INVALID_CONFIG, "the name of a plugin is missing" if not name else f"{name!r} is none", subject=f"{where}/type"
        )
    field(conf, "capabilities", dict, {}, where)
    return conf


def _version(document: dict[str, Any]) -> str:
    """The highest one that the configuration names and we know. Raises Error."""
    named = [field(document, "cniVersion", str, "")]
    for number, one in enumerate(field(document, "cniVersions", list, [])):
        if not isinstance(one, str):
            raise Error(INVALID_CONFIG, "this is not a string", subject=f"/cniVersions/{number}")
        named.append(one)
    named = [one for one in named if one]
    known = [one for one in versions.SUPPORTED if one in named]
    if known or not named:
        return known[-1] if known else versions.DEFAULT
    asked = named[0] if len(named) == 1 else "none of " + ", ".join(named)
    raise Error(
        INCOMPATIBLE_VERSION,
        f"version {asked} is not supported" if len(named) == 1 else f"{asked} is supported",
        subject="/cniVersion" if document.get("cniVersion") else "/cniVersions",
        hint=f"use one of {', '.join(versions.SUPPORTED)}",
    )


def _flag(document: dict[str, Any], name: str) -> bool:
    """True or false, or one of these as a string."""
    value = document.get(name)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    found: bool = field(document, name, bool, False)
    return found


def _in(what: str, err: Error) -> Error:
    """The error with the file before the pointer."""
    return Error(err.code, err.message, subject=f"{what}: {err.subject}", cause=err.cause, hint=err.hint)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as err:
        raise Error(IO_FAILURE, "the folder cannot be read", subject=folder, cause=err.strerror or "") from None


def _names(folder: str) -> list[str]:
    return sorted(name for name in _entries(folder) if not os.path.isdir(f"{folder}/{name}"))


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as err:
        raise Error(IO_FAILURE, "the file cannot be read", subject=path, cause=err.strerror or "") from None
