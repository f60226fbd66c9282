"""Owners and extended attributes: which of an archive's are kept, and as what."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ocirt_images.apply.names import Malformed

Mapping = Sequence[tuple[int, int, int]]
"""(first id in the container, first id here, how many), as in /proc/PID/uid_map."""


class Owners:
    """Ids of the archive as ids to give files here.

    `None` means: what a new file has anyway, so nothing needs to be done. `squash` gives ids that have no mapping to whoever
    applies the layer, for a user who has no ids but the own one.
    """

    def __init__(self, uids: Mapping = (), gids: Mapping = (), *, squash: bool = False) -> None:
        self._uids = uids
        self._gids = gids
        self._squash = squash
        self._own = (os.geteuid(), os.getegid())
        self._known: dict[tuple[int, int], tuple[int, int] | None] = {}

    def of(self, uid: int, gid: int) -> tuple[int, int] | None:
        """The owner and group for a file. Raises Malformed if there is no mapping."""
        key = (uid, gid)
        if key in self._known:
            return self._known[key]
        found = (self._map(self._uids, uid, self._own[0], "user"), self._map(self._gids, gid, self._own[1], "group"))
        result = None if found == self._own else found
        if len(self._known) < 4096:
            self._known[key] = result
        return result

    def _map(self, mapping: Mapping, number: int, own: int, what: str) -> int:
        if not mapping:
            return own if self._squash else number
        for inside, outside, count in mapping:
            if inside <= number < inside + count:
                return outside + number - inside
        if self._squash:
            return own
        raise Malformed(f"{what} {number} has no mapping here")


def kept(name: bytes) -> bool:
    """Whether an extended attribute of an archive is restored.

    File capabilities, access control lists and the user's own are. Not overlayfs's own, by which a layer could reach outside; not
    other `trusted.*`, which only the host's administrator could have meant; and no labels of a security module, which are the
    building machine's.
    """
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name in _KEPT


_KEPT = frozenset((b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"))


def opaque_name(xattrs: str) -> str:
    """The attribute that makes a directory opaque, for mounts by root ("trusted") and by users ("user")."""
    return f"{xattrs}.overlay.opaque"


def set_xattrs(fd: int, xattrs: dict[bytes, bytes]) -> None:
    """Restore extended attributes of a file or directory. Raises OSError."""
    for name, value in xattrs.items():
        if kept(name):
            try:
                os.setxattr(fd, name, value)
            except OSError as err:
                # A file system without them; security.* by an ordinary user.
                if err.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
