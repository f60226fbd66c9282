"""Entries of an archive onto a directory, as a layer for overlayfs (image-spec, layer.md "Applying Changesets").

- A directory over a directory replaces its attributes; anything else replaces what is there. The last entry of a name counts.
- `.wh.NAME` hides NAME of the lower layers, `.wh..wh..opq` all that they have in its directory, wherever it stands in the
  archive; neither touches what this layer brings.
- Attributes are set in the order owner, mode, extended attributes, times: each may undo the ones before. Directories get theirs
  at the end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from ocirt_images.apply import libc
from ocirt_images.apply.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed, clean, shown
from ocirt_images.apply.needs import Needs
from ocirt_images.apply.owners import Owners, opaque_name, set_xattrs
from ocirt_images.apply.tree import Directory, Tree, is_whiteout

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PAGE = 4096
_SPECIAL = 0o7000


class NoDevices(Exception):
    """A device node that this process may not make."""


class Applier:
    """Takes what a tar reader yields. The umask must be 0, and the directory `root` empty.

    With `xattrs="user"` opaque directories are marked at once; what `trusted` attributes need this process may not have.
    `devices=False` leaves device nodes out, which an ordinary user cannot make; `skipped` counts them.
    Raises Malformed, LimitExceeded, NoDevices, OSError.
    """

    def __init__(self, root: int, *, limits: Limits, owners: Owners, devices: bool = True, xattrs: str = "trusted") -> None:
        self.inodes = 0
        self.size = 0
        """Bytes on disk, as far as they can be known before the file system has decided: whole pages of data."""
        self.skipped = 0
        self.name = b""
        """The entry that is being applied, for messages."""
        self._limits = limits
        self._owners = owners
        self._devices = devices
        self._mark = opaque_name("user") if xattrs == "user" else None
        self._tree = Tree(root, limits)
        self._links: dict[bytes, bytes] = {}
        self._whiteouts: set[bytes] = set()
        self._entries = 0
        self._fd = -1
        self._file: Entry | None = None
        self._left = 0
        self._holes: list[tuple[int, int]] = []
        self._makers: dict[bytes, Callable[[Entry, Directory, bytes], None]] = {
            FILE: self._make_file,
            LINK: self._make_link,
            SYMLINK: self._make_symlink,
            CHARACTER: self._make_device,
            BLOCK: self._make_device,
            FIFO: self._make_node,
        }
        # A new file belongs to this process, unless its directory says otherwise.
        os.fchown(root, os.geteuid(), os.getegid())
        os.fchmod(root, 0o700)

    def take(self, items: Iterable[Entry | memoryview]) -> None:
        """Apply entries and their data, as they come."""
        for item in items:
            if type(item) is memoryview:
                self._write(item)
            else:
                self._take_entry(item)

    def finish(self) -> Needs:
        """Set the directories' attributes, and say what is left to settle."""
        self.name = b""
        needs = Needs(links=sorted(self._links.items()), whiteouts=sorted(self._whiteouts))
        # Children first: once a directory has its own mode, an ordinary user may have no way into it.
        for path in sorted(self._tree.directories, reverse=True):
            directory = self._tree.directories[path]
            if directory.opaque and self._mark is None:
                needs.opaque.append(path)
            if directory.entry is None and path not in self._tree.hidden:
                needs.parents.append(path)
            self._finish_directory(directory)
        needs.parents.reverse()
        needs.opaque.reverse()
        self.inodes += len(self._tree.directories) - 1
        self.size += _PAGE * (len(self._tree.directories) - 1)
        self.inodes -= self._tree.removed
        self._tree.close()
        return needs

    def close(self) -> None:
        """Close what is open after a failure."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._tree.close()

    # Entries

    def _take_entry(self, entry: Entry) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            self._limits.check("entries", self._entries, "entries")
        name = self.name = entry.name
        if len(name) > self._limits.path:
            self._limits.check("path", len(name), f"the length of {shown(name)}")
        parent, _, base = name.rstrip(b"/").rpartition(b"/")
        if base in (b"", b".", b"..") or name[0] == 0x2F:
            parts = clean(name)
            if not parts:
                self._take_root(entry)
                return
            parent, base = b"/".join(parts[:-1]), parts[-1]
        if base.startswith(_WHITEOUT) or (_AUFS in parent and self._is_aufs(parent)):
            self._take_whiteout(entry, parent, base)
            return
        directory = self._tree.parent(parent)
        if entry.kind == DIRECTORY:
            self._take_directory(entry, directory, base)
            return
        make = self._makers[entry.kind]
        try:
            make(entry, directory, base)
        except FileExistsError:
            self._tree.remove(directory, base)
            make(entry, directory, base)
        if self._links and entry.kind != LINK:
            self._links.pop(directory.child(base), None)

    def _take_root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise Malformed(f"{shown(entry.name)}: the root of a layer is a directory")
        self._tree.root.entry = entry

    def _take_directory(self, entry: Entry, parent: Directory, name: bytes) -> None:
        path = parent.child(name)
        directory = self._tree.directories.get(path)
        if directory is None:
            try:
                directory = self._tree.make(parent, name)
            except FileExistsError:
                self._tree.remove(parent, name)
                directory = self._tree.make(parent, name)
            self._links.pop(path, None)
        directory.entry = entry

    def _is_aufs(self, parent: bytes) -> bool:
        return any(part.startswith(_AUFS) for part in parent.split(b"/"))

    def _take_whiteout(self, entry: Entry, parent: bytes, base: bytes) -> None:
        """Hide something of the lower layers, or pass over what aufs left behind."""
        self._skip_data(entry)
        if self._is_aufs(parent):
            return
        if base == _OPAQUE:
            self._tree.parent(parent).opaque = True
            return
        if base.startswith(_AUFS):
            return
        hidden = base.removeprefix(_WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise Malformed(f"{shown(entry.name)}: a whiteout of nothing")
        directory = self._tree.parent(parent)
        path = directory.child(hidden)
        self._tree.hidden.add(path)
        own = self._tree.directories.get(path)
        if own is not None:
            own.opaque = True
        elif path not in self._links:
            try:
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._tree.descriptor(directory))
            except FileExistsError:
                return
            self.inodes += 1
            self._whiteouts.add(path)

    # Files

    def _make_file(self, entry: Entry, directory: Directory, name: bytes) -> None:
        fd = directory.fd
        if fd < 0:
            fd = self._tree.descriptor(directory)
        self._fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=fd)
        self.inodes += 1
        self._file = entry
        self._left = entry.stored
        self.size += (entry.stored + _PAGE - 1) // _PAGE * _PAGE
        if entry.sparse is not None:
            self._holes = entry.sparse[::-1]
        if not self._left:
            self._finish_file()

    def _write(self, data: memoryview) -> None:
        size = len(data)
        if self._fd >= 0:
            if self._file is not None and self._file.sparse is not None:
                self._write_sparse(data)
            else:
                written = os.write(self._fd, data)
                while written < size:
                    written += os.write(self._fd, data[written:])
        self._left -= size
        if not self._left:
            self._finish_file()

    def _write_sparse(self, data: memoryview) -> None:
        while data:
            offset, length = self._holes.pop()
            written = os.pwrite(self._fd, data[:length], offset)
            data = data[written:]
            if written < length:
                self._holes.append((offset + written, length - written))

    def _finish_file(self) -> None:
        fd, entry = self._fd, self._file
        if entry is None or fd < 0:  # data that nobody wants
            return
        self._fd, self._file = -1, None
        try:
            if entry.sparse is not None:
                os.ftruncate(fd, entry.size)
            owner = self._owners.of(entry.uid, entry.gid)
            if owner is not None:
                os.fchown(fd, *owner)
            if entry.mode & _SPECIAL:  # chown takes them away, so they come after it
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _skip_data(self, entry: Entry) -> None:
        self._fd, self._file, self._left = -1, None, entry.stored

    # Everything else

    def _make_symlink(self, entry: Entry, directory: Directory, name: bytes) -> None:
        if len(entry.link) > self._limits.path:
            self._limits.check("path", len(entry.link), f"the length of the target of {shown(entry.name)}")
        os.symlink(entry.link, name, dir_fd=self._tree.descriptor(directory))
        self.inodes += 1
        self._finish_node(entry, directory, name)

    def _make_device(self, entry: Entry, directory: Directory, name: bytes) -> None:
        if not self._devices:
            self.skipped += 1
            return
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise Malformed(f"{shown(entry.name)}: no such device: {major}:{minor}")
        try:
            self._make_node(entry, directory, name)
        except PermissionError:
            raise NoDevices(f"{shown(entry.name)}: device {major}:{minor}") from None

    def _make_node(self, entry: Entry, directory: Directory, name: bytes) -> None:
        kind = _NODES[entry.kind]
        mode = entry.mode & 0o777
        os.mknod(name, kind | mode, os.makedev(*entry.device), dir_fd=self._tree.descriptor(directory))
        self.inodes += 1
        self._finish_node(entry, directory, name)

    def _make_link(self, entry: Entry, directory: Directory, name: bytes) -> None:
        parts = clean(entry.link)
        if not parts:
            raise Malformed(f"{shown(entry.name)}: a hard link to the root")
        path = directory.child(name)
        place = self._tree.find(parts[:-1])
        target = place.child(parts[-1]) if place is not None else b"/".join(parts)
        if target == path:
            return  # a link to itself changes nothing
        if place is not None and target not in self._links and self._link(entry, place, parts[-1], directory, name):
            self._links.pop(path, None)
            return
        # What it links to must come from a lower layer.
        try:
            self._tree.remove(directory, name)
        except FileNotFoundError:
            pass
        self._links[path] = self._links.get(target, target)

    def _link(self, entry: Entry, place: Directory, target: bytes, directory: Directory, name: bytes) -> bool:
        """Link to something in this layer; False if it is not here."""
        source, destination = self._tree.descriptors(place, directory)
        try:
            if place.child(target) in self._tree.hidden and is_whiteout(os.lstat(target, dir_fd=source)):
                raise Malformed(f"{shown(entry.name)}: a hard link to {shown(entry.link)}, which this layer removes")
            os.link(target, name, src_dir_fd=source, dst_dir_fd=destination, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except PermissionError:
            raise Malformed(f"{shown(entry.name)}: a hard link to {shown(entry.link)}, which is no file") from None
        return True

    def _finish_node(self, entry: Entry, directory: Directory, name: bytes) -> None:
        """Attributes of what is never opened: a device's driver could notice, a fifo would block."""
        fd = self._tree.descriptor(directory)
        owner = self._owners.of(entry.uid, entry.gid)
        if owner is not None:
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        if entry.mode & _SPECIAL and entry.kind != SYMLINK:
            try:
                libc.chmod_node(fd, name, entry.mode)
            except OSError as err:
                if err.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                # Before Linux 6.6. It is no symlink: we made it a moment ago, where nobody else makes anything.
                os.chmod(name, entry.mode, dir_fd=fd)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def _finish_directory(self, directory: Directory) -> None:
        fd = self._tree.descriptor(directory)
        if directory.opaque and self._mark is not None:
            os.setxattr(fd, self._mark, b"y")
        entry = directory.entry
        if entry is None:
            os.fchmod(fd, 0o755)
            return
        self.name = entry.name
        owner = self._owners.of(entry.uid, entry.gid)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            set_xattrs(fd, entry.xattrs)
        os.utime(fd, ns=(entry.mtime, entry.mtime))


_NODES = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}
