"""The root file system of a container, mounted at `rootfs` in its bundle as containerd's snapshotters describe it."""

from __future__ import annotations

import posix
from errno import EBUSY, EINVAL, ENOENT

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import mount, resolve
from ocirt.kernel.ffi import CallError, syscall
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_api.messages.types import Mount

_O_PATH = 0o10000000
_UMOUNT_NOFOLLOW = 8
_MOST = 64  # mounts that may lie on one place
_BINDS = ("bind", "rbind", "none", "")


class Layers:
    """What the options of an overlay say. lowers: the topmost first. uids, gids: mappings of the lower layers' ids."""

    __slots__ = ("data", "gids", "lowers", "uids", "upper", "work")

    def __init__(self, options: Sequence[str]) -> None:
        """Raises Error("invalid")."""
        self.lowers: tuple[str, ...] = ()
        self.upper = self.work = ""
        self.uids: tuple[tuple[int, int, int], ...] = ()
        self.gids: tuple[tuple[int, int, int], ...] = ()
        data: list[tuple[str, str | None]] = []
        for option in options:
            name, _, value = option.partition("=")
            if name == "lowerdir":
                # A colon in a name has a backslash before it.
                parts = value.replace("\\\\", "\1").replace("\\:", "\0").split(":")
                self.lowers = tuple([part.replace("\0", ":").replace("\1", "\\") for part in parts])
            elif name == "upperdir":
                self.upper = value
            elif name == "workdir":
                self.work = value
            elif name in ("uidmap", "gidmap"):
                setattr(self, "uids" if name == "uidmap" else "gids", _mappings(option))
            else:
                data.append(_pair(option))
        self.data = tuple(data)
        if not self.lowers or bool(self.upper) != bool(self.work):
            raise Error("invalid", "an overlay has lower layers, and both an upper and a work directory or neither")
        if bool(self.uids) != bool(self.gids):
            raise Error("invalid", "an overlay has mappings of both uids and gids, or none")


def _mappings(option: str) -> tuple[tuple[int, int, int], ...]:
    """`uidmap=INSIDE:OUTSIDE:SIZE[,...]`. Raises Error("invalid")."""
    found = []
    for text in option.partition("=")[2].split(","):
        words = text.split(":")
        if len(words) != 3 or not all(word.isascii() and word.isdecimal() for word in words):
            raise Error("invalid", f"{option}: three numbers are expected")
        found.append((int(words[0]), int(words[1]), int(words[2])))
    return tuple(found)


def mount_all(mounts: Sequence[Mount], root: str) -> None:
    """Mount all below `root`, a directory that is made, in their order. What fails leaves nothing mounted.

    Raises Error, OSError; the subject is the number of the mount.
    """
    if not mounts:
        return
    try:
        posix.mkdir(root, 0o711)
    except FileExistsError:
        pass
    try:
        for number, one in enumerate(mounts):
            try:
                _mount(one, root)
            except Error as err:
                err.subject = f"rootfs[{number}]" + (f": {err.subject}" if err.subject else "")
                raise
            except CallError as err:
                where = err.filename.decode("utf-8", "surrogateescape") if isinstance(err.filename, bytes) else err.filename
                text = f"{err.call}: {posix.strerror(err.errno or 0)}" + (f": {where}" if where else "")
                raise Error("kernel", text, subject=f"rootfs[{number}]: {one.type} {one.source}") from None
    except (Error, OSError):
        unmount_all(root)
        raise


def _mount(one: Mount, root: str) -> None:
    top = posix.open(root, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    target = top
    try:
        if one.target not in ("", "/", "."):
            target = resolve.open_in_root(top, one.target)
        fd = _make(one)
        try:
            mount.move_mount(fd, target)
        finally:
            posix.close(fd)
    finally:
        for each in {top, target}:
            posix.close(each)


def _make(one: Mount) -> int:
    """The mount, attached nowhere yet."""
    from ocirt.spec.mountoptions import MS_REC, parse  # noqa: PLC0415  (preloaded)

    if "loop" in one.options:
        raise Error("unsupported", "a file as a device (loop) is not attached here", hint="a snapshotter without block files")
    options = [option for option in one.options if not option.startswith("X-containerd.")]
    if one.type == "overlay":
        flags = parse(options, one.type)
        fd = _overlay(Layers(flags["data"]))
    elif one.type in _BINDS:
        if "bind" not in options and "rbind" not in options:
            options.append("bind")
        flags = parse(options, one.type)
        fd = mount.open_tree(one.source, flags["recursive"])
    else:
        flags = parse(options, one.type)
        fd = mount.new_mount(one.type, one.source, tuple([_pair(option) for option in flags["data"]]), 0)
    try:
        if flags["attr_set"] or flags["attr_clear"]:
            mount.mount_setattr(fd, flags["attr_set"], flags["attr_clear"])
        for propagation in flags["propagation"]:
            mount.mount_setattr(fd, propagation=propagation & ~MS_REC, recursive=bool(propagation & MS_REC))
    except OSError:
        posix.close(fd)
        raise
    return fd


def _pair(option: str) -> tuple[str, str | None]:
    name, equals, value = option.partition("=")
    return name, value if equals else None


def _overlay(layers: Layers) -> int:
    """By the steps that make the roots of ocirt's own containers: no list of layers is too long for them."""
    from ocirt.kernel.run import Run  # noqa: PLC0415  (preloaded)
    from ocirt.kernel.steps import idmap, overlay  # noqa: PLC0415

    run = Run([])
    user = ""
    if layers.uids:
        user = "user"
        idmap.make_namespace(run, user, layers.uids, layers.gids)
    try:
        overlay.open_lowers(run, layers.lowers, user)
        if layers.upper:
            overlay.open_upper(run, layers.upper, layers.work, "")
        try:
            overlay.new(run, "root", (), layers.data)
        except CallError as err:
            if err.errno != EINVAL:
                raise
            overlay.new_apart(run, "root", layers.lowers, layers.upper, layers.work, user, (), layers.data)
        return run.fds.pop("root")
    finally:
        run.close()


def unmount_all(root: str) -> None:
    """Take away what is mounted at `root`, and below it. Raises OSError for what stays."""
    for _ in range(_MOST):
        try:
            syscall("umount2", encode(root), _UMOUNT_NOFOLLOW)
        except CallError as err:
            if err.errno in (EINVAL, ENOENT):
                return  # nothing is mounted there (any more)
            if err.errno != EBUSY:
                raise
            syscall("umount2", encode(root), k.MNT_DETACH | _UMOUNT_NOFOLLOW)
