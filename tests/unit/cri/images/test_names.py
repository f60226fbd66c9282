"""Names, ids, users and credentials: what is decided without a store."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.images import names
from ocirt_cri.images.credentials import credential
from ocirt_cri.images.image import user
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/app:1", "docker.io/team/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        (f"r.example/app:1@{DIGEST}", f"r.example/app@{DIGEST}"),
    ],
)
def test_references(text: str, full: str) -> None:
    assert str(names.reference(text)) == full


@pytest.mark.parametrize("text", ["", " ", "r.example/", "r.example/app:", "r.example/app@sha256:12", "-", "a" * 300])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(Error) as found:
        names.reference(text, "mounts[0].image.image")
    assert (found.value.code, found.value.subject) == ("invalid", "mounts[0].image.image")


def test_digits() -> None:
    assert names.hexadecimal(DIGEST) == names.hexadecimal("a" * 64) == "a" * 64
    assert names.hexadecimal("sha256:ab1") == names.hexadecimal("ab1") == "ab1"
    for text in ("", "sha256:", "sha512:ab", "AB", "xyz", "a" * 65, "ab\n"):
        assert names.hexadecimal(text) == ""


def test_names_in_the_store() -> None:
    assert names.stored(DIGEST) is None
    assert names.stored("no name at all!") is None
    assert names.stored("r.example/app:1") == Reference("r.example", "app", "1")


@pytest.mark.parametrize(
    ("text", "uid", "name"),
    [
        ("", 0, ""),
        ("0", 0, ""),
        ("1002", 1002, ""),
        ("1003:1004", 1003, ""),
        ("www-data", None, "www-data"),
        ("www-data:1004", None, "www-data"),
        (":5", 0, ""),
        ("4294967295", None, "4294967295"),
        ("99999999999", None, "99999999999"),
        ("١٢", None, "١٢"),
    ],
)
def test_users(text: str, uid: int | None, name: str) -> None:
    assert user(text) == (uid, name)


HOST = Reference.parse("r.example:5000/team/app")
AUTH = base64.b64encode(b"bob:hidden").decode()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"password": "x"}, None),
        ({"username": "a", "password": "b", "identity_token": "i", "auth": AUTH, "registry_token": "r"}, ("a", "b", "", "")),
        ({"username": "a"}, ("a", "", "", "")),
        ({"username": "a", "identity_token": "i"}, ("", "", "i", "")),
        ({"identity_token": "i", "auth": AUTH, "registry_token": "r"}, ("", "", "i", "")),
        ({"auth": AUTH, "registry_token": "r"}, ("bob", "hidden", "", "")),
        ({"registry_token": "r"}, ("", "", "", "r")),
        ({"auth": AUTH, "server_address": "r.example:5000"}, ("bob", "hidden", "", "")),
        ({"auth": AUTH, "server_address": "https://r.example:5000/v1/"}, ("bob", "hidden", "", "")),
        ({"auth": AUTH, "server_address": "r.example"}, None),
    ],
)
def test_who_pulls(given: dict[str, Any], wanted: tuple[str, ...] | None) -> None:
    found = credential(cri.AuthConfig(**given), HOST)
    assert (found and (found.username, found.password, found.identity_token, found.registry_token)) == wanted


def test_docker_by_all_its_names() -> None:
    for address in ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"):
        assert credential(cri.AuthConfig(auth=AUTH, server_address=address), Reference.parse("app", short=True))


def test_no_secret_is_shown() -> None:
    """An error may name who asked, and a log may hold it."""
    found = credential(cri.AuthConfig(auth=AUTH), HOST)
    assert "hidden" not in f"{found} {found!r}"
