"""Logging in at a registry of our own, and out again: what is kept where, and what is not."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Basic
from tests.support.terminal import Terminal
from tests.unit.images.cli.conftest import Cli


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry(auth=Basic({"me": "secret"})) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docker's file of a home of the test's own."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("OCIRT_CERTS_D", str(tmp_path / "certs.d"))
    return tmp_path / "home/.docker/config.json"


def with_input(text: bytes, cli: Cli, *args: str) -> tuple[int, str, str]:
    """A command line with something on its standard input."""
    saved = os.dup(0)
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    try:
        os.dup2(reader, 0)
        return cli(*args)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)


def test_login_and_logout(cli: Cli, registry: LocalRegistry, config: Path) -> None:
    login = ("login", "--username", "me", "--password-stdin", registry.address)
    status, out, err = with_input(b"secret\n", cli, *login)
    assert (status, err) == (0, "")
    assert out == f"Logged in to {registry.address}. Kept in {config}, which whoever may read it can read.\n"
    assert json.loads(config.read_text())["auths"] == {registry.address: {"auth": base64.b64encode(b"me:secret").decode()}}
    assert config.stat().st_mode & 0o077 == 0
    assert cli.ok("logout", registry.address) == f"Removed from {config}: {registry.address}\n"
    assert json.loads(config.read_text())["auths"] == {}
    assert cli.ok("logout", registry.address) == f"Not logged in: {registry.address}\n"


def test_a_wrong_password_is_not_kept(cli: Cli, registry: LocalRegistry, config: Path) -> None:
    status, out, err = with_input(b"wrong", cli, "login", "-u", "me", "--password-stdin", registry.address)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"ocirt: {registry.address}: ")
    assert "tried: user 'me' from what was typed" in err
    assert "wrong" not in err.replace("wrong credentials", "")
    assert not config.exists()


def test_a_registry_that_is_not_there(cli: Cli, config: Path) -> None:
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        status, _, err = with_input(b"secret", cli, "login", "-u", "me", "--password-stdin", address)
    assert (status, err.count("\n")) == (1, 1)
    assert address in err
    assert not config.exists()


@pytest.mark.parametrize(
    ("text", "args", "words"),
    [
        (b"", ("-u", "me", "--password-stdin"), "no password on standard input"),
        (b"\n", ("-u", "me", "--password-stdin"), "no password on standard input"),
        (b"\xff", ("-u", "me", "--password-stdin"), "is not UTF-8"),
        (b"", ("-u", "me"), "no password is given, and there is no terminal to ask on (--password-stdin)"),
        (b"", (), "no name is given, and there is no terminal to ask on (--username NAME --password-stdin)"),
    ],
)
def test_bad_logins(cli: Cli, config: Path, text: bytes, args: tuple[str, ...], words: str) -> None:
    status, out, err = with_input(text, cli, "login", *args, "localhost:1")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert words in err
    assert not config.exists()


def test_logout_of_all(cli: Cli, config: Path) -> None:
    config.parent.mkdir(parents=True)
    auth = {"auth": base64.b64encode(b"a:b").decode()}
    config.write_text(json.dumps({"auths": {"localhost:1": auth, "https://index.docker.io/v1/": auth}, "other": 1}))
    assert cli.ok("logout", "--all").splitlines() == [f"Removed from {config}: docker.io", f"Removed from {config}: localhost:1"]
    assert json.loads(config.read_text()) == {"auths": {}, "other": 1}
    assert "a registry and --all (one of them)" in cli.failed("logout", "--all", "localhost:1")


def test_a_dialogue(registry: LocalRegistry, config: Path) -> None:
    """On a terminal both are asked for, and the password is not shown."""
    from tests.support.build import ROOT  # noqa: PLC0415

    command = [str(ROOT / "build/ocirt"), "login", registry.address]
    if not (ROOT / "build/libraries/ready").exists():
        pytest.skip("build/libraries is not there: run make images")
    with Terminal(command, env=dict(os.environ)) as terminal:
        terminal.expect(f"Name at {registry.address}: ")
        terminal.write("me\n")
        terminal.expect("Password: ")
        terminal.write("secret\n")
        terminal.expect("Logged in to")
        shown = terminal.output.decode()
    assert "secret" not in shown
    assert config.exists()
