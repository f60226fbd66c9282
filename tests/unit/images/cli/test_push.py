"""`ocirt push`, and the policy of `ocirt pull`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layouts import image, layer, named
from tests.support.registry import LocalRegistry
from tests.unit.images.cli.conftest import Cli

ONE = image(layer("a", "one"), layer("b", "two"), Cmd=["sh"])


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry, and nothing of the machine's own files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIRT_CERTS_D", str(tmp_path / "certs.d"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with LocalRegistry() as found:
        yield found


@pytest.fixture
def name(cli: Cli, registry: LocalRegistry) -> str:
    """The name of an image in the store, at the registry."""
    found = f"{registry.address}/team/app:1"
    cli.load(named(ONE, found))
    return found


def at(registry: LocalRegistry, repository: str, tag: str) -> bool:
    """Whether the image is there by this name."""
    return registry.tags.get(repository, {}).get(tag) == ONE.digest


def test_to_its_own_name(cli: Cli, registry: LocalRegistry, name: str) -> None:
    assert cli.ok("push", name) == f"{name}: {ONE.digest}\n"
    assert at(registry, "team/app", "1")


def test_to_another_name(cli: Cli, registry: LocalRegistry, name: str) -> None:
    other = f"{registry.address}/other"
    assert cli.ok("push", "-q", name, other) == f"{ONE.digest}\n"
    assert at(registry, "other", "latest")
    assert cli.ok("images", "--names") == f"{name}\n", "it has no other name here"


def test_by_id(cli: Cli, registry: LocalRegistry, name: str) -> None:
    assert cli.failed("push", ONE.id.short) == f"{ONE.id.short}: it is not clear where to (ocirt push IMAGE REFERENCE)"
    cli.ok("push", ONE.id.short, name)
    assert at(registry, "team/app", "1")


def test_lines(cli: Cli, name: str) -> None:
    _, _, err = cli("push", name)
    lines = err.splitlines()
    assert lines[0] == f"{name}: {ONE.digest} from {name.partition('/')[0]}"
    assert sorted(lines[1:]) == sorted(f"{one.json()['digest'].short}: done, {len(one.data)}B" for one in ONE.layers)
    _, _, err = cli("push", name)
    assert all("exists" in line for line in err.splitlines()[1:])


def test_json(cli: Cli, name: str) -> None:
    found = [json.loads(line) for line in cli.ok("push", "--json", name).splitlines()]
    assert [one["event"] for one in (found[0], found[-1])] == ["Resolved", "Done"]
    assert found[-1]["digest"] == ONE.digest


def test_platform(cli: Cli, name: str) -> None:
    assert cli.ok("push", "--platform", "arm64", name) == f"{name}: {ONE.digest}\n", "a manifest is what it is"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nothing"], "nothing: no such image"),
        (["{name}", "short"], "short: a short name: which registry is meant? (perhaps docker.io/library/short)"),
        (["{name}", "127.0.0.1:1/a:b"], "127.0.0.1:1/a:b: 127.0.0.1:1 refuses the connection"),
        (["--platform", "a/b/c/d", "{name}"], "a/b/c/d: not a platform"),
    ],
)
def test_failures(cli: Cli, name: str, args: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocirt_images.registry.session.Session.pause", lambda *_: None)
    assert cli.failed("push", *(one.format(name=name) for one in args)).startswith(text)


# The policy of pull


def test_a_pull_that_is_rejected(cli: Cli, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("push", name)
    cli.ok("rmi", name)
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "reject"}]}))
    monkeypatch.setenv("OCIRT_POLICY", str(policy))
    text = f"SignatureValidationFailed: {name}: it is rejected ({policy} wants it so by default)"
    assert cli.failed("pull", "-q", name) == text
    assert cli.ok("images", "-q") == ""
    policy.write_text("{}")
    assert cli.failed("pull", "-q", name).startswith(f"{policy}: /default: missing")
