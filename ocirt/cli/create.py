"""`ocirt create`: make a container whose process waits for `start`."""

from __future__ import annotations

import posix

from ocirt.cli.given import absolute, descriptors, write_pid_file
from ocirt.cli.target import target
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.containers.sockets import Socket
    from ocirt.kernel.run import Run


def run(options: Options, args: list[str]) -> int:
    """Create container args[0] from the bundle. Raises Error, OSError."""
    creation = begin(options, args, waits=True, attached=False)
    creation.prepare()
    creation.make()
    return 0


def begin(options: Options, args: list[str], *, waits: bool, attached: bool) -> Creation:
    """What `create` and `run` have in common: from the flags to a container that can be prepared. Raises Error, OSError."""
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
        notify=bool(posix.environ.get(b"NOTIFY_SOCKET")),
    )
    if attached and socket:
        raise Error("usage", f"cannot use console socket if {options.name} will not detach or allocate tty")
    creation = Command(options.root, request, options.get("config") or "config.json", options.rootless)
    creation.socket = absolute(socket)
    creation.pidfd_socket = absolute(options.get("pidfd-socket"))
    creation.pid_file = pid_file
    creation.check_terminal(options.name)
    if options.debug:
        from ocirt.cli import log  # noqa: PLC0415  (only for who asks)

        for pointer, text in creation.warnings():
            log.debug(options, f"{pointer}: {text}")
    return creation


class Command(Creation):
    """A creation with a pid file, and sockets that get the terminal and a pidfd."""

    pid_file = ""
    pidfd_socket = ""
    socket = ""
    _pidfd: Socket | None = None

    def on_created(self, pid: int) -> None:
        """Write the pid file and send the pidfd: there is an init by then, and none that runs yet."""
        if self.pid_file:
            write_pid_file(self.pid_file, pid)
        if self._pidfd is not None:
            self._pidfd.send("standard", posix.pidfd_open(pid))

    def prepare(self, trace: str = "") -> Run:
        """Before that, connect to what gets the terminal and the pidfd."""
        console = None
        if self.pidfd_socket or self.request.console == "socket":
            from ocirt.containers.sockets import Socket  # noqa: PLC0415  (only for one of these)

            if self.pidfd_socket:
                self._pidfd = Socket(self.pidfd_socket, "pidfd socket")
            if self.request.console == "socket":
                console = Socket(self.socket, "console socket")
        run = super().prepare(trace)
        if console is not None:
            run.on_console = console.send
        return run
