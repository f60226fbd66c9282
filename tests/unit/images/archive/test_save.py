"""Saving: what is written is the same each time, is what was loaded, and is whole or not at all."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from ocirt_images.archive.load import Wish, load
from ocirt_images.archive.save import Chosen, DirectoryWriter, TarWriter, save
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.reference import Reference
from ocirt_images.store import Store
from tests.support.layouts import Files, blob, described, directory, image, index, layer, layout, named
from tests.unit.images.archive.conftest import Load

AMD, ARM = Platform.named("amd64"), Platform.named("arm64")
X = "localhost/x:1"


def chosen(store: Store, *names: str) -> list[Chosen]:
    return [Chosen(one.target, one.manifest, Reference.parse(one.name)) for one in map(store.images.find, names)]


def saved(store: Store, images: list[Chosen], wanted: Platform | None = None) -> bytes:
    reader = os.memfd_create("archive")
    try:
        save(store, images, TarWriter(reader), wanted)
        os.lseek(reader, 0, os.SEEK_SET)
        with open(reader, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(reader)


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]


def both() -> tuple[Files, Digest]:
    amd, arm = image(layer("a", "amd")), image(layer("a", "arm"), architecture="arm64")
    top = index(amd.descriptor(platform=amd.platform), arm.descriptor(platform=arm.platform))
    target = described(top, annotations={"io.containerd.image.name": X})
    return layout([target], dict([blob(top)]), amd.blobs(), arm.blobs()), Digest.of(top)


def test_what_is_written(store: Store, from_directory: Load) -> None:
    """Sorted, without times and owners; the name where each tool looks for it."""
    one = image()
    from_directory(named(one, X))
    data = saved(store, chosen(store, X))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = archive.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    files = unpacked(data)
    assert set(files) == {*one.blobs(), "index.json", "manifest.json", "oci-layout"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == one.digest
    assert set(entry["annotations"].values()) == {X}
    places = [f"blobs/sha256/{digest.encoded}" for digest in (one.id, *(Digest.of(part.data) for part in one.layers))]
    assert json.loads(files["manifest.json"]) == [{"Config": places[0], "RepoTags": [X], "Layers": places[1:]}]
    assert len(data) % 512 == 0


def test_the_same_bytes_each_time(store: Store, from_directory: Load) -> None:
    """Whatever the order in which the images are named."""
    from_directory(named(image(), X))
    store.images.tag(X, "localhost/a:2")
    assert saved(store, chosen(store, X, "localhost/a:2")) == saved(store, chosen(store, "localhost/a:2", X))
    (entry,) = json.loads(unpacked(saved(store, chosen(store, X, "localhost/a:2")))["manifest.json"])
    assert entry["RepoTags"] == ["localhost/a:2", X]


@pytest.mark.parametrize("kind", ["tar", "directory"])
def test_there_and_back(store: Store, from_directory: Load, tmp_path: Path, kind: str) -> None:
    """What was saved is loaded as what it was."""
    from_directory(named(image(), X))
    place = tmp_path / "saved"
    if kind == "tar":
        place.write_bytes(saved(store, chosen(store, X)))
    else:
        save(store, chosen(store, X), DirectoryWriter(place), None)
    with Store.open(tmp_path / "other", sync=False) as other:
        load(other, place, "saved", Wish())
        before, after = store.images.find(X), other.images.find(X)
        assert (before.name, before.target, before.config) == (after.name, after.target, after.config)
        assert saved(other, chosen(other, X)) == saved(store, chosen(store, X))


def test_an_index_of_which_one_image_is_here(store: Store, from_directory: Load) -> None:
    """The index goes along as it is, so that the digest stays."""
    files, digest = both()
    from_directory(files, Wish(platform=AMD))
    written = unpacked(saved(store, chosen(store, X)))
    (entry,) = json.loads(written["index.json"])["manifests"]
    assert entry["digest"] == digest
    assert len([name for name in written if name.startswith("blobs/")]) == 4


def test_one_platform(store: Store, from_directory: Load) -> None:
    files, _ = both()
    from_directory(files, Wish(platform=AMD, everything=True))
    assert len([name for name in unpacked(saved(store, chosen(store, X))) if name.startswith("blobs/")]) == 7
    written = unpacked(saved(store, chosen(store, X), ARM))
    (entry,) = json.loads(written["index.json"])["manifests"]
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert len([name for name in written if name.startswith("blobs/")]) == 3
    with pytest.raises(Error, match="nothing for linux/s390x is here"):
        saved(store, chosen(store, X), Platform.named("s390x"))


def test_a_platform_that_is_not_here(store: Store, from_directory: Load) -> None:
    files, _ = both()
    from_directory(files, Wish(platform=AMD))
    with pytest.raises(Error, match="pull it for that platform: ocirt pull --platform linux/arm64"):
        saved(store, chosen(store, X), ARM)


def test_damaged_content(store: Store, from_directory: Load) -> None:
    """It is not passed on."""
    one = image()
    from_directory(named(one, X))
    path = store.content.path(Digest.of(one.layers[0].data))
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(10)
        file.write(b"\xff\xfe")
    with pytest.raises(Error, match="its file has other bytes") as failed:
        saved(store, chosen(store, X))
    assert failed.value.code == "corrupt"


def test_missing_content(store: Store, from_directory: Load) -> None:
    one = image()
    from_directory(named(one, X))
    store.content.path(Digest.of(one.layers[0].data)).unlink()
    with pytest.raises(Error, match="not all of its content is here") as failed:
        saved(store, chosen(store, X))
    assert failed.value.code == "not-found"


def test_a_directory_that_is_not_empty(tmp_path: Path) -> None:
    directory(tmp_path / "full", {"x": b""})
    with pytest.raises(Error, match="not empty"):
        DirectoryWriter(tmp_path / "full")
