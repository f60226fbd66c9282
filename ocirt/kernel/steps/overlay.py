"""An overlay as the container's root, made of directories that are held open (Documentation/filesystems/overlayfs.rst).

overlayfs gets its layers as /proc/self/fd/N: no path is too long, none is looked up twice, and none is shown in the container.
Loaded only if there is one.
"""

from __future__ import annotations

import posix
from errno import EINVAL, EIO

from ocirt.kernel import constants as k
from ocirt.kernel import messages, mount, process, resolve
from ocirt.kernel.ffi import CallError, syscall
from ocirt.kernel.run import Run
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    Data = tuple[tuple[str, str | None], ...]

_O_PATH = 0o10000000
_SIGKILL = 9
_MOST = 4095  # bytes of options that mount(2) takes
_DESCRIPTORS = "/proc/self/fd"
_PLACE = "/proc"  # where it is mounted for a moment, in a namespace that nobody else sees: a directory that is always there


def open_lowers(run: Run, paths: tuple[str, ...], user: str) -> None:
    """Hold the layers, the topmost first, in slots `lower/N`; with `user`, a slot, as mounts with that namespace's ids."""
    for number, path in enumerate(paths):
        run.fds[f"lower/{number}"] = _mapped(run, path, user) if user else _open(path)


def open_upper(run: Run, upper: str, work: str, user: str) -> None:
    """Hold the writable directories. With `user` they are opened on one mount of what they are both in: overlayfs wants that."""
    if not user:
        run.fds["upper"], run.fds["work"] = _open(upper), _open(work)
        return
    base, names = _common(upper, work)
    run.fds["upper/base"] = _mapped(run, base, user)
    for slot, name in zip(("upper", "work"), names, strict=True):
        try:
            run.fds[slot] = resolve.open_no_links(run.fds["upper/base"], name, _O_PATH | posix.O_DIRECTORY)
        except CallError as err:
            err.filename = f"{base}/{name}"
            raise


def _open(path: str) -> int:
    return posix.open(path, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)


def _mapped(run: Run, path: str, user: str) -> int:
    """A detached mount of the directory with the ids of a user namespace."""
    fd = -1
    try:
        fd = mount.open_tree(path, False)
        mount.mount_setattr(fd, k.MOUNT_ATTR_IDMAP, propagation=k.MS_PRIVATE, userns_fd=run.fds[user])
    except CallError as err:
        err.filename = path
        if fd >= 0:
            posix.close(fd)
        raise
    return fd


def _common(first: str, second: str) -> tuple[str, tuple[str, str]]:
    """The directory that both lie in, and where they are in it."""
    a, b = first.split("/"), second.split("/")
    shared = 1
    while shared < min(len(a), len(b)) - 1 and a[shared] == b[shared]:
        shared += 1
    return "/".join(a[:shared]) or "/", ("/".join(a[shared:]), "/".join(b[shared:]))


def new(run: Run, slot: str, owner: tuple[int, ...], data: Data) -> None:
    """The overlay as a detached mount, with one call a layer (`lowerdir+`, Linux 6.8; of detached mounts, Linux 6.15).

    owner: (uid, gid) of what overlayfs itself makes in the upper mount, where not all ids are mapped; or nothing.
    """
    layers = [("lowerdir+", _name(fd)) for fd in _lowers(run)]
    if "upper" in run.fds:
        layers += [("upperdir", _name(run.fds["upper"])), ("workdir", _name(run.fds["work"]))]
    _act_as(owner)
    try:
        run.fds[slot] = mount.new_mount("overlay", "overlay", (*layers, *data), 0)
    finally:
        _act_as(owner and (posix.geteuid(), posix.getegid()))
    _let_go(run)


def _act_as(owner: tuple[int, ...]) -> None:
    if owner:
        process.set_file_owner(*owner)


def _name(fd: int) -> str:
    return f"{_DESCRIPTORS}/{fd}"


def _lowers(run: Run) -> list[int]:
    found: list[int] = []
    while (slot := f"lower/{len(found)}") in run.fds:
        found.append(run.fds[slot])
    if "lower/empty" in run.fds:
        found.append(run.fds["lower/empty"])
    return found


def _let_go(run: Run) -> None:
    for slot in [slot for slot in run.fds if slot.startswith(("lower/", "upper")) or slot == "work"]:
        posix.close(run.fds.pop(slot))


def new_apart(
    run: Run, slot: str, lowers: tuple[str, ...], upper: str, work: str, user: str, owner: tuple[int, ...], data: Data
) -> None:
    """The same for older kernels: by mount(2), in a mount namespace of a process of its own, which sends us a detached copy.

    All names share a page, so they are those of descriptors. Layers have to be on mounts of that namespace: what is detached is
    attached there, what is not is opened anew.
    """
    ours, theirs = messages.socket_pair()
    pid = process.clone3(k.CLONE_NEWNS)
    if pid == 0:
        try:
            process.prctl(k.PR_SET_PDEATHSIG, _SIGKILL)
            if not user:
                open_lowers(run, lowers, "")
                if upper:
                    open_upper(run, upper, work, "")
            messages.send_descriptors(theirs, b"d", _mount_here(run, owner, data, mapped=bool(user)))
        except CallError as err:
            messages.send_failure(theirs, run.at, err.errno or EIO, err.call, "")
        except OSError as err:
            messages.send_failure(theirs, run.at, err.errno or EIO, "", "")
        finally:
            posix._exit(0)
    posix.close(theirs)
    try:
        message, fds = messages.receive_descriptors(ours)
    finally:
        posix.close(ours)
        posix.waitpid(pid, 0)
    if not fds:
        _, errno, call, detail = messages.failure_of(message) if message else (0, EIO, "", "")
        raise CallError(errno, call, detail)
    run.fds[slot] = fds[0]
    _let_go(run)


def _mount_here(run: Run, owner: tuple[int, ...], data: Data, *, mapped: bool) -> int:
    mount.mount_setattr(k.AT_FDCWD, propagation=k.MS_PRIVATE, recursive=True, path=b"/")
    posix.chdir(_DESCRIPTORS)
    root = _open("/")
    lowers = _lowers(run)
    detached = lowers if mapped else []
    detached = [*detached, *(run.fds[slot] for slot in ("lower/empty", "upper/base") if slot in run.fds)]
    for fd in sorted(set(detached)):
        mount.move_mount(fd, root)
    words = ["lowerdir=" + ":".join(map(str, lowers))]
    if "upper" in run.fds:
        words += [f"upperdir={run.fds['upper']}", f"workdir={run.fds['work']}"]
    words += [key if value is None else f"{key}={value}" for key, value in data]
    options = encode(",".join(words))
    if len(options) > _MOST:
        raise CallError(EINVAL, "mount")
    _act_as(owner)
    syscall("mount", b"overlay", encode(_PLACE), b"overlay", 0, options)
    return mount.open_tree(_PLACE, False)
