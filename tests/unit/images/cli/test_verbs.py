"""The verbs, called as a person calls them."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from ocirt_images.digest import Digest
from ocirt_images.store import Store
from tests.support.layouts import DockerArchive, Image, blob, described, directory, image, index, layer, layout, named, tar
from tests.unit.images.cli.conftest import Cli

ONE = image(layer("a", "one"), layer("b", "two"), Cmd=["sh"], Labels={"team": "a"})
OLD = image(layer("a", "one"), created="2020-01-01T00:00:00Z")
X, Y = "localhost/x:1", "localhost:5000/y:2"


@pytest.fixture
def two(cli: Cli) -> Cli:
    """A store with an image of two names, and another one."""
    cli.load(named(ONE, X))
    cli.load(named(OLD, "docker.io/library/old:1"))
    cli.ok("tag", X, Y)
    return cli


def rows(text: str) -> list[list[str]]:
    return [line.split("  ") for line in text.splitlines()]


# -- images


def test_no_images(cli: Cli) -> None:
    assert cli.ok("images").split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "UNPACKED"]
    assert cli.ok("images", "-q") == ""
    assert json.loads(cli.ok("images", "--json")) == []


def test_images(two: Cli) -> None:
    """The newest first."""
    lines = two.ok("images").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["localhost/x", "1", ONE.id.short],
        ["localhost:5000/y", "2", ONE.id.short],
        ["docker.io/library/old", "1", OLD.id.short],
    ]
    assert "years ago" in lines[3]
    assert lines[1].endswith("-")  # not unpacked
    assert two.ok("images", "-q").split() == [ONE.id.short, OLD.id.short]
    assert two.ok("images", "-q", "--no-trunc").split() == [ONE.id, OLD.id]
    assert two.ok("images", "--names").split() == ["docker.io/library/old:1", X, Y]
    assert ONE.digest in two.ok("images", "--digests")


def test_images_as_json(two: Cli) -> None:
    found = {one["name"]: one for one in json.loads(two.ok("images", "--json"))}
    one = found[X]
    assert (one["id"], one["digest"], one["manifest"]) == (ONE.id, ONE.digest, ONE.digest)
    assert one["platform"] == "linux/amd64"
    assert one["labels"] == {"team": "a"}
    assert one["size"] == len(ONE.manifest) + len(ONE.config) + sum(len(part.data) for part in ONE.layers)
    assert one["unpacked"] is None
    assert one["created"] == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["localhost/x"], {X}),
        (["localhost/x:1"], {X}),
        (["old"], {"docker.io/library/old:1"}),
        (["old:1"], {"docker.io/library/old:1"}),
        ([ONE.id.short], {X, Y}),
        ([ONE.id], {X, Y}),
        (["-f", "reference=*/x*"], {X}),
        (["-f", "reference=old"], {"docker.io/library/old:1"}),
        (["-f", "label=team"], {X, Y}),
        (["-f", "label=team=b"], set()),
        (["-f", "label=team=a", "-f", "reference=localhost:5000/*"], {Y}),
        (["-f", "before=localhost/x:1"], {"docker.io/library/old:1"}),
        (["-f", "since=old:1"], {X, Y}),
        (["-f", "until=2021-01-01T00:00:00Z"], {"docker.io/library/old:1"}),
        (["-f", "until=20w", "old:1"], {"docker.io/library/old:1"}),
        (["-f", "dangling=false"], {X, Y, "docker.io/library/old:1"}),
        (["-f", "dangling=true"], set()),
    ],
)
def test_some_images(two: Cli, args: list[str], wanted: set[str]) -> None:
    assert set(two.ok("images", "--names", *args).split()) == wanted


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing"], "nothing: no such image"),
        (["localhost/x:7"], "no such image (there is localhost/x:1"),
        (["-f", "size=3"], "no such filter: size=3 (one of before=…"),
        (["-f", "dangling=perhaps"], "dangling=perhaps (true or false)"),
        (["-f", "until=soon"], "until=soon (a time such as"),
        (["-f", "before=nothing"], "no such image"),
    ],
)
def test_images_that_are_not_there(two: Cli, args: list[str], words: str) -> None:
    assert words in two.failed("images", *args)


def test_a_damaged_image_is_listed(two: Cli) -> None:
    path = two.root / "blobs/sha256" / OLD.id.encoded
    path.chmod(0o644)
    path.write_bytes(b"x" * len(OLD.config))
    assert "damaged" in two.ok("images", "old:1")
    assert two.ok("images", "--names").split() == ["docker.io/library/old:1", X, Y]
    assert "ocirt fsck --repair" in two.failed("inspect", "old:1")


def test_an_image_without_a_name(cli: Cli) -> None:
    assert cli.load(layout([ONE.descriptor()], ONE.blobs())) == f"Loaded image ID: {ONE.id}\n"
    assert cli.ok("images").splitlines()[1].split()[:3] == ["<none>", "<none>", ONE.id.short]
    assert cli.ok("images", "--names") == ""
    assert len(cli.ok("images", "-f", "dangling=true").splitlines()) == 2
    assert cli.ok("tag", ONE.id.short, X) == ""
    assert cli.ok("rmi", "-f", ONE.id.short).endswith("freed)\n")


# -- tag, rmi


def test_tag(two: Cli) -> None:
    two.ok("tag", "old:1", "localhost/a", "localhost/b:2")
    assert {"localhost/a:latest", "localhost/b:2"} <= set(two.ok("images", "--names").split())
    two.ok("tag", "old:1", X)
    assert json.loads(two.ok("inspect", X))[0]["Id"] == OLD.id


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing", X], "nothing: no such image"),
        (["old:1", "short"], "a short name: which registry is meant? (perhaps docker.io/library/short"),
        (["old:1", "localhost/UPPER"], "names of repositories are in lower case: upper"),
        (["old:1", f"localhost/x@{ONE.digest}"], "a name with a digest (leave the digest out)"),
    ],
)
def test_bad_tags(two: Cli, args: list[str], words: str) -> None:
    before = two.ok("images", "--json")
    assert words in two.failed("tag", *args)
    assert two.ok("images", "--json") == before


def test_rmi(two: Cli) -> None:
    assert two.ok("rmi", X) == f"Untagged: {X}\n"
    size = sum(path.stat().st_size for path in (two.root / "blobs/sha256").iterdir())
    lines = two.ok("rmi", ONE.id.short).splitlines()
    assert lines[0] == f"Untagged: {Y}"
    assert lines[1].startswith(f"Deleted: {ONE.id} (")
    after = sum(path.stat().st_size for path in (two.root / "blobs/sha256").iterdir())
    assert after == sum(len(data) for data in OLD.blobs().values() if isinstance(data, bytes)) < size
    two.ok("rmi", "-q", "old:1")
    assert not list((two.root / "blobs/sha256").iterdir())


def test_rmi_of_an_id_with_names(two: Cli) -> None:
    assert f"an image with 2 names (it is {X}, {Y}: remove one of these, or all by --force)" in two.failed("rmi", ONE.id.short)
    assert two.ok("rmi", "--force", ONE.id.short).splitlines()[:2] == [f"Untagged: {X}", f"Untagged: {Y}"]


def test_rmi_of_many(two: Cli) -> None:
    """Those that can be removed are, and each that cannot is named."""
    status, out, err = two("rmi", "nothing", X, "neither", "old:1")
    assert status == 1
    assert [line.partition(" (")[0] for line in err.splitlines()] == [
        "ocirt: nothing: no such image",
        "ocirt: neither: no such image",
    ]
    assert out.count("Untagged") == 2
    assert two.ok("rmi", "--force", "nothing") == ""


def test_rmi_of_an_ambiguous_id(cli: Cli) -> None:
    """Of a beginning that several have, all are named."""
    number = 0
    images: dict[str, Image] = {}
    while True:
        one = image(layer("a", "x"), Cmd=[str(number)])
        found = images.get(one.id.encoded[:3])
        if found is not None:
            break
        images[one.id.encoded[:3]] = one
        number += 1
    cli.load(named(one, X))
    cli.load(named(found, Y))
    text = cli.failed("rmi", one.id.encoded[:3])
    assert "2 images could be meant" in text
    assert X in text
    assert Y in text


def unpack(cli: Cli, name: str) -> None:
    """Make the rows that a pull makes: layers on disk, and a container on the topmost."""
    with Store.open(cli.root, sync=False) as store:
        record = store.images.find(name)
        config = json.loads(store.content.read(record.config))
        parent = None
        with store.leases.lease("test") as lease:
            from ocirt_images.digest import chain_ids  # noqa: PLC0415

            diff_ids = [Digest(one) for one in config["rootfs"]["diff_ids"]]
            for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
                staged = store.layers.stage(chain_id, parent=parent, diff_id=diff_id, lease=lease)
                assert staged is not None
                (staged.path / "file").write_text("x")
                staged.commit(size=4096, inodes=2)
                parent = chain_id
            store.images.put(
                record.name, record.target, manifest=record.manifest, config=record.config, lease=lease, layer=parent
            )
        store.writables.create("web", parent)


def test_an_image_of_a_container(two: Cli) -> None:
    """It stays, and prune leaves it, but a name of two may go."""
    two.ok("rmi", Y)
    unpack(two, X)
    assert f"{X}: the container web uses it" in two.failed("rmi", X)
    assert two.ok("images", X).splitlines()[1].endswith("8.19kB")
    assert "Untagged" in two.ok("prune", "--all")
    assert two.ok("images", "--names").split() == [X]
    found = json.loads(two.ok("inspect", X))[0]
    assert found["UnpackedSize"] == 8192
    assert Path(found["Layers"][0]["Unpacked"], "file").read_text() == "x"
    assert "Deleted" in two.ok("rmi", "--force", X)


# -- inspect, history


def test_inspect(two: Cli) -> None:
    one, other = json.loads(two.ok("inspect", X, "old:1"))
    assert (one["Id"], other["Id"]) == (ONE.id, OLD.id)
    assert one["RepoTags"] == [X, Y]
    assert one["RepoDigests"] == [f"localhost/x@{ONE.digest}", f"localhost:5000/y@{ONE.digest}"]
    assert one["Config"] == {"Cmd": ["sh"], "Labels": {"team": "a"}}
    assert one["RootFS"] == {"Type": "layers", "Layers": [Digest.of(part.plain) for part in ONE.layers]}
    assert [part["Digest"] for part in one["Layers"]] == [Digest.of(part.data) for part in ONE.layers]
    assert (one["Os"], one["Architecture"], one["PulledBy"]) == ("linux", "amd64", "ocirt load")
    assert (one["Platforms"], one["Manifests"]) == (["linux/amd64"], [])
    assert "no such image" in two.failed("inspect", "nothing")


def test_inspect_of_an_index(cli: Cli) -> None:
    """It says which platforms are here, of those that the index names."""
    arm = image(layer("a", "arm"), architecture="arm64")
    platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
    nobody = {"os": "unknown", "architecture": "unknown"}
    annotations = {"vnd.docker.reference.digest": ONE.digest}
    children = [
        ONE.descriptor(platform=platforms[0]),
        arm.descriptor(platform=platforms[1]),
        described(b"{}", platform=nobody, annotations=annotations),
    ]
    whole = index(*children)
    named_so = described(whole, annotations={"io.containerd.image.name": X}, mediaType=json.loads(whole)["mediaType"])
    path = cli.place / "archive.tar"
    path.write_bytes(tar(layout([named_so], ONE.blobs(), arm.blobs(), dict([blob(whole)]))))
    cli.ok("load", path)
    (found,) = json.loads(cli.ok("inspect", X))
    assert found["Platforms"] == ["linux/amd64"]
    cli.ok("load", "--all-platforms", path)
    (found,) = json.loads(cli.ok("inspect", X))
    assert found["Platforms"] == ["linux/amd64", "linux/arm64"]
    rows = [(one["ID"], one["Available"], one["Kind"]) for one in found["Manifests"]]
    kinds = ["image", "image", "attestation"]
    assert rows == [(one["digest"], kind == "image", kind) for one, kind in zip(children, kinds, strict=True)]
    assert [one["Descriptor"] for one in found["Manifests"]] == children


def test_history(two: Cli) -> None:
    """docker's columns, without what the classic builder writes before each command."""
    lines = two.ok("history", X).splitlines()
    assert lines[0].split("   ")[0] == "LAYER"
    assert [line.split()[0] for line in lines[1:]] == [
        Digest.of(ONE.layers[1].data).short,
        "-",
        Digest.of(ONE.layers[0].data).short,
    ]
    assert "RUN step 1" in lines[1]
    assert 'CMD ["sh"]' in lines[2]
    assert "#(nop)" not in lines[2]
    found = json.loads(two.ok("history", "--json", X))
    assert [one["size"] for one in found] == [len(ONE.layers[1].data), 0, len(ONE.layers[0].data)]
    assert two.ok("history", "-q", X).split() == [Digest.of(part.data) for part in reversed(ONE.layers)]


