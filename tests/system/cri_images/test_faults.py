"""Daemons that are killed in the middle, and disks that are full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ocirt_images import platforms
from ocirt_images.snapshots import detach
from ocirt_images.store import Store
from ocirt_images.store.checks import fsck
from tests.conftest import ROOT
from tests.support import images, registry_faults
from tests.support.cri_services import refused, serving
from tests.support.registry import LocalRegistry
from tests.support.runtime import process_state, reap_orphans, wait_for

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")

HERE = {"os": "linux", "architecture": platforms.host().architecture}
IMAGE = images.image([images.random_layer(number, 1_500_000) for number in range(2)], platform=HERE)

# The services as a process of their own, which pull an image and say so.
DAEMON = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.support.cri_services import serving
async def run():
    async with serving(Path({place!r})) as node:
        pull = asyncio.create_task(node.pull({name!r}))
        while not node.images.worker_pid:
            await asyncio.sleep(0.01)
        print(node.images.worker_pid, flush=True)
        await pull
        print("pulled", flush=True)
        await asyncio.sleep(600)
asyncio.run(run())
"""


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        found.add("app", IMAGE, "1")
        yield found


@pytest.fixture(autouse=True)
def no_files_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OCIRT_CERTS_D", str(tmp_path / "certs.d"))
    monkeypatch.setenv("HOME", str(tmp_path))


def received(place: Path, blob: str) -> int:
    """Bytes of a blob that are in the store's file for it, as far as that is filled."""
    try:
        return len((place / "images/ingest" / blob.replace(":", "-")).read_bytes().rstrip(b"\0"))
    except FileNotFoundError:
        return 0


def test_a_daemon_that_is_killed_while_it_pulls(registry: LocalRegistry, tmp_path: Path) -> None:
    """The process that pulls ends with it; the store is whole; the next pull asks for the rest alone."""
    go = threading.Event()
    blob = IMAGE.layers[1].digest
    registry.plant(registry_faults.stuck(1_000_000, go), path=blob)
    name = f"{registry.address}/app:1"
    path = [str(ROOT / part) for part in ("", "api", "images", "cni", "cri")]
    command = [sys.executable, "-c", DAEMON.format(path=path, place=str(tmp_path), name=name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            worker = int(daemon.stdout.readline())
            wait_for(lambda: received(tmp_path, blob) >= 1_000_000, "a part of it is here")
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait()
            wait_for(lambda: process_state(worker) in (None, "Z"), "its end", 15)
        finally:
            daemon.kill()
            reap_orphans()
    go.set()
    with Store.open(tmp_path / "images", sync=False) as store:
        assert store.images.list() == []
    assert fsck(tmp_path / "images") == []
    registry.forget()

    async def run() -> None:
        async with serving(tmp_path) as node:
            assert await node.pull(name) == images.digest(IMAGE.config)
            asked = [one.range for one in registry.seen if blob in one.path]
            assert len(asked) == 1
            assert asked[0].startswith("bytes="), asked

    asyncio.run(run())
    assert fsck(tmp_path / "images") == []


def remount(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def test_a_full_disk(registry: LocalRegistry, tmp_path: Path) -> None:
    """It is said as what it is, the store stays whole, and with space the same pull goes well."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=True)
    try:

        async def run() -> None:
            async with serving(place) as node:
                with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as found:
                    await node.pull(f"{registry.address}/app:1")
                assert "no space left" in found.text.lower()  # which says it, the download or a worker, is chance
                assert await node.list() == []
                await asyncio.to_thread(remount, place, "20m")
                assert await node.pull(f"{registry.address}/app:1")
                await node.remove(f"{registry.address}/app:1")

        asyncio.run(run())
        assert fsck(place / "images") == []
    finally:
        detach(place)
