"""The client against a registry of ours: what is resolved, fetched and listed, and what each fault comes to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ocirt_images.descriptor import Descriptor
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support.registry import LocalRegistry

IMAGE = images.random_image(1, layers=2)


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        found.add("team/app", IMAGE, "latest", "1.2")
        yield found


@pytest.fixture
def client() -> Iterator[Registry]:
    with Registry(hosts=Hosts(), credentials=Credentials(), limits=Limits(backoff=0.001), environ={}) as found:
        yield found


def test_tag_and_digest(registry: LocalRegistry, client: Registry) -> None:
    by_tag = client.resolve(Reference.parse(f"{registry.address}/team/app"))
    by_digest = client.resolve(Reference.parse(f"{registry.address}/team/app:wrong@{IMAGE.digest}"))
    assert by_tag == by_digest
    assert by_tag.data == IMAGE.manifest
    assert (by_tag.descriptor.json(), by_tag.host) == (IMAGE.descriptor, registry.address)


def test_blob(registry: LocalRegistry, client: Registry) -> None:
    layer = Descriptor.parse(IMAGE.layers[0].descriptor, "layer")
    with client.blob(Reference.parse(f"{registry.address}/team/app"), layer, 10, 500) as body:
        found = b"".join(iter(lambda: body.read(100), b""))
    assert (found, body.start) == (IMAGE.layers[0].blob[10:500], 10)
