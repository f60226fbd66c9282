"""The fixtures of the system tests: `bundle`, `runtime`, and the search for leaks around every test.

Variables: OCIRT_TEST_RUNTIME (a command; default `build/ocirt`), OCIRT_TEST_VIEW=v2 (cgroup2 alone, where a v1 host has it),
OCIRT_TEST_ALONE=1 (nobody else makes cgroups on this machine, so every new one counts), OCIRT_TEST_MANAGER=systemd (which then
makes the cgroups of all containers; it has to be running).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import Attacked
from tests.support.build import copy_clone
from tests.support.bundle import Bundle, make_bundle
from tests.support.isolation import Isolation, remove_tree
from tests.support.kills import Watch
from tests.support.leaks import Leaks, repair
from tests.support.runtime import Runtime, default_command, lines

# Fixtures and checks of several files: what they find wrong is shown as a test's own.
pytest.register_assert_rewrite("tests.support.installs", "tests.support.systemd_units")

MakeBundle = Callable[..., Bundle]

_isolation: list[Isolation] = []
_key = pytest.StashKey[contextlib.ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Say what the markers mean."""
    config.addinivalue_line("markers", "host_network: runs in the machine's own network namespace")
    config.addinivalue_line("markers", "ocirt_only(reason): ocirt is meant to differ from its peers here")
    config.addinivalue_line("markers", "leaks(reason): looks at the machine as it is; not searched for leaks")


def _is_system_test(item: pytest.Item) -> bool:
    return "no_leaks" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all of it without root, and what only ocirt does with another runtime."""
    ours = "ocirt" in Path(default_command()[0]).name
    for item in items:
        if not _is_system_test(item):
            continue
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        marker = item.get_closest_marker("ocirt_only")
        if marker is not None and not ours:
            item.add_marker(pytest.mark.skip(reason=f"ocirt differs: {marker.args[0]}"))


def entered() -> Isolation:
    """The session's isolation, entered at the first call."""
    if not _isolation:
        view, manager = (os.environ.get("OCIRT_TEST_" + name, "") for name in ("VIEW", "MANAGER"))
        _isolation.append(Isolation(view, by_systemd=manager == "systemd"))
    return _isolation[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose the network before any fixture of the test, whatever its scope, is made."""
    if not _is_system_test(item) or os.geteuid() != 0:
        return
    isolation = entered()
    stack = contextlib.ExitStack()
    if item.get_closest_marker("host_network") is not None:
        stack.enter_context(isolation.on_host_network())
    item.stash[_key] = stack


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Back to the session's network, after the test's fixtures are gone."""
    if _key in item.stash:
        item.stash[_key].close()


def pytest_sessionfinish() -> None:
    """Remove the session's cgroups."""
    while _isolation:
        _isolation.pop().leave()


@pytest.fixture(scope="session")
def isolation() -> Isolation:
    """The session's namespaces, token and cgroup parent."""
    return entered()


@pytest.fixture(scope="session")
def leaks(isolation: Isolation) -> Leaks:
    """Takes and compares snapshots of the host."""
    return Leaks(isolation.token, everything=os.environ.get("OCIRT_TEST_ALONE") == "1")


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, isolation: Isolation, leaks: Leaks) -> Iterator[list[Path]]:
    """Fail a test that leaves anything on the host, and name it. Directories in the list go afterwards."""
    directories: list[Path] = []
    before = leaks.snapshot()
    yield directories
    found = [] if request.node.get_closest_marker("leaks") is not None else leaks.compare(before)
    if found:
        repair(found, isolation.token)
    for directory in directories:
        remove_tree(directory)
    if found:
        pytest.fail(f"the test leaves the host changed:{lines(found)}", pytrace=False)


@pytest.fixture
def runtime(
    no_leaks: list[Path],
    isolation: Isolation,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Runtime]:
    """The runtime under test with a state root of its own; what it still holds at the end is removed by force."""
    command = default_command()
    if "/" in command[0] and not os.access(command[0], os.X_OK):
        pytest.fail(f"{command[0]} is not there: run `make` first", pytrace=False)
    # Unique in the session, so that a container's id and cgroup are too.
    _numbers.append(request.node.nodeid)
    work = tmp_path / "runtime"
    work.mkdir()
    manager = os.environ.get("OCIRT_TEST_MANAGER", "")
    parent = isolation.slice if manager == "systemd" else isolation.cgroup_parent
    runtime = Runtime(command, work, f"{isolation.token}-{len(_numbers)}", parent, manager=manager)
    yield runtime
    complaints = runtime.clean_up()
    if complaints:
        pytest.fail(f"cleaning up failed:{lines(complaints)}", pytrace=False)


_numbers: list[str] = []


@pytest.fixture
def attacked(runtime: Runtime, request: pytest.FixtureRequest) -> Attacked:
    """The runtime under attack, as `tests.support.attacks.against` wants it."""
    patches, off = request.param
    return Attacked(runtime, patches, off=off)


@pytest.fixture(scope="session")
def clone() -> Iterator[Path]:
    """The built clone where every user can reach it."""
    directory = Path(tempfile.mkdtemp(prefix="ocirt-test-clone-"))
    copy_clone(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def place(no_leaks: list[Path]) -> Path:
    """A directory that every user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    directory.chmod(0o755)
    no_leaks.append(directory)
    return directory


@pytest.fixture
def bundle(no_leaks: list[Path]) -> MakeBundle:
    """Make bundles: `bundle(args=[...], env=[...], ...)`, see `tests.support.bundle.edited`."""
    # Not below tmp_path: its parents are closed to other users, such as root of a user namespace.
    directory = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(directory)
    directory.chmod(0o711)
    count = iter(range(1000))

    def make(**edits: Any) -> Bundle:
        return make_bundle(directory / f"bundle{next(count)}", **edits)

    return make


@pytest.fixture
def watch(
    runtime: Runtime, isolation: Isolation, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[Watch]:
    """A watch that says at the end how many points were killed, and fails the test for what was left."""
    made = Watch(runtime, isolation)
    yield made
    with capsys.disabled():
        print(
            f"\n  {request.node.name}: killed at {made.killed} of {made.points} points, delete ≤ {made.slowest * 1000:.0f} ms",
            end="",
        )
    if made.complaints:
        pytest.fail(f"{len(made.complaints)} complaints:{lines(made.complaints[:20])}", pytrace=False)
    assert made.killed >= made.share * made.points, "too many points were never reached"
