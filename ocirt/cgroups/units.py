"""Asking systemd for units: the system's or a user's, over its own socket or a bus (org.freedesktop.systemd1(5)).

Each function makes one short connection. All raise Error, in words that name the unit.
"""

from __future__ import annotations

import posix

from ocirt.cgroups import systemd
from ocirt.cgroups.dbus import BUS, Connection, RemoteError, addresses
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeVar

    from ocirt.cgroups.limits import Entry
    from ocirt.cgroups.systemd import Property

    T = TypeVar("T")

SECONDS = 30.0  # for a call, and for a job of systemd
OLDEST = 244  # the first to know AllowedCPUs, and all else that is asked for
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = _NAME + ".Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_PRIVATE = "/run/systemd/private"
_JOB_REMOVED = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'"


class Manager:
    """A systemd: its `version`, its own `control_group` ("/…", or "" for the root), and whether it is a `user`'s."""

    __slots__ = ("control_group", "user", "version")

    def __init__(self, version: int, control_group: str, *, user: bool) -> None:
        self.version = version
        self.control_group = control_group
        self.user = user


def is_for_users() -> bool:
    """Whether our systemd is the one of a user: for who is not root, and for root of a namespace that the system's is not in."""
    if posix.geteuid() != 0:
        return True
    try:
        return posix.stat(_PRIVATE).st_uid != 0
    except OSError:
        return False


def look(mode: str, *, user: bool) -> Manager:
    """Find systemd, before anything is made; `mode` is that of the cgroup layout. Raises Error when there is none to use."""
    try:
        posix.listdir("/run/systemd/system")  # sd_booted(3)
    except PermissionError:
        pass
    except OSError:
        hint = "leave --systemd-cgroup out: cgroupfs"
        raise Error("unsupported", "systemd not running on this host, cannot use systemd cgroups manager", hint=hint) from None
    if user and mode != "v2":
        hint = "leave --systemd-cgroup out, or boot with systemd.unified_cgroup_hierarchy=1"
        raise Error("unsupported", "cannot use rootless systemd cgroups manager on cgroup v1", hint=hint)

    def ask(connection: Connection) -> Manager:
        found = []
        for name in ("Version", "ControlGroup"):
            arguments = (_MANAGER, name)
            (answer,) = connection.call(_NAME, _PATH, _PROPERTIES, "Get", "ss", arguments)
            found.append(str(answer[1]))
        return Manager(version_of(found[0]), found[1].rstrip("/"), user=user)

    manager = _with(ask, "ask systemd for its version", user=user)
    if manager.version < OLDEST:
        raise Error(
            "unsupported", f"systemd {manager.version} is too old", hint=f"{OLDEST} or newer, or leave --systemd-cgroup out"
        )
    return manager


def version_of(text: str) -> int:
    """The number in systemd's version, such as `252.38-1~deb12u1` or `v256~rc1`; 0 if there is none."""
    digits = ""
    for letter in text.lstrip('"v'):
        if not ("0" <= letter <= "9"):
            break
        digits += letter
    return int(digits or "0")


