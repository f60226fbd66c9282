"""Signatures at a registry: whose are accepted, and why others are not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.pull import pull
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.store import Store
from ocirt_images.trust.policy import Policy
from tests.support import images, signing
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.signing import KINDS, Signer, manifest, payload, signature
from tests.unit.images.push.conftest import FAST
from tests.unit.images.registry.asking import refused

KEY, OTHER_KEY = Signer(), Signer()
IMAGE = images.random_image(1, layers=1, size=1000)


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        found.add("team/app", IMAGE, "1")
        yield found


@pytest.fixture
def client() -> Iterator[Registry]:
    with Registry(hosts=Hosts(), credentials=Credentials(), limits=FAST, environ={}) as found:
        yield found


@pytest.fixture
def reference(registry: LocalRegistry) -> Reference:
    return Reference.parse(f"{registry.address}/team/app:1")


def sign(registry: LocalRegistry, *signatures: signing.Signature) -> None:
    registry.add("team/app", manifest(*signatures), f"sha256-{IMAGE.digest.removeprefix('sha256:')}.sig")


def signed(*keys: Signer, identity: str = "matchRepoDigestOrExact", **more: Any) -> Policy:
    """A policy of one requirement."""
    datas = [base64.b64encode(key.pem).decode() for key in keys]
    given = {"keyData": datas[0]} if len(datas) == 1 else {"keyDatas": datas}
    one = {"type": "sigstoreSigned", **(given if datas else {}), "signedIdentity": {"type": identity}} | more
    return Policy.parse(json.dumps({"default": [one]}).encode(), "policy.json")


def check(policy: Policy, reference: Reference, client: Registry) -> None:
    policy.check(reference, Descriptor.parse(IMAGE.descriptor, "x"), client)


def untrusted(text: str, policy: Policy, reference: Reference, client: Registry) -> Error:
    err = refused("untrusted", text, lambda: check(policy, reference, client))
    assert str(err).startswith(f"SignatureValidationFailed: {reference}: ")
    return err


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key(registry: LocalRegistry, client: Registry, reference: Reference, kind: str) -> None:
    key = Signer(kind)
    sign(registry, signature(key, payload(IMAGE.digest, str(reference))))
    check(signed(key), reference, client)
    untrusted("it is not by a key that is trusted", signed(Signer(kind)), reference, client)


def test_one_of_several_keys_and_signatures(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    good = payload(IMAGE.digest, str(reference))
    sign(registry, signature(OTHER_KEY, good), signature(OTHER_KEY, b"x"), signature(KEY, good + b"\n"))
    check(signed(Signer("RSA"), KEY), reference, client)
    err = untrusted("no signature of it is accepted", signed(Signer(), Signer("Ed25519")), reference, client)
    assert err.hint == "policy.json wants it so by default"


def test_what_cosign_writes(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    """The repository alone, and annotations of the user's."""
    sign(registry, signature(KEY, payload(IMAGE.digest, reference.name, optional={"build": "7", "n": None})))
    check(signed(KEY, identity="matchRepository"), reference, client)
    untrusted(f"it is for '{reference.name}'", signed(KEY), reference, client)


