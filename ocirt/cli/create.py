"""`ocirt create`: make a container whose process waits for `start`."""

from __future__ import annotations

from ocirt.cli.given import absolute, descriptors, write_pid_file
from ocirt.cli.target import target
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.kernel.run import Run


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
    if options.debug:
        from ocirt.cli import log  # noqa: PLC0415  (only for who asks)

        for pointer, text in creation.warnings():
            log.debug(options, f"{pointer}: {text}")
    return creation


class Command(Creation):
    """A creation with a pid file and a console socket."""

    pid_file = ""
    socket = ""

    def on_created(self, pid: int) -> None:
        """Write the pid file: there is an init by then, and none that runs yet."""
        if self.pid_file:
            write_pid_file(self.pid_file, pid)

    def prepare(self, trace: str = "") -> Run:
        """Also connect what sends the console away."""
        run = super().prepare(trace)
        if self.request.console == "socket":
            from ocirt.containers import console  # noqa: PLC0415  (only with a terminal)

            run.on_console = console.Socket(self.socket).send
        return run
