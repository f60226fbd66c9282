"""overlayfs as the backend: each layer's tree is one lower directory (Documentation/filesystems/overlayfs.rst).

All options that a kernel's configuration could decide otherwise are written down:

- index=off, metacopy=off, redirect_dir=nofollow: a layer is only ever what its archive says. Redirects and metadata-only copies
  that an image brings would lead anywhere in the layers below.
- xino=off: inode numbers as they are. Files of a lower layer keep theirs and their device's where all lie on one file system.
- userxattr for who is not root of the machine: overlayfs' own marks are then user.overlay.*, which a user may set.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.manifest import LAYER_LIMIT
from ocirt_images.snapshots import calls, namespace, tree
from ocirt_images.snapshots.backend import Backend, Upper, Usage
from ocirt_images.store import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OPTIONS = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off"))


class Overlay(Backend):
    """Mounts by overlayfs.

    empty: an empty directory, the lowest layer of all. overlayfs wants a second lower directory for a read-only mount (EINVAL
    otherwise), and a layer may not be bound instead of it: whiteouts would be seen.
    append: whether the kernel takes layers one by one (`lowerdir+`, Linux 6.8); None: find out
    """

    name = "overlay"

    def __init__(self, empty: Path, *, append: bool | None = None, userxattr: bool | None = None) -> None:
        self.empty = empty
        self._append = append
        self._userxattr = not namespace.is_host_root() if userxattr is None else userxattr

    def prepare(self, upper: Upper, layers: Sequence[Path]) -> None:
        """See Backend."""
        if layers:
            tree.copy_attributes(layers[-1], upper.fs)

    def mount(self, layers: Sequence[Path], upper: Upper | None = None, *, volatile: bool = False) -> int:
        """See Backend."""
        if len(layers) > LAYER_LIMIT - 1:
            raise Error("unsupported", f"{len(layers)} layers", hint=f"overlayfs takes {LAYER_LIMIT - 1} beside an empty one")
        if not self.empty.is_dir():
            self.empty.mkdir(0o555, parents=True, exist_ok=True)
        lowers = [*reversed(layers), self.empty]
        for path in (*lowers, *((upper.fs, upper.work) if upper else ())):
            _check(path)
        options: list[tuple[str, str | None]] = list(_OPTIONS)
        if self._userxattr:
            options.append(("userxattr", None))
        if volatile and upper is not None:
            options.append(("volatile", None))
        if not layers and upper is None:
            return _bind(self.empty)
        try:
            append = _appends() if self._append is None else self._append
            return (_mount_by_names if append else _mount_by_page)(lowers, upper, options)
        except calls.CallError as err:
            raise _explain(err, layers) from None

    def usage(self, upper: Upper) -> Usage:
        """See Backend."""
        counted = limits.usage(upper.path)
        return Usage(*counted) if counted else tree.usage(upper.fs)


def _bind(path: Path) -> int:
    mount = calls.open_tree(path)
    calls.set_attributes(mount, calls.MOUNT_ATTR_RDONLY)
    return mount


def _check(path: Path) -> None:
    """overlayfs says ENOENT and EINVAL without telling of which of 127 layers."""
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        raise Error("not-found", "no such directory", subject=os.fspath(path), hint="`ocirt fsck --repair`") from None
    if not stat.S_ISDIR(mode):
        raise Error("invalid", "not a directory", subject=os.fspath(path))


@cache
def _appends() -> bool:
    """Whether overlayfs has `lowerdir+`. Before Linux 6.5 it took any option, and complained at the end."""
    return not calls.takes("overlay", "no-such-option", "x") and calls.takes("overlay", "lowerdir+", "/")


def _mount_by_names(lowers: Sequence[Path], upper: Upper | None, options: list[tuple[str, str | None]]) -> int:
    """By fsopen(2), one call a layer. A path too long for one value goes in by its descriptor."""
    held: list[int] = []

    def name(path: Path) -> str:
        text = os.path.abspath(path)
        if len(os.fsencode(text)) <= calls.STRING_LIMIT:
            return text
        held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{held[-1]}"

    try:
        given: list[tuple[str, str | None]] = [("source", "overlay"), *(("lowerdir+", name(path)) for path in lowers)]
        if upper is not None:
            given += [("upperdir", name(upper.fs)), ("workdir", name(upper.work))]
        return calls.new_mount("overlay", given + options, 0 if upper else calls.MOUNT_ATTR_RDONLY)
    finally:
        for fd in held:
            os.close(fd)


def _mount_by_page(lowers: Sequence[Path], upper: Upper | None, options: list[tuple[str, str | None]]) -> int:
    """By mount(2), for kernels without `lowerdir+`: all options share a page, so names are relative to what they have in common.

    It happens in a thread with a mount namespace and a working directory of its own, at a place that nobody else sees, and is
    taken from there as a detached copy.
    """
    paths = [os.path.abspath(path) for path in (*lowers, *((upper.fs, upper.work) if upper else ()))]
    base = os.path.commonpath(paths)
    names = [_escaped(os.path.relpath(path, base)) for path in paths]
    words = [f"lowerdir={':'.join(names[: len(lowers)])}"]
    if upper is not None:
        words += [f"upperdir={names[-2]}", f"workdir={names[-1]}"]
    words += [key if value is None else f"{key}={value}" for key, value in options]
    data = ",".join(words)
    if len(os.fsencode(data)) > calls.PAGE_LIMIT:
        what = f"{len(lowers) - 1} layers: their names do not fit into the page that this kernel takes"
        raise Error("unsupported", what, subject=base, hint="Linux 6.8 takes them one by one")

    def mount() -> int:
        calls.unshare(calls.CLONE_NEWNS)
        calls.mount("none", "/", calls.MS_REC | calls.MS_SLAVE)
        os.chdir(base)
        # On top of what is there: /proc can be covered by who may mount at all, and is a directory everywhere.
        read_only = 0 if upper else 1
        calls.mount("overlay", "/proc", read_only, data)
        mount_fd = calls.open_tree("/proc")
        if not upper:
            calls.set_attributes(mount_fd, calls.MOUNT_ATTR_RDONLY)
        return mount_fd

    return _in_thread(mount)


def _in_thread(work: Callable[[], int]) -> int:
    """What `work` returns or raises, in a thread that ends with it: what it unshares is nobody else's."""
    result: list[int] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as err:  # noqa: BLE001  (raised again by who waits)
            failure.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _escaped(name: str) -> str:
    r"""A name for an option of overlayfs: `:` separates layers, `,` options, and `\` takes the meaning of either."""
    return name.replace("\\", r"\\").replace(":", r"\:").replace(",", r"\,")


def _explain(err: calls.CallError, layers: Sequence[Path]) -> Exception:
    """The error that says what to do, where we know."""
    cause = err.said or str(err.strerror)
    if err.errno == errno.EPERM:
        hint = (
            "root may, and the root of a user namespace from Linux 5.11 on; without either make a copy: `ocirt bundle IMAGE DIR`"
        )
        return Error("unsupported", "layers cannot be mounted by this user", cause=cause, hint=hint)
    if err.errno == errno.ENODEV:
        return Error("unsupported", "this kernel has no overlayfs", cause=cause, hint="`modprobe overlay`")
    if err.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE):
        return Error("exhausted", f"mounting {len(layers)} layers", cause=cause)
    return Error("kernel", f"mounting {len(layers)} layers by overlayfs", subject=str(err.filename or ""), cause=cause)