def test_no_signature(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    hexadecimal = IMAGE.digest.removeprefix("sha256:")
    text = f"it is not signed: there is no tag sha256-{hexadecimal}.sig in its repository"
    untrusted(text, signed(KEY), reference, client)
    sign(registry)
    untrusted("it is not signed", signed(KEY), reference, client)


@pytest.mark.parametrize("listed", ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.oci.empty.v1+json", ""])
def test_a_bundle(registry: LocalRegistry, client: Registry, reference: Reference, listed: str) -> None:
    """It does not count; the error says so. Where the registry keeps no list of referrers, cosign enters another type."""
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    bundle = images.image([images.layer({"a": b"b"})], subject=IMAGE.descriptor, artifact_type=kind)
    registry.add("team/app", bundle, "bundle")
    if listed != kind:
        registry.referrers_api = False
        plain = images.index([(None, bundle)])
        value = json.loads(plain.manifest)
        value["manifests"][0] |= {"artifactType": listed} if listed else {}
        data = images.encode(value)
        known = bundle.manifests | {images.digest(data): (plain.media_type, data)}
        listing = images.Image(data, plain.media_type, bundle.blobs, known)
        registry.add("team/app", listing, f"sha256-{IMAGE.digest.removeprefix('sha256:')}")
    untrusted("it is signed by a bundle, which does not say for which name; sign it by", signed(KEY), reference, client)
    sign(registry, signature(KEY, payload(IMAGE.digest, str(reference))))
    check(signed(KEY), reference, client)


def test_something_else_that_refers_to_it(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    """Such as a list of what is in it."""
    other = images.image([images.layer({"a": b"b"})], subject=IMAGE.descriptor, artifact_type="application/spdx+json")
    registry.add("team/app", other, "sbom")
    untrusted("it is not signed: there is no tag", signed(KEY), reference, client)


def test_a_sha512_has_no_tag(client: Registry, reference: Reference) -> None:
    described = Descriptor.parse({**IMAGE.descriptor, "digest": images.digest(IMAGE.manifest, "sha512")}, "x")
    refused("untrusted", "it is not signed", lambda: signed(KEY).check(reference, described, client))


def wrong(value: Any = None, **critical: Any) -> bytes:
    """A payload with other critical parts."""
    if value is not None:
        return json.dumps(value).encode()
    found = json.loads(payload(IMAGE.digest, "x"))
    found["critical"] |= critical
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "its payload cannot be read: payload: not JSON"),
        (wrong([]), "an object is wanted"),
        (wrong({"critical": {}, "optional": None}), "/critical/type: missing"),
        (wrong({"critical": None}), "/critical: an object is wanted"),
        (wrong(type="atomic container signature"), "/critical/type: of type 'atomic container signature'"),
        (wrong(more=1), "/critical: 'more' is not known here"),
        (wrong(image={}), "/critical/image/docker-manifest-digest: missing"),
        (wrong(image={"docker-manifest-digest": 1}), "a string is wanted"),
        (wrong(image={"docker-manifest-digest": IMAGE.digest, "x": 1}), "/critical/image: 'x' is not known here"),
        (wrong(identity={}), "/critical/identity/docker-reference: missing"),
        (wrong(image={"docker-manifest-digest": "sha256:" + "0" * 64}), "it is for another image, sha256:000"),
        (payload(IMAGE.digest, "x").replace(b'"type"', b'"type": "y", "type"'), "'type' is there twice"),
        (payload(IMAGE.digest, "quay.io/other/app:1"), "it is for 'quay.io/other/app:1'"),
    ],
)
def test_payloads_that_will_not_do(
    registry: LocalRegistry, client: Registry, reference: Reference, data: bytes, text: str
) -> None:
    """Though they are signed well."""
    sign(registry, signature(KEY, data))
    untrusted(text, signed(KEY), reference, client)


@pytest.mark.parametrize("text", ["", "?", "AAAA", "AAAA===="])
def test_signatures_that_are_none(registry: LocalRegistry, client: Registry, reference: Reference, text: str) -> None:
    for key in (KEY, Signer("RSA"), Signer("Ed25519")):
        sign(registry, signing.Signature(payload(IMAGE.digest, str(reference)), text))
        untrusted("no signature of it is accepted", signed(key), reference, client)


