"""Debian's docker-registry, on a port of its own."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from conformance.drivers import Machine, need, program
from tests.support.runtime import wait_for


class DockerRegistry:
    """It keeps what it has in a directory, and is empty at first. `address` is HOST:PORT; `stop` it at last."""

    def __init__(self, place: Path) -> None:
        need("docker-registry")
        place.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
            "http": {"addr": self.address},
            "validation": {"manifests": {"urls": {"allow": ["^https://layers[.]example/"]}}},
        }
        (place / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self._log = place / "log"
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                [program("docker-registry") or "docker-registry", "serve", str(place / "config.yml")], stdout=log, stderr=log
            )
        try:
            wait_for(self._answers, "docker-registry", 20)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        self._daemon.terminate()
        self._daemon.wait()

    def asked(self) -> Counter[str]:
        """How many requests there were, by method and what is after the repository: `PUT uploads`, `HEAD blobs` …"""
        found: Counter[str] = Counter()
        for method, path in re.findall(r'"([A-Z]+) /v2/(\S+) HTTP', self._log.read_text()):
            kind = re.search(r"/(uploads|blobs|manifests|tags)/", path.replace("/blobs/uploads/", "/uploads/"))
            found[f"{method} {kind[1] if kind else path}"] += 1
        return found

    def get(self, path: str) -> bytes:
        """What is below `/v2/`."""
        with urlopen(f"http://{self.address}/v2/{path}") as answer:
            return bytes(answer.read())

    def _answers(self) -> bool:
        with suppress(OSError), urlopen(f"http://{self.address}/v2/"):
            return True
        return False


@pytest.fixture
def registry(machine: Machine, no_leaks: list[Path], tmp_path: Path) -> Iterator[DockerRegistry]:
    """An empty one."""
    started = DockerRegistry(tmp_path / "registry")
    yield started
    started.stop()
