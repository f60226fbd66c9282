"""Runtimes and their bundles beside a systemd, which makes the cgroups: what `tests/system/test_systemd*.py` share."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bundle import Bundle, make_bundle
from tests.support.isolation import Isolation, cgroup_mounts, remove_tree
from tests.support.runtime import Runtime, default_command
from tests.support.systemd import Systemd, is_running, program

# Without the session's token, as it stays as long as systemd does; and without a dash, which would make it two.
SLICE = f"ocirttest{os.getpid()}.slice"
NOTE = "org.systemd.property."
SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture(scope="module", params=["v2", "hybrid"])
def systemd(request: pytest.FixtureRequest, isolation: Isolation) -> Iterator[Systemd]:
    """The machine's systemd, or one that is made for this module in either view."""
    del isolation
    if program() is None:
        pytest.skip("systemd is not installed: apt-get install systemd")
    if is_running() and request.param == "hybrid":
        pytest.skip("this machine runs under systemd, and has the one view that it has")
    if request.param == "hybrid" and len(cgroup_mounts()) < 2:
        pytest.skip("there are no hierarchies of version 1 in this view")
    work = Path(tempfile.mkdtemp(prefix="ocirt-systemd-"))
    work.chmod(0o711)
    made = Systemd(request.param, work)
    yield made
    made.stop()
    shutil.rmtree(made.share)
    work.rmdir()


def _is_anothers(name: str, token: str) -> bool:
    """Whether it is a container's of another session, whose token is in it or in its slice."""
    return token not in name and re.search(r"[-/]t[0-9a-f]{8}[-.]", name) is not None


@pytest.fixture
def shared(systemd: Systemd) -> Iterator[Path]:
    """A directory that is the same beside systemd, for bundles and state."""
    made = Path(tempfile.mkdtemp(prefix="test-", dir=systemd.share))
    made.chmod(0o711)
    yield made
    remove_tree(made)


@pytest.fixture
def bundle(shared: Path) -> Callable[..., Bundle]:
    """Make bundles that are seen beside systemd."""
    count = iter(range(1000))
    return lambda **edits: make_bundle(shared / f"bundle{next(count)}", **edits)


@pytest.fixture
def new(systemd: Systemd, isolation: Isolation, shared: Path) -> Iterator[Callable[..., Runtime]]:
    """Make drivers of runtimes beside systemd; at the end no scope and no cgroup of a container may be left."""

    def left() -> list[str]:
        # Where systemd is the machine's own, another session of tests may be at work beside this one.
        found = [*systemd.scopes(), *map(str, systemd.directories())]
        return sorted(one for one in found if not _is_anothers(one, isolation.token))

    before = left()
    made: list[Runtime] = []

    def make(*command: str) -> Runtime:
        work = shared / f"runtime{len(made)}"
        work.mkdir()
        token = f"{isolation.token}-s{os.urandom(2).hex()}"
        runtime = Runtime(command or default_command(), work, token, SLICE, manager="systemd", prefix=systemd.prefix)
        made.append(runtime)
        return runtime

    yield make
    complaints = [complaint for runtime in made for complaint in runtime.clean_up()]
    if is_running():
        systemd.call("systemctl", "stop", SLICE)
    assert complaints == []
    assert left() == before


@pytest.fixture
def box(new: Callable[..., Runtime]) -> Runtime:
    """The runtime under test, beside systemd."""
    return new()


def own_cgroups(text: str) -> dict[str, str]:
    """Controllers to cgroup, of a /proc/PID/cgroup."""
    return {line.split(":")[1]: line.split(":", 2)[2] for line in text.splitlines()}


def controllers(systemd: Systemd) -> set[str]:
    """The controllers that limits can be set with beside this systemd."""
    if systemd.view == "hybrid":
        return {"memory", "pids", "cpu", "cpuset", "freezer"}
    return set((systemd.directory("/") / "cgroup.controllers").read_text().split())


def needs(systemd: Systemd, *names: str) -> None:
    """Skip where a controller is missing."""
    missing = set(names) - controllers(systemd)
    if missing:
        pytest.skip(f"the {systemd.view} view of this machine has no {', '.join(sorted(missing))}; the virtual machine has")
