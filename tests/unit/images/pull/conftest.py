"""A registry, and a store to pull into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.apply.worker import Workers
from ocirt_images.registry.hosts import Hosts
from tests.support import images
from tests.support.registry import LocalRegistry
from tests.unit.images.pull.box import Box, boxed

MakeRegistry = Callable[..., LocalRegistry]
MakeHosts = Callable[..., Hosts]


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """One process for all tests: its start is what takes time."""
    with Workers(2) as found:
        yield found


@pytest.fixture
def box(tmp_path: Path, workers: Workers) -> Iterator[Box]:
    with boxed(tmp_path / "store", workers) as found:
        yield found


@pytest.fixture(scope="session")
def image() -> images.Image:
    """Two layers that nothing compresses, of 100,000 bytes each."""
    return images.random_image(1, layers=2)


@pytest.fixture
def make_registry(image: images.Image) -> Iterator[MakeRegistry]:
    """Registries that hold `team/app`."""
    with ExitStack() as stack:

        def make(**more: Any) -> LocalRegistry:
            found = stack.enter_context(LocalRegistry(**more))
            found.add("team/app", image, "latest")
            return found

        yield make


@pytest.fixture
def registry(make_registry: MakeRegistry) -> LocalRegistry:
    return make_registry()


@pytest.fixture
def make_hosts(tmp_path: Path) -> MakeHosts:
    """Hosts for r.example: mirrors, and the registry itself."""

    def make(*mirrors: LocalRegistry, server: LocalRegistry) -> Hosts:
        where = tmp_path / "certs.d/r.example"
        where.mkdir(parents=True, exist_ok=True)
        tables = [f'[host."{one.url}"]\n' for one in mirrors]
        (where / "hosts.toml").write_text(f'server = "{server.url}"\n' + "".join(tables))
        return Hosts(folders=(tmp_path / "certs.d",))

    return make
