"""`ocirt kill`: send a signal to a container's init process."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix

from ocirt import state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.state import Record

_SIGKILL = 9


def run(options: Options, args: list[str]) -> int:
    """Send signal args[1] (SIGTERM if it is not given or empty) to container args[0].

    Raises Error("not-found"), Error("state") if the container is not running (not with --all), Error("invalid") for a signal
    that is none, Error("kernel").
    """
    record = state.load(options.root, args[0])
    try:
        kill(record, args[1] if len(args) > 1 and args[1] else "TERM")
    except Error as err:
        if err.code != "state" or not options.get("all"):
            raise
    return 0


def kill(record: Record, name: str) -> None:
    """Send a signal, by name or number, to a container. Raises Error as `run`."""
    number = _number(name)
    if number == _SIGKILL and record["namespaces"].get("pid") != "" and _has_cgroup(record):
        # No pid namespace of its own: the death of init does not end the others.
        from ocirt.cgroups import control  # noqa: PLC0415

        if not state.init_alive(record) and not control.processes(record["cgroup"]):
            raise Error("state", "container not running")
        control.kill(record["cgroup"], _SIGKILL)
    else:
        _signal_init(record, number)


def _number(text: str) -> int:
    """The number of a signal, in the ways in which runc takes it and RTMIN+n. Raises Error("invalid")."""
    if text.lstrip("+-").isdecimal() and text.isascii():
        try:
            return int(text)
        except ValueError:
            pass  # a second sign, or thousands of digits
    # The table costs 0.3 ms to load, and the interpreter knows the usual names. (SIG_DFL and the like are no signals.)
    name = text.upper().removeprefix("SIG")
    if name.isalnum() and isinstance(number := getattr(_signal, "SIG" + name, None), int):
        return int(number)
    from ocirt.spec import signals  # noqa: PLC0415

    return signals.number(text)


def _has_cgroup(record: Record) -> bool:
    return bool(record["cgroup"]["paths"])


def _signal_init(record: Record, number: int) -> None:
    """Signal the process that the record means, and no other that got its number since."""
    try:
        fd = posix.pidfd_open(record["pid"])
    except (OSError, OverflowError):  # also pid 0, of a container that has no init yet
        raise Error("state", "container not running") from None
    # Looked at after the open: if the process is still the recorded one now, the descriptor cannot mean another.
    if not state.init_alive(record):
        raise Error("state", "container not running")
    try:
        _signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        raise Error("state", "container not running") from None
    except OverflowError:
        raise Error("kernel", "unable to signal init: invalid argument") from None
    except OSError as err:
        raise Error("kernel", "unable to signal init: " + posix.strerror(err.errno or 0).lower()) from None
    if number == _SIGKILL and "freezer" in record["cgroup"]["paths"] and state.paused(record):
        # The v1 freezer holds back even SIGKILL until it thaws.
        from ocirt.cgroups import control  # noqa: PLC0415

        control.thaw(record["cgroup"])
