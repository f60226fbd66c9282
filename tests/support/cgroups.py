"""Cgroups that ocirt's own code makes and removes, for its tests on the real kernel."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ocirt.cgroups import control
from ocirt.cgroups.layout import Layout, detect
from ocirt.cgroups.paths import resolve
from tests.support.isolation import Isolation

Cgroup = dict[str, Any]
New = Callable[..., Cgroup]

numbers = itertools.count()  # which no cgroup of the session shares


@pytest.fixture
def layout(isolation: Isolation) -> Layout:
    return detect()


@pytest.fixture
def new(layout: Layout, isolation: Isolation) -> Iterator[New]:
    """Make cgroups: the `cgroup` of a record. Those that a test does not remove itself are removed."""
    made: list[Cgroup] = []

    def make(inner: str = "", *, only: list[str] | None = None) -> Cgroup:
        paths = resolve(f"{isolation.cgroup_parent}/c{next(numbers)}{inner}", "id", layout, False)
        if only is not None:
            paths = {name: paths[name] for name in only}
        cgroup = {"mode": layout.mode, "paths": paths, "created": control.create(paths)}
        made.append(cgroup)
        return cgroup

    yield make
    for cgroup in made:
        control.kill(cgroup, signal.SIGKILL)
        control.remove(cgroup)


def version_1(layout: Layout, *controllers: str) -> None:
    """Skip where there is no version 1, or not with these controllers."""
    if layout.mode == "v2" or not set(controllers) <= set(layout.mounts):
        pytest.skip("needs cgroup version 1")


def version_2(layout: Layout) -> None:
    """Skip where version 1 has the controllers."""
    if layout.mode != "v2":
        pytest.skip("needs cgroup version 2")


def in_cgroup(cgroup: Cgroup, action: Callable[[], int]) -> int:
    """What `action`, an exit status, gives in a child that has joined."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            control.attach(cgroup["paths"], os.getpid())
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
