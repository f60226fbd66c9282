"""config.json from keywords. What is not asked for is not there: no network, no capabilities, nothing that can be written to."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ocirt.cli import spec
from ocirt.errors import Error

Config = dict[str, Any]
StrPath = str | os.PathLike[str]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOBODY = 65534
_PERIOD = 100_000  # µs; the kernel's default for a cgroup's cpu quota
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MOUNTS = ("/proc", "/dev", "/dev/pts", "/dev/shm")


class Options(TypedDict, total=False):
    """The keywords of `config`, which `run` and `Container.create` take too."""

    rootfs: StrPath | None
    readonly: bool
    env: Mapping[str, str]
    cwd: str
    user: str | int | tuple[int, int]
    hostname: str
    network: bool
    mounts: Iterable[Config]
    memory: int | str
    swap: int | str
    cpus: float
    cpu_seconds: int
    pids: int
    open_files: int
    capabilities: Iterable[str]
    seccomp: Config
    cgroup: str
    annotations: Mapping[str, str]


def config(
    args: Sequence[StrPath],
    *,
    rootfs: StrPath | None = None,
    readonly: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    user: str | int | tuple[int, int] | None = None,
    hostname: str = "ocirt",
    network: bool = False,
    mounts: Iterable[Config] = (),
    memory: int | str | None = None,
    swap: int | str | None = None,
    cpus: float | None = None,
    cpu_seconds: int | None = None,
    pids: int | None = None,
    open_files: int = 1024,
    capabilities: Iterable[str] = (),
    seccomp: Config | None = None,
    cgroup: str = "",
    annotations: Mapping[str, str] | None = None,
) -> Config:
    """A config.json, as a dict to be changed at will.

    rootfs: the root file system; None for an empty one, which is read-only, so that all is in `mounts` (`bind`, `tmpfs`,
    `host_python`). env: added to a PATH, and nothing else is there. user: "uid", "uid:gid" or numbers; for a caller who is root
    nobody (65534), else 0, which is the caller himself in a user namespace. network: the host's; without it there is only `lo`.
    memory: bytes, or text such as "64MiB"; `swap` beside it (default: none). cpus: how many processors at most, such as 0.5.
    cpu_seconds: of each process (RLIMIT_CPU), which is then killed. pids: how many processes and threads at most.
    open_files: RLIMIT_NOFILE. seccomp, annotations: as in config.json. cgroup: `linux.cgroupsPath`.

    Raises Error("invalid") for what makes no config.json.
    """
    rootless = os.geteuid() != 0
    made = spec.rootless() if rootless else spec.default()
    process, linux = made["process"], made["linux"]
    uid, gid = (0, 0) if rootless and user is None else _user(_NOBODY if user is None else user)
    process |= {
        "terminal": False,
        "user": {"uid": uid, "gid": gid},
        "args": arguments(args),
        "env": environment(["PATH=" + _PATH], env or {}),
        "cwd": cwd,
        "rlimits": [_limit("RLIMIT_NOFILE", open_files)],
    }
    # Another user than root keeps none over execve(2) but the ambient ones, which have to be inheritable.
    kinds = ("bounding", "effective", "permitted", *(("inheritable", "ambient") if uid else ()))
    names = list(capabilities)
    process["capabilities"] = {kind: [*names] for kind in kinds}
    if cpu_seconds is not None:
        if type(cpu_seconds) is not int or cpu_seconds < 1:
            hint = "from 1; cpus takes fractions"
            raise Error("invalid", f"cpu_seconds: {cpu_seconds!r} is no number of whole seconds", hint=hint)
        process["rlimits"].append(_limit("RLIMIT_CPU", cpu_seconds))
    if rootfs is None and not readonly:
        raise Error("invalid", "an empty root file system is read-only", hint="put an ocirt.tmpfs(...) where files are to go")
    made["root"] = {"path": os.path.abspath(rootfs) if rootfs is not None else "", "readonly": readonly}
    made["hostname"] = hostname
    # /sys, message queues and the cgroup tree tell of the host, and take time to mount.
    made["mounts"] = [each for each in made["mounts"] if each["destination"] in _MOUNTS] + list(mounts)
    spaces = [each for each in linux["namespaces"] if each["type"] != "network"]
    linux["namespaces"] = spaces if network else [*spaces, {"type": "network"}]
    resources = _resources(memory, swap, cpus, pids)
    if resources:
        linux["resources"] = linux.get("resources", {}) | resources
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if cgroup:
        linux["cgroupsPath"] = cgroup
    if annotations:
        made["annotations"] = dict(annotations)
    return made


def bind(source: StrPath, destination: StrPath | None = None, *, readonly: bool = True) -> Config:
    """A mount of the host's file or directory, at the same place if no other is named; without set-user-ID and devices."""
    path = os.path.abspath(source)
    options = ["bind", "nosuid", "nodev", "ro" if readonly else "rw"]
    return {"destination": os.fspath(destination or path), "type": "bind", "source": path, "options": options}


