"""What the flags of a bundle say."""

from __future__ import annotations

import pytest

from ocirt_images.bundle import read_size
from ocirt_images.errors import Error


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4096b", 4096),
        ("64k", 64 << 10),
        ("512MiB", 512 << 20),
        ("10g", 10 << 30),
        ("10 GB", 10 << 30),
        ("2T", 2 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0k", "-1", "1.5g", "g", "10gg", "10x", "10ib", "1e9", "9" * 18 + "t", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(Error, match="--size") as caught:
        read_size(text)
    assert caught.value.code == "usage"
