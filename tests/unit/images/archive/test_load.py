"""Loading: every kind of archive in every way that it may come, verified, and nothing left of what is not kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt_images import mediatypes
from ocirt_images.archive.load import Wish, load
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.events import Done, Event, LayerDone, LayerKnown, Resolved
from ocirt_images.platforms import Platform
from ocirt_images.store import Store
from tests.support.layouts import DockerArchive, Files, Link, blob, described, image, index, layer, layout, named, tar
from tests.unit.images.archive.conftest import Load, by_pipe

AMD = Wish(platform=Platform.named("linux/amd64"))
ARM = Wish(platform=Platform.named("linux/arm64"))


def names(store: Store) -> dict[str, Digest]:
    return {one.name: one.config for one in store.images.list()}


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs/sha256").iterdir()}


def test_a_layout(store: Store, take: Load) -> None:
    """With the manifest's digest and the image's ID as they were."""
    one = image()
    (loaded,) = take(named(one, "docker.io/library/one:1"), AMD)
    assert loaded.names == ("docker.io/library/one:1",)
    record = store.images.find("one:1")
    assert (record.target.digest, record.manifest, record.config) == (one.digest, one.digest, one.id)
    assert blobs(store) == {name.rpartition("/")[2] for name in one.blobs()}
    assert not list((store.root / "ingest").iterdir())


@pytest.mark.parametrize("plain", [True, False])
def test_a_docker_archive(store: Store, take: Load, plain: bool) -> None:  # noqa: FBT001
    """The image's ID is docker's; compressed layers stay so."""
    one, other = image(), image(layer("a", "one"), layer("c", "three"), architecture="amd64", Cmd=["sh"])
    files = DockerArchive().add(one, "one:1", "docker.io/me/one:latest", plain=plain).add(other, plain=plain).files
    loaded = take(files, AMD)
    assert [each.names for each in loaded] == [("docker.io/library/one:1", "docker.io/me/one:latest"), ()]
    assert [each.image_id for each in loaded] == [one.id, other.id]
    assert len(names(store)) == 3
    found = json.loads(store.content.read(store.images.find("one:1").manifest))
    assert [part["mediaType"] for part in found["layers"]] == [mediatypes.LAYER + ("" if plain else "+gzip")] * 2


def test_links_of_a_docker_archive(store: Store, take: Load) -> None:
    """docker links a layer that two images share; podman links the names that docker gives to layers."""
    one = image()
    archive = DockerArchive().add(one, "one:1")
    first, second = archive.list[0]["Layers"]
    files: Files = {"shared.tar": archive.files.pop(first), **archive.files, first: Link("../shared.tar")}
    other = second.replace("layer.tar", "again.tar")
    archive.list[0]["Layers"] = [first, other]
    files[other] = Link("layer.tar")
    files["manifest.json"] = json.dumps(archive.list).encode()
    assert take(files, AMD)[0].image_id == one.id
    assert store.images.find("one:1").config == one.id


def test_hard_links(store: Store, tmp_path: Path) -> None:
    one = image()
    archive = DockerArchive().add(one, "one:1")
    first = archive.list[0]["Layers"][0]
    files: Files = {"first.tar": archive.files[first], **archive.files, first: Link("first.tar", hard=True)}
    assert by_pipe(store, tar(files), AMD, [])[0].image_id == one.id


def both(take: Load, *, nested: bool = False) -> tuple[Files, Digest]:
    """A layout with an index for two platforms, and an attestation."""
    amd, arm = image(layer("a", "amd")), image(layer("a", "arm"), architecture="arm64")
    attestation = image(layer("statement", "signed"), architecture="unknown")
    unknown = attestation.descriptor(platform={"os": "unknown", "architecture": "unknown"})
    inner = index(unknown, amd.descriptor(platform=amd.platform), arm.descriptor(platform=arm.platform))
    top = index(described(inner)) if nested else inner
    target = described(top, annotations={"io.containerd.image.name": "docker.io/library/both:1"})
    return layout([target], dict([blob(top), blob(inner)]), amd.blobs(), arm.blobs(), attestation.blobs()), Digest.of(top)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("wish", "architecture", "text"), [(AMD, "amd64", "amd"), (ARM, "arm64", "arm")])
def test_an_index(store: Store, take: Load, nested: bool, wish: Wish, architecture: str, text: str) -> None:  # noqa: FBT001
    """The index is what the name stands for; of its images one is kept."""
    files, digest = both(take, nested=nested)
    (loaded,) = take(files, wish)
    record = store.images.find("both:1")
    assert record.target.digest == loaded.target.digest == digest
    assert json.loads(store.content.read(record.config))["architecture"] == architecture
    kept = blobs(store)
    assert Digest.of(layer("a", text).data).encoded in kept
    assert len(kept) == 4 + nested


def test_all_platforms(store: Store, take: Load) -> None:
    files, _ = both(take)
    take(files, Wish(platform=AMD.platform, everything=True))
    assert len(blobs(store)) == 10
    assert json.loads(store.content.read(store.images.find("both:1").config))["architecture"] == "amd64"


def test_no_image_for_the_platform(store: Store, take: Load) -> None:
    files, _ = both(take)
    with pytest.raises(Error, match=r"nothing for linux/s390x \(there are: linux/amd64, linux/arm64\)") as failed:
        take(files, Wish(platform=Platform.named("s390x")))
    assert failed.value.code == "not-found"
    assert names(store) == {}


def test_platforms_without_an_index(store: Store, take: Load) -> None:
    """Several entries of one name, or of none, are one image for several platforms."""
    amd, arm = image(), image(architecture="arm64")
    files = layout([arm.descriptor(platform=arm.platform), amd.descriptor(platform=amd.platform)], amd.blobs(), arm.blobs())
    (loaded,) = take(files, Wish(platform=AMD.platform, name="docker.io/me/x:2"))
    assert loaded.image_id == amd.id
    assert set(names(store)) == {"docker.io/me/x:2"}


@pytest.mark.parametrize(
    ("annotations", "wish", "wanted"),
    [
        ({"org.opencontainers.image.ref.name": "localhost/x:1"}, "", ("localhost/x:1",)),
        ({"org.opencontainers.image.ref.name": "quay.io/a/b"}, "", ("quay.io/a/b:latest",)),
        ({"org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "quay.io/a/b:1"}, "", ("quay.io/a/b:1",)),
        ({"org.opencontainers.image.ref.name": "v2"}, "quay.io/a/b", ("quay.io/a/b:v2",)),
        ({"org.opencontainers.image.ref.name": "v2"}, "quay.io/a/b:3", ("quay.io/a/b:3",)),
        ({"org.opencontainers.image.ref.name": "v2"}, "", ()),
        ({}, "quay.io/a/b", ("quay.io/a/b:latest",)),
        ({"io.containerd.image.name": "Not A Name"}, "", ()),
        ({"org.opencontainers.image.ref.name": "localhost/x:1"}, "quay.io/a/b", ("localhost/x:1",)),
    ],
)
def test_names(store: Store, from_directory: Load, annotations: dict[str, str], wish: str, wanted: tuple[str, ...]) -> None:
    one = image()
    (loaded,) = from_directory(layout([one.descriptor(annotations=annotations)], one.blobs()), Wish(name=wish))
    assert loaded.names == wanted
    assert set(names(store)) == set(wanted or {one.digest})


def test_names_of_docker_since_25(store: Store, from_directory: Load) -> None:
    """They stand in manifest.json, where an image of the layout has none."""
    one = image()
    files = layout([one.descriptor()], one.blobs())
    config = f"blobs/sha256/{one.id.encoded}"
    files["manifest.json"] = json.dumps([{"Config": config, "RepoTags": ["one:1", "me/one:2"], "Layers": []}]).encode()
    assert from_directory(files)[0].names == ("docker.io/library/one:1", "docker.io/me/one:2")


def test_sha512(store: Store, from_directory: Load) -> None:
    """In all places but the names of files it is as any digest."""
    one = image()
    manifest = Digest.of(one.manifest, "sha512")
    files = layout([{"mediaType": mediatypes.MANIFEST, "digest": manifest, "size": len(one.manifest)}], one.blobs())
    files |= dict([blob(one.manifest, "sha512")])
    assert from_directory(files, Wish(name="localhost/x"))[0].target.digest == manifest


def test_other_entries_are_ignored(from_directory: Load) -> None:
    """Unknown types, attestations, and null where nothing is."""
    one = image()
    strange = {"mediaType": "application/x-strange", "digest": Digest.of(b""), "size": 0}
    attestation = image().descriptor(platform={"os": "unknown", "architecture": "unknown"})
    files = layout([strange, attestation, one.descriptor(annotations=None, urls=None)], one.blobs())
    assert [each.image_id for each in from_directory(files)] == [one.id]


def without(files: Files, *gone: str) -> Files:
    return {name: content for name, content in files.items() if name not in gone}


def damaged(files: Files) -> dict[str, tuple[Files, str, str]]:
    """What may be wrong with an archive: files, the error's code, and words of it."""
    one = image()
    files = named(one, "localhost/x:1")
    data = f"blobs/sha256/{Digest.of(one.layers[1].data).encoded}"
    config = f"blobs/sha256/{one.id.encoded}"
    changed = bytearray(one.layers[1].data)
    changed[20] ^= 1
    short = json.loads(one.manifest)
    short["layers"][1]["size"] -= 1
    small = json.dumps(short).encode()
    few = json.loads(one.manifest)
    few["layers"].pop()
    fewer = json.dumps(few).encode()
    artifact = json.loads(one.manifest)
    artifact["config"]["mediaType"] = "application/vnd.example.chart.config"
    chart = json.dumps(artifact).encode()

    lost = one.descriptor() | {"digest": "../x:00"}

    def other(data: bytes) -> Files:
        target = {"mediaType": mediatypes.MANIFEST, "digest": Digest.of(data), "size": len(data)}
        return files | layout([target], dict([blob(data)]))

    return {
        "a flipped bit": (files | {data: bytes(changed)}, "corrupt", "have the digest sha256"),
        "a layer that is cut off": (files | {data: one.layers[1].data[:-1]}, "corrupt", ""),
        "a layer that is missing": (without(files, data), "not-found", data),
        "a configuration that is missing": (without(files, config), "not-found", config),
        "another size": (other(small), "corrupt", "bytes"),
        "too few layers": (other(fewer), "invalid", "2 entries for 1 layers"),
        "an artifact": (other(chart), "unsupported", "an artifact"),
        "no index": (without(files, "index.json"), "invalid", "no archive of images"),
        "an index that is no JSON": (files | {"index.json": b"{"}, "invalid", "not JSON"),
        "an index without images": (files | {"index.json": index()}, "invalid", "no images in it"),
        "a layout of the future": (files | {"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}, "unsupported", "version 2.0.0"),
        "a digest that is a path": (files | {"index.json": index(lost)}, "unsupported", "digest"),
        "docker before 1.10": ({"repositories": b"{}"}, "unsupported", "before 1.10"),
        "nothing": ({"x": b""}, "invalid", "no archive of images"),
    }


@pytest.mark.parametrize("kind", damaged({}))
def test_a_bad_archive(store: Store, take: Load, kind: str) -> None:
    """One clear error, no image, and nothing left that a prune does not take."""
    files, code, words = damaged({})[kind]
    with pytest.raises(Error) as failed:
        take(files, AMD)
    assert failed.value.code == code, failed.value
    assert words in str(failed.value)
    assert names(store) == {}


@pytest.mark.parametrize("kind", ["layers", "missing config", "missing layer", "no list", "short list"])
def test_a_bad_docker_archive(store: Store, take: Load, kind: str) -> None:
    archive = DockerArchive().add(image(), "one:1")
    entry = archive.list[0]
    match kind:
        case "layers":
            entry["Layers"].pop()
        case "missing config":
            entry["Config"] = "../../etc/passwd"
        case "missing layer":
            entry["Layers"][0] = "/etc/passwd"
    text = {"no list": b"{}", "short list": b"[3]"}.get(kind) or json.dumps(archive.list).encode()
    with pytest.raises(Error) as failed:
        take(archive.files | {"manifest.json": text}, AMD)
    assert failed.value.code == ("not-found" if kind.startswith("missing") else "invalid")
    assert names(store) == {}


def test_names_that_lead_out(store: Store, take: Load, tmp_path: Path) -> None:
    """A link out of the archive leads to nothing, whatever is there."""
    outside = tmp_path / "secret"
    one = image()
    outside.write_bytes(one.config)
    files = named(one, "localhost/x:1")
    files[f"blobs/sha256/{one.id.encoded}"] = Link(str(outside))
    with pytest.raises(Error, match="there is no blobs/sha256") as failed:
        take(files, AMD)
    assert failed.value.code == "not-found"


@pytest.mark.parametrize(
    "data", [b"", b"x", b"\0" * 1024, b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"PK\3\4" * 300, os.urandom(2000)]
)
def test_what_is_no_tar(store: Store, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "archive"
    path.write_bytes(data)
    with pytest.raises(Error) as failed:
        load(store, path, "archive", AMD)
    assert failed.value.code in ("invalid", "corrupt", "unsupported")
    with pytest.raises(Error) as failed:
        by_pipe(store, data, AMD, [])
    assert failed.value.code in ("invalid", "corrupt", "unsupported")


def test_a_header_that_lies(store: Store) -> None:
    """A tar may say that a long name has gigabytes: they are not read."""
    entry = bytearray(512)
    entry[:13], entry[156], entry[124:136] = b"././@LongLink", ord("L"), b"77777777777\0"
    entry[148:156] = b" " * 8
    entry[148:156] = f"{sum(entry):06o}\0 ".encode()
    with pytest.raises(Error, match="a header of"):
        by_pipe(store, bytes(entry) + b"x" * 4096, AMD, [])


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_tar_is_an_error_or_the_same_image(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes cut off or changed anywhere: never another image, never another exception."""
    one = image()
    files = named(one, "localhost/x:1") if data.draw(st.booleans()) else DockerArchive().add(one, "localhost/x:1").files
    whole = bytearray(tar(files))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    with Store.open(tmp_path_factory.mktemp("store"), sync=False) as store:
        try:
            loaded = by_pipe(store, bytes(whole[:end]), AMD, [])
        except Error:
            return
        for each in loaded:
            for digest in (each.target.digest, each.image_id):
                assert Digest.of(store.content.read(digest)) == digest


def test_what_was_there_is_not_read_again(store: Store, take: Load) -> None:
    """Layers that are in the store are reported so."""
    one = image()
    take(named(one, "localhost/x:1"), AMD)
    events: list[Event] = []
    by_pipe(store, tar(named(one, "localhost/y:1")), AMD, events)
    assert {event.how for event in events if isinstance(event, LayerDone)} == {"exists"}
    assert set(names(store)) == {"localhost/x:1", "localhost/y:1"}


def test_events(store: Store, from_directory: Load, tmp_path: Path) -> None:
    """In the order that events.py promises."""
    one = image()
    events: list[Event] = []
    path = tmp_path / "archive.tar"
    path.write_bytes(tar(named(one, "localhost/x:1")))
    load(store, path, "archive", AMD, events.append)
    layers = [Digest.of(part.data) for part in one.layers]
    assert events[0] == Resolved("localhost/x:1", one.digest, "linux/amd64")
    assert [event.layer for event in events if isinstance(event, LayerKnown)] == layers
    assert [event.layer for event in events if isinstance(event, LayerDone)] == layers
    assert events[-1] == Done("localhost/x:1", one.digest, one.id)


def test_an_interrupted_load_goes_on(store: Store, tmp_path: Path) -> None:
    """What was written stays for the next attempt, and is read again before it counts."""
    big = layer("big", "x" * (3 << 20), compression="")
    one = image(big)
    whole = tar(named(one, "localhost/x:1"))
    with pytest.raises(Error):
        by_pipe(store, whole[: len(whole) - (2 << 20)], AMD, [])
    assert names(store) == {}
    assert by_pipe(store, whole, AMD, [])[0].image_id == one.id
    assert store.content.read(Digest.of(big.data), limit=1 << 30) == big.data
