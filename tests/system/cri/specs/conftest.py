"""One daemon for all tests here, on a host of its own, with the images that critest has; each test leaves it without pods."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import specs
from tests.support.critest_images import Made, certificates, make_all, push_all
from tests.support.isolation import Isolation, remove_tree
from tests.support.leaks import Leaks
from tests.support.networks import new_host
from tests.support.ocirtd import Ocirtd
from tests.support.registry import LocalRegistry
from tests.support.runtime import lines
from tests.system.cri.conftest import daemon, filled_store

_HERE = Path(__file__).parent
_RUN = (specs.BUSYBOX, specs.NGINX, specs.HTTPD, specs.NO_NEW_PRIVILEGES, specs.GROUPS, specs.HOST_NGINX)
# A session that is not root's, or of another runtime, runs none of them.
_OF_THE_SESSION = ("needs root", "ocirt differs: ")


@pytest.fixture(autouse=True)
def no_leaks() -> list[Path]:
    """Not after each test, whose daemon goes on: see `shared`."""
    return []


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """The images of critest."""
    return make_all(tmp_path_factory.mktemp("critest") / "images")


@pytest.fixture(scope="session")
def store(isolation: Isolation, made: list[Made]) -> Iterator[Path]:
    """A store with those that containers are made of."""

    def fill(node: Ocirtd) -> None:
        with LocalRegistry() as registry:
            push_all(registry, made)
            certificates(node.place / "certs.d", registry)
            with ThreadPoolExecutor(len(_RUN)) as threads:
                list(threads.map(lambda name: specs.pull(node, name), _RUN))

    with filled_store(isolation, fill) as found:
        yield found


@pytest.fixture(scope="package")
def shared(store: Path, made: list[Made], isolation: Isolation, leaks: Leaks) -> Iterator[Ocirtd]:
    """The daemon. When it ends, it and the tests have left nothing on the host."""
    before = leaks.snapshot()
    places: list[Path] = []
    with (
        new_host(),
        LocalRegistry() as registry,
        contextlib.contextmanager(daemon)((store, specs.BUSYBOX), places, isolation) as node,
    ):
        push_all(registry, made)
        certificates(node.place / "certs.d", registry)
        # What a daemon makes once and keeps: the bridge and its rules, its helpers.
        pod = specs.run_pod(node)
        specs.says(node, specs.sleeper(node, pod), "true")
        node.remove_pod(pod)
        yield node
    # A session that ends early has taken its own cgroups away by now.
    found = [leak for leak in leaks.compare(before) if leak.change != "lost"]
    for place in places:
        remove_tree(place)
    assert not found, lines(found)


@pytest.fixture
def node(shared: Ocirtd) -> Iterator[Ocirtd]:
    """The same for a test, after which it has no pods."""
    yield shared
    for pod in shared.pods():
        shared.remove_pod(pod.id)
    assert shared.left() == []


@pytest.fixture
def pod(node: Ocirtd) -> str:
    """A pod."""
    return specs.run_pod(node)


@pytest.fixture
def box(node: Ocirtd, pod: str) -> str:
    """A container that runs in it."""
    return specs.sleeper(node, pod)


def _reasons(title: str) -> list[str]:
    """Why a spec is skipped here: none or one."""
    return [one.why for one in specs.excuses() if title.startswith(one.beginning) and one.holds()]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test where docs/critest.md says so, before anything is made for it."""
    assert isinstance(item, pytest.Function)
    for reason in _reasons(str(item.callspec.params["title"])):
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def title(request: pytest.FixtureRequest) -> str:
    """The spec's title."""
    found: str = request.param
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped for a reason that the page has not, or that does not hold here, has failed."""
    report = yield
    if report.skipped and item.path.is_relative_to(_HERE) and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        assert isinstance(item, pytest.Function)
        if reason not in _reasons(str(item.callspec.params["title"])) and not reason.startswith(_OF_THE_SESSION):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that is not in {specs.PAGE.name}: {reason}"
    return report
