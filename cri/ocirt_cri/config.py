"""ocirtd's configuration: a TOML file, flags over it, and where each value comes from.

A file is read as a whole or not at all: an unknown key, or a value of another kind, is an error that names it and what would be
right.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocirt.errors import Error
from ocirt.spec.names import nearest
from ocirt.spec.rlimits import NUMBERS
from ocirt_cri.keys import (
    BY_NAME,
    FLAG,
    HANDLERS,
    KEYS,
    LIMITS,
    NUMBER,
    OF_RUNTIMES,
    RUNTIME,
    RUNTIME_OPTIONS,
    RUNTIME_ROOT,
    TEXT,
    TEXT_MAP,
    TEXTS,
    Key,
)
from ocirt_cri.metrics import server as metrics
from ocirt_cri.spec.inputs import HANDLERS as HANDLERS_OF_OURS
from ocirt_cri.spec.inputs import Settings

PLACE = "/etc/ocirt/ocirtd.toml"
FLAGS = ("root", "state", "listen", "image_root", "log_level", "log_format")  # of the command line
DEFAULT = "default"
_RLIMIT = "RLIMIT_"
_SCHEME = "unix://"
_OF_HANDLERS = ("containers.", "pods.", "runtime.")  # the sections that a handler may change, or has alone
_IN_HANDLERS = BY_NAME | {key.name: key for key in OF_RUNTIMES}
_HANDLER = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a DNS label, as RuntimeClass has it
_LONGEST = 90  # bytes of the socket's path, so that its scratch name fits into sun_path, too


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force. values: by key; sources: "default", the file, or the flag that a value comes from; file: "" for none."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    file: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def socket(self) -> str:
        """The path of the CRI's socket."""
        return str(self.values["listen"]).removeprefix(_SCHEME)

    @property
    def image_root(self) -> str:
        """The store of images."""
        return str(self.values["image_root"]) or os.path.join(self.values["root"], "images")

    def cni(self) -> dict[str, Any]:
        """Where the networks of pods are configured, and their plugins."""
        return {"config_dir": self.values["network.config_dir"], "bin_dirs": list(self.values["network.bin_dirs"])}

    def of_handler(self, name: str) -> Config:
        """What is in force for the pods of a runtime handler; the whole as it is for ours, and for one that is not there."""
        return Config({**self.values, **self.values["handlers"].get(name, {})}, self.sources, self.file)

    def command(self, handler: str) -> list[str]:
        """The runtime of a handler, with its global options; empty for ocirt's own library."""
        of = self.values["handlers"].get(handler, {})
        if not of.get(RUNTIME):
            return []
        root = of.get(RUNTIME_ROOT) or os.path.join(self.values["state"], "runtimes", handler)
        by_systemd = ["--systemd-cgroup"] if self.values["cgroups.manager"] == "systemd" else []
        return [of[RUNTIME], "--root", root, *by_systemd, *of.get(RUNTIME_OPTIONS, ())]

    def settings(self) -> Settings:
        """What containers get, as `spec` reads it."""
        of = self.values
        return Settings(
            handlers=(*HANDLERS_OF_OURS, *of["handlers"]),
            cgroup_manager=of["cgroups.manager"],
            cgroup_parent=of["cgroups.parent"],
            capabilities=tuple(of["containers.capabilities"]),
            seccomp_unset=of["containers.seccomp_unset"],
            apparmor_profile=of["containers.apparmor_profile"],
            pids_limit=of["containers.pids_limit"],
            rlimits={name: (soft, hard) for name, (soft, hard) in of["containers.rlimits"].items()},
            make_host_paths=of["containers.make_host_paths"],
            host_devices=of["containers.host_devices"],
            device_owner=of["containers.device_owner"],
            cgroup_writable=of["containers.cgroup_writable"],
            annotations=tuple(of["containers.annotations"]),
            pod_annotations=tuple(of["containers.pod_annotations"]),
            sysctls=of["pods.sysctls"],
            shm_size=of["pods.shm_size"],
        )


