"""Groups of the resctrl file system: parts of caches and of memory bandwidth (the kernel's filesystems/resctrl.rst, "Intel RDT").

A container is in one group (a class of service), named after itself or by `closID`, and may have a group for monitoring below it.
Loaded only for containers with `linux.intelRdt` (config-linux.md, "IntelRdt").

The section that a container's record keeps: `root` (the mount point), `group` and `monitor` (directories; "" for none), `created`
(those of them that this container was to make), `shared` (whether somebody chose the group's name: then it outlives the
container), and `schemata` (those of config.json, by property).
"""

from __future__ import annotations

import posix
from errno import EACCES, EEXIST

from ocirt.cgroups.files import gone, read, write
from ocirt.errors import Error
from ocirt.kernel.process import fstatfs_type
from ocirt.paths import encode, exists, parent, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Section = dict[str, Any]

POINTER = "/linux/intelRdt"
MOUNT_POINT = "/sys/fs/resctrl"
SCHEMATA = ("l3CacheSchema", "memBwSchema")  # the properties with one line, in the order in which they are written
_MAGIC = 0x7655821  # linux/magic.h, RDTGROUP_SUPER_MAGIC


class Resctrl:
    """What a plan has to know of the host: `root`, where resctrl is mounted, and `resources`, the names in its `info`."""

    __slots__ = ("resources", "root")

    def __init__(self, root: str, resources: frozenset[str]) -> None:
        self.root = root
        self.resources = resources


