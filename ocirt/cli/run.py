"""`ocirt run`: create and start a container, and wait for it unless it is to be detached."""

from __future__ import annotations

import posix

from ocirt import state
from ocirt.cli.create import begin
from ocirt.cli.given import absolute
from ocirt.containers.destroy import destroy
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.containers.attach import Attached
    from ocirt.containers.notify import Notify
    from ocirt.state import Record


def run(options: Options, args: list[str]) -> int:
    """Run the bundle's container. The exit status is its process's, 128 + N for signal N. Raises Error, OSError."""
    detach = options.get("detach")
    creation = begin(options, args, waits=False, attached=not detach)
    attached: Attached | None = None
    if not detach:
        from ocirt.containers.attach import Attached  # noqa: PLC0415  (only then)

        terminal = bool(creation.request.console)
        attached = Attached(terminal=terminal, subreaper=not options.get("no-subreaper"))
        creation.request.pipes = not terminal
    program = creation.prepare(absolute(options.get("trace")))
    if attached is not None:
        attached.streams(program)
    record = creation.make()
    if attached is not None:
        attached.created()
    creation.await_program()
    if record["hooks"].get("poststart"):
        from ocirt.containers.start import poststart  # noqa: PLC0415

        try:
            poststart(record)
        except BaseException:
            creation.undo()
            raise
    notify = creation.notify
    if attached is None:
        if notify is not None:
            _wait_for_word(notify, record["pid"])
        return 0
    if notify is not None:
        attached.watch(notify.fd, lambda: notify.forward(posix.getpid()))
    status = attached.wait(record["pid"])
    if not options.get("keep"):
        remove(options, record, creation.request.directory)
    return status


def _wait_for_word(notify: Notify, pid: int) -> None:
    try:
        notify.wait(pid)
    except OSError:
        pass  # a manager that is not there is not the container's failure


def remove(options: Options, record: Record, directory: str) -> None:
    """Remove what the container held, unless a `delete` was quicker."""
    try:
        lock = state.lock(directory)
    except Error as err:
        if err.code == "not-found":
            return
        raise
    said = destroy(record, directory)
    posix.close(lock)
    if said:
        from ocirt.cli.delete import warn  # noqa: PLC0415

        warn(options, said)
