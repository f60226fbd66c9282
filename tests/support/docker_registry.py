"""Debian's docker-registry on a free port of loopback: a registry that others wrote."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.images import Image
from tests.support.patience import patience

PATIENCE = patience(30.0)  # seconds until it answers


class DockerRegistry:
    """One that runs. address: host and port."""

    def __init__(self, address: str) -> None:
        self.address = address

    def add(self, repository: str, image: Image, *tags: str) -> None:
        """Push an image, with all that it needs (distribution-spec, "Push")."""
        base = f"http://{self.address}/v2/{repository}"
        for digest, data in image.blobs.items():
            place = self._send("POST", f"{base}/blobs/uploads/", b"")
            joint = "&" if "?" in place else "?"
            self._send("PUT", f"{place}{joint}digest={digest}", data)
        for digest, (kind, data) in image.manifests.items():
            for target in (digest, *tags) if digest == image.digest else (digest,):
                self._send("PUT", f"{base}/manifests/{target}", data, kind)

    @staticmethod
    def _send(method: str, url: str, data: bytes, kind: str = "application/octet-stream") -> str:
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return str(answer.headers.get("Location", ""))


@contextmanager
def docker_registry(work: Path) -> Iterator[DockerRegistry]:
    """Run one that keeps all in `work`, a directory. Raises RuntimeError if there is none, or it does not answer."""
    program = shutil.which("docker-registry")
    if program is None:
        message = "the tests need a registry: apt-get install docker-registry"
        raise RuntimeError(message)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(work / "registry")}},
        "http": {"addr": address},
    }
    (work / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    with (work / "registry.log").open("wb") as log:
        daemon = subprocess.Popen([program, "serve", work / "registry.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_for(address, work / "registry.log")
            yield DockerRegistry(address)
        finally:
            daemon.kill()
            daemon.wait()


def _wait_for(address: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), opener.open(f"http://{address}/v2/"):
            return
        time.sleep(0.05)
    message = f"docker-registry does not answer: {log.read_text()[-500:]}"
    raise RuntimeError(message)
