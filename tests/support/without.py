"""Runs the command as the launcher does, but with security rules switched off: what an attack must find to succeed.

    python -I -S -B -X utf8 without.py FOLDER PATCHES ocirt ARGS...

FOLDER holds the package `ocirt`; PATCHES are names of functions below, with commas between them. Each puts something careless in
the place of one function of ocirt's, and of nothing else. A name that ocirt does not have any more is an error.
"""

import sys
from struct import pack, unpack_from
from time import sleep

folder, patches, name = sys.argv[1:4]
args = sys.argv[4:]
sys.path.append(folder)

import posix  # noqa: E402
import pwd  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

from ocirt import paths, state  # noqa: E402
from ocirt.cli import exec as verb  # noqa: E402
from ocirt.containers import create, execute, host  # noqa: E402
from ocirt.kernel import constants as k  # noqa: E402
from ocirt.kernel import ffi, mount, process, resolve, run  # noqa: E402
from ocirt.kernel.steps import console, program, stdio, tree, user  # noqa: E402
from ocirt.kernel.steps import mount as mounting  # noqa: E402
from ocirt.kernel.steps import process as processes  # noqa: E402
from ocirt.plan import INIT, rootfs, step  # noqa: E402
from ocirt.plan import process as planning  # noqa: E402
from ocirt.seccomp import Filter, cache  # noqa: E402

_O_PATH = 0o10000000


def replace(module: "Any", function: str, new: "Any") -> "Any":
    """Put `new` in the place of a function, and return the old one."""
    old = getattr(module, function)
    setattr(module, function, new)
    return old


def nothing(*_: "Any", **__: "Any") -> None:
    """Do nothing."""


# Paths in the root


def resolve_in_root() -> None:
    """A path below the root is opened like any other: a link leads to wherever it says."""
    in_root = resolve._IN_ROOT

    def open_in_root(root_fd: int, path: str, flags: int = _O_PATH, mode: int = 0, how: int = in_root) -> int:
        if how != in_root:
            return int(real(root_fd, path, flags, mode, how))
        try:
            return posix.open(path.lstrip("/") or ".", flags | posix.O_CLOEXEC, mode, dir_fd=root_fd)
        except OSError as err:
            raise ffi.CallError(err.errno or 0, "openat", path) from None

    real = replace(resolve, "open_in_root", open_in_root)


def mount_to_descriptors() -> None:
    """A mount's target is resolved well, and then used by its name."""

    def target(*arguments: "Any") -> int:
        fd = real(*arguments)
        path = posix.readlink(f"/proc/self/fd/{fd}")
        posix.close(fd)
        return posix.open(path, _O_PATH | posix.O_CLOEXEC)

    real = replace(mounting, "_target", target)


# /proc


def proc_at_its_place() -> None:
    """The container's /proc may lie behind a link."""

    def open_no_links(root_fd: int, path: str, flags: int = _O_PATH) -> int:
        return resolve.open_in_root(root_fd, path, flags)

    replace(resolve, "open_no_links", open_no_links)


def proc_uncovered() -> None:
    """Anything may be mounted on /proc, and below it."""

    def attach(current: run.Run, slot: str, target: str, exact: bool, *_: "Any") -> None:  # noqa: FBT001
        fd = current.fds[slot]
        mount.move_mount_to(fd, mounting._target(current, target, exact, resolve.is_directory(fd)))

    def attach_cgroups(current: run.Run, fd: int, target: str) -> None:
        mount.move_mount(fd, resolve.make_directory(current.root_fd, target))

    replace(mounting, "attach", attach)
    replace(mounting, "_attach", attach_cgroups)


def sysctl_in_real_proc() -> None:
    """Kernel parameters are written to what the container has at /proc."""

    def sysctl(current: run.Run, path: str, value: str) -> None:
        fd = resolve.open_in_root(current.root_fd, "/proc/sys/" + path, posix.O_WRONLY)
        posix.write(fd, value.encode())
        posix.close(fd)

    replace(tree, "sysctl", sysctl)


# The interpreter in the container's tree


def late_import() -> None:
    """Not a rule: something that imports late. Nothing must come of it."""

    def check_directory(current: run.Run) -> None:
        for action in (lambda: __import__("json"), lambda: "x".encode("idna")):
            try:
                action()
            except (ImportError, LookupError):
                pass
        real(current)

    real = replace(processes, "check_directory", check_directory)


def seal() -> None:
    """What is imported late comes from the paths that the interpreter started with."""
    replace(run, "seal_imports", nothing)


def own_passwd() -> None:
    """Users are looked up by the C library."""

    def find_home(current: run.Run, uid: int, env: list[str]) -> None:
        del env
        try:
            current.home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            current.home = "/"

    replace(user, "find_home", find_home)


def passwd_without_waiting() -> None:
    """/etc/passwd is opened as if it could only be a file."""

    def open_in_root(root_fd: int, path: str, flags: int = _O_PATH, *more: int) -> int:
        return int(real(root_fd, path, flags & ~posix.O_NONBLOCK, *more))

    real = replace(resolve, "open_in_root", open_in_root)


