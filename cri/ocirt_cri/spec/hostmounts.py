"""`mounts` of a request: paths of the host, and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.spec.mappings import check_mappings
from ocirt.spec.mounts import PROC_FILES
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import imagevolumes
from ocirt_cri.spec.inputs import Directory
from ocirt_cri.spec.process import clean
from ocirt_cri.spec.refuse import invalid, one_of, shown, unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt.spec.shape import Finding
    from ocirt_api.cri.api_pb2 import ContainerConfig, IDMapping, Mount
    from ocirt_cri.spec.inputs import Host, Json, Lookups, Settings

RRO = "RROUnsupported"  # the kubelet shows it
MOST = 10000  # mounts of one container
# What mount_options may say: each takes something away.
OPTIONS = ("nodev", "noexec", "nosuid", "nosymfollow", "noatime", "nodiratime", "relatime", "rnodev", "rnoexec", "rnosuid")
_PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}
_LONGEST = 4096


def check(config: ContainerConfig, host: Host) -> None:
    """All that can be said without looking at a path. Raises Error."""
    if len(config.mounts) > MOST:
        raise invalid("config.mounts", f"{len(config.mounts)} mounts", f"{MOST} at most")
    seen: dict[str, int] = {}
    for number, mount in enumerate(config.mounts):
        field = f"config.mounts[{number}]"
        _path(mount.container_path, field + ".container_path", "an absolute path in the container")
        place = clean(mount.container_path)
        if place == "/":
            raise invalid(field + ".container_path", "the container's root cannot be mounted over", "a directory in it")
        if place.startswith("/proc/") and place not in PROC_FILES:
            what = f"{shown(place)} is inside /proc and cannot be mounted over"
            raise invalid(field + ".container_path", what, "another path; of /proc only " + ", ".join(sorted(PROC_FILES)))
        if place in seen:
            what = f"{shown(place)} is mounted by config.mounts[{seen[place]}] already"
            raise invalid(field + ".container_path", what, "each path once")
        seen[place] = number
        for one in mount.mount_options:
            if one not in OPTIONS:
                raise invalid(field + ".mount_options", f"{shown(one)} is no option that a mount may add", one_of(OPTIONS))
        if mount.HasField("image"):
            imagevolumes.check(mount, field)
            continue
        if mount.image_sub_path:
            raise invalid(field + ".image_sub_path", "without an image", "leave it out, or name an image")
        _path(mount.host_path, field + ".host_path", "an absolute path on the host")
        if mount.propagation not in _PROPAGATION:
            raise invalid(field + ".propagation", f"{mount.propagation} is no propagation", one_of(cri.MountPropagation.keys()))
        _recursive(mount, field, host)
        _mappings(mount, field, host)


def entry(mount: Mount, field: str, host: Host, settings: Settings, lookups: Lookups) -> tuple[Json, Directory | None]:
    """The mount of a document for a path of the host, and the directory that has to be made for it. Raises Error."""
    del host
    missing = None
    try:
        source = lookups.resolve(mount.host_path)
    except FileNotFoundError:
        if not settings.make_host_paths:
            raise invalid(field + ".host_path", f"{shown(mount.host_path)} is not there", "make it first") from None
        source = clean(mount.host_path)
        missing = Directory(path=source)
    except OSError as err:
        what = f"{shown(mount.host_path)} cannot be used"
        raise invalid(field + ".host_path", what, cause=err.strerror or str(err)) from None
    if mount.propagation:
        _propagates(mount, source, field, lookups)
    options = ["rbind", _PROPAGATION[mount.propagation]]
    if mount.readonly:
        options.append("rro" if mount.recursive_read_only else "ro")
    options += mount.mount_options
    found: Json = {"destination": clean(mount.container_path), "type": "bind", "source": source, "options": options}
    if mount.uidMappings:
        found["uidMappings"] = _lines(mount.uidMappings)
        found["gidMappings"] = _lines(mount.gidMappings)
    return found, missing


def root_propagation(config: ContainerConfig) -> str:
    """`linux.rootfsPropagation`, which must let through what the mounts want; "" for the runtime's own."""
    kinds = {mount.propagation for mount in config.mounts}
    if cri.PROPAGATION_BIDIRECTIONAL in kinds:
        return "rshared"
    return "rslave" if cri.PROPAGATION_HOST_TO_CONTAINER in kinds else ""


def _path(path: str, field: str, hint: str) -> None:
    if not path:
        raise invalid(field, "is empty", hint)
    if not path.startswith("/"):
        raise invalid(field, f"{shown(path)} is not an absolute path", hint)
    if "\0" in path or len(path) > _LONGEST:
        raise invalid(field, f"{shown(path)} is no path", f"at most {_LONGEST} characters, none of them NUL")


def _recursive(mount: Mount, field: str, host: Host) -> None:
    if not mount.recursive_read_only:
        return
    place = field + ".recursive_read_only"
    if not mount.readonly:
        raise invalid(place, "a mount that can be written to", "readonly: true")
    if mount.propagation != cri.PROPAGATION_PRIVATE:
        what = f"{cri.MountPropagation.Name(mount.propagation)} would bring mounts that can be written to"
        raise invalid(place, what, "PROPAGATION_PRIVATE")
    if not host.recursive_read_only:
        raise unsupported(place, "the kernel cannot make mounts read-only recursively", "Linux 5.12 and later can", reason=RRO)


def _mappings(mount: Mount, field: str, host: Host) -> None:
    if not mount.uidMappings and not mount.gidMappings:
        return
    for name in ("uidMappings", "gidMappings"):
        given = getattr(mount, name)
        if not given:
            raise invalid(f"{field}.{name}", "is missing beside the other mapping", "users and groups both")
        findings: list[Finding] = []
        check_mappings(_lines(given), "", findings)
        for pointer, message, hint, _ in findings:
            where = pointer.removeprefix("/").partition("/")[0]
            raise invalid(f"{field}.{name}" + (f"[{where}]" if where else ""), message, hint)
    if not host.idmapped_mounts:
        raise unsupported(field + ".uidMappings", "the kernel has no mounts with mapped ids", "Linux 5.12 and later has")


def _propagates(mount: Mount, source: str, field: str, lookups: Lookups) -> None:
    try:
        found = lookups.propagation(source)
    except OSError as err:
        raise invalid(field + ".host_path", f"{shown(source)} cannot be used", cause=err.strerror or str(err)) from None
    place = field + ".propagation"
    if mount.propagation == cri.PROPAGATION_BIDIRECTIONAL and found != "shared":
        what = f"path {shown(source)} is on a {found} mount, but it is not a shared mount"
        raise invalid(place, what, f"mount --make-rshared on the mount that {source} is on")
    if found == "private":
        what = f"path {shown(source)} is on a private mount, but it is not a shared or slave mount"
        raise invalid(place, what, f"mount --make-rshared on the mount that {source} is on")


def _lines(mappings: Sequence[IDMapping]) -> list[Json]:
    return [{"containerID": one.container_id, "hostID": one.host_id, "size": one.length} for one in mappings]
