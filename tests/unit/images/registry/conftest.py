"""A client of a registry; nothing of the machine's own files or environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits

MakeClient = Callable[..., Registry]
FAST = Limits(backoff=0.001, attempts=3, stall=20, dial=10, patience=5)


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
