"""Our command with a store of its own, an image in it, and the programs of others that read images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.drivers import Machine, Podman, call, need, ours, program
from tests.support.build import ROOT
from tests.support.layouts import Layer, directory, image, layer, layout
from tests.support.runtime import Result, wait_for

X = "localhost/x:1"


class Ocirt:
    """Our command with a store of its own."""

    def __init__(self, machine: Machine, root: Path) -> None:
        self.machine = machine
        self.root = root

    def call(self, *args: str | Path, path: Path | None = None) -> Result:
        """Any verb. path: where programs are looked for first."""
        env = dict(self.machine.env)
        if path is not None:
            env["PATH"] = f"{path}:{env['PATH']}"
        return call([ours(), "--image-root", str(self.root), *map(str, args)], env=env)

    def image(self, name: str) -> tuple[str, str]:
        """ID and digest."""
        (found,) = json.loads(self.call("images", "--json", name).ok().out)
        return found["id"], found["digest"]

    def another(self) -> Ocirt:
        """The same with an empty store."""
        return Ocirt(self.machine, self.root.with_name(self.root.name + "-other"))


@pytest.fixture
def made(machine: Machine, tmp_path: Path, no_leaks: list[Path]) -> Ocirt:
    """A store with an image of the machine's root file system, of two layers."""
    if not (ROOT / "build/libraries/ready").exists():
        pytest.fail("the libraries are not there: run make images", pytrace=False)
    ocirt = Ocirt(machine, tmp_path / "store")
    plain = machine.image.read_bytes()
    one = image(Layer(plain, plain, ""), layer("hello", "world"), Cmd=["sh"], Env=["PATH=/bin"])
    target = one.descriptor(annotations={"org.opencontainers.image.ref.name": X})
    ocirt.call("load", directory(tmp_path / "layout", layout([target], one.blobs()))).ok()
    return ocirt


def digest(data: str) -> str:
    """Of what a tool printed."""
    return f"sha256:{hashlib.sha256(data.encode()).hexdigest()}"


@pytest.fixture
def skopeo(machine: Machine) -> Callable[..., str]:
    """skopeo, which has to succeed; what it prints."""
    need("skopeo")

    def run(*args: str | Path) -> str:
        return call([program("skopeo") or "skopeo", "--insecure-policy", *map(str, args)], env=machine.env).ok().out

    return run


@pytest.fixture
def podman(machine: Machine, no_leaks: list[Path]) -> Iterator[Podman]:
    """podman with an empty storage."""
    need("podman")
    made = Podman(machine, ours())
    yield made
    made.call("rmi", "--all", "--force")
    wait_for(lambda: not machine.processes(), "the end of podman", 10)


def podmans(podman: Podman, name: str) -> str:
    """podman's ID of an image."""
    return f"sha256:{podman.call('image', 'inspect', '--format', '{{.Id}}', name).ok().out.strip()}"
