"""What the tests of the client say often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.registry.body import Body
from tests.support import images
from tests.support.registry import LocalRegistry


def ref(registry: LocalRegistry, rest: str = "team/app") -> Reference:
    """An image at a registry."""
    return Reference.parse(f"{registry.address}/{rest}")


def layer(image: images.Image, number: int = 0) -> Descriptor:
    return Descriptor.parse(image.layers[number].descriptor, "layer")


def drain(body: Body, step: int = 10_000) -> bytes:
    with body:
        return b"".join(iter(lambda: body.read(step), b""))


def refused(code: str, text: str, ask: Callable[[], object]) -> Error:
    """The error that asking ends with; its code is this one, and it says this."""
    with pytest.raises(Error) as caught:
        ask()
    assert caught.value.code == code, str(caught.value)
    assert text in str(caught.value), str(caught.value)
    return caught.value
