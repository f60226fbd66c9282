"""`ocirt create`: make a container whose process waits for `start`."""

from __future__ import annotations

import posix

from ocirt.cli.target import target
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Create container args[0] from the bundle. Raises Error, OSError."""
    creation = begin(options, args, waits=True, attached=False)
    creation.prepare()
    creation.make()
    return 0


def begin(options: Options, args: list[str], *, waits: bool, attached: bool) -> Creation:
    """What `create` and `run` have in common: from the flags to a container that can be prepared. Raises Error, OSError."""
    if options.systemd_cgroup:
        raise Error("unsupported", "--systemd-cgroup: not supported yet", hint="leave it out: cgroupfs")
    if options.get("pidfd-socket"):
        raise Error("unsupported", "--pidfd-socket: not supported yet")
    bundle, container_id = target(options, args)
    socket = options.get("console-socket")
    listen_fds, fds = descriptors(options.get("preserve-fds"))
    pid_file = absolute(options.get("pid-file"))
    request = Request(
        container_id,
        bundle,
        "",
        waits=waits,
        console="attached" if attached else "socket" if socket else "",
        fds=fds,
        listen_fds=listen_fds,
        keyring=not options.get("no-new-keyring"),
        pivot=not options.get("no-pivot"),
        cgroups=options.cgroup_manager,
    )
    if attached and socket:
        raise Error("usage", f"cannot use console socket if {options.name} will not detach or allocate tty")
    creation = Command(options.root, request, options.get("config") or "config.json", options.rootless)
    creation.socket = absolute(socket)
    creation.pid_file = pid_file
    creation.check_terminal(options.name)
    return creation


class Command(Creation):
    """A creation with a pid file and a console socket."""

    pid_file = ""
    socket = ""

    def on_created(self, pid: int) -> None:
        """Write the pid file: there is an init by then, and none that runs yet."""
        if self.pid_file:
            write_pid_file(self.pid_file, pid)

    def prepare(self, trace: str = "") -> object:
        """Also connect what sends the console away."""
        run = super().prepare(trace)
        if self.request.console == "socket":
            from ocirt.containers import console  # noqa: PLC0415  (only with a terminal)

            run.on_console = console.Socket(self.socket).send
        return run


def absolute(path: str) -> str:
    """A path of the command line, before the working directory may change; "" stays."""
    if not path or path.startswith("/"):
        return path
    from ocirt import paths  # noqa: PLC0415

    return paths.absolute(path)


def descriptors(preserve: int) -> tuple[int, int]:
    """How many descriptors from 3 on are handed over: those of LISTEN_FDS (sd_listen_fds(3)), and with --preserve-fds's.

    Raises Error("usage") for one that is not open.
    """
    listen = 0
    if posix.environ.get(b"LISTEN_PID") == b"%d" % posix.getpid():
        text = posix.environ.get(b"LISTEN_FDS", b"")
        listen = int(text) if text.isdigit() else 0
    if preserve < 0:
        raise Error("usage", "--preserve-fds: a negative number of descriptors")
    for fd in range(3, 3 + listen + preserve):
        try:
            inherited = posix.get_inheritable(fd)
        except OSError:
            inherited = False
        if not inherited:  # closed, or one of our own
            source = "LISTEN_FDS" if fd < 3 + listen else "--preserve-fds"
            raise Error("usage", f"{source}: descriptor {fd} is not open")
    return listen, listen + preserve


def write_pid_file(path: str, pid: int) -> None:
    """Put the pid, without a newline, into a file that appears whole. Raises OSError."""
    head, slash, name = path.rpartition("/")
    temporary = f"{head}{slash}.{name}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        fd = posix.open(temporary, flags, 0o666)
    except FileExistsError:
        posix.unlink(temporary)  # of a runtime that died here
        fd = posix.open(temporary, flags, 0o666)
    try:
        posix.write(fd, b"%d" % pid)
    finally:
        posix.close(fd)
    posix.rename(temporary, path)
