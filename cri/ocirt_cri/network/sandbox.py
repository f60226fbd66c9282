"""A pod's namespaces, /dev/shm and network: made at once, and taken back from the pod's ID alone, however much there is.

Each function runs in a fork of the helper. A request has: pod (the ID), directory (the pod's, in ocirtd's state), netns (where
its network namespace is bound, "" for the node's), cni (see `ocirt_cri.network.cni`); `up` further: ipc, uts, pid, hostname,
shm_size, sysctls, uid_mappings, gid_mappings.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Collection
from typing import Any

from ocirt import state
from ocirt.cli.log import describe
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt.spans import Span
from ocirt.spec.sysctl import proc_path
from ocirt_cri.network import cni
from ocirt_cri.network.forks import Holder, run
from ocirt_cri.network.keeper import Keeper, mount

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND = 2, 4, 8, 0x1000
_SHM = 64 << 20
_KINDS = {"network": (k.CLONE_NEWNET, "net"), "ipc": (k.CLONE_NEWIPC, "ipc"), "uts": (k.CLONE_NEWUTS, "uts")}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_INIT = "init.json"
_IPC_SYSCTLS = ("kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/")


def up(request: dict[str, Any], keeper: Keeper) -> dict[str, Any]:
    """Make what a pod wants: {"ips", "interface", "result", "namespaces", "shm"}. What fails is taken back. Raises Error."""
    try:
        return _make(request, keeper)
    except BaseException:
        try:
            down(request, keeper)
        except Exception:  # noqa: BLE001  (the first failure says more; who asked takes back what is left)
            pass
        raise


def _make(request: dict[str, Any], keeper: Keeper) -> dict[str, Any]:
    pod, directory, netns = request["pod"], request["directory"], request["netns"]
    wanted = {"network": bool(netns), "ipc": bool(request.get("ipc")), "uts": bool(request.get("uts"))}
    maps = request.get("uid_mappings") or [], request.get("gid_mappings") or []
    found: dict[str, Any] = {"namespaces": {}, "ips": []}
    os.makedirs(directory, 0o700, exist_ok=True)
    kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
    with Span("job", "namespaces"):
        made = _namespaces(kinds, maps, request) if maps[0] else _own(kinds, request)
    try:
        if netns:
            with Span("job", "bind"):
                _bind_network(made["network"], netns)
            found["namespaces"]["network"] = netns
        if kept := {kind: fd for kind, fd in made.items() if kind != "network"}:
            with Span("job", "keep"):
                keeper.keep(pod, kept)
        if wanted["ipc"]:
            with Span("job", "shm"):
                found["shm"] = _shm(f"{directory}/shm", request.get("shm_size") or _SHM, maps)
        if netns:
            with Span("job", "CNI add"):
                found |= cni.add(request)
    finally:
        for fd in made.values():
            os.close(fd)
    found["namespaces"] |= paths(request, keeper)["namespaces"]
    if request.get("pid"):
        found["namespaces"]["pid"] = _init(directory, found["namespaces"])
    return found


def down(request: dict[str, Any], keeper: Keeper) -> dict[str, Any]:
    """Take it back. Everything is tried. Raises the first Error or OSError."""
    pod, directory, netns = request["pod"], request["directory"], request["netns"]
    failures: list[Exception] = []
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("init", lambda: _end_init(directory)),
        ("CNI delete", lambda: cni.delete(request)),  # it looks for what was attached; the namespace goes last
        ("unbind", lambda: _unbind(netns)),
        ("drop", lambda: keeper.drop(pod)),
        ("shm", lambda: _unmount(f"{directory}/shm")),
    )
    for name, step in steps:
        try:
            with Span("job", name):
                step()
        except Exception as err:  # noqa: BLE001  (told after the rest)
            failures.append(err)
    if failures:
        raise failures[0]
    return {}


def paths(request: dict[str, Any], keeper: Keeper) -> dict[str, Any]:
    """Where namespaces and /dev/shm are found now: those that are kept, through the helper, which may be another than before."""
    pod, directory, netns = request["pod"], request["directory"], request["netns"]
    found = {kind: path for kind in ("ipc", "uts", "user") if (path := keeper.path(pod, kind))}
    if netns:
        found["network"] = netns
    if init := _find_init(directory):
        found["pid"] = f"/proc/{init}/ns/pid"
    shm = f"{directory}/shm"
    return {"namespaces": found, "shm": shm if os.path.ismount(shm) else ""}


def strays(request: dict[str, Any], keeper: Keeper) -> dict[str, Any]:
    """{"pods"}: those that something is kept for, or attached, and that are not in `request["known"]` (IDs).

    Network namespaces in the folder `request["netns_dir"]` whose names begin with `request["prefix"]` and that are none of
    `request["netns"]` are let go. Raises Error, CniError, OSError.
    """
    known = set(request["known"])
    pods = {pod for pod in keeper.pods() if pod not in known}
    pods.update(cni.strays(request))
    folder, prefix = request["netns_dir"], request["prefix"]
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = f"{folder}/{name}"
        if name.startswith(prefix) and path not in request["netns"]:
            _unbind(path)
    return {"pods": sorted(pods)}


def status(request: dict[str, Any]) -> dict[str, Any]:
    """Whether pods can have networks: {"ready", "message"}."""
    return cni.status(request)


# -- namespaces --


def _own(kinds: list[str], request: dict[str, Any]) -> dict[str, int]:
    """New ones as descriptors, by kind, with what `_prepare` does. This process goes in and comes back: a fork costs more."""
    found: dict[str, int] = {}
    if not kinds:
        return found
    before = [(_KINDS[kind][0], _open(_KINDS[kind][1])) for kind in kinds]
    try:
        syscall("unshare", sum(flag for flag, _ in before))
        try:
            for kind in kinds:
                found[kind] = _open(_KINDS[kind][1])
            _prepare(found, request)
        finally:
            for flag, fd in before:
                syscall("setns", fd, flag)
    except BaseException as err:
        for fd in found.values():
            os.close(fd)
        if isinstance(err, (OSError, ValueError)):
            cause = describe(err) if isinstance(err, OSError) else str(err)
            raise Error("kernel", "cannot set up the namespaces of a pod", cause=cause) from None
        raise
    finally:
        for _, fd in before:
            os.close(fd)
    return found


def _open(name: str) -> int:
    """The namespace that this process is in, as a descriptor."""
    return os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _namespaces(
    kinds: list[str], maps: tuple[list[dict[str, int]], list[dict[str, int]]], request: dict[str, Any]
) -> dict[str, int]:
    """The same in a user namespace of their own with these mappings, which is there too. By forks: from there is no way back."""
    flags = sum((_KINDS[kind][0] for kind in kinds), k.CLONE_NEWUSER)
    names = {kind: _KINDS[kind][1] for kind in kinds} | {"user": "user"}
    found: dict[str, int] = {}
    with Holder(lambda: syscall("unshare", flags), "make the namespaces of a pod") as pid:
        try:
            for name, lines in zip(("uid_map", "gid_map"), maps, strict=True):
                if lines:
                    text = "".join(f"{one['containerID']} {one['hostID']} {one['size']}\n" for one in lines)
                    _write(f"/proc/{pid}/{name}", text)
            for kind, name in names.items():
                found[kind] = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            for fd in found.values():
                os.close(fd)
            raise

    def enter() -> None:
        for kind in kinds:
            syscall("setns", found[kind], _KINDS[kind][0])
        _prepare(found, request)

    try:
        run(enter, "set up the namespaces of a pod")
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def _prepare(kinds: Collection[str], request: dict[str, Any]) -> None:
    """In the namespaces: the loopback up, the host name, sysctls. Raises OSError, ValueError."""
    if "network" in kinds:
        _loopback_up()
    if "uts" in kinds and request.get("hostname"):
        name = request["hostname"].encode()
        syscall("sethostname", name, len(name))
    for name, value in (request.get("sysctls") or {}).items():
        kind, path = sysctl_of(name)
        if kind in kinds:
            _write(f"/proc/sys/{path}", str(value))


def sysctl_of(name: str) -> tuple[str, str]:
    """The kind of namespace that a sysctl belongs to, and its path below /proc/sys; by either spelling of its name.

    Raises ValueError for one of the whole machine: this runs as root of the machine, whoever has asked.
    """
    path = proc_path(name)
    if path:
        if path.startswith("net/"):
            return "network", path
        if path.startswith(_IPC_SYSCTLS):
            return "ipc", path
    raise ValueError(f"{name}: not a sysctl of a pod's own namespaces")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, name), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


def _bind_network(fd: int, target: str) -> None:
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    mount(f"/proc/self/fd/{fd}", target, "", _MS_BIND)


def _unbind(target: str) -> None:
    if target:
        _unmount(target)
        try:
            os.unlink(target)
        except FileNotFoundError:
            pass


def _unmount(target: str) -> None:
    try:
        syscall("umount2", target.encode(), k.MNT_DETACH)
    except OSError as err:
        if err.errno not in (2, 22):  # ENOENT, EINVAL: nothing is there, or nothing is mounted there
            raise


def _shm(target: str, size: int, maps: tuple[list[dict[str, int]], list[dict[str, int]]]) -> str:
    os.makedirs(target, 0o700, exist_ok=True)
    owner = ",".join(
        f"{word}={next((one['hostID'] for one in lines if one['containerID'] == 0), 0)}"
        for word, lines in zip(("uid", "gid"), maps, strict=True)
    )
    mount("shm", target, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, f"size={size},mode=1777,{owner}")
    return target


def _write(path: str, text: str, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# -- the init of a shared PID namespace --


def _init(directory: str, namespaces: dict[str, str]) -> str:
    from ocirt.containers import podinit  # noqa: PLC0415  (few pods share it)

    pid, fd = podinit.start({kind: path for kind, path in namespaces.items() if kind != "pid"}, {})
    os.close(fd)
    text = json.dumps({"pid": pid, "start_time": state.process_start_time(pid), "boot_id": state.boot_id()})
    _write(f"{directory}/{_INIT}", text, flags=os.O_CREAT | os.O_TRUNC)
    return f"/proc/{pid}/ns/pid"


def _find_init(directory: str) -> int:
    """The pid of a pod's init, 0 if it has none, or not any more."""
    try:
        with open(f"{directory}/{_INIT}", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return 0
    if found["boot_id"] != state.boot_id() or state.process_start_time(found["pid"]) != found["start_time"]:
        return 0
    return int(found["pid"])


def _end_init(directory: str) -> None:
    if pid := _find_init(directory):
        fd = os.pidfd_open(pid)
        try:
            if _find_init(directory) == pid:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(fd)