# -- load, save


def test_load_says_what_came(cli: Cli) -> None:
    path = cli.place / "archive.tar"
    path.write_bytes(tar(DockerArchive().add(ONE, "one:1", "me/one:2").add(OLD).files))
    status, out, err = cli("load", path)
    assert status == 0
    assert out == f"Loaded image: docker.io/library/one:1\nLoaded image: docker.io/me/one:2\nLoaded image ID: {OLD.id}\n"
    assert f"{Digest.of(ONE.layers[0].plain).short}: done, " in err
    assert cli("load", "--quiet", "--input", path) == (0, f"{ONE.id}\n{OLD.id}\n", "")
    status, out, err = cli("load", "--json", path)
    assert {json.loads(line)["event"] for line in out.splitlines()} == {"Resolved", "LayerKnown", "LayerDone", "Done"}
    assert err == ""


def test_load_from_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = os.dup(0)
    reader, writer = os.pipe()
    try:
        os.dup2(reader, 0)
        os.write(writer, tar(named(ONE, X)))
        os.close(writer)
        assert cli.ok("load") == f"Loaded image: {X}\n"
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)
    monkeypatch.setattr("os.isatty", lambda fd: fd == 0)
    assert "standard input is a terminal (ocirt load FILE)" in cli.failed("load")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["a", "--input", "b"], "more than one archive: a and b"),
        (["--from-containerd", "/x", "b"], "more than one archive"),
        (["/nonexistent"], "/nonexistent: no such file or directory"),
        (["-n", "default", "a"], "--namespace says nothing without --from-containerd"),
        (["--platform", "a/b/c/d", "a"], "not a platform"),
        (["--name", "short", "a"], "a short name"),
        (["--from-containerd", "/nonexistent"], "neither a socket nor a directory of containerd's"),
        (["--from-containerd", "/"], "there is no io.containerd.metadata.v1.bolt/meta.db in it"),
    ],
)
def test_bad_loads(cli: Cli, args: list[str], words: str) -> None:
    assert words in cli.failed("load", *args)


