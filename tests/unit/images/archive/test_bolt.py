"""The reader of bolt databases: a real one of containerd 1.6, and damaged ones.

The real one holds the namespaces k8s.io, with 150 names of one image among others, moby and bad (which has one image, whose layer
is gone).
"""

from __future__ import annotations

import fcntl
import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt_images.archive import bolt, containerd
from ocirt_images.errors import Error
from tests.support.build import ROOT

DATA = gzip.decompress((ROOT / "tests/data/containerd-1.6.db.gz").read_bytes())
DIGEST = "sha256:7d0386e4afb4f4640a4ee9bbc0c6e9488730b764c836aa7ddfdf7888470b6298"
SPACE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / containerd.DATABASE
    made.parent.mkdir(parents=True)
    made.write_bytes(DATA)
    return made


def everything(bucket: bolt.Bucket) -> int:
    """Walk through all of it; how many entries there are."""
    return sum(1 if isinstance(value, bytes) else 1 + everything(value) for _, value in bucket.items())


def test_a_real_one(path: Path) -> None:
    root = bolt.read(path)
    version = root.bucket("v1")
    assert version is not None
    assert version.buckets() == ["bad", "k8s.io", "moby"]
    images = root.bucket("v1", "k8s.io", "images")
    assert images is not None
    names = images.buckets()
    assert len(names) == 154
    assert names == sorted(names)
    target = images.bucket("docker.io/library/bb:1", "target")
    assert target is not None
    assert target.value("digest") == DIGEST.encode()
    assert target.value("nothing") == b""
    assert images.bucket("nothing", "target") is None
    assert everything(root) > 1000


def test_the_images_of_a_real_one(path: Path) -> None:
    """With their sizes and types, and without the names that are IDs."""
    archive = containerd.directory(path.parents[1], "k8s.io")
    names = {entry.names[0]: entry.targets[0] for entry in archive.entries}
    assert len(names) == 153
    found = names["registry.example.com/some/longer/name/of/a/repository-150:v150"]
    assert (found.digest, found.size) == (DIGEST, 348)
    assert found.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert {target.digest for target in names.values()} == {DIGEST}


def test_another_namespace(path: Path) -> None:
    with pytest.raises(Error, match=r"no namespace default \(there are: bad, k8s.io, moby\)"):
        containerd.directory(path.parents[1], "default")


def test_a_directory_that_is_not_containerds(tmp_path: Path) -> None:
    with pytest.raises(Error, match="there is no io.containerd.metadata"):
        containerd.directory(tmp_path, "k8s.io")


def test_one_that_is_in_use(path: Path) -> None:
    """containerd holds a lock on it."""
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Error, match=r"containerd is running \(stop it, or name its socket"):
            containerd.directory(path.parents[1], "k8s.io")
    assert containerd.directory(path.parents[1], "k8s.io").entries


def test_the_newer_of_two_metas(tmp_path: Path) -> None:
    """A torn write of the newer one leaves the older."""
    transactions = [struct.unpack_from("<Q", DATA, page * SPACE + 16 + 48)[0] for page in (0, 1)]
    newer = transactions.index(max(transactions))
    path = tmp_path / "db"
    for page, readable in ((newer, True), (1 - newer, True), (-1, False)):
        torn = bytearray(DATA)
        for place in (0, 1) if page < 0 else (page,):
            torn[place * SPACE + 60] ^= 0xFF
        path.write_bytes(torn)
        if readable:
            assert bolt.read(path).bucket("v1") is not None
        else:
            with pytest.raises(Error, match="not a bolt database"):
                bolt.read(path)


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(1 << 16), DATA[:4000]])
def test_what_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "db"
    path.write_bytes(data)
    with pytest.raises(Error, match="bolt|empty|damaged"):
        everything(bolt.read(path))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=20), st.integers(0, len(DATA))
)
def test_a_damaged_one(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], end: int) -> None:
    """Whatever is changed or cut off: an error of ours, or what can still be read; and an end."""
    torn = bytearray(DATA)
    for place, value in changes:
        torn[place] = value
    path = tmp_path_factory.mktemp("bolt") / "db"
    path.write_bytes(torn[: max(end, 8192)])
    try:
        everything(bolt.read(path))
    except Error as err:
        assert err.code in ("corrupt", "invalid")
