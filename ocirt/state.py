"""What a container's directory under the state root holds, and what state the container is in.

`<root>/<id>/state.json` is written anew and renamed, so that a reader sees one version or the other. It says what was done last;
the truth (running, stopped) is looked up each time, since containers end without asking us. Everything in the directory is ours.
"""

from __future__ import annotations

import posix
import time

from ocirt import jsonlite
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Record = dict[str, Any]

VERSION = 1
_READS = (1,)  # what a field of a later version adds is optional, as a record of an older one lacks it
_FILE = "state.json"
_SECCOMP = "seccomp.json"
_LIMIT = 64 << 20  # bytes; config.json may have 32 MiB
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
# What every record has, and its type. pid and start_time are 0 until there is an init process.
_FIELDS: tuple[tuple[str, type], ...] = (
    ("id", str),
    ("status", str),
    ("creator", dict),
    ("pid", int),
    ("start_time", int),
    ("boot_id", str),
    ("bundle", str),
    ("rootfs", str),
    ("created", str),
    ("annotations", dict),
    ("cgroup", dict),
    ("namespaces", dict),
)
_STATUSES = ("creating", "created")
_MOST_PID = 1 << 31  # pid_t
# What stands in those fields, and in others: a type, [of each], {... : of each} or {name: of it, if it is there;
# None: those that must be there}.
_NAMES = {...: str}
_SHAPE: dict[str, Any] = {
    "creator": {"pid": int, "start_time": int},
    "anchor": {None: ("path", "namespace"), "path": str, "namespace": str},
    "annotations": _NAMES,
    "cgroup": {"mode": str, "paths": _NAMES, "created": [str]},
    "namespaces": _NAMES,
    "hooks": {...: [{None: ("path",), "path": str, "args": [str], "env": [str], "timeout": int}]},
    "process": {"args": [str]},
    "resources": dict,
    "spec_version": str,
}


def default_root(environ: Mapping[bytes, bytes] | None = None) -> str:
    """The state root when --root is not given; `environ` is the environment that counts, else what we were started with.

    It is below XDG_RUNTIME_DIR for a user, and for root of a user namespace unless USER is root (runc's rule: sudo in there).
    """
    if environ is None:
        environ = posix.environ
    runtime = environ.get(b"XDG_RUNTIME_DIR", b"")
    if runtime and (posix.geteuid() != 0 or (environ.get(b"USER") != b"root" and in_user_namespace())):
        return runtime.decode("utf-8", "surrogateescape").rstrip("/") + "/ocirt/runtime"
    return "/run/ocirt/runtime"


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace that is not the first (user_namespaces(7))."""
    try:
        return _read("/proc/self/uid_map", 256).split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def validate_id(container_id: str) -> None:
    """Raise Error("invalid") unless the name can be a container's: letters, digits and `_+-.`, but not `.` or `..`."""
    if not _is_id(container_id):
        raise Error("invalid", "invalid container ID format", hint="letters, digits, '_', '+', '-' and '.' make an ID")


def _is_id(name: str) -> bool:
    return bool(name) and _ID_CHARACTERS.issuperset(name) and name not in (".", "..")


def directory(root: str, container_id: str) -> str:
    """The container's directory, which need not exist. Raises Error("invalid") for a bad id."""
    validate_id(container_id)
    return f"{root}/{container_id}"


def reserve(root: str, container_id: str) -> str:
    """Make the container's directory (0700), and the root where it is missing, and return it.

    Raises Error("exists") if the name is taken, Error("invalid") for a bad id, OSError.
    """
    where = directory(root, container_id)
    try:
        try:
            posix.mkdir(where, 0o700)
        except FileNotFoundError:
            _make_root(root)
            posix.mkdir(where, 0o700)
    except FileExistsError:
        raise Error("exists", "container with given ID already exists") from None
    return where


def _make_root(root: str) -> None:
    from ocirt import paths  # noqa: PLC0415

    paths.make_directories(root, 0o700)
    if root == default_root() and root != "/run/ocirt/runtime":
        posix.chmod(root, 0o1700)  # sticky, or what cleans up XDG_RUNTIME_DIR may take it (XDG base directory specification)


def identifiers(root: str) -> list[str]:
    """The names of the containers below `root`, sorted. Raises OSError."""
    return sorted(name for name in posix.listdir(root) if _is_id(name))


