"""`mounts` of the document: the kernel's file systems, the pod's files, the image's volumes, and over these the request's.

A mount of the request takes the place of a default one at the same path, and with a /dev of its own all below /dev goes. All are
in the order of their depth, so that none hides another.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import hostmounts, imagevolumes
from ocirt_cri.spec.inputs import Directory
from ocirt_cri.spec.process import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cri.spec.inputs import Container, Host, Json, Lookups, Pod, Settings
    from ocirt_cri.spec.usernamespace import IdMap

_CLOSED = ("nosuid", "noexec", "nodev")
_KERNELS = ("/dev", "/proc", "/sys")
_FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
_TTY = 5  # the group of terminals, everywhere


@dataclass(slots=True)
class Mounts:
    """entries: of the document; directories: to be made before; status: as ContainerStatus shows them; relabel: paths that get
    the label of the container's files (SELinux)
    """

    entries: list[Json] = field(default_factory=list)
    directories: list[Directory] = field(default_factory=list)
    status: list[cri.Mount] = field(default_factory=list)
    relabel: list[str] = field(default_factory=list)


def mounts(
    pod: Pod,
    container: Container,
    host: Host,
    settings: Settings,
    lookups: Lookups,
    ids: IdMap | None,
    more: Iterable[Json] = (),
) -> Mounts:
    """All mounts of a container. `more`: of devices, which take the place of the request's. Raises Error."""
    found = Mounts()
    wanted: dict[str, Json] = {}
    for number, mount in enumerate(container.config.mounts):
        place = f"config.mounts[{number}]"
        status = cri.Mount()
        status.CopyFrom(mount)
        if mount.HasField("image"):
            volume = container.volumes.get(number)
            one = imagevolumes.entry(mount, clean(mount.container_path), volume, place)
            status.image.image_ref = volume.image_ref if volume else ""
        else:
            one, missing = hostmounts.entry(mount, place, host, settings, lookups)
            if missing is not None:
                found.directories.append(missing)
            if mount.selinux_relabel and host.selinux:
                found.relabel.append(one["source"])
        wanted[one["destination"]] = one
        found.status.append(status)
    for one in more:
        wanted[one["destination"]] = one
    for one in _volumes(container, wanted, lookups, ids, found):
        wanted[one["destination"]] = one
    own_dev = "/dev" in wanted
    defaults = [*_kernel(pod, container, host, settings, ids), *_shared_memory(pod, settings), *_network_files(pod, container)]
    kept = [
        one for one in defaults if one["destination"] not in wanted and not (own_dev and one["destination"].startswith("/dev/"))
    ]
    found.entries = sorted([*kept, *wanted.values()], key=_depth)
    return found


def _depth(mount: Json) -> int:
    count: int = mount["destination"].count("/")
    return count


def _mount(destination: str, kind: str, source: str, *words: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(words)}


def _kernel(pod: Pod, container: Container, host: Host, settings: Settings, ids: IdMap | None) -> list[Json]:
    security = container.config.linux.security_context
    privileged = security.privileged
    access = () if privileged else ("ro",)
    terminals = (f"gid={_TTY}",) if ids is None or ids.length > _TTY else ()
    sys = _mount("/sys", "sysfs", "sysfs", *_CLOSED, *access)
    if ids is not None and pod.config.linux.security_context.namespace_options.network == cri.NODE:
        # A sysfs is for who owns the network namespace; the host's is shown instead.
        everything = "rro" if host.recursive_read_only else "ro"
        sys = _mount("/sys", "bind", "/sys", "rbind", "rprivate", *_CLOSED, *(() if privileged else (everything,)))
    writable = privileged or settings.cgroup_writable
    return [
        _mount("/proc", "proc", "proc", *_CLOSED),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *terminals),
        _mount("/dev/mqueue", "mqueue", "mqueue", *_CLOSED),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *_CLOSED, "relatime", *(() if writable else ("ro",))),
    ]


def _shared_memory(pod: Pod, settings: Settings) -> list[Json]:
    if pod.config.linux.security_context.namespace_options.ipc == cri.NODE:
        source = "/dev/shm"
    elif pod.shm:
        source = pod.shm
    else:
        return [_mount("/dev/shm", "tmpfs", "shm", *_CLOSED, "mode=1777", f"size={settings.shm_size}")]
    return [_mount("/dev/shm", "bind", source, "rbind", "rprivate", *_CLOSED)]


def _network_files(pod: Pod, container: Container) -> list[Json]:
    """What the pod says of its network: writable, as it always was, unless the container's root is read-only."""
    access = ("ro",) if container.config.linux.security_context.readonly_rootfs else ()
    sources = (pod.hosts, pod.resolv_conf, pod.hostname_file)
    return [
        _mount(place, "bind", source, "rbind", "rprivate", *access)
        for place, source in zip(_FILES, sources, strict=True)
        if source
    ]


def _is_taken(place: str, mounted: Iterable[str]) -> bool:
    """Whether a path is one of these, or below one."""
    return any(place == one or place.startswith(one + "/") for one in mounted)


def _volumes(container: Container, wanted: dict[str, Json], lookups: Lookups, ids: IdMap | None, found: Mounts) -> list[Json]:
    """The image's VOLUMEs, but for those on or below which the request mounts something, or the kernel's file systems are.

    (Images for systemd have one at /sys/fs/cgroup.) One that the image has stays where it is, in the container's writable layer;
    with a read-only root it becomes a copy in memory. One that the image has not is an empty directory of the host's.
    """
    read_only = container.config.linux.security_context.readonly_rootfs
    entries = []
    for number, path in enumerate(container.image.volumes):
        place = clean(path)
        if not path.startswith("/") or place == "/" or "\0" in path or _is_taken(place, (*_KERNELS, *_FILES, *wanted)):
            continue
        if lookups.in_image(place):
            if read_only:
                entries.append(_mount(place, "tmpfs", "tmpfs", "nosuid", "nodev", "tmpcopyup"))
            continue
        source = posixpath.join(container.directory, "volumes", str(number))
        owner = (0, 0) if ids is None else (ids.uid, ids.gid)
        found.directories.append(Directory(path=source, uid=owner[0], gid=owner[1]))
        entries.append(_mount(place, "bind", source, "rbind", "rprivate"))
    return entries