def find(usual: str = MOUNT_POINT, proc: str = "/proc") -> Resctrl | None:
    """The host's resctrl file system, if it is mounted. `usual` and `proc` are parameters for tests. Raises OSError."""
    try:
        fd = posix.open(usual, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return None  # the kernel makes this directory on every machine that can do it
    try:
        root = usual if fstatfs_type(fd) == _MAGIC else _mounted_elsewhere(read_text(proc + "/self/mountinfo", 1 << 26))
    finally:
        posix.close(fd)
    return Resctrl(root, frozenset(posix.listdir(root + "/info"))) if root else None


def _mounted_elsewhere(mountinfo: str) -> str:
    for line in mountinfo.split("\n"):
        head, _, tail = line.partition(" - ")
        if tail.startswith("resctrl "):
            place = head.split(" ")[4]
            for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                place = place.replace(code, character)
            return place
    return ""


def places(root: str, rdt: dict[str, Any], container_id: str) -> tuple[str, str]:
    """The directories of a container's group and of its monitoring group ("" for none)."""
    name = rdt.get("closID") or container_id
    group = root if name == "/" else f"{root}/{name}"
    return group, f"{group}/mon_groups/{container_id}" if rdt.get("enableMonitoring") else ""


def text_of(schemata: dict[str, Any]) -> str:
    """What goes into the file `schemata`, in the order that the specification wants; "" for nothing."""
    lines = [schemata.get(name) or "" for name in SCHEMATA] + list(schemata.get("schemata") or ())
    return "".join(line + "\n" for line in lines if line)


def section(root: str, rdt: dict[str, Any], container_id: str) -> Section:
    """What the record keeps of a container that is to be made."""
    group, monitor = places(root, rdt, container_id)
    return {
        "root": root,
        "group": group,
        "monitor": monitor,
        "created": [path for path in (group, monitor) if path and not exists(path)],
        "shared": bool(rdt.get("closID")),
        "schemata": {name: rdt[name] for name in (*SCHEMATA, "schemata") if rdt.get(name)},
    }


def make(root: str, group: str, monitor: str, text: str, *, shared: bool) -> None:
    """Make the groups that are missing, and give the group its schemata. Raises Error.

    A group with a name that somebody chose must be there if it gets no schemata, and must have these if it is there.
    """
    if shared and not text and not exists(group):
        raise _missing(group)
    made = _make_directory(root, group)
    if text:
        if shared and not made:
            _compare(root, group, text)
        else:
            _set(root, group, text)
    if monitor:
        _make_directory(root, monitor)


def check(root: str, group: str, monitor: str, text: str, *, shared: bool) -> None:
    """See what `make` would refuse, without making anything. Raises Error. What only the kernel knows of is not found.

    Those are schemata that this processor cannot have, and how many groups there can be.
    """
    there = exists(group)
    if shared and not text and not there:
        raise _missing(group)
    if shared and text and there:
        _compare(root, group, text)
    lacking = [path for path in (group, monitor) if path and not exists(path)]
    if lacking and not posix.access(root if lacking[0] == group else parent(monitor), posix.W_OK, effective_ids=True):
        raise _explained(root, "make group", lacking[0], PermissionError(EACCES, ""))


def _missing(group: str) -> Error:
    message = "clos dir not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty)"
    return Error("not-found", message, subject=POINTER + "/closID", cause=group, hint="make the group, or give its schemata")


def _make_directory(root: str, path: str) -> bool:
    try:
        posix.mkdir(path, 0o755)
    except OSError as err:
        if err.errno == EEXIST:
            return False
        raise _explained(root, "make group", path, err) from None
    return True


def _set(root: str, group: str, text: str) -> None:
    """Write schemata, all lines at once: the kernel takes all of them or none."""
    path = group + "/schemata"
    try:
        write(path, encode(text))
    except OSError as err:
        raise _explained(root, f"unable to write {text!r} to", path, err) from None


def _explained(root: str, what: str, path: str, err: OSError) -> Error:
    cause = ": ".join(part for part in (_last_status(root), posix.strerror(err.errno or 0).lower()) if part)
    return Error("kernel", f"{what} {path}", subject=POINTER, cause=cause)


def _last_status(root: str) -> str:
    """What the kernel said of the last failure; it says more than the errno does."""
    try:
        said = read(root + "/info/last_cmd_status").strip()
    except OSError:
        return ""
    return "" if said == "ok" else said


def _compare(root: str, group: str, text: str) -> None:
    """Raises Error unless the group has these schemata already: others may be in it."""
    try:
        have = parse(read(group + "/schemata"))
    except OSError as err:
        raise _explained(root, "read", group + "/schemata", err) from None
    for (resource, domain), value in parse(text).items():
        there = have.get((resource, domain))
        if there is None or not _same(root, resource, value, there):
            is_what = f"{resource}:{domain}={there}" if there is not None else "without it"
            message = f"{resource}:{domain}={value} does not match the group, which is {is_what}"
            raise Error(
                "state", message, subject=POINTER + "/closID", cause=group, hint="another closID, or the group's schemata"
            )


def parse(text: str) -> dict[tuple[str, str], str]:
    """The values in `schemata`, by resource and domain: `L3:0=ff;1=f0` has two."""
    found = {}
    for line in text.split("\n"):
        resource, colon, values = line.partition(":")
        for each in values.split(";") if colon else ():
            domain, _, value = each.partition("=")
            found[resource.strip(), domain.strip()] = value.strip()
    return found


def _same(root: str, resource: str, wanted: str, there: str) -> bool:
    if resource not in ("MB", "SMBA"):
        return wanted == there or (_number(wanted, 16) == _number(there, 16) != -1)
    want, have = _number(wanted, 10), _number(there, 10)
    if want < 0 or want == have:
        return want == have and want >= 0
    try:
        step = _number(read(f"{root}/info/{resource}/bandwidth_gran").strip(), 10)
    except OSError:
        return False
    return step > 0 and have == -(-want // step) * step  # the kernel rounds up to a step that the hardware has


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        return -1


def join(root: str, group: str, monitor: str, pid: int) -> None:
    """Put a process into the groups; what it forks comes along. Raises OSError with what the kernel said as its file name."""
    for directory in (group, monitor):
        if directory:
            path = directory + "/tasks"
            try:
                write(path, b"%d" % pid)
            except OSError as err:
                said = _last_status(root)
                err.filename = f"{path}: {said}" if said else path
                raise


def remove(kept: Section, *, failed: bool) -> None:
    """Remove what a container has made, as far as it is there; `failed`: it did not come to be. Raises OSError.

    A group whose name somebody chose stays, unless the container that made it never was.
    """
    group, monitor = kept["group"], kept["monitor"]
    wanted = [monitor] if monitor and (monitor in kept["created"] or not failed) else []
    if group in kept["created"] and (failed or not kept["shared"]):
        wanted.append(group)
    for path in wanted:
        try:
            posix.rmdir(path)
        except OSError as err:
            if not gone(err):
                raise


def check_update(kept: Section | None, cache: str, bandwidth: str, host: Resctrl | None = None) -> None:
    """Whether `update --l3-cache-schema` and `--mem-bw-schema` ("" for not given) can be done; `host` is for tests.

    `kept` is the record's section, None if the container has none. Raises Error in runc's words.
    """
    host = host or find()
    resources = host.resources if host else frozenset()
    if cache and "L3" not in resources:
        raise Error("unsupported", "Intel RDT/CAT: l3 cache schema is not enabled")
    if bandwidth and "MB" not in resources:
        raise Error("unsupported", "Intel RDT/MBA: memory bandwidth schema is not enabled")
    if (cache or bandwidth) and kept is None:
        raise Error("unsupported", "updating a non-existent Intel RDT configuration is not supported")


def after_update(kept: Section, cache: str, bandwidth: str) -> Section:
    """The section with other schemata ("" for one that stays)."""
    given = {name: value for name, value in zip(SCHEMATA, (cache, bandwidth)) if value}  # noqa: B905  (as long as each other)
    return kept | {"schemata": kept["schemata"] | given}


def set_schemata(kept: Section) -> str:
    """Write the section's schemata into its group, and return what `put_back` takes to undo that. Raises Error."""
    try:
        before = read(kept["group"] + "/schemata")
    except OSError as err:
        raise _explained(kept["root"], "read", kept["group"] + "/schemata", err) from None
    _set(kept["root"], kept["group"], text_of(kept["schemata"]))
    return before


def put_back(kept: Section, before: str) -> None:
    """Write the schemata that `set_schemata` found. Raises Error."""
    _set(kept["root"], kept["group"], before)
