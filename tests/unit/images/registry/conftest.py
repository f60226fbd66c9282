"""A registry and a client of it; nothing of the machine's own files or environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support.registry import LocalRegistry

MakeRegistry = Callable[..., LocalRegistry]
MakeClient = Callable[..., Registry]
FAST = Limits(backoff=0.001, attempts=3, stall=20, dial=10, patience=5)


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


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    with ExitStack() as stack:

        def make(
            *,
            hosts: Hosts | None = None,
            credentials: Credentials | None = None,
            limits: Limits = FAST,
            insecure: bool = False,
            environ: dict[str, str] | None = None,
        ) -> Registry:
            found = Registry(
                hosts=hosts or Hosts(),
                credentials=credentials or Credentials(),
                limits=limits,
                insecure=insecure,
                environ=environ or {},
            )
            return stack.enter_context(found)

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> Registry:
    return make_client()
