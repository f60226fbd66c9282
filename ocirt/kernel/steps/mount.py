"""Mounts of the container, always by descriptor (open_tree(2), fsopen(2), move_mount(2), mount_setattr(2))."""

from __future__ import annotations

import posix
from errno import EBUSY, EINVAL, ENOENT, EPERM

from ocirt.kernel import constants as k
from ocirt.kernel import mount, process, resolve
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    Data = tuple[tuple[str, str | None], ...]

EMPTY = (("size", "0"), ("nr_inodes", "2"), ("mode", "755"))  # options of a tmpfs that hides directories
_O_PATH = 0o10000000
_NULL = (1, 3)  # the device number of /dev/null


def clone(run: Run, slot: str, source: str, recursive: bool) -> None:  # noqa: FBT001
    """A detached copy of what is at `source` on the host."""
    try:
        run.fds[slot] = mount.open_tree(source, recursive)
    except CallError as err:
        err.filename = source
        raise


def new(run: Run, slot: str, kind: str, source: str, data: Data, attributes: int) -> None:
    """A detached mount of a new file system."""
    run.fds[slot] = mount.new_mount(kind, source, data, attributes)


def change(run: Run, slot: str, attr_set: int, attr_clear: int, recursive: bool) -> None:  # noqa: FBT001
    """Set and clear attributes of a mount."""
    mount.mount_setattr(run.fds[slot], attr_set, attr_clear, recursive=recursive)


def propagate(run: Run, slot: str, propagation: int, recursive: bool) -> None:  # noqa: FBT001
    """Set the propagation of a mount."""
    mount.mount_setattr(run.fds[slot], 0, 0, propagation, recursive=recursive)


def propagate_host(run: Run, propagation: int, recursive: bool) -> None:  # noqa: FBT001
    """Set the propagation of the host's tree, as init sees it."""
    del run
    mount.mount_setattr(k.AT_FDCWD, 0, 0, propagation, recursive=recursive, path=b"/")


def propagate_root(run: Run, propagation: int, recursive: bool) -> None:  # noqa: FBT001
    """Set the propagation of the container's root once more: for pivot_root(2) it had to be private."""
    propagate_host(run, propagation, recursive)  # `/` is another tree by now


def attach(run: Run, slot: str, target: str, exact: bool, over_proc: bool) -> None:  # noqa: FBT001
    """Attach a mount at `target`, which is made if it is missing; `exact`: no symlink may lead there.

    Below a procfs, wherever it lies, only `over_proc` is attached: what config.json puts over one of the files that may be
    covered. At /proc itself belongs a procfs and nothing else (CVE-2019-16884): security modules and sysctls are written there.
    """
    fd = run.fds[slot]
    place = _target(run, target, exact or over_proc, resolve.is_directory(fd))
    try:
        if target == "/proc":
            if process.fstatfs_type(fd) != k.PROC_SUPER_MAGIC:
                raise CallError(EINVAL, "fstatfs", "/proc can only be a procfs")
        elif not over_proc:
            _keep_off_proc(place, target)
        mount.move_mount(fd, place)
    finally:
        posix.close(place)


def _keep_off_proc(place: int, target: str) -> None:
    if process.fstatfs_type(place) == k.PROC_SUPER_MAGIC:
        raise CallError(EINVAL, "fstatfs", target + " leads into /proc")


def _target(run: Run, path: str, exact: bool, directory: bool) -> int:  # noqa: FBT001
    """A descriptor of the place to mount on."""
    try:
        if exact:
            try:
                return resolve.open_no_links(run.root_fd, path)
            except CallError as err:
                if err.errno != ENOENT:
                    raise
                posix.close(resolve.make_directory(run.root_fd, path))
                return resolve.open_no_links(run.root_fd, path)
        return resolve.make_directory(run.root_fd, path) if directory else resolve.make_file(run.root_fd, path)
    except OSError as err:
        err.filename = path
        raise


