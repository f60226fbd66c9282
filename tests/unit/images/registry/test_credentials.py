"""Credentials: which of those that several files and helpers have is taken, and how they are kept."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.errors import Error
from ocirt_images.registry.credentials import Credential, Credentials, paths
from ocirt_images.registry.helpers import Helper

HELPER = """#!/bin/sh
# Keeps one file per server, named by its cksum.
kept=%s
server() { printf %%s "$1" | cksum | tr -dc 0-9; }
case "$1" in
get) read -r line; file="$kept/$(server "$line")"
     echo "get $line" >>"$kept/log"
     if [ -f "$file" ]; then cat "$file"; else echo "credentials not found in native keychain"; exit 1; fi ;;
store) read -r line; url=$(printf %%s "$line" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/')
       printf %%s "$line" >"$kept/$(server "$url")" ;;
erase) read -r line; rm -f "$kept/$(server "$line")" ;;
list) echo '{"https://r.example": "bob"}' ;;
esac
"""


def auth(name: str, password: str = "secret") -> dict[str, str]:
    return {"auth": b64encode(f"{name}:{password}".encode()).decode()}


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a helper `box` on its PATH."""
    (tmp_path / "kept").mkdir()
    script = write(tmp_path / "bin/docker-credential-box", HELPER % (tmp_path / "kept"))
    script.chmod(0o755)
    broken = write(tmp_path / "bin/docker-credential-broken", "#!/bin/sh\necho it is locked >&2\nexit 1\n")
    broken.chmod(0o755)
    return {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def docker(home: dict[str, str]) -> Path:
    return Path(home["HOME"]) / ".docker/config.json"


def who(home: dict[str, str], name: str, docker: dict[str, Any]) -> str:
    write(Path(home["HOME"]) / ".docker/config.json", docker)
    found = Credentials.load(home).find(name).credential
    return "" if found is None else found.username or found.identity_token


@pytest.mark.parametrize(
    ("keys", "name", "found"),
    [
        (["r.example"], "r.example/a/b", "r.example"),
        (["r.example", "r.example/a"], "r.example/a/b", "r.example/a"),
        (["r.example", "r.example/a", "r.example/a/b"], "r.example/a/b", "r.example/a/b"),
        (["r.example/a"], "r.example/ab", ""),
        (["r.example/a"], "r.example/c", ""),
        (["r.example"], "r.example:5000/a", ""),
        (["r.example:5000"], "r.example:5000/a", "r.example:5000"),
        (["https://r.example"], "r.example/a", "https://r.example"),
        (["https://r.example/v1/"], "r.example/a", "https://r.example/v1/"),
        (["https://index.docker.io/v1/"], "docker.io/library/busybox", "https://index.docker.io/v1/"),
        (["docker.io"], "docker.io/library/busybox", "docker.io"),
        (["docker.io/library", "docker.io"], "docker.io/library/busybox", "docker.io/library"),
        (["registry-1.docker.io"], "docker.io/library/busybox", "registry-1.docker.io"),
        (["docker.io"], "r.example/docker.io/a", ""),
    ],
)
def test_the_longest_name_counts(home: dict[str, str], keys: list[str], name: str, found: str) -> None:
    # What is found is named after its key; colons separate user and password.
    value = {"auths": {key: {"username": key, "password": "secret"} for key in keys}}
    assert who(home, name, value) == found


def test_forms_of_an_entry(home: dict[str, str], docker: Path) -> None:
    write(
        docker,
        {
            "auths": {
                "a.example": auth("bob", "pa:ss"),
                "b.example": {**auth("bob", ""), "identitytoken": "refresh"},
                "c.example": {"registrytoken": "ready"},
                "d.example": {},
                "e.example": {"auth": "", "email": "x"},
            }
        },
    )
    credentials = Credentials.load(home)
    source = str(docker)
    assert credentials.find("a.example/x").credential == Credential(username="bob", password="pa:ss", source=source)
    assert credentials.find("b.example").credential == Credential(username="bob", identity_token="refresh", source=source)
    assert credentials.find("c.example").credential == Credential(registry_token="ready", source=source)
    assert [credentials.find(one).credential for one in ("d.example", "e.example", "f.example")] == [None] * 3


def test_files_in_their_order(home: dict[str, str], docker: Path) -> None:
    runtime, config = Path(home["XDG_RUNTIME_DIR"]) / "containers/auth.json", Path(home["HOME"]) / ".config/containers/auth.json"
    for path, name in ((config, "third"), (runtime, "second"), (docker, "first")):
        write(path, {"auths": {"r.example": auth(name)}})
        found = Credentials.load(home).find("r.example/a").credential
        assert found is not None
        assert (found.username, found.source) == (name, str(path))
    other = write(docker.parent.parent / "elsewhere/config.json", {"auths": {"r.example": auth("other")}})
    assert (
        str(Credentials.load({**home, "DOCKER_CONFIG": str(other.parent)}).find("r.example"))
        == f"tried: user 'other' from {other}"
    )
    alone = {**home, "REGISTRY_AUTH_FILE": str(docker.parent / "nothing.json")}
    assert str(Credentials.load(alone).find("r.example")) == f"no credentials were found in {docker.parent}/nothing.json"


def test_where_files_are_without_a_home() -> None:
    assert paths({"XDG_RUNTIME_DIR": "/r"}) == [Path("/r/containers/auth.json")]
    assert Credentials.load({"XDG_RUNTIME_DIR": "/nonexistent"}).find("r.example").credential is None


def test_a_given_one_is_for_its_registry_alone(home: dict[str, str], docker: Path) -> None:
    write(docker, {"auths": {"mirror.example": auth("mirror")}})
    mine = Credential(username="mine", password="x", source="the caller")
    credentials = Credentials.load(home, given={"index.docker.io": mine})
    assert credentials.find("docker.io/library/busybox").credential is mine
    found = credentials.find("mirror.example/library/busybox").credential
    assert found is not None
    assert found.username == "mirror"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (auth("bob", "x"), Credential(username="bob", password="x", source="s")),
        ({"username": "bob", "password": "x"}, Credential(username="bob", password="x", source="s")),
        ({"identitytoken": "t"}, Credential(identity_token="t", source="s")),
        ({"registrytoken": "t"}, Credential(registry_token="t", source="s")),
        ({}, None),
        ({"serveraddress": "r.example"}, None),
    ],
)
def test_cri_auth_config(value: dict[str, str], found: Credential | None) -> None:
    assert Credential.parse(value, "s") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "{path}: not JSON: "),
        ("[]", "{path}: an object is wanted, not a list"),
        ('{"auths": []}', "{path}: /auths: an object is wanted, not a list"),
        ('{"auths": {"r.example": "x"}}', "{path}: /auths/r.example: an object is wanted, not a string"),
        ('{"auths": {"r.example": {"auth": "%%"}}}', "{path}: /auths/r.example/auth: not base64 of USER:PASSWORD"),
        ('{"auths": {"r.example": {"auth": "Ym9i"}}}', "{path}: /auths/r.example/auth: not base64 of USER:PASSWORD"),
        ('{"auths": {"r.example": {"auth": 1}}}', "{path}: /auths/r.example/auth: a string is wanted, not a number"),
        ('{"credsStore": 1}', "{path}: /credsStore: a string is wanted, not a number"),
        ('{"credHelpers": {"r.example": 1}}', "{path}: /credHelpers/r.example: a string is wanted, not a number"),
    ],
)
def test_bad_files_are_named(home: dict[str, str], docker: Path, text: str, message: str) -> None:
    write(docker, text)
    with pytest.raises(Error) as caught:
        Credentials.load(home).find("r.example/a")
    assert caught.value.code == "invalid"
    assert str(caught.value).startswith(message.format(path=docker))


