"""`ocirt restore`: make a container of what `checkpoint` wrote, by CRIU, and wait for it unless it is to be detached."""

from __future__ import annotations

from ocirt.cli.checkpoint import SWITCHES, common
from ocirt.cli.given import absolute, write_pid_file
from ocirt.cli.run import remove
from ocirt.cli.target import target
from ocirt.containers.restore import Restoration
from ocirt.errors import Error
from ocirt.plan import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.containers.attach import Attached


def run(options: Options, args: list[str]) -> int:
    """Restore container args[0]. The exit status is its process's, 128 + N for signal N. Raises Error, OSError."""
    detach, socket = options.get("detach"), options.get("console-socket")
    bundle, container_id = target(options, args)
    flags = common(options, SWITCHES)
    flags |= {name: options.get(name) for name in ("lsm-profile", "lsm-mount-context")}
    if not detach and socket:
        raise Error("usage", f"cannot use console socket if {options.name} will not detach or allocate tty")
    console = "attached" if not detach else "socket" if socket else ""
    request = Request(container_id, bundle, "", waits=False, console=console, cgroups=options.cgroup_manager)
    restoration = Command(options.root, request, options.get("config") or "config.json", options.rootless)
    restoration.pid_file = absolute(options.get("pid-file"))
    restoration.check_terminal(options.name)
    restoration.set_flags(flags)
    attached: Attached | None = None
    if not detach:
        from ocirt.containers.attach import Attached  # noqa: PLC0415  (only then)

        attached = Attached(terminal=bool(request.console), subreaper=not options.get("no-subreaper"))
    program = restoration.prepare()
    if attached is not None:
        attached.streams(program)
    elif request.console:
        from ocirt.containers.sockets import Socket  # noqa: PLC0415  (only with a terminal)

        try:
            program.on_console = Socket(absolute(socket), "console socket").send
        except BaseException:
            restoration.undo()
            raise
    record = restoration.make()
    if attached is None:
        return 0
    attached.created()
    status = attached.wait(record["pid"])
    if said := remove(record, request.directory):
        from ocirt.cli.delete import warn  # noqa: PLC0415

        warn(options, said)
    return status


class Command(Restoration):
    """A restoration with a pid file."""

    pid_file = ""

    def on_created(self, pid: int) -> None:
        """Write the pid file: the restored process does not run yet."""
        if self.pid_file:
            write_pid_file(self.pid_file, pid)