# Descriptors and the working directory


def close_all() -> None:
    """Descriptors stay open."""
    for module in (create, execute, process):
        replace(module, "close_on_exec_from", nothing)
    replace(processes, "close_descriptors", nothing)


def close_early() -> None:
    """Descriptors are closed by execve only."""
    replace(processes, "close_descriptors", nothing)


def directory_inside() -> None:
    """Any working directory will do."""
    replace(processes, "check_directory", nothing)


def directory_in_root() -> None:
    """The working directory is not looked for in the root."""
    replace(tree, "make_directory", nothing)


# Masks and console


def real_null() -> None:
    """What hides files is what the container has at /dev/null."""

    def host_null(current: run.Run) -> int:
        return resolve.open_in_root(current.root_fd, "/dev/null")

    replace(mounting, "_host_null", host_null)


def null_read_only() -> None:
    """What hides files is the host's own, to be changed like any file."""

    def mount_setattr(fd: int, attr_set: int = 0, *more: "Any", **options: "Any") -> None:
        if fd >= 0 and posix.fstat(fd).st_rdev == posix.makedev(1, 3):
            attr_set &= ~k.MOUNT_ATTR_RDONLY
        real(fd, attr_set, *more, **options)

    real = replace(mount, "mount_setattr", mount_setattr)


def null_apart() -> None:
    """What hides a file is a peer of what the host has mounted there."""

    def mount_setattr(fd: int, attr_set: int = 0, attr_clear: int = 0, propagation: int = 0, **options: "Any") -> None:
        if fd >= 0 and posix.fstat(fd).st_rdev == posix.makedev(1, 3):
            propagation = 0
        real(fd, attr_set, attr_clear, propagation, **options)

    real = replace(mount, "mount_setattr", mount_setattr)


def null_reopened() -> None:
    """A stream that is the host's /dev/null stays that."""
    replace(stdio, "reopen_null", nothing)


def real_multiplexer() -> None:
    """The terminal comes from whatever is at /dev/pts/ptmx."""

    def open_console(current: run.Run, rows: int, columns: int) -> None:
        del rows, columns
        master = resolve.open_in_root(current.root_fd, "/dev/pts/ptmx", posix.O_RDWR | posix.O_NOCTTY)
        console._number(master)

    replace(console, "open", open_console)


def console_by_descriptor() -> None:
    """The terminal is bound by its name."""

    def bind(current: run.Run) -> None:
        source = resolve.open_in_root(current.root_fd, f"/dev/pts/{current.fds['console/number']}")
        fd = mount.open_tree("", False, dir_fd=source)
        mount.move_mount_to(fd, resolve.make_file(current.root_fd, "/dev/console"))

    replace(console, "bind", bind)


# Joining, and the filter


def recycled() -> None:
    """Not a rule: init has ended since its record was read, and its number has come to mean the process RECYCLED."""

    def load_running(*arguments: "Any", **options: "Any") -> "Any":
        return {**real(*arguments, **options), "pid": int(posix.environ[b"RECYCLED"])}

    real = replace(execute, "load_running", load_running)
    replace(verb, "load_running", load_running)


def same_target() -> None:
    """Whoever has the number of the container's init now is taken for it."""

    def open_target(current: run.Run, pid: int, *_: "Any") -> None:
        current.fds["target"] = posix.pidfd_open(pid)

    replace(processes, "open_target", open_target)


def protect() -> None:
    """Whoever shares the process's user may look into it."""
    replace(processes, "protect", nothing)
    replace(host, "_waiter", str)  # which has nothing of the caller's left in it


def slow() -> None:
    """Not a rule: init takes its time before it goes on to its program."""

    def find(*arguments: "Any") -> None:
        real(*arguments)
        sleep(0.4)

    real = replace(program, "find", find)