def remount(run: Run, slot: str, target: str, attr_set: int, attr_clear: int) -> None:
    """Change the attributes of what is mounted at `target`."""
    run.fds[slot] = resolve.open_in_root(run.root_fd, target)
    mount.mount_setattr(run.fds[slot], attr_set, attr_clear)


def read_only(run: Run, path: str) -> None:
    """Cover `path` with a read-only mount of itself."""
    target = resolve.open_in_root(run.root_fd, path)
    try:
        fd = mount.open_tree("", True, dir_fd=target)
        mount.mount_setattr(fd, k.MOUNT_ATTR_RDONLY)
        mount.move_mount(fd, target)
        posix.close(fd)
    finally:
        posix.close(target)


def mask(run: Run, path: str) -> None:
    """Hide `path`: a directory below one empty tmpfs for all, a file below the host's /dev/null."""
    target = resolve.open_in_root(run.root_fd, path)
    try:
        if not resolve.is_directory(target):
            fd = mount.open_tree("", False, dir_fd=_host_null(run))
            # It is the host's own: its mode and owner are not the container's to change, and what is mounted over it stays here.
            mount.mount_setattr(fd, k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC, propagation=k.MS_PRIVATE)
        elif run.mask_fd < 0:
            # One file system for all of them: each tmpfs costs the kernel memory and a shrinker.
            fd = run.mask_fd = mount.new_mount("tmpfs", "tmpfs", EMPTY, k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID)
        else:
            fd = mount.open_tree("", False, dir_fd=run.mask_fd)
        mount.move_mount(fd, target)
        if fd != run.mask_fd:
            posix.close(fd)
    finally:
        posix.close(target)


def _host_null(run: Run) -> int:
    """The host's /dev/null, which no image can have made (CVE-2025-31133); looked at all the same."""
    fd = run.fds.get("null", -1)
    if fd < 0:
        fd = posix.open("/dev/null", _O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        status = posix.fstat(fd)
        if status.st_mode & resolve.S_IFMT != resolve.S_IFCHR or status.st_rdev != posix.makedev(*_NULL):
            raise CallError(EINVAL, "fstat", "/dev/null of the host is not the null device")
        run.fds["null"] = fd
    return fd


def copy_up(run: Run, slot: str, target: str) -> None:
    """Copy what is at `target` in the image into the new, still detached tmpfs."""
    try:
        source = resolve.open_in_root(run.root_fd, target, posix.O_RDONLY | posix.O_DIRECTORY)
    except CallError as err:
        if err.errno == ENOENT:
            return
        err.filename = target
        raise
    copy = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=run.fds[slot])
    _copy_tree(source, copy)


def _copy_tree(source: int, target: int) -> None:
    """Copy a directory's contents and its owner and mode; closes both descriptors. Hard links are copied as files."""
    try:
        for name in posix.listdir(source):
            status = posix.stat(name, dir_fd=source, follow_symlinks=False)
            kind = status.st_mode & resolve.S_IFMT
            if kind == resolve.S_IFDIR:
                posix.mkdir(name, 0o700, dir_fd=target)
                flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
                _copy_tree(posix.open(name, flags, dir_fd=source), posix.open(name, flags, dir_fd=target))
                continue
            if kind == 0o120000:
                posix.symlink(posix.readlink(name, dir_fd=source), name, dir_fd=target)
            elif kind == 0o100000:
                _copy_file(name, source, target)
            else:
                posix.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            posix.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            if kind != 0o120000:
                posix.chmod(name, status.st_mode & 0o7777, dir_fd=target)
        status = posix.fstat(source)
        posix.fchown(target, status.st_uid, status.st_gid)
        posix.fchmod(target, status.st_mode & 0o7777)
    finally:
        posix.close(source)
        posix.close(target)


def _copy_file(name: str, source: int, target: int) -> None:
    flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    reader = posix.open(name, flags, dir_fd=source)
    writer = posix.open(name, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600, dir_fd=target)
    while posix.sendfile(writer, reader, None, 1 << 24):
        pass
    posix.close(reader)
    posix.close(writer)


