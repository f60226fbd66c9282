"""The fixtures of the tests of ocirtd: a daemon with a small image, alone or for all tests of a file."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.isolation import Isolation
from tests.support.networks import new_host
from tests.support.nricalls import Make
from tests.support.nriplugin import NriPlugin
from tests.support.ocirtd import Ocirtd, busybox_image
from tests.support.registry import LocalRegistry


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> images.Image:
    """A small image."""
    return busybox_image(tmp_path_factory.mktemp("image") / "rootfs")


@contextlib.contextmanager
def filled_store(isolation: Isolation, fill: Callable[[Ocirtd], None]) -> Iterator[Path]:
    """A store of images, with what a daemon was asked to pull."""
    place = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
    made = Ocirtd(place, isolation.cgroup_parent)
    made.start()
    try:
        fill(made)
        made.stop()
        yield place / "r/images"
    finally:
        if made.process is not None:
            made.kill()
        made.forget()
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def pulled(isolation: Isolation, busybox: images.Image) -> Iterator[tuple[Path, str]]:
    """A store of images with a small one in it, and the image's id."""
    identifiers = []

    def fill(node: Ocirtd) -> None:
        with LocalRegistry() as registry:
            registry.add("busybox", busybox, "1")
            identifiers.append(node.pull(registry, "busybox", "1"))

    with filled_store(isolation, fill) as store:
        yield store, identifiers[0]


@pytest.fixture
def node(pulled: tuple[Path, str], no_leaks: list[Path], isolation: Isolation) -> Iterator[Ocirtd]:
    """A daemon of the test's own, which leaves nothing."""
    yield from daemon(pulled, no_leaks, isolation)


@pytest.fixture
def networked(
    request: pytest.FixtureRequest, pulled: tuple[Path, str], no_leaks: list[Path], isolation: Isolation
) -> Iterator[Ocirtd]:
    """The same on a host of its own: its pods may have networks. Its parameter may be another class of daemon."""
    with new_host() as host:
        before = host.traces()
        yield from daemon(pulled, no_leaks, isolation, getattr(request, "param", Ocirtd))
        assert {name for name in set(host.traces()) - set(before) if not _STAYS.search(name)} == set()


# The bridge and its rules stay, as with the reference; and of networks on disk what is no pod's address.
_STAYS = re.compile(r"^(link ocirt|address .* of ocirt|address fe80|route |rule |file (?!.*/networks/[^/]+/[\da-f.:]+$))")


def daemon(pulled: tuple[Path, str], no_leaks: list[Path], isolation: Isolation, kind: type[Ocirtd] = Ocirtd) -> Iterator[Ocirtd]:
    """A daemon with a copy of a store, for a fixture; it leaves nothing."""
    place = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
    no_leaks.append(place)
    made = kind(place, isolation.slice or isolation.cgroup_parent, "systemd" if isolation.slice else "cgroupfs")
    (place / "r").mkdir()
    subprocess.run(["cp", "-a", pulled[0], place / "r/images"], check=True)
    made.image = pulled[1]
    made.start()
    with made.cleared():
        yield made


@pytest.fixture
def plugin(node: Ocirtd, tmp_path: Path) -> Iterator[Make]:
    """Make plugins that have joined: `plugin("10")`, `plugin(name=…, start=False)`."""
    made: list[NriPlugin] = []

    def make(index: str = "50", name: str = "", *, start: bool = True, **orders: Any) -> NriPlugin:
        found = NriPlugin(tmp_path / f"plugin{len(made)}", node.nri, name or f"test{len(made)}", index)
        made.append(found)
        found.order(**orders)
        if start:
            there = f"NRI plugin {index}-{found.name} is there"
            before = node.log.read_text().count(there)
            found.start()
            node.until(lambda: node.log.read_text().count(there) > before, "the plugin to join")
        return found

    yield make
    for one in made:
        one.end()
