"""A store to pull into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocirt_images.apply.worker import Workers
from ocirt_images.registry.hosts import Hosts
from tests.support.registry import LocalRegistry
from tests.unit.images.pull.box import Box, boxed

MakeHosts = Callable[..., Hosts]


@pytest.fixture(scope="package")
def workers() -> Iterator[Workers]:
    """One process for all tests here: its start is what takes time. No longer: other tests look for workers that are left."""
    with Workers(2) as found:
        yield found


@pytest.fixture
def box(tmp_path: Path, workers: Workers) -> Iterator[Box]:
    with boxed(tmp_path / "store", workers) as found:
        yield found


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
