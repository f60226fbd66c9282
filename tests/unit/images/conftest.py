"""Registries of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import images
from tests.support.registry import LocalRegistry

MakeRegistry = Callable[..., LocalRegistry]


@pytest.fixture(scope="session")
def image() -> images.Image:
    """Two layers that nothing compresses, of 100,000 bytes each."""
    return images.random_image(1, layers=2)


@pytest.fixture
def make_registry(image: images.Image) -> Iterator[MakeRegistry]:
    """Registries that hold `team/app`, with tags."""
    with ExitStack() as stack:

        def make(**more: Any) -> LocalRegistry:
            found = stack.enter_context(LocalRegistry(**more))
            found.add("team/app", image, "latest", "1.2.3", "1.3")
            return found

        yield make


@pytest.fixture
def registry(make_registry: MakeRegistry) -> LocalRegistry:
    return make_registry()
