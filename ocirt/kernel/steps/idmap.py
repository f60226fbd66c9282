"""Id-mapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP; user_namespaces(7)). Loaded only if a mount asks for it."""

from __future__ import annotations

import posix

from ocirt.kernel import constants as k
from ocirt.kernel import mount, process
from ocirt.kernel.run import Run
from ocirt.paths import write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    Lines = tuple[tuple[int, int, int], ...]


def make_namespace(run: Run, slot: str, uids: Lines, gids: Lines) -> None:
    """Open a user namespace with these mappings. Nobody lives in it: a mount that is mapped holds it, as does the slot."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    pid = process.clone3(k.CLONE_NEWUSER)
    if pid == 0:
        # A namespace needs a process to begin with. This one waits for our word, or for our end, and does nothing else.
        try:
            posix.close(writer)
            posix.read(reader, 1)
        finally:
            posix._exit(0)
    posix.close(reader)
    try:
        for kind, lines in (("uid", uids), ("gid", gids)):
            path = f"/proc/{pid}/{kind}_map"
            try:
                write_text(path, "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines))
            except OSError as err:
                err.filename = path
                raise
        run.fds[slot] = posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        posix.close(writer)
        posix.waitpid(pid, 0)


def map(run: Run, slot: str, source: str, user: str, recursive: bool) -> None:  # noqa: A001, FBT001  (the plan's word)
    """Map the ids of a detached mount (recursive: of all below it too) as a user namespace does: a slot's, or init's own.

    `source` is the path that the mount was made from, for who reads the plan or an error.
    """
    del source
    fd = run.fds[user] if user else posix.open(f"/proc/{run.pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        mount.mount_setattr(run.fds[slot], k.MOUNT_ATTR_IDMAP, recursive=recursive, userns_fd=fd)
    finally:
        if not user:
            posix.close(fd)
