"""A node of our own for clients of the CRI: ocirtd with its directories in one place, and images in its store."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import goprograms
from conformance.drivers import Machine, call, ours
from tests.support.isolation import mount_targets, umount
from tests.support.layouts import Image, Layer, directory, image, layer, layout
from tests.support.networks import new_host
from tests.support.runtime import Result, wait_for

ANNOTATION = "org.opencontainers.image.ref.name"


def daemon() -> str:
    """The daemon under test, which lies beside the command."""
    path = str(Path(ours()).with_name("ocirtd"))
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is not there: run `make` first", pytrace=False)
    return path


class Node:
    """ocirtd. Its sockets, state and images are below one short path (a socket's has 107 bytes at most)."""

    def __init__(self, machine: Machine, name: str, networks: Path | None = None) -> None:
        self.machine = machine
        self.place = machine.path / name
        self.root = self.place / "root"
        self.state = self.place / "state"
        self.images = self.place / "images"
        self.socket = self.state / "ocirt.sock"
        self.log = self.place / "log"
        self.config = self.place / "ocirtd.toml"
        self.nri = self.place / "nri.sock"
        self.place.mkdir()
        lines = [f'image_root = "{self.images}"', f'netns_dir = "{self.place}/netns"']
        lines += ["[nri]", f'socket = "{self.nri}"', f'plugins = "{self.place}/nri.d"', f'config_dir = "{self.place}"']
        lines += ["[network]", f'config_dir = "{networks or self.place / "net.d"}"']
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.env = machine.env

    @property
    def endpoint(self) -> str:
        """As a client is told."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        argv = [daemon(), "--root", str(self.root), "--state", str(self.state), "--listen", self.endpoint]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "--config", str(self.config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )
        wait_for(self._listens, f"ocirtd ({self.log})", 30)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            # One that was killed has left its socket, at which nobody answers.
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """As a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the daemon as its manager does, and take away what it keeps mounted until the machine restarts."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        for target in reversed(mount_targets()):
            if target.is_relative_to(self.place):
                umount(str(target))
        shutil.rmtree(self.place)

    def load(self, images: dict[str, Image]) -> None:
        """Put images into the store, by their names."""
        for name, found in images.items():
            place = self.place / "layout"
            place.mkdir()
            target = found.descriptor(annotations={ANNOTATION: name})
            archive = directory(place, layout([target], found.blobs()))
            call([ours(), "--image-root", str(self.images), "load", str(archive)], env=self.machine.env).ok()
            shutil.rmtree(place)


@contextlib.contextmanager
def node_with(machine: Machine, image_name: str) -> Iterator[Node]:
    """A node with a network of its own, whose store has an image of the machine's busybox."""
    with new_host():
        made = Node(machine, "n")
        plain = machine.image.read_bytes()
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        found = image(Layer(plain, plain, ""), layer("hello", "world"), Cmd=["sleep", "2147483647"], Env=[path])
        made.load({image_name: found})
        made.start()
        try:
            yield made
        finally:
            made.stop()
            wait_for(lambda: not machine.processes(), "the end of what the node ran", 10)


class CrictlAt:
    """crictl against one endpoint, with pods that it describes itself. place: for what it keeps."""

    numbers = itertools.count()

    def __init__(self, endpoint: str, place: Path, machine: Machine) -> None:
        self.endpoint = endpoint
        self.machine = machine
        self.program = goprograms.crictl()
        self.log = place / "pod-logs"
        self.log.mkdir(exist_ok=True)

    def call(self, *args: str | Path, **options: Any) -> Result:
        """Any verb."""
        endpoints = ("--timeout", "30s", "--runtime-endpoint", self.endpoint, "--image-endpoint", self.endpoint)
        return call([self.program, *endpoints, *map(str, args)], env=self.machine.env, **options)

    def write(self, kind: str, document: Any) -> Path:
        """A file with a configuration."""
        path = self.log / f"{kind}-{next(self.numbers)}.json"
        path.write_text(json.dumps(document))
        return path

    def pod(self, *, host_network: bool = False, **more: Any) -> tuple[str, Path]:
        """A pod that runs: its id, and its configuration."""
        name = f"p{next(self.numbers)}"
        options = {"network": 2 if host_network else 0, "pid": 1}
        document = {
            "metadata": {"name": name, "namespace": "tests", "uid": name, "attempt": 0},
            "hostname": name,
            "log_directory": str(self.log),
            "linux": {
                "cgroup_parent": self.machine.cgroup_parent,
                "security_context": {"namespace_options": options},
            },
            **more,
        }
        path = self.write("pod", document)
        return self.call("runp", path).ok().out.strip(), path

    def create(self, pod: tuple[str, Path], image: str, *command: str, **more: Any) -> Result:
        """`create` of a container with a command."""
        name = f"c{next(self.numbers)}"
        document = {
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": image},
            "command": list(command),
            "log_path": f"{name}.log",
            "linux": {"security_context": {"namespace_options": {"pid": 1}}},
            **more,
        }
        return self.call("create", pod[0], self.write("container", document), pod[1])

    def start(self, pod: tuple[str, Path], image: str, *command: str, **more: Any) -> str:
        """A container that was created and started; its id."""
        container = self.create(pod, image, *command, **more).ok().out.strip()
        self.call("start", container).ok()
        return container

    def status(self, container: str) -> Any:
        """`inspect`: the status of a container."""
        return self.call("inspect", container).ok().json()["status"]

    def ended(self, container: str) -> Any:
        """Its status, once it has ended."""

        def exited() -> Any:
            status = self.status(container)
            return status if status["state"] == "CONTAINER_EXITED" else None

        return wait_for(exited, "the container's end", 20)

    def clean_up(self) -> None:
        """Remove every pod."""
        self.call("rmp", "--all", "--force").ok()
        assert self.call("pods", "--quiet").ok().out == ""
        assert self.call("ps", "--all", "--quiet").ok().out == ""


class Crictl(CrictlAt):
    """The same against a node of our own."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.endpoint, node.place, node.machine)
        self.node = node