def start(unit: str, pid: int, properties: Iterable[Property], *, user: bool) -> bool:
    """Have systemd make the scope `unit` with process `pid` (as systemd sees it) in it, and wait until it has.

    False if there is a unit of that name, which is somebody else's. What a failed one has left is taken away first.
    """
    wanted = [(name, (signature, value)) for name, signature, value in properties]
    wanted.append(("PIDs", ("au", [pid])))

    def begin(connection: Connection) -> bool:
        _listen(connection)
        for attempt in (0, 1):
            try:
                job = _call(connection, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", wanted, [])
                break
            except RemoteError as error:
                if error.name != _NAME + ".UnitExists":
                    raise
                if attempt:
                    return False
                _reset_failed(connection, unit)
        result = _result(connection, job)
        if result != "done":
            _reset_failed(connection, unit)
            raise Error("kernel", f"error creating systemd unit `{unit}`: got `{result}`", hint=f"see journalctl -u {unit}")
        return True

    return _with(begin, f"unable to start unit {unit}", user=user)


def taken(unit: str) -> Error:
    """What to say of a name that is not free."""
    hint = "another container has it, or one that was not deleted"
    return Error("state", f"unit {unit} exists already", subject=systemd.POINTER, hint=hint)


def exists(unit: str, *, user: bool) -> bool:
    """Whether `start` would find a unit of that name; one that has failed is none."""

    def ask(connection: Connection) -> bool:
        try:
            path = _call(connection, "GetUnit", "s", unit)
        except RemoteError as error:
            if error.name != _NAME + ".NoSuchUnit":
                raise
            return False
        arguments = (_NAME + ".Unit", "ActiveState")
        (answer,) = connection.call(_NAME, path, _PROPERTIES, "Get", "ss", arguments)
        return answer[1] not in ("failed", "inactive")

    return _with(ask, f"unable to look for unit {unit}", user=user)


def stop(unit: str, *, user: bool) -> None:
    """Have systemd stop `unit` and forget it; one that it does not know is gone already."""

    def end(connection: Connection) -> None:
        _listen(connection)
        try:
            _result(connection, _call(connection, "StopUnit", "ss", unit, "replace"))
        except RemoteError as error:
            if error.name != _NAME + ".NoSuchUnit":
                raise
            return
        _reset_failed(connection, unit)

    _with(end, f"unable to stop unit {unit}", user=user)


def remove(cgroup: dict[str, Any]) -> None:
    """Stop the unit of a container's `cgroup`, whose processes get SIGKILL first: the first of a pid namespace minds no SIGTERM.

    A systemd that cannot be asked any more (its user has logged out) forgets a scope by itself, once it is empty.
    """
    from ocirt.cgroups import control  # noqa: PLC0415

    control.kill(cgroup, control.SIGKILL)
    try:
        stop(cgroup["unit"], user=cgroup["user"])
    except Error:
        if control.processes(cgroup):
            raise


def set_properties(unit: str, properties: Iterable[Property], *, user: bool) -> None:
    """Change properties of a unit, until it stops."""
    wanted = [(name, (signature, value)) for name, signature, value in properties]
    _with(
        lambda connection: _call(connection, "SetUnitProperties", "sba(sv)", unit, True, wanted),
        f"unable to set unit properties of {unit}",
        user=user,
    )


def attach(unit: str, sub: str, pid: int, *, user: bool) -> None:
    """Have systemd move a process into the unit's cgroup, or the one `sub` ("/…") below it: it may do what its user may not."""
    _with(
        lambda connection: _call(connection, "AttachProcessesToUnit", "ssau", unit, sub, [pid]),
        f"unable to add a process to unit {unit}",
        user=user,
    )


def change(record: dict[str, Any], merged: dict[str, Any], entries: Sequence[Entry]) -> None:
    """Change the limits of a container in a unit, all or nothing as far as that can be.

    `merged` are all resources that it is to have (pointers of errors lead into them), `entries` the writes for what changes.
    systemd is told first, as it writes what it knows over what stands in the files. Raises Error.
    """
    from ocirt.cgroups import limits  # noqa: PLC0415
    from ocirt.cgroups.change import change as write  # noqa: PLC0415

    cgroup = record["cgroup"]
    mode = cgroup["mode"]
    version = look(mode, user=cgroup["user"]).version
    # The quota that systemd will set stands in these.
    values = {entry[:2]: entry[2] for entry in limits.writes(systemd.rounded(merged), mode, "") if entry[0] == "cpu"}
    entries = [(*entry[:2], values.get(entry[:2], entry[2]), *entry[3:]) for entry in entries]
    try:
        now, later = systemd.resources(merged, mode, version)
    except Error as error:
        error.subject = error.subject.removeprefix(limits.POINTER)
        raise
    _tell(cgroup, now + later)
    try:
        write(cgroup["paths"], entries)
    except Error:
        now, later = systemd.resources(record.get("resources") or {}, mode, version)
        _tell(cgroup, now + later)
        raise


def _tell(cgroup: dict[str, Any], properties: list[Property]) -> None:
    """Change properties of a container's unit while it runs."""
    from ocirt.cgroups import control  # noqa: PLC0415

    if not properties:
        return
    # In version 1 systemd writes all device rules anew each time, and denies everything first.
    freeze = cgroup["mode"] != "v2" and "freezer" in cgroup["paths"] and not control.frozen(cgroup)
    if freeze:
        control.freeze(cgroup)
    try:
        set_properties(cgroup["unit"], properties, user=cgroup["user"])
    finally:
        if freeze:
            control.thaw(cgroup)


# -- one connection ------------------------------------------------------------------------------------------------------------


def sockets(*, user: bool) -> list[tuple[str | bytes, bool]]:
    """(socket, whether a bus is behind it) in the order in which they are tried. Raises Error when there is none."""
    environment = {
        name: posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")
        for name in ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR")
    }
    found: list[tuple[str | bytes, bool]] = []
    if not user:
        if environment["DBUS_SYSTEM_BUS_ADDRESS"]:
            found += [(each, True) for each in addresses(environment["DBUS_SYSTEM_BUS_ADDRESS"])]
        return [*found, (_PRIVATE, False), ("/run/dbus/system_bus_socket", True)]
    # systemd's own socket first: the session's bus may be one that knows of no systemd (dbus-run-session).
    runtime = environment["XDG_RUNTIME_DIR"].rstrip("/")
    if runtime:
        found.append((runtime + "/systemd/private", False))
    if environment["DBUS_SESSION_BUS_ADDRESS"]:
        found += [(each, True) for each in addresses(environment["DBUS_SESSION_BUS_ADDRESS"])]
    if runtime:
        found.append((runtime + "/bus", True))
    if not found:
        message = "could not detect DBUS_SESSION_BUS_ADDRESS from the environment"
        raise Error("unsupported", message, hint="set XDG_RUNTIME_DIR: systemd of a user is found there")
    return found


def _with(action: Callable[[Connection], T], what: str, *, user: bool) -> T:
    """Do `action` with a connection to systemd. Raises Error for whatever goes wrong."""
    from ocirt.state import in_user_namespace  # noqa: PLC0415

    # From inside a user namespace, we cannot say who we are outside of it; the peer can see it.
    uid = None if in_user_namespace() else posix.geteuid()
    failures = []
    for socket, bus in sockets(user=user):
        try:
            connection = Connection(socket, bus=bus, uid=uid, seconds=SECONDS)
        except OSError as error:
            name = socket if isinstance(socket, str) else "@" + socket[1:].decode("utf-8", "replace")
            failures.append(f"{name}: {posix.strerror(error.errno or 0).lower()}")
            continue
        except RemoteError as error:
            failures.append(f"{error.name}: {error.text}")
            continue
        with connection:
            try:
                return action(connection)
            except RemoteError as error:
                raise Error("kernel", what, cause=error.text or error.name) from None
            except OSError as error:
                raise Error("kernel", what, cause=f"{connection.name}: {posix.strerror(error.errno or 0).lower()}") from None
    hint = "is `systemd --user` running? see loginctl enable-linger" if user else "is systemd running?"
    raise Error("kernel", what, cause="failed to connect to dbus: " + "; ".join(failures), hint=hint)


def _listen(connection: Connection) -> None:
    """Hear of jobs that end. On its own socket systemd tells everybody."""
    if connection.bus:
        connection.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", "s", (_JOB_REMOVED,))


def _call(connection: Connection, member: str, signature: str, *arguments: Any) -> Any:
    """Call a method of the manager; its first result, None without any. Raises RemoteError, Error, OSError."""
    found = connection.call(_NAME, _PATH, _MANAGER, member, signature, arguments)
    return found[0] if found else None


def _result(connection: Connection, job: str) -> str:
    """How a job ended: "done", "failed", "timeout", …. Raises Error, OSError."""
    return str(connection.wait_signal("JobRemoved", 1, job)[3])


def _reset_failed(connection: Connection, unit: str) -> None:
    try:
        _call(connection, "ResetFailedUnit", "s", unit)
    except RemoteError:
        pass  # it is not there, or has not failed
