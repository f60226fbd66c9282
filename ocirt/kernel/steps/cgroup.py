"""Cgroups: made and limited by the parent, joined by init."""

from __future__ import annotations

import posix

from ocirt.cgroups.files import join_files, write
from ocirt.kernel.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroups.limits import Entry


def check(run: Run, paths: dict[str, str]) -> None:
    """Refuse cgroups that have processes in them, or are frozen."""
    from ocirt.cgroups import control  # noqa: PLC0415  (the parent's; `exec` does without)

    del run
    control.check_empty(paths)


def make(run: Run, paths: dict[str, str]) -> None:
    """Make the directories."""
    from ocirt.cgroups import control  # noqa: PLC0415

    del run
    control.create(paths)


def do_without(run: Run, paths: dict[str, str]) -> None:
    """Where none may be made and none is needed: later steps, and the record, find no paths."""
    del run
    paths.clear()


def limit(run: Run, paths: dict[str, str], entries: tuple[Entry, ...]) -> None:
    """Write limits."""
    from ocirt.cgroups.apply import apply  # noqa: PLC0415  (only with limits)

    del run
    apply(paths, entries)


def device_rules(run: Run, paths: dict[str, str], writes: tuple[tuple[str, str, str], ...]) -> None:
    """Write the rules of the version 1 devices controller."""
    del run
    if not paths:
        return
    directory = paths["devices"]
    for file, value, _ in writes:
        write(f"{directory}/{file}", value.encode("ascii"))


def device_program(run: Run, paths: dict[str, str], program: bytes) -> None:
    """Load the device program and attach it to the version 2 cgroup, in the place of what is there."""
    from ocirt.cgroups import bpf  # noqa: PLC0415  (the parent's, and version 2 only)

    del run
    if not paths:
        return
    fd = posix.open(paths[""], posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        bpf.load_and_attach(program, fd, replace=True)
    finally:
        posix.close(fd)


def attach(run: Run, paths: dict[str, str]) -> None:
    """Move init into the version 1 hierarchies that systemd leaves alone."""
    from ocirt.cgroups import control  # noqa: PLC0415

    control.attach(paths, run.pid)


def open(run: Run, paths: dict[str, str]) -> None:  # noqa: A001  (the plan's word)
    """Open what init needs to come in: the unified directory for clone3(2), the others' lists of tasks."""
    unified = paths.get("")
    if unified is not None:
        run.cgroup_fd = posix.open(unified, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    for file in join_files({name: path for name, path in paths.items() if name}):
        run.join_fds.append(posix.open(file, posix.O_WRONLY | posix.O_CLOEXEC))


def join(run: Run) -> None:
    """Move into the cgroups whose lists of tasks are open."""
    for fd in run.join_fds:
        posix.write(fd, b"0")
        posix.close(fd)
    run.join_fds.clear()
