"""Signatures that cosign makes: a pull takes what is by a key that it trusts, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conformance import goprograms
from conformance.drivers import Machine, call, program
from conformance.imagetools import Ocirt, X
from conformance.registries import DockerRegistry

_PLAIN = ("--allow-http-registry", "--tlog-upload=false", "--yes")


class Cosign:
    """cosign, with keys of its own."""

    def __init__(self, machine: Machine, path: Path | str, place: Path) -> None:
        self.env = machine.env | {"COSIGN_PASSWORD": "secret", "HOME": str(place)}
        self.path = str(path)
        self.place = place

    def key(self, name: str) -> Path:
        """A new pair of keys; the public one."""
        call([self.path, "generate-key-pair", "--output-key-prefix", str(self.place / name)], env=self.env).ok()
        return self.place / f"{name}.pub"

    def sign(self, image: str, key: Path, *more: str) -> None:
        """Sign `image` (NAME@DIGEST) with the private key that belongs to `key`."""
        call([self.path, "sign", "--key", str(key.with_suffix(".key")), *_PLAIN, *more, image], env=self.env).ok()

    def copy(self, image: str, to: str) -> None:
        """An image with its signatures."""
        call([self.path, "copy", "--allow-http-registry", image, to], env=self.env).ok()


@pytest.fixture
def cosign(machine: Machine, tmp_path: Path) -> Cosign:
    """The one on PATH, or one that is built, which takes five minutes the first time."""
    found: Path | str | None = program("cosign")
    if found is None and os.environ.get("OCIRT_TEST_COSIGN"):
        module = "github.com/sigstore/cosign/v2"
        found = goprograms.build("cosign", {module: "v2.6.1"}, [f"{module}/cmd/cosign"], go="1.24.6") / "cosign"
    if found is None:
        pytest.skip("there is no cosign on PATH: OCIRT_TEST_COSIGN=1 builds it, which takes five minutes")
    return Cosign(machine, found, tmp_path)


@pytest.fixture
def name(made: Ocirt, registry: DockerRegistry) -> str:
    """An image of the store at the registry."""
    found = f"{registry.address}/team/app:1"
    made.call("tag", X, found).ok()
    made.call("push", "-q", found).ok()
    return found


@pytest.fixture
def puller(made: Ocirt, registry: DockerRegistry, tmp_path: Path) -> Ocirt:
    """Another store, which takes what is signed by trusted.pub from that registry."""
    required = {
        "type": "sigstoreSigned",
        "keyPath": str(tmp_path / "trusted.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {registry.address: [required]}}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    other = made.another()
    other.env = {"OCIRT_POLICY": str(tmp_path / "policy.json")}
    return other


def test_signed(cosign: Cosign, made: Ocirt, puller: Ocirt, name: str) -> None:
    """By another key first, then by the trusted one, too; by tag and by digest."""
    trusted, other = cosign.key("trusted"), cosign.key("other")
    exact = f"{name.rpartition(':')[0]}@{made.image(X)[1]}"
    puller.call("pull", name).failed("SignatureValidationFailed: .*: it is not signed", rc=1)
    cosign.sign(exact, other)
    puller.call("pull", name).failed("SignatureValidationFailed: .*: it is not by a key that is trusted", rc=1)
    cosign.sign(exact, trusted)
    puller.call("pull", "-q", name).ok()
    puller.call("pull", "-q", exact).ok()
    assert puller.image(name) == made.image(X)


def test_copied(cosign: Cosign, made: Ocirt, puller: Ocirt, registry: DockerRegistry, name: str) -> None:
    """A signature does not count for another repository, to which it was copied with the image."""
    moved = f"{registry.address}/moved/app:1"
    cosign.sign(f"{name.rpartition(':')[0]}@{made.image(X)[1]}", cosign.key("trusted"))
    cosign.copy(name, moved)
    puller.call("pull", moved).failed("SignatureValidationFailed: .*: it is for '.*/team/app'", rc=1)


def test_a_bundle(cosign: Cosign, made: Ocirt, puller: Ocirt, name: str) -> None:
    """What cosign 3 writes by itself names no image by which a policy could tell it: the error says how to sign."""
    trusted = cosign.key("trusted")
    cosign.sign(f"{name.rpartition(':')[0]}@{made.image(X)[1]}", trusted, "--new-bundle-format")
    refused = puller.call("pull", name)
    refused.failed("SignatureValidationFailed: .*: it is signed by a bundle", rc=1)
    assert "--new-bundle-format=false" in refused.err