def load(root: str, container_id: str) -> Record:
    """The container's record, with its directory as "directory".

    Raises Error("not-found") if there is none, Error("invalid") for a bad id, Error("state") for a file that cannot be used.
    """
    where = directory(root, container_id)
    path = f"{where}/{_FILE}"
    try:
        data = _read(path, _LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        raise Error("not-found", "container does not exist") from None
    try:
        record = jsonlite.loads(data, path)
    except Error as err:
        err.code = "state"
        raise
    if not isinstance(record, dict):
        raise Error("state", "not a container's state", subject=path)
    version = record.get("version")
    if version not in _READS:
        newer = type(version) is int and version > VERSION
        hint = "a newer ocirt made this container: use that one, or `delete --force`" if newer else ""
        raise Error("state", f"version {version} of a container's state, but this ocirt reads {VERSION}", subject=path, hint=hint)
    for key, kind in _FIELDS:
        if type(record.get(key)) is not kind:
            raise Error("state", f"{key}: a value of type {kind.__name__} is expected", subject=path)
    if type(record["cgroup"].get("paths")) is not dict:
        raise Error("state", "cgroup.paths: a value of type dict is expected", subject=path)
    for key in record:
        if not _is_sound(key, record[key]):
            raise Error("state", f"{key}: not what an ocirt writes", subject=path, hint="`delete --force` removes the container")
    record.setdefault("hooks", {})
    record["directory"] = where
    return record


def _is_sound(key: str, value: Any) -> bool:
    """Whether the field can be used: what is in it has its types, and nothing that a system call cannot take."""
    if key == "pid":
        return bool(0 <= value < _MOST_PID)
    if key == "status":
        return value in _STATUSES
    if key == "late":
        return _fits(value, {...: list}) and all([_is_late(entry) for entry in value.values()])  # noqa: C419
    if key == "creator" and not _fits(value.get("pid"), int):
        return not value  # of a record of which nothing is known
    shape = _SHAPE.get(key)
    if shape is None:
        return value.__class__ is not str or "\0" not in value
    return _fits(value, shape) and (key != "process" or bool(value.get("args")))


def _is_late(entry: list[Any]) -> bool:
    """Whether a step is an operation, its words, and a pointer."""
    return len(entry) == 3 and _fits([entry[0], entry[2]], [str]) and _fits(entry[1], [str])


def _fits(value: Any, shape: Any) -> bool:
    kind = shape.__class__
    if kind is type:
        if shape is int:
            return value.__class__ is int and -1 < value < 1 << 63
        return value.__class__ is shape and (shape is not str or "\0" not in value)
    if value.__class__ is not kind:
        return False
    if kind is list:
        return all([_fits(item, shape[0]) for item in value])  # noqa: C419  (a generator costs more than it saves)
    if ... in shape:
        return all([_fits(item, shape[...]) for item in value.values()])  # noqa: C419
    for name in shape.get(None, ()):
        if name not in value:
            return False
    return all([_fits(value[name], inner) for name, inner in shape.items() if name in value])  # noqa: C419


def salvage(root: str, container_id: str) -> Record:
    """What can be used of a record that `load` refuses, for `delete --force`: the rest is as of a container that has nothing.

    Raises Error("not-found") if there is not even a directory, Error("invalid") for a bad id.
    """
    where = directory(root, container_id)
    found: Any = None
    try:
        found = jsonlite.loads(_read(f"{where}/{_FILE}", _LIMIT), _FILE)
    except (Error, OSError, RecursionError):
        if not posix.access(where, posix.F_OK):
            raise Error("not-found", "container does not exist") from None
    record: Record = {
        "id": container_id,
        "status": "creating",
        "creator": {},
        "pid": 0,
        "start_time": 0,
        "boot_id": "",
        "bundle": "",
        "rootfs": "",
        "created": "",
        # Wherever it is, it is found by its name, which is that of the directory.
        "anchor": {"path": "", "namespace": ""},
        "annotations": {},
        "cgroup": {"mode": "none", "paths": {}, "created": []},
        "namespaces": {},
        "hooks": {},
    }
    if isinstance(found, dict):
        for key, empty in record.items():
            value = found.get(key)
            if key not in ("id", "status") and type(value) is type(empty) and _is_sound(key, value):
                record[key] = value
    cgroup = record["cgroup"] = {"mode": "none", "paths": {}, "created": []} | record["cgroup"]
    # What is damaged may name any directory, and all that is in it would be killed and removed.
    cgroup["paths"] = {name: path for name, path in cgroup["paths"].items() if is_cgroup(path)}
    cgroup["created"] = [path for path in cgroup["created"] if is_cgroup(path)]
    record["directory"] = where
    return record


def is_cgroup(path: str) -> bool:
    """Whether a directory is a cgroup, and not the root of a hierarchy: that has no cgroup.events, or a release_agent."""
    if not path.startswith("/") or "/../" in path + "/":
        return False
    procs, events, agent, notify = [
        posix.access(f"{path}/{name}", posix.F_OK)
        for name in ("cgroup.procs", "cgroup.events", "release_agent", "notify_on_release")
    ]
    return procs and not agent and (events or notify)


def save(where: str, record: Record) -> None:
    """Write the record (all but its "directory") so that no reader ever sees half of it. Raises OSError."""
    write(where, record)
    publish(where)


def write(where: str, record: Record) -> None:
    """Write the record beside the one that is read, which `publish` replaces by it. Raises OSError."""
    kept = {"version": VERSION} | {key: value for key, value in record.items() if key != "directory"}
    write_file(f"{where}/.{_FILE}", jsonlite.dumps(kept).encode())


def write_file(path: str, data: bytes) -> None:
    """Write all of `data` to a file of ours (0600). Raises OSError."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(path, flags, 0o600)
    try:
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)


def keep_seccomp(where: str, section: Record) -> None:
    """Keep config.json's seccomp section, which may be ten times the rest. Raises OSError."""
    write_file(f"{where}/{_SECCOMP}", jsonlite.dumps(section).encode())


def load_seccomp(record: Record) -> Record | None:
    """The section that `keep_seccomp` kept; None if the container has no filter. Raises Error, OSError: never without it."""
    if not record.get("seccomp"):
        return None
    path = f"{record['directory']}/{_SECCOMP}"
    section: Record = jsonlite.loads(_read(path, _LIMIT), path)
    return section


def publish(where: str) -> None:
    """Make what `write` has written the record. Raises OSError."""
    posix.rename(f"{where}/.{_FILE}", f"{where}/{_FILE}")


def remove(where: str) -> None:
    """Remove the container's directory and what is in it; it may be gone. Raises OSError.

    state.json goes last: as long as something is left, the container can be found and deleted again.
    """
    try:
        names = posix.listdir(where)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names, key=lambda name: name == _FILE):
        try:
            posix.unlink(f"{where}/{name}")
        except IsADirectoryError:
            remove(f"{where}/{name}")
        except FileNotFoundError:
            pass
    try:
        posix.rmdir(where)
    except FileNotFoundError:
        pass


