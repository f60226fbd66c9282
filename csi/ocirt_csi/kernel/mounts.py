"""Mounts, made as descriptors and put into place whole: at no moment is one there without its flags."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls

# include/uapi/linux/mount.h
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, NO_ATIME, STRICT_ATIME, NO_DIRATIME = 1, 2, 4, 8, 0x10, 0x20, 0x80
_ATIME = 0x70
_CLONE = 1
_CLOEXEC = 0x80000
_AT_EMPTY_PATH = 0x1000
_AT_FDCWD = -100
_FROM_EMPTY, _TO_EMPTY = 4, 0x40
_SET_FLAG, _SET_STRING, _CREATE, _RECONFIGURE = 0, 1, 6, 7
_PICK_CLOEXEC = 1
_UMOUNT_NOFOLLOW = 8
_OCTAL = re.compile(r"\\([0-7]{3})")
_SPECIAL = re.compile(r"[ \t\n\\]")  # what the kernel writes as such numbers
_MESSAGE = 1024  # bytes of a file system's own words, at most


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo. device: of the file system; root: what of it is mounted; source: what it was made of."""

    number: int
    device: int
    root: str
    point: str
    fs_type: str
    options: tuple[str, ...]
    source: str = ""

    def is_of(self, device: str) -> bool:
        """Whether it is of the file system on a block device ("/dev/loop3"). A btrfs has a number of its own. Raises OSError."""
        number = os.stat(device).st_rdev
        if self.device == number or self.fs_type != "btrfs":
            return self.device == number
        try:
            return os.stat(self.source).st_rdev == number
        except OSError:
            return False


def table(point: str = "") -> list[Mount]:
    """The mounts of this namespace, later ones over earlier ones; point: those at one path alone. Raises OSError."""
    found = []
    wanted = f" {_SPECIAL.sub(lambda found: f'{chr(92)}{ord(found[0]):03o}', point)} " if point else ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if wanted not in line:  # most are not read any further: there may be thousands
                continue
            first, _, second = line.partition(" - ")
            number, _, device, root, point, options, *_ = first.split(" ")
            major, _, minor = device.partition(":")
            node = os.makedev(int(major), int(minor))
            fs_type, source, *_ = second.split(" ")
            flags = tuple(options.split(","))
            found.append(Mount(int(number), node, _plain(root), _plain(point), fs_type, flags, _plain(source)))
    return found


def at(path: str) -> list[Mount]:
    """What is mounted at exactly this path, the uppermost last. Links above its last part are followed."""
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    return [one for one in table(real) if one.point == real]


def origin(path: str) -> tuple[int, str]:
    """Which file system holds a path, which is real, by its number, and where in it the path is. Raises OSError."""
    above = [one for one in table() if one.point == "/" or path == one.point or path.startswith(one.point + "/")]
    found = max(enumerate(above), key=lambda pair: (len(pair[1].point), pair[0]))[1]  # of several at a point the last
    return found.device, os.path.normpath(os.path.join(found.root, path.removeprefix(found.point).lstrip("/")))


def of_device(device: str, mounts: Iterable[Mount]) -> list[str]:
    """Where a block device's file system is mounted, and where its node is bound, e.g. of "/dev/loop3". Raises OSError."""
    name = os.path.basename(device)
    return [one.point for one in mounts if os.path.basename(one.root) == name or one.is_of(device)]


def new(fs_type: str, source: str, options: Iterable[str], *, read_only: bool = False, attributes: int = 0) -> int:
    """A new mount of a file system, not in the tree yet, as a descriptor. Raises Error with the file system's own words."""
    context = calls.numbered("fsopen", calls.FSOPEN, fs_type, 1)
    try:
        try:
            calls.numbered("fsconfig", calls.FSCONFIG, context, _SET_STRING, "source", source, 0)
            for option in ("ro", *options) if read_only else options:
                name, given, value = option.partition("=")
                if given:
                    calls.numbered("fsconfig", calls.FSCONFIG, context, _SET_STRING, name, value, 0)
                else:
                    calls.numbered("fsconfig", calls.FSCONFIG, context, _SET_FLAG, name, None, 0)
            calls.numbered("fsconfig", calls.FSCONFIG, context, _CREATE, None, None, 0)
            return calls.numbered("fsmount", calls.FSMOUNT, context, 1, attributes | (READ_ONLY if read_only else 0))
        except OSError as err:
            said = _words(context) or err.strerror or ""
            code = "invalid" if err.errno == errno.EINVAL else "kernel"
            raise Error(code, f"cannot be mounted as {fs_type}", subject=source, cause=said) from None
    finally:
        os.close(context)


def clone(path: str, attributes: int) -> int:
    """What is at a path once more, with more attributes, not in the tree yet, as a descriptor. Raises OSError."""
    fd = calls.numbered("open_tree", calls.OPEN_TREE, _AT_FDCWD, path, _CLONE | _CLOEXEC | 0x100)
    try:
        if attributes:
            clear = _ATIME if attributes & _ATIME else 0
            structure = ctypes.create_string_buffer(struct.pack("=4Q", attributes, clear, 0, 0), 32)
            calls.numbered("mount_setattr", calls.MOUNT_SETATTR, fd, "", _AT_EMPTY_PATH, structure, 32)
    except BaseException:
        os.close(fd)
        raise
    return fd


def change(path: str, options: Iterable[str]) -> None:
    """Let the file system that is mounted at a path have other options ("size=5"). Raises OSError."""
    context = calls.numbered("fspick", calls.FSPICK, _AT_FDCWD, path, _PICK_CLOEXEC)
    try:
        for option in options:
            name, _, value = option.partition("=")
            calls.numbered("fsconfig", calls.FSCONFIG, context, _SET_STRING, name, value, 0)
        calls.numbered("fsconfig", calls.FSCONFIG, context, _RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def put(mount: int, target: int) -> None:
    """Put a mount over what the second descriptor is of. Raises OSError."""
    calls.numbered("move_mount", calls.MOVE_MOUNT, mount, "", target, "", _FROM_EMPTY | _TO_EMPTY)


def take_away(path: str) -> bool:
    """Unmount what is uppermost at a path, whose last part is not followed. Returns whether there was any. Raises OSError."""
    try:
        calls.umount(path, _UMOUNT_NOFOLLOW)
    except OSError as err:
        if err.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def _words(context: int) -> str:
    try:
        said = os.read(context, _MESSAGE).decode(errors="replace")
    except OSError:
        return ""
    return said[2:].strip() if said[1:2] == " " else said.strip()  # "e ", "w " or "i " in front


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
