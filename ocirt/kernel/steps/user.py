"""User namespaces' mappings, and users (user_namespaces(7), credentials(7), passwd(5))."""

from __future__ import annotations

import posix

from ocirt.kernel import constants as k
from ocirt.kernel import resolve
from ocirt.kernel.process import prctl
from ocirt.kernel.run import Run
from ocirt.paths import write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    Lines = tuple[tuple[int, int, int], ...]

_LARGEST_PASSWD = 8 << 20


def map(run: Run, uids: Lines, gids: Lines, root: bool) -> None:  # noqa: A001, FBT001  (the plan's word)
    """Write the mappings of init's user namespace: as root ourselves, else by newuidmap(1) for more than our own ids."""
    pid = run.pid
    for kind, lines in (("uid", uids), ("gid", gids)):
        own = posix.geteuid() if kind == "uid" else posix.getegid()
        if root or (len(lines) == 1 and lines[0][1:] == (own, 1)):
            if kind == "gid" and not root:
                write_text(f"/proc/{pid}/setgroups", "deny")
            path = f"/proc/{pid}/{kind}_map"
            try:
                write_text(path, "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines))
            except OSError as err:
                err.filename = path
                raise
        else:
            _helper(f"new{kind}map", pid, lines)


def _helper(program: str, pid: int, lines: Lines) -> None:
    """Have the set-uid program of the shadow suite write a mapping from /etc/subuid or /etc/subgid."""
    words = [program, str(pid), *[str(number) for line in lines for number in line]]
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    try:
        actions = [(posix.POSIX_SPAWN_DUP2, writer, 1), (posix.POSIX_SPAWN_DUP2, writer, 2)]
        child = posix.posix_spawnp(program, words, posix.environ, file_actions=actions)
    except FileNotFoundError as err:
        posix.close(reader)
        err.filename = f"{program} is needed for more than one id; install uidmap"
        raise
    finally:
        posix.close(writer)
    said = posix.read(reader, 4096)
    posix.close(reader)
    if posix.waitpid(child, 0)[1]:
        raise OSError(1, "", said.decode("utf-8", "surrogateescape").strip() or program)


def become_root(run: Run) -> None:
    """Become user and group 0 of the user namespace, in no other group where that may be chosen."""
    del run
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)
    try:
        posix.setgroups([])
    except PermissionError:
        pass  # "deny": a rootless runtime's


def become(run: Run, uid: int, gid: int, groups: tuple[int, ...], lenient: bool) -> None:  # noqa: FBT001
    """Become the user of the program; capabilities stay permitted until they are set.

    `lenient`: in a user namespace setgroups(2) may be denied, also by one further out; then no groups can be asked for.
    """
    del run
    if uid:
        prctl(k.PR_SET_KEEPCAPS, 1)
    try:
        posix.setgroups(groups)
    except PermissionError:
        if groups or not lenient:
            raise
    posix.setresgid(gid, gid, gid)
    posix.setresuid(uid, uid, uid)


def find_home(run: Run, uid: int, env: list[str]) -> None:
    """Look up HOME in the container's /etc/passwd, unless `env` has it; `/` for a user who is not there (passwd(5))."""
    for entry in env:
        if entry.startswith("HOME="):
            return
    run.home = "/"
    try:
        fd = resolve.open_in_root(run.root_fd, "/etc/passwd", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return
    try:
        if posix.fstat(fd).st_mode & resolve.S_IFMT != 0o100000:
            return
        data = b""
        while len(data) < _LARGEST_PASSWD and (more := posix.read(fd, 1 << 16)):
            data += more
    finally:
        posix.close(fd)
    # Only lines in which the number stands somewhere are looked at, each once: the file may be of any shape.
    number = b"%d" % uid
    at = data.find(b":" + number + b":")
    while at >= 0:
        start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
        fields = data[start : end if end >= 0 else len(data)].split(b":", 6)
        if len(fields) >= 6 and fields[2] == number:
            run.home = fields[5].decode("utf-8", "surrogateescape") or "/"
            return
        at = data.find(b":" + number + b":", end) if end >= 0 else -1
