"""`checkpoint`: have CRIU write a container's processes into files; what fails leaves it running."""

from __future__ import annotations

import posix

from ocirt import jsonlite, paths, state
from ocirt.cgroups.layout import detect
from ocirt.criu import delegation, request, service
from ocirt.errors import Error
from ocirt.kernel import resolve
from ocirt.kernel.process import close_on_exec_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.state import Record

DESCRIPTORS = "descriptors.json"
_O_PATH = 0o10000000


def checkpoint(root: str, container_id: str, flags: dict[str, Any], document: dict[str, Any] | None = None) -> list[str]:
    """Dump a container that runs or is paused, then delete it, unless `flags` have it live on (leave-running, pre-dump).

    document: its config.json, if that is not in the bundle. Without it a container whose root is an overlay of its own is
    refused, as nobody could restore it: who has made the overlay, and knows how to make it again, has that as well.

    flags: those of the command line, by name: image-path and work-path (absolute, the latter may be ""), parent-path (relative to
    the images), page-server as (address, port), status-fd (-1: none), and what ocirt.criu.request takes.
    Returns what was wrong with the deleting. Raises Error, OSError.
    """
    record = state.load(root, container_id)
    _check(record, document)
    close_on_exec_from(3)
    service.check_version()
    if flags.get("pre-dump"):
        service.check_feature("mem_track")
    if flags.get("lazy-pages"):
        service.check_feature("lazy_pages")
    lock = state.lock(record["directory"])
    try:
        record = state.load(root, container_id)
        _check(record, document)
        _dump(record, flags, document)
        if flags.get("pre-dump") or flags.get("leave-running"):
            return []
        return _delete(record)
    finally:
        posix.close(lock)


def _check(record: Record, document: dict[str, Any] | None) -> None:
    now = state.status(record)
    if now not in ("running", "paused"):
        raise Error("state", f"Container cannot be checkpointed in {now} state")
    if "mount" not in record["namespaces"]:
        raise Error("unsupported", "a container without a mount namespace cannot be checkpointed: its mounts are the host's")
    if record.get("overlay") and document is None:
        raise Error(
            "unsupported",
            "a container whose root is an overlay of its own cannot be checkpointed",
            hint="nobody could restore it",
        )