def filter_last() -> None:
    """The filter is loaded before privileges are given up."""

    def filter_now(current: run.Run) -> None:
        wanted = current.filter.program
        ffi.syscall("seccomp", 1, current.filter.flags, pack("H6xP", len(wanted) // 8, ffi.address_of(wanted)))

    def identity(*arguments: "Any", **options: "Any") -> "Any":
        return [step(INIT, "program.filter_now"), *real(*arguments, **options)]

    replace(program, "filter", nothing)
    program.filter_now = filter_now  # type: ignore[attr-defined]
    real = replace(planning, "identity", identity)


def doubt_cache() -> None:
    """A translated filter is loaded whoever made it."""

    def open_directory(path: str) -> int:
        try:
            return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def read(directory: int, key: bytes) -> Filter | None:
        try:
            fd = posix.open(key.hex(), posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return None
        data = posix.read(fd, cache._LARGEST)
        posix.close(fd)
        (flags,) = unpack_from("<I", data, cache._HEADER - 8)
        return Filter(data[cache._HEADER : -cache._HASH], flags, False)

    replace(cache, "_open_directory", open_directory)
    replace(cache, "_read", read)


# Deaths

_CHANGING = """
    chdir chmod chown chroot close dup2 execve fchmod fchown ftruncate kill link lchown mkdir mkfifo mknod open pidfd_open pwrite
    rename rmdir setgid setgroups setresgid setresuid setsid setuid symlink sched_setaffinity truncate umask unlink waitpid write
    """


def die() -> None:
    """Not a rule: one side of the plan gets SIGKILL at its Nth call that changes something. DIE is "SIDE:N".

    N = 0: nothing dies; how many such calls there were is left in the file DIE_COUNT.
    """
    side, _, number = posix.environ[b"DIE"].decode().partition(":")
    target = int(number)
    kill, pid, leave, pwrite = posix.kill, posix.getpid, posix._exit, posix.pwrite
    counter = posix.open(posix.environ[b"DIE_COUNT"], posix.O_WRONLY | posix.O_CLOEXEC) if target == 0 else -1
    now: list[Any] = ["parent", 0]

    def counted(real: "Any") -> "Any":
        def call(*arguments: "Any", **options: "Any") -> "Any":
            if now[0] == side:
                now[1] += 1
                if now[1] == target:
                    kill(pid(), 9)
                    leave(137)  # the first process of a pid namespace does not mind its own signals
                if target == 0:
                    try:
                        pwrite(counter, b"%6d" % now[1], 0)
                    except OSError:
                        pass  # init has closed it by now
            return real(*arguments, **options)

        return call

    def walk(current: run.Run, which: str) -> None:
        if which in ("stage", "init", "start"):
            now[0] = "init" if which == "start" else which
        real(current, which)

    real = replace(run.Run, "walk", walk)
    for call in _CHANGING.split():
        setattr(posix, call, counted(getattr(posix, call)))
    ffi._syscall = counted(ffi._syscall)


# What runs in a container, and what is kept about it


def score_in_host_proc() -> None:
    """A process that joins writes its score to what the container has at /proc."""

    def check_directory(current: run.Run) -> None:
        fd = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY)
        posix.write(fd, b"77")
        posix.close(fd)
        real(current)

    replace(processes, "set_oom_score", nothing)
    real = replace(processes, "check_directory", check_directory)


def null_opened_blindly() -> None:
    """The container's /dev/null is opened as if it could only be that."""

    def reopen_null(current: run.Run) -> None:
        for fd in range(3):
            if posix.fstat(fd).st_rdev == posix.makedev(1, 3):
                posix.dup2(resolve.open_in_root(current.root_fd, "/dev/null", posix.O_RDONLY), fd)

    replace(stdio, "reopen_null", reopen_null)


def strict_numbers() -> None:
    """A number is what atoi(3) makes of a text."""

    def number(text: str, flag: str) -> int:
        del flag
        digits = text[: next((at for at, char in enumerate(text) if not char.isdigit()), len(text))]
        return int(digits or 0) & 0xFFFFFFFF

    replace(verb, "_number", number)


def numbers_only() -> None:
    """A user is looked up by name first."""

    def from_flags(options: "Any", args: "Any", record: "Any") -> "Any":
        process = real(options, args, record)
        for line in paths.read_text(record["rootfs"] + "/etc/passwd").splitlines():
            if line.startswith(options.get("user") + ":"):
                process["user"]["uid"] = int(line.split(":")[2])
        return process

    real = replace(verb, "_from_flags", from_flags)


def inheritable_empty() -> None:
    """What `exec` is asked to give is inheritable, too."""

    def from_flags(*arguments: "Any") -> "Any":
        process = real(*arguments)
        process["capabilities"]["inheritable"] = process["capabilities"]["permitted"]
        return process

    real = replace(verb, "_from_flags", from_flags)


def private_state() -> None:
    """What is kept has the mode that the caller's umask leaves it."""

    def reserve(root: str, container_id: str) -> str:
        where = state.directory(root, container_id)
        paths.make_directories(root, 0o755)
        posix.mkdir(where, 0o755)
        return where

    def write_file(path: str, data: bytes) -> None:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
        posix.write(fd, data)
        posix.close(fd)

    replace(state, "reserve", reserve)
    replace(state, "write_file", write_file)


def cgroups_read_only() -> None:
    """The host's cgroups are shown as they are."""

    def bind(source: str, attributes: int) -> int:
        return int(real(source, attributes & ~k.MOUNT_ATTR_RDONLY))

    real = replace(mounting, "_bind", bind)


def cgroup_options_kept() -> None:
    """A cgroup2 is mounted like any other file system, in whatever cgroup namespace."""
    replace(rootfs, "_shows_cgroups", lambda kind, mode, _: kind == "cgroup" or (kind == "cgroup2" and mode != "v2"))


def hooks_own_environment() -> None:
    """Hooks have the environment of the container's process, too."""

    def plan_create(spec: "Any", *arguments: "Any") -> "Any":
        for kind in spec["hooks"].values():
            for hook in kind:
                hook["env"] = [*spec["process"]["env"], *hook.get("env", ())]
        return real(spec, *arguments)

    real = replace(create, "plan_create", plan_create)


if patches:
    for patch in patches.split(","):
        globals()[patch]()

from ocirt.cli.main import main  # noqa: E402

main(name, args)