def test_an_empty_file_is_none(home: dict[str, str], docker: Path) -> None:
    write(docker, "\n")
    assert Credentials.load(home).find("r.example").credential is None


def test_helpers(home: dict[str, str], docker: Path) -> None:
    helper = Helper("box", home)
    assert helper.get("r.example") is None
    helper.store("r.example", "bob", "secret")
    helper.store("t.example", "", "", "refresh")
    assert helper.get("r.example") == ("bob", "secret", "")
    assert helper.get("t.example") == ("", "", "refresh")
    assert helper.list() == {"https://r.example": "bob"}
    write(docker, {"credHelpers": {"r.example": "box", "q.example": "box"}})
    credentials = Credentials.load(home)
    source = f"docker-credential-box (named in {docker})"
    assert credentials.find("r.example/a").credential == Credential(username="bob", password="secret", source=source)
    assert credentials.find("t.example").credential is None
    write(docker, {"credsStore": "box"})
    assert credentials.find("t.example").credential == Credential(identity_token="refresh", source=source)
    helper.erase("r.example")
    assert credentials.find("r.example").credential is None


def test_the_store_is_asked_by_dockers_name_for_its_registry(home: dict[str, str], docker: Path) -> None:
    write(docker, {"credsStore": "box"})
    Credentials.load(home).find("docker.io/library/busybox")
    assert (Path(home["HOME"]) / "kept/log").read_text() == "get https://index.docker.io/v1/\n"