def _dump(record: Record, flags: dict[str, Any], document: dict[str, Any] | None) -> None:
    spec = _spec(record, document)
    pid, cgroup = record["pid"], record["cgroup"]
    # An overlay of its own is mounted nowhere else.
    root = f"/proc/{pid}/root" if record.get("overlay") else record["rootfs"]
    rootfs = posix.open(root, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    options = request.dump(
        spec,
        flags,
        pid=pid,
        root=root,
        external=_outside(record),
        freezer=cgroup["paths"].get("freezer") or cgroup["paths"].get("", ""),
        mounts=request.mounts_from_outside(spec, record["bundle"], detect(), cgroup["paths"], lambda path: place(rootfs, path)),
        masked=_masked_files(pid, spec["linux"].get("maskedPaths", ())),
    )
    posix.close(rootfs)
    places = directories(flags)
    if not flags.get("pre-dump"):
        _write_descriptors(pid, flags["image-path"])
    was_paused = state.paused(record)

    def notified(script: str, _pid: int, _fd: int) -> None:
        status_fd = flags.get("status-fd", -1)
        if script == "status-ready" and status_fd >= 0:
            posix.write(status_fd, b"\0")
            posix.close(status_fd)

    criu = service.Service(directories=places)
    kind = "PRE_DUMP" if flags.get("pre-dump") else "DUMP"
    with delegation.Kept(criu.pid):
        try:
            criu.ask(kind, {"opts": options | criu.options()}, notified)
            # After a pre-dump it waits for the dump, and does not like that none comes.
            if (code := criu.end()) and kind == "DUMP":
                raise service.CriuError(f"criu failed: exit status {code}")
        except service.CriuError as err:
            criu.end()
            _let_run(record, was_paused=was_paused)
            raise service.explain(err, f"{places[-1]}/{request.DUMP_LOG}") from None


def _spec(record: Record, document: dict[str, Any] | None) -> dict[str, Any]:
    """The container's config.json, or that in its bundle: of what it says CRIU needs mounts, devices and masks."""
    from ocirt.spec.load import read_spec  # noqa: PLC0415

    return read_spec(record["bundle"], record.get("config") or "config.json", document=document)


def _outside(record: Record) -> list[str]:
    """The namespaces that were there before the container, by the inode that its init is in now."""
    kinds = [kind for kind in request.OUTSIDE if record["namespaces"].get(kind)]
    return [request.outside(kind, posix.stat(f"/proc/{record['pid']}/ns/{request.NAMES[kind]}").st_ino) for kind in kinds]


def _masked_files(pid: int, masked: list[str]) -> list[str]:
    root = posix.open(f"/proc/{pid}/root", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    found = []
    for path in masked:
        try:
            fd = resolve.open_in_root(root, path)
        except OSError:
            continue  # there was none to mask
        if not resolve.is_directory(fd):
            found.append(path)
        posix.close(fd)
    posix.close(root)
    return found


def place(root_fd: int, target: str) -> str:
    """Where in the container a mount at `target` is: links are followed as far as the root file system has the path."""
    base = posix.readlink(f"/proc/self/fd/{root_fd}").rstrip("/")
    head, tail = target, ""
    while head != "/":
        try:
            fd = resolve.open_in_root(root_fd, head)
        except OSError:
            tail = "/" + paths.name(head) + tail
            head = paths.parent(head)
            continue
        real = posix.readlink(f"/proc/self/fd/{fd}")
        posix.close(fd)
        return real[len(base) :] + tail if real.startswith(base + "/") else target
    return tail or "/"


def directories(flags: dict[str, Any]) -> tuple[str, ...]:
    """The directory of the images, which is there, and the one for work, if there is one: its last component is made.

    CRIU's log is in the last of them. Raises OSError.
    """
    images, work = flags["image-path"], flags.get("work-path")
    if not work:
        return (images,)
    try:
        posix.mkdir(work, 0o700)
    except FileExistsError:
        pass
    return (images, work)


def _write_descriptors(pid: int, directory: str) -> None:
    """Keep what the standard streams are: a pipe among them gets another in its place when restored."""
    streams = []
    for fd in range(3):
        try:
            streams.append(posix.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            streams.append("")  # it has closed that one
    flags = posix.O_CREAT | posix.O_TRUNC
    paths.write_text(f"{directory}/{DESCRIPTORS}", jsonlite.dumps(streams), flags, 0o600)


def _let_run(record: Record, *, was_paused: bool) -> None:
    """CRIU thaws what it has frozen, unless it was killed."""
    if not was_paused and state.paused(record):
        from ocirt.cgroups import control  # noqa: PLC0415

        control.thaw(record["cgroup"])


def _delete(record: Record) -> list[str]:
    """The container lives in the images now; that its remains cannot be removed does not change that."""
    from ocirt.containers.delete import kill_and_wait  # noqa: PLC0415
    from ocirt.containers.destroy import destroy  # noqa: PLC0415

    try:
        kill_and_wait(record)
        return destroy(record, record["directory"])
    except (Error, OSError) as err:
        return [f"the container was dumped, but not deleted: {err}"]


def read_descriptors(directory: str) -> list[str]:
    """What `_write_descriptors` wrote, or runc did. Raises Error("invalid") for images without it."""
    path = f"{directory}/{DESCRIPTORS}"
    try:
        streams = jsonlite.loads(paths.read_bytes(path), path)
    except OSError as err:
        raise Error("invalid", f"open {path}: {posix.strerror(err.errno or 0).lower()}", hint="no checkpoint is there") from None
    if not isinstance(streams, list) or not all(isinstance(each, str) for each in streams):
        raise Error("invalid", "not an array of strings", subject=path)
    return streams[:3]
