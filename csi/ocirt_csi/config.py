"""The driver's configuration: flags over the environment over a TOML file, and what the driver was last started with.

A file is read as a whole or not at all: an unknown key, or a value of another kind, is an error that names it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ocirt_csi.driver import Settings
from ocirt_csi.errors import Error
from ocirt_csi.kernel import lvm
from ocirt_csi.pools.pool import PoolSettings
from ocirt_csi.store import Store

PLACE = "/etc/ocirt/csi.toml"
LEVELS = ("debug", "info", "warning", "error")
BACK_ENDS = ("auto", "btrfs", "project", "tmpfs", "loop", "lvm")
_SCHEME = "unix://"
_KEPT = "settings"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")  # of a driver (CSI, GetPluginInfo)
_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST_OVER = 100.0


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force. endpoint: "unix://PATH"; registration_dir: "" for no kubelet."""

    endpoint: str = "unix:///run/ocirt/csi.sock"
    name: str = "local.csi.ocirt"
    node_id: str = ""
    state: str = "/var/lib/ocirt/csi"
    registration_dir: str = ""
    max_volumes: int = 0
    log_level: str = "info"
    pools: tuple[PoolSettings, ...] = ()
    version: str = "0"

    @property
    def socket(self) -> str:
        """The path of the driver's socket."""
        return self.endpoint.removeprefix(_SCHEME)

    def settings(self) -> Settings:
        """What the driver itself needs. Raises Error("usage") without a pool."""
        if not self.pools:
            raise Error("usage", "there is no pool", hint="--pool DIR")
        return Settings(self.node_id, self.pools, self.name, self.state, self.max_volumes, self.version)


KEYS = {
    "endpoint": ("unix://PATH", "where the driver listens; CSI_ENDPOINT says it too"),
    "name": ("NAME", "the driver's name, a domain in reverse"),
    "node_id": ("NAME", "this node's name (default: the machine's)"),
    "state": ("DIR", "where the driver keeps what it must not forget"),
    "registration_dir": ("DIR", "a kubelet's folder plugins_registry, to be found by it"),
    "max_volumes": ("NUMBER", "how many volumes this node takes; 0 for any number"),
    "log_level": ("LEVEL", ", ".join(LEVELS)),
}


def load(
    flags: Mapping[str, str], pools: Sequence[str], *, place: str | None = None, environment: Mapping[str, str], version: str
) -> Config:
    """The configuration of a file (None: the usual one, if there is one), the environment and flags. Raises Error("usage")."""
    values = _file(place)
    if environment.get("CSI_ENDPOINT"):
        values["endpoint"] = environment["CSI_ENDPOINT"]
    values.update({name: _number(name, value) if name == "max_volumes" else value for name, value in flags.items()})
    if pools:
        values["pools"] = tuple(map(pool, pools))
    config = Config(**values, version=version)
    return _checked(replace(config, node_id=config.node_id or socket.gethostname()))


def keep(store: Store, config: Config) -> None:
    """Remember what the driver was started with, for commands that are not told."""
    store.set_meta(_KEPT, json.dumps({"pools": [asdict(one) for one in config.pools], "endpoint": config.endpoint}))


def kept(store: Store, config: Config) -> Config:
    """A configuration without pools, completed by what the driver was last started with."""
    found = json.loads(store.meta(_KEPT) or "{}")
    if config.pools or not found:
        return config
    return replace(config, pools=tuple(PoolSettings(**one) for one in found["pools"]), endpoint=found["endpoint"])


def pool(text: str) -> PoolSettings:
    """A pool as a flag has it: DIR[,class=NAME][,backend=KIND][,over=FACTOR][,vg=GROUP[,thin=POOL]]. Raises Error("usage")."""
    directory, *words = text.split(",")
    given: dict[str, Any] = {"directory": directory}
    for word in words:
        name, _, value = word.partition("=")
        given[name] = value
    return _pool(given, f"--pool {text}")