def tmpfs(destination: StrPath, size: int | str = "16MiB") -> Config:
    """A mount of an empty file system in memory, which counts as the container's memory; everybody may write to it."""
    options = ["nosuid", "nodev", f"size={_bytes(size, 'size')}", "mode=1777"]
    return {"destination": os.fspath(destination), "type": "tmpfs", "source": "tmpfs", "options": options}


def host_python() -> list[Config]:
    """Read-only mounts with which `sys.executable` runs in an empty root: this interpreter, its packages, and the C library."""
    places = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"]
    executable = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))  # a prefix may be a link
    for path in (sys.base_prefix, sys.base_exec_prefix, executable, sys.prefix):
        if path != "/" and not any(_below(path, place) for place in places):
            places.append(path)
    return [bind(place) for place in places if os.path.exists(place)]


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def arguments(args: Sequence[StrPath]) -> list[str]:
    """`process.args`. Raises Error("invalid"): a text alone is taken for a mistake, as there is no shell."""
    if isinstance(args, (str, bytes, Path)) or not args:
        hint = '["sh", "-c", "..."] runs a line of shell'
        raise Error("invalid", "args must be a list of words", subject="/process/args", hint=hint)
    return [_text(os.fspath(word), "/process/args") for word in args]


def environment(had: Iterable[str], env: Mapping[str, str]) -> list[str]:
    """`process.env`: what was there with `env` over it. Raises Error("invalid")."""
    merged = {entry.partition("=")[0]: entry for entry in had}
    for name, value in env.items():
        if not name or "=" in name:
            raise Error("invalid", f"{name!r} cannot be a variable's name", subject="/process/env")
        merged[name] = _text(f"{name}={value}", "/process/env")
    return list(merged.values())


def user_of(user: str | int | tuple[int, int]) -> Config:
    """`process.user`. Raises Error("invalid")."""
    uid, gid = _user(user)
    return {"uid": uid, "gid": gid}


def _text(word: str | bytes, where: str) -> str:
    """A word that config.json can hold, which is UTF-8."""
    if isinstance(word, bytes):
        word = os.fsdecode(word)
    try:
        word.encode()
    except UnicodeEncodeError:
        raise Error("invalid", f"{word!r} is not UTF-8, as config.json has to be", subject=where) from None
    if "\0" in word:
        raise Error("invalid", f"{word!r} holds a NUL", subject=where)
    return word


def _user(user: str | int | tuple[int, int]) -> tuple[int, int]:
    numbers: tuple[str | int, ...] = (
        tuple(user.split(":")) if isinstance(user, str) else user if isinstance(user, tuple) else (user,)
    )
    try:
        uid, gid = (int(each) for each in (numbers if len(numbers) == 2 else numbers * 2))
    except ValueError:
        raise Error(
            "invalid", f"{user!r} is no user", subject="/process/user", hint='numbers: 1000, "1000" or "1000:100"'
        ) from None
    return uid, gid


def _limit(kind: str, number: int) -> Config:
    # Of a soft limit below the hard one, the first process of a pid namespace hears nothing: it has no handler for the signal.
    return {"type": kind, "soft": number, "hard": number}


def _resources(memory: int | str | None, swap: int | str | None, cpus: float | None, pids: int | None) -> Config:
    resources: Config = {}
    if memory is not None:
        limit = _bytes(memory, "memory")
        resources["memory"] = {"limit": limit}
        if os.path.exists("/proc/swaps"):  # else this kernel has none to limit
            resources["memory"]["swap"] = limit + (_bytes(swap, "swap") if swap is not None else 0)
    elif swap is not None:
        raise Error("invalid", "swap is limited only where memory is", hint="give memory as well")
    if cpus is not None:
        if cpus < 0.01:
            raise Error("invalid", f"cpus: {cpus!r} is too little", hint="0.01 is the least that the kernel takes")
        resources["cpu"] = {"quota": round(cpus * _PERIOD), "period": _PERIOD}
    if pids is not None:
        resources["pids"] = {"limit": pids}
    return resources


def _bytes(size: int | str, what: str) -> int:
    """A number of bytes: itself, or text with a unit."""
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
    if found is None or found[2] not in _UNITS:
        raise Error("invalid", f"{what}: {size!r} is no size", hint='a number of bytes, or "64MiB", "1.5GiB", "100MB"')
    return int(float(found[1]) * _UNITS[found[2]])
