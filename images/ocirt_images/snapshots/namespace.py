"""Namespaces of this process: who it is to the kernel, and a place of its own to mount in."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls

# (first id inside, first id outside, how many), one tuple a line of a map (user_namespaces(7))
Lines = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Mappings:
    """The ids of a user namespace."""

    uids: Lines
    gids: Lines

    @property
    def is_simple(self) -> bool:
        """Whether there are no ids but the user's own."""
        return len(self.uids) == len(self.gids) == 1

    def check(self, uid: int, gid: int) -> None:
        """Raises Error("unsupported") unless both ids are there."""
        for kind, number, lines in (("user", uid, self.uids), ("group", gid, self.gids)):
            if not any(first <= number < first + size for first, _, size in lines):
                ids = ", ".join(f"{first}" if size == 1 else f"{first} to {first + size - 1}" for first, _, size in lines)
                hint = "lines for you in /etc/subuid and /etc/subgid, and newuidmap(1), give more; or choose another user"
                raise Error("unsupported", f"{kind} {number} is not in the user namespace", cause=f"it has {ids}", hint=hint)


def is_host_root() -> bool:
    """Whether this is root outside of every user namespace, who may set trusted.* attributes and make devices."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            return lines.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True  # a kernel without user namespaces


def own_mappings() -> Mappings:
    """What a user may map: themselves as root, and from 1 on what /etc/subuid and /etc/subgid give them, where newuidmap(1) is.

    All of it or nothing: an image that has a user should have its group too.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    more = [_subordinate(path, name, uid) for path in ("/etc/subuid", "/etc/subgid")]
    if not all(more) or not shutil.which("newuidmap") or not shutil.which("newgidmap"):
        more = [(), ()]
    return Mappings(((0, uid, 1), *more[0]), ((0, gid, 1), *more[1]))


def _subordinate(path: str, name: str, uid: int) -> Lines:
    """subuid(5): `NAME-OR-UID:FIRST:COUNT`, any number of lines."""
    found = []
    inside = 1
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                who, *numbers = line.strip().split(":")
                if who in (name, str(uid)) and len(numbers) == 2 and all(one.isdecimal() for one in numbers) and int(numbers[1]):
                    found.append((inside, int(numbers[0]), int(numbers[1])))
                    inside += int(numbers[1])
    except OSError:
        return ()
    return tuple(found)


def present_mappings() -> Mappings:
    """The ids that this process's user namespace has, each standing for itself; empty where they cannot be read."""
    return Mappings(_present("/proc/self/uid_map"), _present("/proc/self/gid_map"))


def _present(path: str) -> Lines:
    try:
        with open(path, encoding="ascii") as lines:
            rows = [line.split() for line in lines]
    except OSError:
        return ()
    return tuple((int(inside), int(inside), int(size)) for inside, _, size in rows)


def enter_own() -> Mappings | None:
    """Become root of a user namespace with all the ids that this user has, if there are more than the user's own.

    Whose ids these are in files then lasts: a layer's files keep their owners, and can be removed again. None: this is root, or
    there are no further ids, or user namespaces are not for users here; nothing was changed. The process must have no other
    thread. Raises Error("unsupported") if newuidmap(1) refuses.
    """
    uid = os.geteuid()
    if uid == 0:
        return None
    mappings = own_mappings()
    if mappings.is_simple:
        return None
    try:
        enter_user(mappings)
    except Error:
        if os.geteuid() == uid:
            return None
        raise
    return mappings


def enter_mounts() -> None:
    """Give this process a mount namespace of its own: what it mounts is gone with it, and what the host unmounts goes here too.

    Raises OSError.
    """
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount("none", "/", calls.MS_REC | calls.MS_SLAVE)


def enter_user(mappings: Mappings) -> None:
    """Make this process root of a user namespace of its own, and of a mount namespace. It must have no other thread.

    Raises Error("unsupported") where user namespaces are not for users, or newuidmap(1) refuses.
    """
    simple = mappings.is_simple
    pid = os.getpid()
    # Both programs have to run outside: they are started before, and wait.
    ready, go = os.pipe2(os.O_CLOEXEC)
    mapper = 0 if simple else _fork_mapper(ready, go, pid, mappings)
    try:
        try:
            calls.unshare(calls.CLONE_NEWUSER | calls.CLONE_NEWNS)
        except OSError as err:
            hint = "sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, or AppArmor's restriction, may forbid it"
            cause = os.strerror(err.errno or 0)
            raise Error("unsupported", "a user namespace cannot be made", cause=cause, hint=hint) from None
        if simple:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", _text(mappings.uids))
            _write("/proc/self/gid_map", _text(mappings.gids))
        else:
            os.write(go, b".")
    finally:
        os.close(ready)
        os.close(go)
        status = os.waitpid(mapper, 0)[1] if mapper else 0
    if status:
        hint = "it reads /etc/subuid and /etc/subgid, and has to be set-user-ID root"
        raise Error("unsupported", "newuidmap or newgidmap failed", hint=hint)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    calls.mount("none", "/", calls.MS_REC | calls.MS_SLAVE)


def _fork_mapper(ready: int, go: int, pid: int, mappings: Mappings) -> int:
    """A child outside of the namespace that is to come, which maps it when told; its exit status says whether that went well."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.close(go)
        if os.read(ready, 1):  # the end of the pipe: there is no namespace
            for program, lines in (("newuidmap", mappings.uids), ("newgidmap", mappings.gids)):
                words = [program, str(pid), *(str(number) for line in lines for number in line)]
                subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
            status = 0
    finally:
        os._exit(status)


def _text(lines: Lines) -> str:
    return "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as err:
        if err.errno == errno.ENOENT and path.endswith("setgroups"):
            return
        raise