def _pool(given: Mapping[str, Any], subject: str) -> PoolSettings:
    unknown = set(given) - {"directory", "class", "backend", "over", "vg", "thin"}
    if unknown:
        raise Error("usage", f"there is no {min(unknown)!r} of a pool", subject=subject, hint="class, backend, over, vg, thin")
    directory = given.get("directory", "")
    if not isinstance(directory, str) or not directory.startswith("/") or "\0" in directory:
        raise Error("usage", f"{directory!r} is not an absolute path", subject=subject)
    name = given.get("class", "default")
    if not isinstance(name, str) or not _CLASS.fullmatch(name):
        raise Error("usage", f"{name!r} is not the name of a class", subject=subject)
    back_end = given.get("backend", "auto")
    if back_end not in BACK_ENDS:
        raise Error("usage", f"{back_end!r} is not a back end", subject=subject, hint=", ".join(BACK_ENDS))
    try:
        over = float(given.get("over", 1.0))
    except (TypeError, ValueError):
        over = 0.0
    if not 1.0 <= over <= _MOST_OVER:
        raise Error("usage", f"over is a factor from 1 to {_MOST_OVER:.0f}", subject=subject)
    group, thin = _group(given, back_end, over, subject)
    return PoolSettings(os.path.normpath(directory), name, back_end, over, group, thin)


def _group(given: Mapping[str, Any], back_end: str, over: float, subject: str) -> tuple[str, str]:
    """The volume group and its thin pool, "" for none."""
    group, thin = given.get("vg", ""), given.get("thin", "")
    for value in (group, thin):
        if value and (not isinstance(value, str) or not lvm.NAME.fullmatch(value)):
            raise Error("usage", f"{value!r} is not a name that LVM takes", subject=subject)
    if (back_end == "lvm") > bool(group) or (thin and not group):
        raise Error("usage", "needs the name of a volume group", subject=subject, hint="vg=GROUP")
    if group and back_end not in ("auto", "lvm"):
        raise Error("usage", f"the back end {back_end} has no volume group", subject=subject, hint="leave out backend or vg")
    if group and not thin and over > 1:
        raise Error("usage", "volumes with blocks of their own cannot be promised twice", subject=subject, hint="thin=POOL")
    return group, thin


def _file(place: str | None) -> dict[str, Any]:
    path = PLACE if place is None else place
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        if place is not None:
            raise Error("usage", "there is no such file", subject=path) from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise Error("usage", "cannot be read", subject=path, cause=str(err)) from None
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name == "pools" and isinstance(value, list) and all(isinstance(one, dict) for one in value):
            values[name] = tuple(_pool(one, f"{path}: pools/{number}") for number, one in enumerate(value))
        elif name in KEYS and type(value) is type(_DEFAULTS[name]):
            values[name] = value
        elif name in KEYS or name == "pools":
            raise Error("usage", f"{value!r} is of the wrong kind", subject=f"{path}: {name}")
        else:
            raise Error("usage", f"there is no key {name!r}", subject=path, hint=", ".join([*KEYS, "pools"]))
    return values


_DEFAULTS = {one.name: one.default for one in fields(Config)}


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise Error("usage", f"{text!r} is not a number", subject=f"--{name.replace('_', '-')}")
    return int(text)


def _checked(config: Config) -> Config:
    path = config.socket
    if not config.endpoint.startswith(_SCHEME) or not path.startswith("/") or path.endswith("/"):
        raise Error("usage", f"{config.endpoint!r} is no address", subject="endpoint", hint="unix:///run/ocirt/csi.sock")
    if not _NAME.fullmatch(config.name):
        raise Error("usage", f"{config.name!r} is not the name of a driver", subject="name", hint="such as local.csi.ocirt")
    for field in ("state", "registration_dir"):
        value = getattr(config, field)
        if value and not value.startswith("/"):
            raise Error("usage", f"{value!r} is not an absolute path", subject=field)
    if config.log_level not in LEVELS:
        raise Error("usage", f"{config.log_level!r} is not a level", subject="log_level", hint=", ".join(LEVELS))
    if config.max_volumes < 0:
        raise Error("usage", "is negative", subject="max_volumes")
    names = [one.name for one in config.pools]
    if len(set(names)) < len(names):
        raise Error("usage", "two pools have one class", subject="--pool", hint="class=NAME")
    return config
