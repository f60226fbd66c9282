"""Stores to work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_images.store import Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(root, sync=False) as found:
        yield found


@pytest.fixture(scope="module")
def store_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples of a property."""
    with Store.open(tmp_path_factory.mktemp("shared") / "store", sync=False) as found:
        yield found