def cgroup(
    run: Run,
    slot: str,
    target: str,
    mode: str,
    mounts: dict[str, str],
    paths: dict[str, str],
    own: dict[str, str],
    namespace: bool,  # noqa: FBT001
    attributes: int,
) -> None:
    """The container's part of the cgroup tree, as the host has it: one version 2 mount, or a tmpfs with one a hierarchy.

    With a cgroup namespace they are new mounts, which show the namespace's root; without, or where that is not allowed, binds of
    the container's own directories. `own`: where init is in the version 1 hierarchies in which the container has no cgroup.
    """
    if mode == "v2" or list(mounts) == [""]:
        run.fds[slot] = _cgroup_v2(paths, mounts, namespace, attributes)
        _attach(run, run.fds[slot], target)
        return
    base = mount.new_mount("tmpfs", "tmpfs", (("mode", "755"),), attributes & ~k.MOUNT_ATTR_RDONLY)
    run.fds[slot] = base
    _attach(run, base, target)
    names: dict[str, list[str]] = {}
    for controller, place in mounts.items():
        names.setdefault(place, []).append(controller)
    for place, controllers in names.items():
        directory = place.rpartition("/")[2]
        if controllers == [""]:
            fd = _cgroup_v2(paths, mounts, namespace, attributes)
        elif namespace:
            fd = _cgroup_v1(controllers, attributes)
        elif controllers[0] in paths:
            fd = _bind(paths[controllers[0]], attributes)
        else:
            fd = _cgroup_of_init(own[controllers[0]], place, attributes)
        posix.mkdir(directory, 0o755, dir_fd=base)
        mount.move_mount_to(fd, resolve.open_no_links(base, directory))
        for name in controllers:
            if name not in ("", directory) and not name.startswith("name="):
                posix.symlink(directory, name, dir_fd=base)
    if attributes & k.MOUNT_ATTR_RDONLY:
        mount.mount_setattr(base, k.MOUNT_ATTR_RDONLY)


def _cgroup_v1(controllers: list[str], attributes: int) -> int:
    if controllers[0].startswith("name="):
        data: Data = (("none", None), ("name", controllers[0].removeprefix("name=")))
    else:
        data = tuple((name, None) for name in controllers)
    return mount.new_mount("cgroup", "cgroup", data, attributes)


def _cgroup_of_init(directory: str, place: str, attributes: int) -> int:
    # Others may be in it as well: not to be changed.
    try:
        return _bind(directory, attributes | k.MOUNT_ATTR_RDONLY)
    except CallError as err:
        if err.errno != ENOENT:
            raise
        return _bind(place, attributes | k.MOUNT_ATTR_RDONLY)  # only a part of the hierarchy is mounted, which is init's


def _cgroup_v2(paths: dict[str, str], mounts: dict[str, str], namespace: bool, attributes: int) -> int:  # noqa: FBT001
    if namespace:
        try:
            return mount.new_mount("cgroup2", "cgroup", (), attributes)
        except CallError as err:
            if err.errno not in (EPERM, EBUSY):
                raise  # else the user namespace does not own the cgroup namespace
    if "" in paths:
        return _bind(paths[""], attributes)
    return _bind(mounts[""], attributes | k.MOUNT_ATTR_RDONLY)  # all of the host's: not to be changed (CVE-2023-25809)


def _bind(source: str, attributes: int) -> int:
    fd = mount.open_tree(source, False)
    mount.mount_setattr(fd, attributes, k.MOUNT_ATTR_ATIME if attributes & k.MOUNT_ATTR_ATIME else 0, k.MS_PRIVATE)
    return fd


def _attach(run: Run, fd: int, target: str) -> None:
    place = resolve.make_directory(run.root_fd, target)
    _keep_off_proc(place, target)
    mount.move_mount(fd, place)
    posix.close(place)
