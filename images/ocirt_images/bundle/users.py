"""`USER` of an image: names and numbers, looked up in the image's own /etc/passwd and /etc/group (config.md, "User").

    ""            root
    name          its uid, its gid, and the groups that list it
    uid           the same where passwd has it; else gid 0
    name:group    that group alone; either half may be a number
    uid:gid       the numbers as they are

The files are the image's: they are opened inside its root, whatever links it has there, must be plain files of bounded size, and
lines that cannot be read are passed over, as by the C library.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # The contents of a file of the image; None if there is none.
    Read = Callable[[str], "bytes | None"]

LIMIT = 8 << 20  # bytes of passwd or group
_MOST = (1 << 32) - 2  # (uid_t) -1 means "leave it" to the kernel
_IN_ROOT = calls.RESOLVE_IN_ROOT | calls.RESOLVE_NO_MAGICLINKS
_TRIES = 100


@dataclass(frozen=True, slots=True)
class User:
    """Who the process is. groups: supplementary ones, the primary one among them.

    It is among them because a file may deny to its group what it grants to others, and a set-gid program takes the primary group
    away: whoever is in it would get round that (CVE-2022-36109).
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(text: str, root: int) -> User:
    """The user that `text` means in the image whose root directory is the descriptor `root`.

    Raises Error("invalid") for what is no user, Error("not-found") that names the file in which it is not, OSError.
    """
    return find(text, lambda path: _read(root, path))


def find(text: str, read: Read) -> User:
    """The same where `read` gives the image's /etc/passwd and /etc/group."""
    name, colon, group = text.partition(":")
    if colon and (not group or ":" in group):
        raise Error("invalid", f"{text[:200]!r} is no user", hint="NAME, UID, NAME:GROUP or UID:GID")
    account = _account(name or "0", text, read)
    if group:
        gid = _number(group)
        if gid is None or gid > _MOST:
            gid = _group(group, text, read)
        return User(account.uid, gid, (gid,))
    more = _memberships(account, read)
    return User(account.uid, account.gid, (account.gid, *sorted(more - {account.gid})))


def memberships(name: str, read: Read) -> frozenset[int]:
    """The groups in which the image's /etc/group lists a user, who is a name or a number. Raises as `find`."""
    return _memberships(_account(name, name, read), read)


def _memberships(account: _Account, read: Read) -> frozenset[int]:
    return frozenset(one.gid for one in _groups(read) if account.name and account.name in one.members)


def _account(name: str, text: str, read: Read) -> _Account:
    number = _number(name)
    for account in _accounts(read):
        if account.name == name or account.uid == number:
            return account
    if number is None:
        hint = "give a user that the image has, or a number"
        raise Error(
            "not-found", f"no user {name[:200]!r}", subject="/etc/passwd of the image", cause=_whole(text, name), hint=hint
        )
    if number > _MOST:
        raise Error("invalid", f"{name[:40]} is no user's number", hint=f"{_MOST} is the largest")
    return _Account("", number, 0)


def _group(name: str, text: str, read: Read) -> int:
    for group in _groups(read):
        if group.name == name:
            return group.gid
    if _number(name) is not None:
        raise Error("invalid", f"{name[:40]} is no group's number", hint=f"{_MOST} is the largest")
    hint = "give a group that the image has, or a number"
    raise Error("not-found", f"no group {name[:200]!r}", subject="/etc/group of the image", cause=_whole(text, name), hint=hint)


def _whole(text: str, part: str) -> str:
    """What was asked for, where it is more than the part that an error names."""
    return "" if text == part else f"asked for as {text[:200]!r}"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 19 else None


def _accounts(read: Read) -> Iterator[_Account]:
    """passwd(5): name:password:uid:gid:…"""
    for fields in _lines(read, "/etc/passwd"):
        if len(fields) < 4:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and max(uid, gid) <= _MOST:
            yield _Account(fields[0], uid, gid)


def _groups(read: Read) -> Iterator[_Group]:
    """group(5): name:password:gid:member,…"""
    for fields in _lines(read, "/etc/group"):
        if len(fields) < 3:
            continue
        gid = _number(fields[2])
        if gid is not None and gid <= _MOST:
            members = fields[3].split(",") if len(fields) > 3 else ()
            yield _Group(fields[0], gid, tuple(member.strip() for member in members))


def _lines(read: Read, path: str) -> Iterator[list[str]]:
    data = read(path)
    for line in (data or b"").split(b"\n"):
        text = line.strip()
        if text and not text.startswith(b"#"):
            yield [field.decode("utf-8", "surrogateescape") for field in text.split(b":")]


def _read(root: int, path: str) -> bytes | None:
    """A file of the image; None if there is none. Raises Error("invalid") for what is no plain file, or too large."""
    subject = f"{path} of the image"
    try:
        fd = _open(root, path)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise Error("invalid", "it cannot be opened", subject=subject, cause=os.strerror(err.errno or 0)) from None
    try:
        found = os.stat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Error("invalid", "not a plain file", subject=subject)
        if found.st_size > LIMIT:
            raise Error("invalid", f"{found.st_size} bytes", subject=subject, hint=f"{LIMIT} at most")
        data = b""
        while len(data) <= LIMIT and (more := os.read(fd, 1 << 20)):
            data += more
        return data
    finally:
        os.close(fd)


def _open(root: int, path: str) -> int:
    """EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether the way still is inside (openat2(2)).

    A fifo is not waited for, and no terminal becomes ours.
    """
    for _ in range(_TRIES):
        try:
            return calls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, _IN_ROOT)
        except calls.CallError as err:
            if err.errno != errno.EAGAIN:
                raise
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
