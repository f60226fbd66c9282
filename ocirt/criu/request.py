"""What CRIU is asked for: from config.json and the flags to the options of a dump or a restore. Pure, no I/O.

Mounts from outside have a key each, under which the images name them; a restore says what is to be mounted for the key. What
belongs to the container alone (its tmpfs, proc, sysfs, devpts) CRIU makes anew.
"""

from __future__ import annotations

from ocirt import paths
from ocirt.cgroups.devices import DEFAULTS
from ocirt.criu.rpc import CGROUP_MODES
from ocirt.errors import Error
from ocirt.spec.mountoptions import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cgroups.layout import Layout

DUMP_LOG = "dump.log"
RESTORE_LOG = "restore.log"

_LOG_LEVEL = 4  # all but what is for CRIU's own developers
_CLONE_NEWNET = 0x40000000
_NULL = "/dev/null"
_CONFIGURATION = "/etc/criu/runc.conf"
# CRIU's words for the types of namespaces, which are also the names in /proc/PID/ns.
NAMES = {"ipc": "ipc", "mount": "mnt", "network": "net", "pid": "pid", "time": "time", "user": "user", "uts": "uts"}
# Those that CRIU takes from outside whole, dumped and restored under a key; the others a restore joins by path.
OUTSIDE = ("network", "pid")
_SWITCHES = ("auto-dedup", "ext-unix-sk", "file-locks", "lazy-pages", "shell-job", "tcp-established")
_DUMP_SWITCHES = (*_SWITCHES, "leave-running", "link-remap", "tcp-skip-in-flight")


def dump(
    spec: dict[str, Any],
    flags: dict[str, Any],
    *,
    pid: int,
    root: str,
    external: list[str],
    freezer: str,
    mounts: list[tuple[str, str]],
    masked: list[str],
) -> dict[str, Any]:
    """The options of a dump (of a pre-dump, with that flag) of the tree of `pid`.

    external: namespaces, as `outside` names them. freezer: the directory of the cgroup that is frozen meanwhile, "" for none.
    mounts: what `mounts_from_outside` gives. masked: the masked paths that are files. Directories are added by who has them open.
    """
    options = _common(spec, flags, _DUMP_SWITCHES) | {
        "log_file": DUMP_LOG,
        "pid": pid,
        "root": root,
        "external": external,
        "freeze_cgroup": freezer or None,
    }
    if flags.get("parent-path"):
        options |= {"parent_img": flags["parent-path"], "track_mem": True}
    if flags.get("page-server"):
        address, port = flags["page-server"]
        options["ps"] = {"address": address, "port": port}
    if not flags.get("pre-dump"):
        options["ext_mnt"] = [{"key": place, "val": place} for place, _ in mounts]
        options["ext_mnt"] += [{"key": path, "val": _NULL} for path in masked]
    return options


def restore(
    spec: dict[str, Any],
    flags: dict[str, Any],
    *,
    root: str,
    groups: dict[str, str],
    mounts: list[tuple[str, str]],
    streams: list[str],
    inherited: dict[str, int],
) -> dict[str, Any]:
    """The options of a restore below `root`.

    groups: controller to path of the cgroup in its hierarchy. streams: what descriptors.json says of standard input, output and
    error at the time of the dump. inherited: type of a namespace from outside to its descriptor in CRIU.
    Raises Error for a namespace that cannot be joined.
    """
    options = _common(spec, flags, _SWITCHES) | {
        "log_file": RESTORE_LOG,
        "root": root,
        "evasive_devices": True,
        "rst_sibling": True,
        "cg_root": [{"ctrl": controller, "path": path} for controller, path in groups.items()],
        "lsm_profile": flags.get("lsm-profile") or None,
        "lsm_mount_context": flags.get("lsm-mount-context") or None,
    }
    keyed = [(_key(kind), fd) for kind, fd in inherited.items()]
    keyed += [(said, fd) for fd, said in enumerate(streams) if said.startswith("pipe:")]
    options["inherit_fd"] = [{"key": key, "fd": fd} for key, fd in keyed]
    joined = []
    for index, entry in enumerate(spec["linux"].get("namespaces", ())):
        kind = entry["type"]
        if not entry.get("path") or kind in OUTSIDE:
            continue
        if kind not in NAMES:
            pointer = f"/linux/namespaces/{index}"
            raise Error("unsupported", f"criu cannot restore into a {kind} namespace that is there", subject=pointer)
        joined.append({"ns": NAMES[kind], "ns_file": entry["path"]})
    options["join_ns"] = joined
    options["ext_mnt"] = [{"key": place, "val": source} for place, source in mounts]
    if spec["linux"].get("maskedPaths"):
        options["ext_mnt"].append({"key": _NULL, "val": _NULL})
    return options


def _common(spec: dict[str, Any], flags: dict[str, Any], switches: tuple[str, ...]) -> dict[str, Any]:
    mode = flags.get("manage-cgroups-mode") or ""
    if mode not in CGROUP_MODES:
        raise Error("usage", "invalid manage-cgroups-mode value", hint="soft, full, strict or ignore")
    options: dict[str, Any] = {name.replace("-", "_"): bool(flags.get(name)) for name in switches}
    # Who calls the runtime manages the network's devices; a namespace of the container's own begins empty.
    return options | {
        "log_level": _LOG_LEVEL,
        "notify_scripts": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": CGROUP_MODES[mode],
        "empty_ns": _CLONE_NEWNET,
        "orphan_pts_master": True,
        "config_file": (spec.get("annotations") or {}).get("org.criu.config", _CONFIGURATION) or None,
    }


def outside(kind: str, inode: int) -> str:
    """How a dump is told that a namespace is not the container's own."""
    return f"{NAMES[kind]}[{inode}]:{_key(kind)}"


def _key(kind: str) -> str:
    return f"extRoot{NAMES[kind].capitalize()}NS"


def mounts_from_outside(
    spec: dict[str, Any], bundle: str, layout: Layout, cgroups: dict[str, str], place: Callable[[str], str]
) -> list[tuple[str, str]]:
    """(path in the container, source on the host) of what CRIU must not make: binds, cgroups and devices.

    place: a destination of config.json to the path where it is in the container, links resolved.
    """
    found = []
    own = {entry["type"] for entry in spec["linux"].get("namespaces", ()) if not entry.get("path")}
    for mount in spec.get("mounts", ()):
        kind, target = mount.get("type", ""), paths.clean("/" + mount["destination"])
        if parse(mount.get("options") or [], kind)["bind"]:
            found.append((place(target), paths.join(bundle, mount["source"])))
        elif "cgroup" not in own and kind in ("cgroup", "cgroup2"):
            found += [(place(target) + below, source) for below, source in _cgroup_binds(layout, cgroups)]
    devices = [path for path, *_ in DEFAULTS if path]
    devices += [device["path"] for device in spec["linux"].get("devices", ())]
    # Only where they are bound, in a user namespace; a key without a mount means nothing.
    return found + [(place(path), path) for path in dict.fromkeys(devices)]


def _cgroup_binds(layout: Layout, cgroups: dict[str, str]) -> list[tuple[str, str]]:
    """What `mount.cgroup` binds in a container without a cgroup namespace: (path below the mount, source)."""
    if list(layout.mounts) == [""]:
        return [("", cgroups.get("", layout.mounts[""]))]
    names: dict[str, str] = {}
    for controller, directory in layout.mounts.items():
        names.setdefault(directory, controller)
    found = []
    for directory, controller in names.items():
        source = cgroups.get(controller, directory if controller == "" else "")
        if source:
            found.append(("/" + paths.name(directory), source))
    return found