def test_a_payload_that_was_changed(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    good = payload(IMAGE.digest, "other")
    text = signature(KEY, good).text
    sign(registry, signing.Signature(good.replace(b"other", str(reference).encode()), text))
    untrusted("it is not by a key that is trusted", signed(KEY), reference, client)


def test_a_tag_that_is_something_else(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    tag = f"sha256-{IMAGE.digest.removeprefix('sha256:')}.sig"
    registry.add("team/app", IMAGE, tag)
    untrusted("it is not signed", signed(KEY), reference, client)
    registry.add("team/app", images.index([(None, IMAGE)]), tag)
    untrusted("an index, where signatures are wanted", signed(KEY), reference, client)
    registry.put_manifest("team/app", b"{", "application/json", tag)
    untrusted("not JSON", signed(KEY), reference, client)


def test_a_registry_that_fails(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    """That says nothing of the image; it may be tried again."""
    sign(registry, signature(KEY, payload(IMAGE.digest, str(reference))))
    registry.plant(faults.status(500), path="", times=None)
    refused("unavailable", "HTTP 500", lambda: check(signed(KEY), reference, client))


# Keys


def test_keys_in_files(registry: LocalRegistry, client: Registry, reference: Reference, tmp_path: Path) -> None:
    sign(registry, signature(KEY, payload(IMAGE.digest, str(reference))))
    one, other = tmp_path / "one.pub", tmp_path / "other.pub"
    one.write_bytes(KEY.pem)
    check(signed(keyPath=str(one)), reference, client)
    untrusted("other.pub: the key cannot be read: No such file", signed(keyPaths=[str(one), str(other)]), reference, client)
    other.write_bytes(OTHER_KEY.pem)
    check(signed(keyPaths=[str(other), str(one)]), reference, client)
    other.write_bytes(b"x")
    untrusted("other.pub: no public key in PEM", signed(keyPaths=[str(one), str(other)]), reference, client)


def pem(key: Any) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode()


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 1024), x25519.X25519PrivateKey.generate()]
)
def test_keys_that_are_not_taken(client: Registry, reference: Reference, key: Any) -> None:
    err = untrusted("a key of another kind", signed(keyData=pem(key)), reference, client)
    assert "Ed25519" in str(err)


# Other requirements


@pytest.mark.parametrize(
    ("required", "text"),
    [
        ({"type": "reject"}, "it is rejected"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x"}, "signed by GPG (signedBy), which ocirt does not verify"),
        ({"type": "sigstoreSigned", "fulcio": {"caPath": "/x"}, "rekorPublicKeyPath": "/y"}, "Fulcio, which ocirt does not"),
        ({"type": "sigstoreSigned", "pki": {"caRootsPath": "/x"}}, "by a certificate (pki), which ocirt does not verify"),
        ({"type": "sigstoreSigned", "keyPath": "/x", "rekorPublicKeyPath": "/y"}, "in a log of Rekor, which ocirt does not"),
        ({"type": "sigstoreSigned", "keyPath": "/x", "rekorPublicKeyDatas": ["eA=="]}, "in a log of Rekor"),
    ],
)
def test_requirements_that_are_not_met(
    registry: LocalRegistry, client: Registry, reference: Reference, required: Any, text: str
) -> None:
    policy = Policy.parse(json.dumps({"default": [{"type": "insecureAcceptAnything"}, required]}).encode(), "policy.json")
    untrusted(text, policy, reference, client)
    assert registry.seen == [], "nothing was asked"
    other = Policy.parse(
        json.dumps(
            {"default": [required], "transports": {"docker": {reference.name: [{"type": "insecureAcceptAnything"}]}}}
        ).encode(),
        "policy.json",
    )
    check(other, reference, client)


def test_all_have_to_be_met(registry: LocalRegistry, client: Registry, reference: Reference) -> None:
    def one(key: Signer) -> dict[str, Any]:
        return {"type": "sigstoreSigned", "keyData": base64.b64encode(key.pem).decode()}

    policy = Policy.parse(json.dumps({"default": [one(KEY), one(OTHER_KEY)]}).encode(), "x")
    good = payload(IMAGE.digest, str(reference))
    sign(registry, signature(KEY, good))
    untrusted("not by a key that is trusted", policy, reference, client)
    sign(registry, signature(KEY, good), signature(OTHER_KEY, good + b" "))
    check(policy, reference, client)


# In a pull


def test_nothing_comes_that_is_not_trusted(
    registry: LocalRegistry, client: Registry, reference: Reference, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "store", sync=False) as store:
        refused("untrusted", "it is not signed", lambda: pull(store, client, reference, policy=signed(KEY)))
        assert registry.asked("GET", "/blobs/") == 0
        assert store.images.list() == []
        assert list((tmp_path / "store/blobs/sha256").iterdir()) == []
        assert store.leases.list() == []
