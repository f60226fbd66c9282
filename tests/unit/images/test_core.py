"""References, digests, platforms, manifests, configurations: what they are read from, and what is said of what they are not."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images import mediatypes
from ocirt_images.config import ImageConfig
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest, chain_ids
from ocirt_images.errors import Error
from ocirt_images.manifest import LIMIT, Index, Manifest, read
from ocirt_images.platforms import Platform, accepted, choose, host
from ocirt_images.reference import Reference

D = "sha256:" + "a" * 64
E = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("busybox", "docker.io/library/busybox", "latest", None),
        ("user/app:1", "docker.io/user/app", "1", None),
        ("docker.io/busybox", "docker.io/library/busybox", "latest", None),
        ("index.docker.io/a/b", "docker.io/a/b", "latest", None),
        ("localhost/a", "localhost/a", "latest", None),
        ("localhost:5000/a/b:x", "localhost:5000/a/b", "x", None),
        ("[::1]:5000/a", "[::1]:5000/a", "latest", None),
        ("r.example/a__b/c-d.e:V1.2-x_", "r.example/a__b/c-d.e", "V1.2-x_", None),
        (f"r.example/a@{D}", "r.example/a", "", D),
        (f"r.example/a:t@{D}", "r.example/a", "t", D),
        ("Host/a", "Host/a", "latest", None),
    ],
)
def test_reference(text: str, name: str, tag: str, digest: str | None) -> None:
    found = Reference.parse(text, short=True)
    assert (found.name, found.tag, found.digest) == (name, tag, digest)
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar, short=True) == found


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no repository"),
        ("r.example/", "no repository"),
        ("r.example/Upper", "lower case: upper"),
        ("r.example/a//b", "no repository"),
        ("r.example/a:", "no tag"),
        ("r.example/a:.x", "no tag"),
        ("r.example/a:" + "x" * 129, "no tag"),
        ("r.example:99999/a", "no registry"),
        ("-r.example/a", "no registry"),
        ("r.example/a@sha256:12", "64"),
        ("r.example/a@md5:" + "a" * 32, "md5"),
        ("r.example/a@" + D.upper(), "SHA256"),
        ("r.example/" + "a" * 256, "255"),
        ("r.example/../a", "no repository"),
        ("r.example/a\n", "no repository"),
    ],
)
def test_no_reference(text: str, word: str) -> None:
    with pytest.raises(Error, match=word):
        Reference.parse(text, short=True)


@pytest.mark.parametrize(("text", "full"), [("busybox", "docker.io/library/busybox"), ("a/b:1", "docker.io/a/b:1")])
def test_short_name(text: str, full: str) -> None:
    with pytest.raises(Error, match=f"which registry.*perhaps {full}"):
        Reference.parse(text)


@given(st.text(max_size=300))
def test_reference_from_anything(text: str) -> None:
    try:
        found = Reference.parse(text, short=True)
    except Error as err:
        assert err.code in {"invalid", "unsupported"}
    else:
        assert Reference.parse(str(found)) == found


def test_digest() -> None:
    digest = Digest.of(b"x")
    assert digest == "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert (digest.algorithm, digest.short) == ("sha256", "2d711642b726")
    assert Digest.from_hash(digest.hasher()) == Digest.of(b"")
    assert Digest.of(b"", "sha512").algorithm == "sha512"
    assert pickle.loads(pickle.dumps(digest)) == digest


def test_chain_ids() -> None:
    # image-spec, config.md: ChainID(L0|L1) = Digest(DiffID(L0) + " " + DiffID(L1))
    assert chain_ids([]) == []
    first, second = chain_ids([Digest(D), Digest(E)])
    assert first == D
    assert second == Digest.of(f"{D} {E}".encode())


def platform(name: str) -> Platform:
    """As an index has it, not as a person means it."""
    os, architecture, variant = (name + "/").split("/")[:3]
    return Platform(os, architecture, variant)


@pytest.mark.parametrize(
    ("wanted", "offered", "taken"),
    [
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v3", "linux/amd64/v3"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/arm64", "linux/amd64/v1"], 2),
        ("linux/amd64", ["linux/amd64/v2", "windows/amd64", None], 2),
        ("linux/amd64", ["unknown/unknown", "linux/386"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/riscv64", ["linux/amd64", "unknown/unknown"], None),
    ],
)
def test_platforms(wanted: str, offered: list[str | None], taken: int | None) -> None:
    platforms = [None if name is None else platform(name) for name in offered]
    assert choose(platforms, Platform.named(wanted)) == taken


def test_platform_names() -> None:
    assert Platform.named("x86_64") == Platform("linux", "amd64")
    assert Platform.named("arm64") == Platform("linux", "arm64", "v8")
    assert Platform.named("linux/arm/7") == Platform("linux", "arm", "v7")
    with pytest.raises(Error, match="OS/ARCHITECTURE"):
        Platform.named("linux//x")
    assert host() in accepted(host())


def manifest(**changes: object) -> dict[str, Any]:
    config = {"mediaType": mediatypes.CONFIG, "digest": D, "size": 2}
    layer = {"mediaType": mediatypes.LAYER + "+gzip", "digest": E, "size": 3}
    whole = {"schemaVersion": 2, "mediaType": mediatypes.MANIFEST, "config": config, "layers": [layer], "annotations": None}
    return whole | changes


def test_manifest() -> None:
    found = read(json.dumps(manifest()).encode(), "", "m")
    assert isinstance(found, Manifest)
    found.check_runnable("m")
    assert found.layers[0].digest == E
    assert Descriptor.parse(found.layers[0].json(), "m") == found.layers[0]
    docker = manifest(mediaType=mediatypes.DOCKER_MANIFEST)
    assert (
        read(json.dumps(docker).encode(), mediatypes.DOCKER_MANIFEST + "; charset=utf-8", "m").media_type == docker["mediaType"]
    )


def test_index() -> None:
    entry = {"mediaType": mediatypes.MANIFEST, "digest": D, "size": 2, "platform": {"os": "linux", "architecture": "arm"}}
    found = read(json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), "text/plain", "m")
    assert isinstance(found, Index)
    assert found.manifests[0].platform == Platform("linux", "arm")


@pytest.mark.parametrize(
    ("changes", "said", "code", "words"),
    [
        ({"schemaVersion": 1}, "", "unsupported", "schema 1"),
        ({}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "unsupported", "schema 1"),
        ({"schemaVersion": "2"}, "", "invalid", "m/schemaVersion"),
        ({"mediaType": "text/x"}, "", "unsupported", "text/x"),
        ({"mediaType": 3}, "", "invalid", "m/mediaType"),
        ({}, mediatypes.INDEX, "invalid", "announced as"),
        ({"manifests": []}, "", "invalid", "either"),
        ({"config": None}, "", "invalid", "m/config"),
        ({"layers": {}}, "", "invalid", "m/layers"),
        ({"layers": [{"mediaType": "x", "digest": D, "size": -1}]}, "", "invalid", "m/layers/0/size"),
        ({"layers": [{"mediaType": "x", "digest": D, "size": True}]}, "", "invalid", "m/layers/0/size"),
        ({"layers": [{"mediaType": "x", "digest": "a/../b", "size": 1}]}, "", "invalid", "m/layers/0/digest"),
        ({"annotations": {"a": 1}}, "", "invalid", "m/annotations/a"),
    ],
)
def test_no_manifest(changes: dict[str, object], said: str, code: str, words: str) -> None:
    with pytest.raises(Error, match=words) as caught:
        read(json.dumps(manifest(**changes)).encode(), said, "m")
    assert caught.value.code == code


def test_not_json() -> None:
    for data in (b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(Error, match="^m: "):
            read(data, "", "m")
    with pytest.raises(Error, match="at most"):
        read(b" " * (LIMIT + 1), "", "m")


def test_artifact() -> None:
    config = {"mediaType": mediatypes.EMPTY, "digest": D, "size": 2}
    found = read(json.dumps(manifest(config=config, artifactType="application/x")).encode(), "", "m")
    assert isinstance(found, Manifest)
    with pytest.raises(Error, match="an artifact of type application/x"):
        found.check_runnable("m")
    layers = [{"mediaType": "text/plain", "digest": D, "size": 2}]
    found = read(json.dumps(manifest(layers=layers)).encode(), "", "m")
    assert isinstance(found, Manifest)
    with pytest.raises(Error, match="m/layers/0: a layer of unknown type text/plain"):
        found.check_runnable("m")


def image(**changes: object) -> bytes:
    value = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [D]},
        "config": {"Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "ExposedPorts": {"80/tcp": {}}, "Labels": None},
    }
    return json.dumps(value | changes).encode()


def test_config() -> None:
    found = ImageConfig.read(image(), "c")
    assert (found.cmd, found.entrypoint, found.exposed_ports) == (("sh",), None, ("80/tcp",))
    assert found.diff_ids == (D,)
    assert ImageConfig.read(image(config={"Entrypoint": []}), "c").entrypoint == ()
    with pytest.raises(Error, match="an image for windows/amd64"):
        ImageConfig.read(image(os="windows"), "c").check_platform(host(), "c")
    parsed = read(json.dumps(manifest(layers=[])).encode(), "", "m")
    assert isinstance(parsed, Manifest)
    with pytest.raises(Error, match="1 entries for 0 layers"):
        found.check_layers(parsed, "c")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rootfs": None}, "c/rootfs"),
        ({"rootfs": {"type": "base"}}, "c/rootfs/type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "c/rootfs/diff_ids/0"),
        ({"config": {"Env": "A=b"}}, "c/config/Env"),
        ({"config": {"Cmd": [1]}}, "c/config/Cmd/0"),
        ({"config": {"Volumes": []}}, None),
        ({"config": {"Volumes": ["/v"]}}, "c/config/Volumes"),
        ({"history": [1]}, "c/history/0"),
    ],
)
def test_no_config(changes: dict[str, object], words: str | None) -> None:
    if words is None:
        ImageConfig.read(image(**changes), "c")
        return
    with pytest.raises(Error, match=words):
        ImageConfig.read(image(**changes), "c")


def test_error_crosses_a_pipe() -> None:
    err = Error("corrupt", "m", subject="s", cause="c", hint="h")
    back = pickle.loads(pickle.dumps(err))
    assert (str(back), back.code) == ("s: m: c (h)", "corrupt")
