"""The roots of containers and images as volumes, in a store that the service fills."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_cri.rootfs import Root
from ocirt_cri.volumes import Volumes
from ocirt_images import platforms
from ocirt_images.errors import Error
from ocirt_images.snapshots import Overlay, Upper, attach, detach
from ocirt_images.store import Store, prune
from tests.support import images
from tests.support.cri_services import Node, eventually, serving
from tests.support.disks import load_modules, mounted_btrfs, mounted_with_projects
from tests.support.isolation import mount
from tests.support.registry import LocalRegistry

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")

HERE = {"os": "linux", "architecture": platforms.host().architecture}
LOWER = images.layer({"etc/": b"", "etc/lower": b"lower", "gone": b"gone", "data/sub/file": b"file"})
UPPER = images.layer({"etc/upper": b"upper", ".wh.gone": b""})


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        found.add("app", images.image([LOWER, UPPER], platform=HERE), "1")
        found.add("none", images.image([], platform=HERE), "1")
        yield found


@pytest.fixture(autouse=True)
def no_files_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OCIRT_CERTS_D", str(tmp_path / "certs.d"))
    monkeypatch.setenv("HOME", str(tmp_path))


def seen(root: Root, place: Path) -> list[str]:
    """The names in a root, which is mounted, written to, and taken away again."""
    backend = Overlay(root.lowers[-1])
    mount = backend.mount(root.lowers[-2::-1], Upper(root.upper.parent), volatile=True)
    place.mkdir(exist_ok=True)
    attach(mount, place)
    os.close(mount)
    try:
        (place / "written").write_text("x")
        return sorted(str(one.relative_to(place)) for one in place.rglob("*"))
    finally:
        detach(place)


def layers(node: Node) -> int:
    return len(node.store.layers.list())


def test_layers_stay_while_a_container_has_them(registry: LocalRegistry, tmp_path: Path) -> None:
    """The image may go; so does all of it when the container goes."""

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            root = await node.roots.create("c1", image)
            assert await node.roots.get("c1") == root
            await node.remove(image.id)
            assert await node.list() == []
            prune(node.store, images=True)
            assert layers(node) == 2
            there = await asyncio.to_thread(seen, root, tmp_path / "mnt")
            assert there == ["data", "data/sub", "data/sub/file", "etc", "etc/lower", "etc/upper", "written"]
            await node.roots.remove("c1")
            assert layers(node) == 0
            assert node.store.writables.list() == []
            await node.roots.remove("c1")
            assert await node.roots.get("c1") is None

    asyncio.run(run())


def test_an_image_that_is_gone(registry: LocalRegistry, tmp_path: Path) -> None:
    """A container cannot be made of it any more, and nothing is left of the attempt."""

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            await node.remove(image.id)
            with pytest.raises(Error, match="not unpacked") as found:
                await node.roots.create("c1", image)
            assert found.value.code == "not-found"
            assert node.store.writables.list() == []
            assert os.listdir(node.store.layout.writables) == []

    asyncio.run(run())


def test_an_image_without_layers(registry: LocalRegistry, tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/none:1")
            root = await node.roots.create("c1", await node.images.catalog.get(f"{registry.address}/none:1"))
            assert await asyncio.to_thread(seen, root, tmp_path / "mnt") == ["written"]
            await node.roots.remove("c1")

    asyncio.run(run())


def test_an_image_that_is_not_unpacked(registry: LocalRegistry, tmp_path: Path) -> None:
    """As `ocirt load` leaves one: it is unpacked when the first container wants it."""

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            record = node.store.images.list()[0]
            with node.store.leases.lease() as lease:
                node.store.images.put(record.name, record.target, manifest=record.manifest, config=record.config, lease=lease)
            assert layers(node) == 0
            image = await node.images.catalog.get(record.name)
            assert not image.is_unpacked
            roots = await asyncio.gather(*(node.roots.create(f"c{number}", image) for number in range(3)))
            assert len({root.lowers for root in roots}) == 1
            assert layers(node) == 2
            assert sorted(await node.roots.reconcile(set())) == ["c0", "c1", "c2"]

    asyncio.run(run())


def test_the_root_directory(registry: LocalRegistry, tmp_path: Path) -> None:
    """It has the image's mode, and belongs to the pod's root."""
    archive = tarfile.TarInfo("./")
    archive.type, archive.mode, archive.uid, archive.gid = tarfile.DIRTYPE, 0o751, 0, 7
    registry.add("owned", images.image([images.layer({"./": archive, "x": b""})], platform=HERE), "1")

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/owned:1")
            image = await node.images.catalog.get(f"{registry.address}/owned:1")
            root = await node.roots.create("c1", image, uids=[(0, 100_000, 65536)], gids=[(0, 200_000, 65536)])
            found = root.upper.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o751, 100_000, 200_007)
            with pytest.raises(Error, match="user namespace has no id"):
                await node.roots.create("c2", image, uids=[(0, 100_000, 65536)], gids=[(0, 200_000, 5)])
            assert await node.roots.get("c2") is None
            with pytest.raises(Error) as twice:
                await node.roots.create("c1", image)
            assert twice.value.code == "exists"
            await node.roots.remove("c1")

    asyncio.run(run())


@pytest.fixture(scope="module")
def modules() -> None:
    load_modules()


@pytest.mark.parametrize("kind", ["btrfs", "project quota"])
def test_a_size_for_what_is_written(kind: str, registry: LocalRegistry, tmp_path: Path, modules: None) -> None:
    """The file system holds it, and counts for the statistics; btrfs counts no inodes."""

    async def run() -> None:
        async with serving(tmp_path / "disk") as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            root = await node.roots.create("c1", image, size=1 << 20)
            with pytest.raises(OSError, match=f"{os.strerror(errno.EDQUOT)}|{os.strerror(errno.ENOSPC)}"):
                (root.upper / "big").write_bytes(bytes(2 << 20))
            await eventually(lambda: node.layers.get("c1"), "it is counted")
            written = node.layers.get("c1")
            assert written is not None
            assert 500_000 < written.size <= 1 << 20
            assert (written.inodes is None) == (kind == "btrfs")
            await node.roots.remove("c1")

    place = tmp_path / "disk"
    with mounted_btrfs(place, tmp_path, "simple") if kind == "btrfs" else mounted_with_projects(place, tmp_path):
        asyncio.run(run())


def test_a_size_that_nobody_can_hold(registry: LocalRegistry, tmp_path: Path) -> None:
    """On a file system without quotas."""
    place = tmp_path / "none"
    place.mkdir()

    async def run() -> None:
        async with serving(place) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            with pytest.raises(Error) as found:
                await node.roots.create("c1", image, size=1 << 20)
            assert found.value.code == "unsupported"
            assert os.listdir(node.store.layout.writables) == []

    mount("none", str(place), "tmpfs", 0)
    try:
        asyncio.run(run())
    finally:
        detach(place)


def test_what_nobody_owns_goes_and_what_others_own_stays(registry: LocalRegistry, tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            for name in ("c1", "c2", "c10"):
                await node.roots.create(name, image)
            await node.roots.view("c2", 3, image)
            node.store.writables.create("ocirtd:other:c2", image.layer)
            node.store.writables.create("container:/run/ocirt:c2", image.layer)
            await node.roots.remove("c1")
            assert set(node.roots.uppers()) == {"c2", "c10"}
            assert await node.roots.reconcile({"c10"}) == ["c2"]
            assert [one.key for one in node.store.writables.list()] == [
                "ocirtd:test:c10",
                "ocirtd:other:c2",
                "container:/run/ocirt:c2",
            ]

    asyncio.run(run())


def test_an_image_as_a_volume(registry: LocalRegistry, tmp_path: Path) -> None:
    """One mount for all who have it, as long as one has it, whatever becomes of the image; a daemon that starts anew knows."""
    links = {name: tarfile.TarInfo() for name in ("inside", "outside", "up")}
    for link, target in zip(links.values(), ("data", "/etc/passwd", "../../../../../../etc"), strict=True):
        link.type, link.linkname = tarfile.SYMTYPE, target
    image_with_links = images.image([LOWER, UPPER, images.layer({**links, "etc/passwd": b"the image's"})], platform=HERE)
    registry.add("links", image_with_links, "1")
    place = tmp_path / "volumes"

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/links:1")
            image = await node.images.catalog.get(f"{registry.address}/links:1")
            volumes = Volumes(node.roots, place, node.store.layout.empty)
            whole = Path(await volumes.mount("c1", 0, image))
            assert whole.parent == place
            assert sorted(os.listdir(whole)) == ["data", "etc", "inside", "outside", "up"]
            with pytest.raises(OSError, match="Read-only"):
                os.mkdir(whole / "x")
            assert await volumes.mount("c1", 1, image, "inside/sub") == f"{whole}/data/sub"
            assert await volumes.mount("c2", 0, image, "outside") == f"{whole}/etc/passwd"
            assert await volumes.mount("c2", 1, image, "/up") == f"{whole}/etc"
            for path in ("none", "gone", "etc/lower/x"):
                with pytest.raises(Error) as found:
                    await volumes.mount("c2", 2, image, path)
                assert str(found.value).startswith("ImageVolumeMountFailed: image_sub_path "), found.value
            await node.remove(image.id)
            await volumes.release("c1")
            await node.roots.remove("c1")
            assert whole.is_mount()  # noqa: ASYNC240
            anew = Volumes(node.roots, place, node.store.layout.empty)
            assert await anew.reconcile() == []
            assert (whole / "etc/passwd").read_text() == "the image's"
            await anew.release("c2")
            await node.roots.remove("c2")
            assert os.listdir(place) == []
            assert layers(node) == 0
            with pytest.raises(Error) as gone:
                await volumes.mount("c3", 0, image)
            assert str(gone.value).startswith("ImageVolumeMountFailed: ")

    asyncio.run(run())


def test_an_empty_image_as_a_volume(registry: LocalRegistry, tmp_path: Path) -> None:
    """It has no layers, so there is nothing to mount."""

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/none:1")
            image = await node.images.catalog.get(f"{registry.address}/none:1")
            volumes = Volumes(node.roots, tmp_path / "volumes", node.store.layout.empty)
            for number in range(2):
                assert os.listdir(await volumes.mount("c1", number, image)) == []
            with pytest.raises(Error, match="ImageVolumeMountFailed"):
                await volumes.mount("c1", 2, image, "x")
            assert await Volumes(node.roots, tmp_path / "volumes", node.store.layout.empty).reconcile() == []
            await volumes.release("c1")
            await node.roots.remove("c1")

    asyncio.run(run())


def test_mounts_of_volumes_that_a_dead_daemon_left(registry: LocalRegistry, tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            place = tmp_path / "volumes"
            whole = await Volumes(node.roots, place, node.store.layout.empty).mount("c1", 0, image)
            await node.roots.reconcile(())
            assert await Volumes(node.roots, place, node.store.layout.empty).reconcile() == [os.path.basename(whole)]
            assert os.listdir(place) == []

    asyncio.run(run())


def test_a_store_that_the_daemon_dies_with(registry: LocalRegistry, tmp_path: Path) -> None:
    """What was made without waiting for the disk is removed so, too, and `fsck` has nothing to say."""
    from ocirt_images.store.checks import fsck  # noqa: PLC0415

    async def run() -> None:
        async with serving(tmp_path) as node:
            await node.pull(f"{registry.address}/app:1")
            image = await node.images.catalog.get(f"{registry.address}/app:1")
            for number in range(5):
                await node.roots.create(f"c{number}", image)
            await node.roots.reconcile({"c3"})
        with Store.open(tmp_path / "images", sync=False) as store:
            assert list(fsck(store)) == []

    asyncio.run(run())
