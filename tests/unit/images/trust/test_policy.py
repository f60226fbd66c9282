"""policy.json: what it may say, and which of its scopes decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.trust.policy import Policy
from ocirt_images.trust.requirements import Anything, Reject
from tests.unit.images.registry.asking import refused

ACCEPT: list[dict[str, Any]] = [{"type": "insecureAcceptAnything"}]
REJECT: list[dict[str, Any]] = [{"type": "reject"}]
DIGEST = "sha256:" + "a" * 64


def policy(default: Any = REJECT, **scopes: Any) -> Policy:
    """A policy with scopes of docker's transport."""
    return Policy.parse(json.dumps({"default": default, "transports": {"docker": scopes}}).encode(), "policy.json")


# Which scope


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("docker.io/library/busybox:latest", "docker.io/library/busybox:latest"),
        ("docker.io/library/busybox:1", "docker.io/library/busybox"),
        (f"docker.io/library/busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"docker.io/library/busybox:latest@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"docker.io/library/alpine@{DIGEST}", "docker.io/library"),
        ("docker.io/library/busybox2:1", "docker.io/library"),
        ("docker.io/library2/busybox:1", "docker.io"),
        ("docker.io/a/b/c:1", "docker.io"),
        ("registry.example:5000/team/app:1", "registry.example:5000/team"),
        ("registry.example:5000/other/app:1", "registry.example:5000"),
        ("registry.example/team/app:1", "*.example"),
        ("a.registry.example:5000/team/app:1", "*.registry.example"),
        ("b.a.registry.example/team/app:1", "*.registry.example"),
        ("registry.example:6000/team/app:1", "*.example"),
        ("example:5000/team/app:1", ""),
        ("quay.io/a/b:1", ""),
    ],
)
def test_the_narrowest_scope_decides(image: str, wanted: str) -> None:
    names = [
        "",
        "docker.io",
        "docker.io/library",
        "docker.io/library/busybox",
        "docker.io/library/busybox:latest",
        f"docker.io/library/busybox@{DIGEST}",
        "registry.example:5000",
        "registry.example:5000/team",
        "*.registry.example",
        "*.example",
    ]
    found = policy(**dict.fromkeys(names, ACCEPT))
    assert found.rule(Reference.parse(image, short=True)) == (wanted, (Anything(),))


def test_the_default() -> None:
    reference = Reference.parse("quay.io/a/b:1")
    assert policy(**{"docker.io": ACCEPT}).rule(reference) == ("", (Reject(),))
    assert policy(**{"": ACCEPT}).rule(reference) == ("", (Anything(),)), "that of the transport comes before"
    whole = {"default": REJECT, "transports": {"docker-daemon": {"": ACCEPT}, "oci": {"/": ACCEPT}}}
    assert Policy.parse(json.dumps(whole).encode(), "x").rule(reference) == ("", (Reject(),)), "others are not asked"


# Where it is


def test_where_it_is(tmp_path: Path) -> None:
    def write(path: Path, value: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"default": value}))
        return path

    system = tmp_path / "etc/policy.json"
    environ = {"HOME": str(tmp_path / "home")}
    assert Policy.load(environ, system) == Policy()
    assert Policy.load({}, system) == Policy()
    write(system, REJECT)
    assert Policy.load(environ, system).source == str(system)
    user = write(tmp_path / "home/.config/containers/policy.json", REJECT)
    assert Policy.load(environ, system).source == str(user)
    chosen = write(tmp_path / "chosen.json", REJECT)
    assert Policy.load(environ | {"OCIRT_POLICY": str(chosen)}, system).source == str(chosen)
    with pytest.raises(FileNotFoundError):
        Policy.load(environ | {"OCIRT_POLICY": str(tmp_path / "nothing")}, system)


# What is wrong with it


SIGNED = {"type": "sigstoreSigned", "keyPath": "/key.pub"}
WRONG: list[tuple[Any, str]] = [
    ([], "policy.json: an object is wanted, not a list"),
    ({}, "policy.json: /default: missing"),
    ({"default": []}, "policy.json: /default: no requirement"),
    ({"default": ACCEPT, "more": 1}, "policy.json: 'more' is not known here"),
    ({"default": [{}]}, "policy.json: /default/0/type: missing"),
    ({"default": [{"type": "accept"}]}, "policy.json: /default/0/type: 'accept' is no requirement"),
    ({"default": [{"type": "reject", "x": 1}]}, "policy.json: /default/0: 'x' is not known here"),
    ({"default": ACCEPT, "transports": []}, "policy.json: /transports: an object is wanted"),
    ({"default": ACCEPT, "transports": {"docker": {"a": []}}}, "policy.json: /transports/docker/a: no requirement"),
    ({"default": [{"type": "sigstoreSigned"}]}, "keyDatas, fulcio, pki is wanted: there is none"),
    ({"default": [{**SIGNED, "keyData": ""}]}, "is wanted: there is keyPath, keyData"),
    ({"default": [{**SIGNED, "fulcio": {}}]}, "is wanted: there is keyPath, fulcio"),
    ({"default": [{**SIGNED, "keyPath": 1}]}, "/default/0/keyPath: a string is wanted"),
    ({"default": [{"type": "sigstoreSigned", "keyPaths": []}]}, "/default/0/keyPaths: no key"),
    ({"default": [{"type": "sigstoreSigned", "keyDatas": []}]}, "/default/0/keyDatas: no key"),
    ({"default": [{"type": "sigstoreSigned", "keyData": "?"}]}, "/default/0/keyData: not base64"),
    ({"default": [{**SIGNED, "more": 1}]}, "/default/0: 'more' is not known here"),
    ({"default": [{**SIGNED, "signedIdentity": {"type": "any"}}]}, "/signedIdentity/type: 'any' is no identity"),
    ({"default": [{**SIGNED, "signedIdentity": {"type": "matchExact", "x": 1}}]}, "/signedIdentity: 'x' is not known"),
    (
        {"default": [{**SIGNED, "signedIdentity": {"type": "exactReference", "dockerReference": "a.b/c"}}]},
        "/dockerReference: neither a tag nor a digest",
    ),
    (
        {"default": [{**SIGNED, "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.b/c:1"}}]},
        "/dockerRepository: a repository has neither tag nor digest",
    ),
    (
        {"default": [{**SIGNED, "signedIdentity": {"type": "exactRepository", "dockerRepository": "A"}}]},
        "/dockerRepository: 'A' is no repository",
    ),
    (
        {"default": [{**SIGNED, "signedIdentity": {"type": "remapIdentity", "prefix": "a.b/", "signedPrefix": "c.d"}}]},
        "/prefix: 'a.b/' is no beginning of names",
    ),
    (
        {"default": [{**SIGNED, "signedIdentity": {"type": "remapIdentity", "prefix": "a.b"}}]},
        "/signedPrefix: missing",
    ),
]


@pytest.mark.parametrize(("value", "text"), WRONG)
def test_what_is_wrong(value: Any, text: str) -> None:
    refused("invalid", text, lambda: Policy.parse(json.dumps(value).encode(), "policy.json"))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"default": [], "default": []}'])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(Error) as caught:
        Policy.parse(data, "policy.json")
    assert caught.value.subject == "policy.json"


def test_debians_own() -> None:
    text = b'{\n    "default": [\n        {\n            "type": "insecureAcceptAnything"\n        }\n    ]\n}\n'
    assert Policy.parse(text, "x").default == (Anything(),)
