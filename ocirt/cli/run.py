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
    from collections.abc import Callable

    from ocirt.cli.options import Options
    from ocirt.containers.attach import Attached
    from ocirt.containers.create import Creation
    from ocirt.containers.notify import Notify
    from ocirt.state import Record


def run(options: Options, args: list[str]) -> int:
    """Run the container of a bundle, or (--image) of an image. Raises Error, OSError."""
    if options.given("image"):
        from ocirt.cli import fromimage  # noqa: PLC0415  (only then)

        return fromimage.run(options, args)
    return run_bundle(options, args)


def run_bundle(options: Options, args: list[str], reserved: Callable[[], None] | None = None) -> int:
    """Run the bundle's container. The exit status is its process's, 128 + N for signal N. Raises Error, OSError.

    reserved: called when the container has its place in the state directory
    """
    detach = options.get("detach")
    creation = begin(options, args, waits=False, attached=not detach)
    attached: Attached | None = None
    if not detach:
        from ocirt.containers.attach import Attached  # noqa: PLC0415  (only then)

        terminal = bool(creation.request.console)
        attached = Attached(terminal=terminal, subreaper=not options.get("no-subreaper"))
        creation.request.pipes = not terminal
    creation.prepare(absolute(options.get("trace")))
    if reserved is not None:
        reserved()
    record = launch(creation, attached)
    notify = creation.notify
    if attached is None:
        if notify is not None:
            _wait_for_word(notify, record["pid"])
        return 0
    if notify is not None:
        attached.watch(notify.fd, lambda: notify.forward(posix.getpid()), at_end=True)
    status = attached.wait(record["pid"])
    if not options.get("keep") and (said := remove(record, creation.request.directory)):
        from ocirt.cli.delete import warn  # noqa: PLC0415

        warn(options, said)
    return status


def launch(creation: Creation, attached: Attached | None) -> Record:
    """From a prepared container to one whose program runs. Raises Error, OSError, with nothing left."""
    if attached is not None:
        assert creation.run is not None
        attached.streams(creation.run)
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
    return record


def _wait_for_word(notify: Notify, pid: int) -> None:
    try:
        notify.wait(pid)
    except OSError:
        pass  # a manager that is not there is not the container's failure


def remove(record: Record, directory: str) -> list[str]:
    """Remove what a container that has ended held, unless a `delete` was quicker. Returns what its poststop hooks complain of."""
    try:
        lock = state.lock(directory)
    except Error as err:
        if err.code == "not-found":
            return []
        raise
    said = destroy(record, directory)
    posix.close(lock)
    return said
