"""From an image's configuration to a runtime's config.json (image-spec, conversion.md). A pure function: what has to be looked up
in the image's files was looked up before (users.py).

The table of what goes where is in docs/bundles.md. What images do not say is as docker has it, so that what was made for docker
finds what it expects: fourteen capabilities, no limits, set-user-ID programs that work.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ocirt_images.bundle.options import Options
    from ocirt_images.bundle.users import User
    from ocirt_images.config import ImageConfig
    from ocirt_images.fields import Json

SPEC_VERSION = "1.2.0"  # of the runtime specification: the first that has all that is used here
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "ocirt"
_PREFIX = "org.opencontainers.image."

# docker's, and so containerd's and podman's.
CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# Any device may be made, and none used but those that every container has.
_DEVICES = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
)
# Files of the host that name its network to programs: for a container that shares it.
NETWORK_FILES = ("/etc/hosts", "/etc/resolv.conf")


def runtime_config(
    image: ImageConfig,
    options: Options,
    user: User,
    *,
    subject: str,
    root: str = "rootfs",
    network_files: Iterable[str] = NETWORK_FILES,
) -> Json:
    """The config.json of a container of `image`.

    subject: the image's name, for errors; root: of the root file system, below the bundle; network_files: those of NETWORK_FILES
    that the host has. Raises Error("invalid") for what the image says wrong, Error("unsupported") for a user that the user
    namespace does not have.
    """
    linux: Json = {
        "namespaces": [{"type": kind} for kind in _namespaces(options)],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if not options.unprivileged:
        linux["resources"] = {"devices": [dict(rule) for rule in _DEVICES]}
    if options.mappings is not None:
        options.mappings.check(user.uid, user.gid)
    if options.mappings is not None and not options.entered:
        for name, lines in (("uidMappings", options.mappings.uids), ("gidMappings", options.mappings.gids)):
            linux[name] = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in lines]
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": options.terminal,
            "user": _user(user, options),
            "args": list(command(image.entrypoint, image.cmd, options, subject)),
            "env": environment(image, options, subject),
            "cwd": _directory(image, options, subject),
            "capabilities": _capabilities(user),
            "noNewPrivileges": options.no_new_privileges,
        },
        "root": {"path": root, "readonly": options.read_only},
        "hostname": options.hostname or HOSTNAME,
        "mounts": [*_mounts(options), *_network_mounts(options, network_files), *_volumes(image, options, subject)],
        "annotations": image_annotations(image, options),
        "linux": linux,
    }


def command(entrypoint: Sequence[str] | None, cmd: Sequence[str] | None, options: Options, subject: str) -> tuple[str, ...]:
    """What is executed: an entrypoint, then the arguments of the caller or else the image's Cmd.

    A shell form has become `/bin/sh -c TEXT` when the image was built, so there is one rule for all forms. With an entrypoint of
    the caller's the image's Cmd, which was meant for another program, is left out. Raises Error("invalid") for no command at all.
    """
    if options.entrypoint is not None:
        words = (*options.entrypoint, *options.args)
    else:
        words = (*(entrypoint or ()), *(options.args or cmd or ()))
    if not words or not words[0]:
        where = (
            "the image has neither Entrypoint nor Cmd" if options.entrypoint is None else "an entrypoint was given that is empty"
        )
        raise Error("invalid", "no command", subject=subject, cause=where, hint="give one: -- COMMAND")
    return words


def environment(image: ImageConfig, options: Options, subject: str) -> list[str]:
    """PATH where nobody says it, then the image's, then the caller's; the last of a name counts, in the place of the first.

    HOME comes from the runtime, which looks the user up, so it is here only if somebody says it.
    """
    found = {"PATH": PATH}
    if options.terminal:
        found["TERM"] = "TERM=xterm"
    for number, entry in enumerate((*image.env, *options.env)):
        name, equals, _ = entry.partition("=")
        if not name or not equals:
            where = f"{subject}/config/Env/{number}"
            raise Error("invalid", f"{entry[:200]!r} is not NAME=VALUE", subject=where)
        found[name] = entry
    return list(found.values())


def image_annotations(image: ImageConfig, options: Options) -> dict[str, str]:
    """What the image says of itself (implicit annotations), its labels over that, ours over all."""
    platform = image.platform
    author = image.raw.get("author")
    implicit = {
        "os": platform.os,
        "architecture": platform.architecture,
        "variant": platform.variant,
        "os.version": platform.os_version,
        "os.features": ",".join(platform.os_features),
        "author": author if isinstance(author, str) else "",
        "created": image.created,
        "stopSignal": image.stop_signal,
        "exposedPorts": ",".join(image.exposed_ports),
    }
    found = {_PREFIX + name: value for name, value in implicit.items() if value}
    # A label cannot be without a name (the runtime refuses it), and docker's builds can make one.
    found |= {name: value for name, value in image.labels.items() if name}
    return found | dict(options.annotations)


def _namespaces(options: Options) -> list[str]:
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"]
    if not options.host_network:
        kinds.append("network")
    if options.mappings is not None and not options.entered:
        kinds.append("user")
    return kinds


def _user(user: User, options: Options) -> Json:
    found: Json = {"uid": user.uid, "gid": user.gid}
    if not options.unprivileged:  # setgroups(2) is denied to who has no groups to give
        found["additionalGids"] = list(user.groups)
    return found


def _capabilities(user: User) -> Json:
    """All for root; another user gets what execve(2) would leave: nothing, but for what set-user-ID programs bring."""
    names = ("bounding", "effective", "permitted") if user.uid == 0 else ("bounding",)
    return {name: list(CAPABILITIES) for name in names}


def _directory(image: ImageConfig, options: Options, subject: str) -> str:
    """The working directory. The runtime makes it where it is missing."""
    found = options.cwd or image.working_dir or "/"
    if not found.startswith("/"):
        # Some builders write `app` for what is /app to docker.
        found = "/" + found
    if "\0" in found:
        raise Error("invalid", "a NUL character", subject=f"{subject}/config/WorkingDir")
    return posixpath.normpath(found).replace("//", "/")


def _mount(destination: str, kind: str, source: str, *words: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(words)}


def _mounts(options: Options) -> list[Json]:
    closed = ("nosuid", "noexec", "nodev")
    # Group 5 is `tty` everywhere, but not in every user namespace.
    terminals = () if options.unprivileged and not _has_group(options, 5) else ("gid=5",)
    # A sysfs is for who owns the network namespace.
    foreign = options.host_network and options.unprivileged
    return [
        _mount("/proc", "proc", "proc", *closed),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *terminals),
        _mount("/dev/shm", "tmpfs", "shm", *closed, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *closed),
        _mount("/sys", "none", "/sys", "rbind", *closed, "ro") if foreign else _mount("/sys", "sysfs", "sysfs", *closed, "ro"),
        *(() if foreign else (_mount("/sys/fs/cgroup", "cgroup", "cgroup", *closed, "relatime", "ro"),)),
    ]


def _has_group(options: Options, gid: int) -> bool:
    return options.mappings is not None and any(first <= gid < first + size for first, _, size in options.mappings.gids)


def _network_mounts(options: Options, files: Iterable[str]) -> list[Json]:
    if not options.host_network:
        return []
    return [_mount(path, "bind", path, "rbind", "rprivate", "ro") for path in files]


def _volumes(image: ImageConfig, options: Options, subject: str) -> list[Json]:
    """A container whose root is read-only can still write to the image's volumes: into memory, over a copy of what is there."""
    if not options.read_only:
        return []
    found = []
    for path in image.volumes:
        place = posixpath.normpath(path).replace("//", "/")
        if not path.startswith("/") or place == "/" or "\0" in path:
            raise Error("invalid", f"{path[:200]!r} is no place for a volume", subject=f"{subject}/config/Volumes")
        found.append(_mount(place, "tmpfs", "tmpfs", "nosuid", "nodev", "tmpcopyup"))
    return found


def present(files: Iterable[str] = NETWORK_FILES) -> tuple[str, ...]:
    """Those of the host's files that are there."""
    return tuple(path for path in files if os.path.isfile(path))