def test_load_with_a_name(cli: Cli) -> None:
    path = cli.place / "archive.tar"
    path.write_bytes(tar(layout([ONE.descriptor(annotations={"org.opencontainers.image.ref.name": "v3"})], ONE.blobs())))
    assert cli.ok("load", "--name", "localhost/mine", path) == "Loaded image: localhost/mine:v3\n"


def test_save_and_load(two: Cli) -> None:
    """By name it is saved with its name, by ID without."""
    path = two.place / "saved.tar"
    two.ok("save", "--output", path, X, "old:1")
    two.ok("rmi", "-f", ONE.id.short, "old:1")
    assert two.ok("load", path) == f"Loaded image: docker.io/library/old:1\nLoaded image: {X}\n"
    two.ok("save", "-o", path, ONE.id.short)
    two.ok("rmi", X)
    assert two.ok("load", path) == f"Loaded image ID: {ONE.id}\n"


def test_save_into_a_directory(two: Cli) -> None:
    place = two.place / "saved"
    two.ok("save", "-d", place, X)
    assert sorted(path.name for path in place.iterdir()) == ["blobs", "index.json", "manifest.json", "oci-layout"]
    assert "the directory is not empty" in two.failed("save", "-d", place, X)
    assert (place / "index.json").exists()


def test_save_to_standard_output(two: Cli) -> None:
    saved, place = os.dup(1), two.place / "out.tar"
    file = os.open(place, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.dup2(file, 1)
        from ocirt.cli import options  # noqa: PLC0415
        from ocirt.cli.main import command  # noqa: PLC0415

        assert command(options.Options("ocirt"), ["--image-root", str(two.root), "save", X]) == 0
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(file)
    with tarfile.open(place) as archive:
        assert "oci-layout" in archive.getnames()


def test_a_save_that_fails_leaves_nothing(two: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two.root / "blobs/sha256" / Digest.of(ONE.layers[0].data).encoded
    path.chmod(0o644)
    path.write_bytes(b"x" * len(ONE.layers[0].data))
    before = set(two.place.iterdir())
    assert "its file has other bytes" in two.failed("save", "-o", two.place / "saved.tar", X)
    assert "its file has other bytes" in two.failed("save", "-d", two.place / "saved", X)
    assert set(two.place.iterdir()) == before
    directory(two.place / "there", {})
    (two.place / "there").mkdir()
    assert "its file has other bytes" in two.failed("save", "-d", two.place / "there", X)
    assert not list((two.place / "there").iterdir())
    monkeypatch.setattr("os.isatty", lambda fd: fd == 1)
    assert "standard output is a terminal (--output FILE, or a pipe)" in two.failed("save", X)
    assert "one of them" in two.failed("save", "-o", "a", "-d", "b", X)


# -- prune, fsck


def test_prune(two: Cli) -> None:
    assert two.ok("prune") == "0B freed: there was nothing\n"
    with Store.open(two.root, sync=False) as store, store.leases.lease("test") as lease:
        store.content.put(b"left", Digest.of(b"left"), lease)
        lease.end(free=False)
    assert two.ok("prune", "--older", "1h") == "0B freed: there was nothing\n"
    assert two.ok("prune") == "4B freed: 1 blob\n"
    text = two.ok("prune", "--all")
    assert text.splitlines()[:3] == ["Untagged: docker.io/library/old:1", f"Untagged: {X}", f"Untagged: {Y}"]
    assert "3 images, 6 blobs" in text
    assert json.loads(two.ok("prune", "--json"))["contents"] == 0
    assert two.ok("prune", "-q") == ""
    assert "an age such as 90m, 24h or 7d" in two.failed("prune", "--older", "long")


def test_fsck(two: Cli) -> None:
    """Status 1 as long as there is damage."""
    assert two("fsck") == (0, "", "")
    path = two.root / "blobs/sha256" / Digest.of(ONE.layers[1].data).encoded
    path.chmod(0o644)
    path.write_bytes(b"x" * len(ONE.layers[1].data))
    path.chmod(0o444)
    status, out, err = two("fsck")
    assert (status, err) == (1, "1 damaged: ocirt fsck --repair\n")
    assert out.startswith("blob-damaged ")
    found = json.loads(two("fsck", "--json")[1])
    assert [(one["kind"], one["repaired"]) for one in found] == [("blob-damaged", False)]
    assert two("fsck", "-q") == (1, "", "")
    status, out, err = two("fsck", "--repair")
    assert (status, err) == (0, "")
    assert out.endswith("(repaired)\n")
    assert two("fsck") == (0, "", "")


def test_fsck_of_nothing(cli: Cli) -> None:
    assert "no store (the first pull makes one)" in cli.failed("fsck")
    assert not cli.root.exists()