@pytest.mark.parametrize(
    ("helper", "trouble"),
    [
        ("missing", "docker-credential-missing is not installed"),
        ("broken", "docker-credential-broken get fails: it is locked"),
        ("../evil", "'../evil' is no credential helper (the NAME of a program docker-credential-NAME)"),
    ],
)
def test_a_helper_that_fails_is_told_but_not_in_the_way(home: dict[str, str], docker: Path, helper: str, trouble: str) -> None:
    write(docker, {"credHelpers": {"r.example": helper}})
    found = Credentials.load(home).find("r.example/a")
    assert found.credential is None
    assert found.troubles == (trouble,)
    assert trouble in str(found)
    write(docker, {"credHelpers": {"r.example": helper}, "auths": {"r.example": auth("bob")}})
    assert "user 'bob'" in str(Credentials.load(home).find("r.example/a"))


def test_kept_in_the_file(home: dict[str, str], docker: Path) -> None:
    write(docker, {"auths": {"https://r.example/v1/": auth("old"), "q.example": auth("other")}, "psFormat": "table"})
    docker.chmod(0o644)
    credentials = Credentials.load(home)
    assert credentials.save("r.example", Credential(username="bob", password="pa:ss")) == (str(docker), True)
    assert json.loads(docker.read_text()) == {
        "auths": {"q.example": auth("other"), "r.example": auth("bob", "pa:ss")},
        "psFormat": "table",
    }
    assert stat.S_IMODE(docker.stat().st_mode) == 0o600
    assert os.listdir(docker.parent) == ["config.json"]
    assert credentials.erase("r.example") == [str(docker)]
    assert credentials.erase("r.example") == []
    assert json.loads(docker.read_text())["auths"] == {"q.example": auth("other")}


def test_kept_in_a_new_file(home: dict[str, str], docker: Path) -> None:
    credentials = Credentials.load(home)
    credentials.save("docker.io", Credential(username="bob", identity_token="refresh"))
    assert json.loads(docker.read_text())["auths"] == {
        "https://index.docker.io/v1/": {**auth("bob", ""), "identitytoken": "refresh"}
    }
    assert stat.S_IMODE(docker.stat().st_mode) == 0o600
    assert credentials.find("docker.io/a/b").credential == Credential(
        username="bob", identity_token="refresh", source=str(docker)
    )


def test_a_link_stays_one(home: dict[str, str], docker: Path) -> None:
    real = write(docker.parent.parent / "dotfiles/docker.json", {})
    docker.parent.mkdir()
    docker.symlink_to(real)
    Credentials.load(home).save("r.example", Credential(username="bob", password="x"))
    assert docker.is_symlink()
    assert "r.example" in json.loads(real.read_text())["auths"]


def test_kept_by_a_helper(home: dict[str, str], docker: Path) -> None:
    write(docker, {"credsStore": "box", "auths": {"r.example": auth("old")}})
    credentials = Credentials.load(home)
    assert credentials.save("r.example", Credential(username="bob", password="secret")) == ("docker-credential-box", False)
    # As docker does: the entry is there, and empty.
    assert json.loads(docker.read_text())["auths"] == {"r.example": {}}
    found = credentials.find("r.example/a").credential
    assert found is not None
    assert found.username == "bob"
    assert credentials.erase("r.example") == ["docker-credential-box", str(docker)]
    assert credentials.find("r.example/a").credential is None


def test_nothing_is_left_of_a_file_that_cannot_be_written(home: dict[str, str], docker: Path) -> None:
    write(docker, {"auths": {"r.example": auth("bob")}})
    before = docker.read_text()
    with pytest.raises(TypeError):
        Credentials.load(home).files[0].update(lambda value: value.update(bad={1}))
    assert docker.read_text() == before
    assert os.listdir(docker.parent) == ["config.json"]