def load(path: str | None = None, flags: Mapping[str, str] | None = None) -> Config:
    """The configuration of a file (None: the usual one, if there is one) with flags over it. Raises Error."""
    place = PLACE if path is None else path
    try:
        with open(place, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        if path is not None:
            raise Error("usage", "there is no such file", subject=path) from None
        data, place = b"", ""
    except OSError as err:
        raise Error("usage", "cannot be read", subject=place, cause=err.strerror or "") from None
    return parse(data, place, flags or {})


def parse(data: bytes, place: str, flags: Mapping[str, str]) -> Config:
    """The same, of a file's bytes."""
    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise Error("usage", "is not UTF-8", subject=place) from None
    except tomllib.TOMLDecodeError as err:
        raise Error("usage", "is not TOML", subject=place, cause=str(err)) from None
    values = {key.name: key.default for key in KEYS}
    sources = dict.fromkeys(values, DEFAULT)
    for name, value in _flat(document, place):
        values[name] = _checked(BY_NAME[name], value, f"{place}: {name}")
        sources[name] = place
    for name, text in flags.items():
        values[name] = _checked(BY_NAME[name], text, f"--{name.replace('_', '-')}")
        sources[name] = f"--{name.replace('_', '-')}"
    for name in ("root", "state", "image_root", "netns_dir"):
        if values[name] and not values[name].startswith("/"):
            raise Error("usage", f"{values[name]!r} is not an absolute path", subject=_subject(sources[name], name))
    _check_listen(values["listen"], _subject(sources["listen"], "listen"))
    if values["metrics.listen"]:
        metrics.address(values["metrics.listen"], _subject(sources["metrics.listen"], "metrics.listen"))
    return Config(values, sources, place)


def differences(old: Config, new: Config) -> list[tuple[Key, Any, Any]]:
    """The keys whose values differ, with both values."""
    return [(key, old[key.name], new[key.name]) for key in KEYS if old[key.name] != new[key.name]]


def reloaded(old: Config, new: Config) -> Config:
    """What is in force after `new` was read while `old` was: keys that need a restart keep their values."""
    kept = {key.name for key in KEYS if not key.live}
    return Config(
        {name: (old if name in kept else new)[name] for name in new.values},
        {name: (old if name in kept else new).sources[name] for name in new.sources},
        new.file,
    )


def _flat(document: Mapping[str, Any], place: str, above: str = "", keys: Mapping[str, Key] = BY_NAME) -> list[tuple[str, Any]]:
    found = []
    for word, value in document.items():
        name = above + word
        if name in keys:
            found.append((name, value))
        elif isinstance(value, dict) and any(key.startswith(name + ".") for key in keys):
            found += _flat(value, place, name + ".", keys)
        else:
            sections = {key.rpartition(".")[0] for key in keys if "." in key}
            near = nearest(name, [*keys, *sections])
            if near in sections and not isinstance(value, dict):
                near = next(key for key in keys if key.startswith(near + "."))
            if not near:
                near = next((key for key in keys if key.rpartition(".")[2] == word), "")
            hint = f"did you mean {near!r}?" if near else "`ocirtd config` lists all keys"
            raise Error("usage", f"there is no key {name!r}", subject=place, hint=hint)
    return found


def _checked(key: Key, value: Any, subject: str) -> Any:
    if key.kind == HANDLERS:
        return _handlers(value, subject)
    if not _fits(key.kind, value):
        raise Error("usage", f"{value!r} is not a {key.kind}", subject=subject, hint=f"such as {shown(key.default)}")
    if key.words and value not in key.words:
        near = nearest(value, key.words)
        hint = f"did you mean {near!r}?" if near else "one of " + ", ".join(key.words)
        raise Error("usage", f"{value!r} is not one of its values", subject=subject, hint=hint)
    if key.kind == NUMBER and value < key.least:
        raise Error("usage", f"{value} is too small", subject=subject, hint=f"{key.least} or more")
    if key.kind == LIMITS:
        return _limits(value, subject)
    return tuple(value) if key.kind == TEXTS else value


def _limits(value: Mapping[str, list[int]], subject: str) -> dict[str, list[int]]:
    """Resource limits by their whole names; RLIMIT_ may be left out."""
    found = {}
    for name, (soft, hard) in value.items():
        whole = name if name.startswith(_RLIMIT) else _RLIMIT + name
        if whole not in NUMBERS:
            near = nearest(whole, list(NUMBERS))
            hint = f"did you mean {near.removeprefix(_RLIMIT)!r}?" if near else "see getrlimit(2)"
            raise Error("usage", f"{name[:80]!r} is not a resource limit", subject=subject, hint=hint)
        if not 0 <= soft <= hard:
            raise Error("usage", f"{name}: {soft} is no soft limit below {hard}", subject=subject, hint="[soft, hard]")
        found[whole] = [soft, hard]
    return found


def _handlers(value: Any, subject: str) -> dict[str, dict[str, Any]]:
    """Of each handler the keys that it changes, by their whole names."""
    if not isinstance(value, dict):
        raise Error("usage", f"{value!r} is not a {HANDLERS}", subject=subject, hint="[handlers.NAME.containers]")
    found = {}
    for name, table in value.items():
        place = f"{subject}.{name}"
        if not _HANDLER.fullmatch(name) or name in HANDLERS_OF_OURS:
            raise Error("usage", f"{name[:80]!r} cannot be the name of a handler", subject=subject, hint="such as sandboxed-2")
        if not isinstance(table, dict):
            raise Error("usage", f"{table!r} is no table", subject=place, hint=f"[handlers.{name}.containers]")
        keys = _flat(table, place, keys=_IN_HANDLERS)
        for key, _ in keys:
            if not key.startswith(_OF_HANDLERS):
                hint = "keys of containers, pods and runtime"
                raise Error("usage", f"{key!r} is the same for all handlers", subject=place, hint=hint)
        found[name] = {key: _checked(_IN_HANDLERS[key], one, f"{place}: {key}") for key, one in keys}
        _check_runtime(found[name], place)
    return found


def _check_runtime(values: Mapping[str, Any], place: str) -> None:
    for key in (RUNTIME, RUNTIME_ROOT):
        if values.get(key) and not values[key].startswith("/"):
            hint = "such as /usr/bin/runc" if key == RUNTIME else "such as /run/runc"
            raise Error("usage", f"{values[key]!r} is not an absolute path", subject=f"{place}: {key}", hint=hint)
    for key in (RUNTIME_ROOT, RUNTIME_OPTIONS):
        if values.get(key) and not values.get(RUNTIME):
            raise Error("usage", "is for another runtime", subject=f"{place}: {key}", hint=f"name it: {RUNTIME}")


def _fits(kind: str, value: Any) -> bool:
    if kind == TEXT:
        return isinstance(value, str) and "\0" not in value
    if kind == FLAG:
        return isinstance(value, bool)
    if kind == NUMBER:
        return _is_number(value)
    if kind == TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if not isinstance(value, dict):
        return False
    if kind == TEXT_MAP:
        return all(isinstance(one, str) for one in value.values())
    assert kind == LIMITS
    return all(isinstance(one, list) and len(one) == 2 and all(map(_is_number, one)) for one in value.values())


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_listen(value: str, subject: str) -> None:
    path = value.removeprefix(_SCHEME)
    if not value.startswith(_SCHEME) or not path.startswith("/") or path.endswith("/"):
        raise Error("usage", f"{value!r} is no address", subject=subject, hint="unix:///run/ocirt/ocirt.sock")
    if len(os.fsencode(path)) > _LONGEST:
        raise Error("usage", f"the path of the socket has more than {_LONGEST} bytes", subject=subject, hint="a shorter one")


def _subject(source: str, name: str) -> str:
    return source if source.startswith("--") else f"{source}: {name}"


def shown(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(name)} = {shown(one)}" for name, one in value.items()) + "}"
    return str(value)


def text(config: Config) -> str:
    """All that is in force, as a file that says the same, each value with where it comes from."""
    lines: list[str] = []
    section = ""
    width = 78
    for key in KEYS:
        above, _, word = key.name.rpartition(".")
        if above != section:
            lines += ["", f"[{above}]"]
            section = above
        line = f"{word} = {shown(config[key.name])}"
        lines.append(f"{line:<{width}} # {config.sources[key.name]}")
    return "\n".join(lines) + "\n"
