"""Debian's docker-registry: what we push, we and others pull, and the other way round; ids and digests agree."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conformance.drivers import Podman
from conformance.imagetools import Ocirt, X, digest, podmans
from conformance.registries import DockerRegistry
from conformance.signingkey import write
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.push import push
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.store import Store
from tests.support import images
from tests.support.layouts import blob, described, directory, image, index, layer, layout
from tests.support.proxy import Proxy
from tests.unit.images.push.conftest import keep

PLAIN = "--tls-verify=false"


@pytest.fixture
def name(made: Ocirt, registry: DockerRegistry) -> str:
    """An image of the store at the registry, after a push."""
    found = f"{registry.address}/team/app:1"
    made.call("tag", X, found).ok()
    assert made.call("push", found).ok().out == f"{found}: {made.image(X)[1]}\n"
    return found


def test_there_and_back(made: Ocirt, name: str) -> None:
    """Into another store."""
    other = made.another()
    other.call("pull", "-q", name).ok()
    assert other.image(name) == made.image(X)


def test_a_second_push(made: Ocirt, registry: DockerRegistry, name: str) -> None:
    """It only asks."""
    before = registry.asked()
    made.call("push", name).ok()
    assert set(registry.asked() - before) == {"HEAD blobs", "HEAD manifests"}


def test_a_mount(made: Ocirt, registry: DockerRegistry, name: str) -> None:
    """Into another repository: nothing but the manifest is sent."""
    before = registry.asked()
    made.call("push", "--json", name, f"{registry.address}/other/app:2").ok()
    new = registry.asked() - before
    assert (new["POST uploads"], new["PUT uploads"], new["PUT manifests"]) == (3, 0, 1)
    assert json.loads(registry.get("other/app/tags/list"))["tags"] == ["2"]


def test_skopeo_and_podman_read_it(
    made: Ocirt,
    skopeo: Callable[..., str],
    podman: Podman,
    name: str,
) -> None:
    """By the digest and the ID that we have."""
    identity, manifest = made.image(X)
    assert digest(skopeo("inspect", PLAIN, "--raw", f"docker://{name}")) == manifest
    assert digest(skopeo("inspect", PLAIN, "--config", "--raw", f"docker://{name}")) == identity
    podman.call("pull", PLAIN, name).ok()
    assert podmans(podman, name) == identity


def test_we_read_theirs(
    made: Ocirt,
    skopeo: Callable[..., str],
    podman: Podman,
    registry: DockerRegistry,
    name: str,
) -> None:
    """What skopeo copied, and what podman pushed."""
    identity, manifest = made.image(X)
    other = made.another()
    copied, pushed = f"{registry.address}/skopeo:1", f"{registry.address}/podman:1"
    plain = [PLAIN.replace("--", "--src-"), PLAIN.replace("--", "--dest-")]
    skopeo("copy", "--preserve-digests", *plain, f"docker://{name}", f"docker://{copied}")
    other.call("pull", "-q", copied).ok()
    assert other.image(copied) == (identity, manifest)
    podman.call("pull", PLAIN, name).ok()
    podman.call("push", PLAIN, name, pushed).ok()
    other.call("pull", "-q", pushed).ok()
    assert other.image(pushed)[0] == identity


def test_an_index(made: Ocirt, skopeo: Callable[..., str], registry: DockerRegistry, tmp_path: Path) -> None:
    """All of it; a part of it is refused, and one platform is sent alone."""
    parts = [image(layer("a", name), architecture=name) for name in ("amd64", "arm64")]
    top = index(*(one.descriptor(platform=one.platform) for one in parts))
    name = f"{registry.address}/many:1"
    target = described(top, annotations={"org.opencontainers.image.ref.name": name})
    place = directory(tmp_path / "layout", layout([target], dict([blob(top)]), *(one.blobs() for one in parts)))
    made.call("load", "--platform", "amd64", place).ok()
    made.call("push", name).failed(
        rf"{re.escape(name)}: .* HTTP 40\d .*: .* \(not here: linux/arm64\. `ocirt pull --all-platforms` brings them", rc=1
    )
    made.call("push", "--platform", "linux/amd64", name).ok()
    assert digest(skopeo("inspect", PLAIN, "--raw", f"docker://{name}")) == parts[0].digest
    made.call("load", "--all-platforms", place).ok()
    made.call("push", name).ok()
    assert digest(skopeo("inspect", PLAIN, "--raw", f"docker://{name}")) == Digest.of(top)
    skopeo("copy", "--all", PLAIN.replace("--", "--src-"), f"docker://{name}", f"oci-archive:{tmp_path}/all.tar")


def test_docker_types_and_foreign_layers(made: Ocirt, registry: DockerRegistry, tmp_path: Path) -> None:
    """The bytes are kept; such a layer is only referred to."""
    foreign = images.layer({"windows": b"x"}, docker=True)
    foreign.descriptor.update(
        mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://layers.example/1"]
    )
    one = images.image([foreign, images.layer({"a": b"b"}, docker=True)], docker=True)
    with Store.open(tmp_path / "s", sync=False) as store, client() as us:
        record = keep(store, one)
        assert push(store, us, record, Reference.parse(f"{registry.address}/docker:1")) == one.digest
    assert registry.get(f"docker/manifests/{one.digest}") == one.manifest


def test_the_list_of_referrers(made: Ocirt, registry: DockerRegistry, tmp_path: Path) -> None:
    """This registry has none of its own, so there is a tag."""
    subject = images.image([images.layer({"a": b"b"})])
    one = images.image([images.layer({"c": b"d"})], subject=subject.descriptor)
    with Store.open(tmp_path / "s", sync=False) as store, client() as us:
        reference = Reference.parse(f"{registry.address}/app:r")
        push(store, us, keep(store, one), reference)
        assert [found.digest for found in us.referrers(reference, Digest(subject.digest))] == [one.digest]
    tags = json.loads(registry.get("app/tags/list"))["tags"]
    assert sorted(tags) == ["r", f"sha256-{subject.digest.removeprefix('sha256:')}"]


@pytest.mark.parametrize("breaks", [[1 << 20], [1 << 20, 20 << 20], [5 << 20, 5 << 20]])
def test_broken_connections(registry: DockerRegistry, tmp_path: Path, breaks: list[int]) -> None:
    """In the middle of a blob: it comes whole all the same."""
    data = random.Random(1).randbytes(40 << 20)
    one = images.image([images.layer(data, "")])
    with (
        Store.open(tmp_path / "s", sync=False) as store,
        client() as us,
        Proxy(registry.address, list(breaks)) as proxy,
    ):
        record = keep(store, one)
        assert push(store, us, record, Reference.parse(f"{proxy.address}/app:1")) == one.digest
        assert proxy.broken == len(breaks)
        with us.blob(Reference.parse(f"{registry.address}/app"), Descriptor.parse(one.layers[0].descriptor, "x")) as body:
            hasher = hashlib.sha256()
            while piece := body.read():
                hasher.update(piece)
    assert f"sha256:{hasher.hexdigest()}" == one.layers[0].digest


def test_signatures_of_skopeos(
    made: Ocirt, skopeo: Callable[..., str], registry: DockerRegistry, name: str, tmp_path: Path
) -> None:
    """A pull takes what was signed by the key that it trusts, and nothing else."""
    key, other_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    write(key, tmp_path / "key", b"secret")
    (tmp_path / "passphrase").write_text("secret")
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d/all.yaml").write_text("default-docker:\n  use-sigstore-attachments: true\n")
    signed = f"{registry.address}/signed:1"
    plain = [PLAIN.replace("--", "--src-"), PLAIN.replace("--", "--dest-"), "--preserve-digests"]
    by = ["--sign-by-sigstore-private-key", tmp_path / "key", "--sign-passphrase-file", tmp_path / "passphrase"]
    try:
        skopeo("--registries.d", tmp_path / "registries.d", "copy", *plain, *by, f"docker://{name}", f"docker://{signed}")
    except AssertionError as err:
        if "sigstore disabled" in str(err):
            pytest.skip("this skopeo does not sign: Debian's is built without sigstore")
        raise

    def trust(one: ec.EllipticCurvePrivateKey) -> None:
        pem = one.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "key.pub").write_bytes(pem)

    policy = tmp_path / "policy.json"
    required = {"type": "sigstoreSigned", "keyPath": str(tmp_path / "key.pub")}
    policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {registry.address: [required]}}}))
    other = made.another()
    other.env = {"OCIRT_POLICY": str(policy)}
    trust(other_key)
    other.call("pull", signed).failed("SignatureValidationFailed: .*: it is not by a key that is trusted", rc=1)
    trust(key)
    other.call("pull", "-q", signed).ok()
    assert other.image(signed) == made.image(X)
    other.call("pull", name).failed("SignatureValidationFailed: .*: it is not signed", rc=1)


def client() -> Registry:
    """A client without anything of the machine's."""
    return Registry(hosts=Hosts(), credentials=Credentials(), environ={})