def lock(where: str) -> int:
    """Wait until no other command works on this container; closing the returned descriptor lets the next one go on.

    The lock is on the directory itself. Load the record after taking it: it may be another one, or gone, by then. Raises
    Error("not-found") if the directory is gone, OSError.
    """
    import fcntl  # noqa: PLC0415

    try:
        fd = posix.open(where, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Error("not-found", "container does not exist") from None
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def status(record: Record) -> str:
    """What the container is now: creating, created, running, paused or stopped."""
    if record["status"] == "creating":
        creator = record["creator"]
        return "creating" if _alive(record, creator.get("pid"), creator.get("start_time")) else "stopped"
    if not init_alive(record):
        return "stopped"
    if paused(record):
        return "paused"
    return "created" if phase(record) == 0 else "running"


def init_alive(record: Record) -> bool:
    """Whether the process that the record calls init still runs: the same process, not a zombie, since the same boot."""
    return _alive(record, record["pid"], record["start_time"])


def _alive(record: Record, pid: int | None, start_time: int | None) -> bool:
    # Without a pid and a start time there was no process; None == None must not make one.
    return bool(pid and start_time) and process_start_time(pid or 0) == start_time and boot_id() == record["boot_id"]


def paused(record: Record) -> bool:
    """Whether the container's cgroup is frozen, or about to be."""
    cgroup = record["cgroup"]
    # One look at one file answers for nearly every container, and the module of all that can be done to a cgroup stays unloaded.
    paths = cgroup["paths"]
    if "freezer" in paths:
        file, thawed = paths["freezer"] + "/freezer.state", b"THAWED\n"
    elif "" in paths:
        file, thawed = paths[""] + "/cgroup.freeze", b"0\n"
    else:
        return False
    try:
        if _read(file, 64) == thawed:
            return False
    except OSError:
        return False  # the cgroup is gone, or not ours to look at
    from ocirt.cgroups import control  # noqa: PLC0415

    return bool(control.frozen(cgroup))


def phase(record: Record) -> int:
    """What init has told: 0 waits for `start`, 1 was started, below 0 the negative errno of a start that failed.

    Without the file, or with less than four bytes in it, it counts as started: nothing waits that could be told to.
    """
    try:
        data = _read(record["directory"] + "/phase", 4)
    except OSError:
        return 1
    return int.from_bytes(data, "little", signed=True) if len(data) == 4 else 1


def process_start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); None if gone or a zombie."""
    try:
        data = _read(f"/proc/{pid}/stat", 1024)
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold anything; the third follows the last ")".
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def boot_id() -> str:
    """The kernel's name for this boot: pids and start times of another one mean nothing."""
    return _read("/proc/sys/kernel/random/boot_id", 64).decode("ascii").strip()


def timestamp(nanoseconds: int) -> str:
    """A time since the epoch as Go's RFC3339Nano in UTC: fractions without trailing zeros."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"


def public(record: Record, owner: str = "") -> Record:
    """The record as `state` and `list` show it, in runc's order of fields."""
    now = status(record)
    shown: Record = {
        "ociVersion": record.get("spec_version", ""),
        "id": record["id"],
        "pid": 0 if now == "stopped" else record["pid"],
        "status": now,
        "bundle": record["bundle"],
        "rootfs": record["rootfs"],
        "created": record["created"],
    }
    if record["annotations"]:
        shown["annotations"] = record["annotations"]
    shown["owner"] = owner
    return shown


def _read(path: str, limit: int) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = posix.read(fd, min(limit, 1 << 16))
        while len(data) < limit and (more := posix.read(fd, min(limit - len(data), 1 << 20))):
            data += more
        return data
    finally:
        posix.close(fd)
