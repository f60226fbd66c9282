"""Writable layers whose size the file system limits: quota groups of btrfs, project quotas of ext4 and XFS."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_images.errors import Error
from ocirt_images.quota import btrfs, project
from ocirt_images.snapshots import Owner, Snapshots, Upper, detach
from ocirt_images.store import Store
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks import fsck
from ocirt_images.store.limits import remove_directory
from ocirt_images.store.trees import remove_tree
from tests.support.disks import load_modules, mounted_btrfs, mounted_with_projects
from tests.support.layers import busybox_image, fill, stored
from tests.support.runtime import Runtime, wait_for
from tests.support.store.killing import points

LIMIT = 8 << 20
BOX = Owner.container("box", "/nowhere")


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    load_modules()


@pytest.fixture(params=["btrfs", "btrfs, simple quotas", "project quota of ext4", "project quota of xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a file system with quotas is mounted."""
    path = tmp_path / "disk"
    if request.param.startswith("project"):
        with mounted_with_projects(path, tmp_path, request.param.rpartition(" ")[2]):
            yield path
        return
    with mounted_btrfs(path, tmp_path, "simple" if "simple" in request.param else "full"):
        yield path


@pytest.fixture
def store(disk: Path) -> Iterator[Store]:
    with Store.open(disk / "images") as opened:
        yield opened


def fill_up(name: str, directory: int) -> tuple[int, int]:
    """Write until there is an error: how many bytes went in, and its number."""
    done, fd = 0, -1
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=directory)
        while done < 4 * LIMIT:
            done += os.write(fd, b"x" * 65536)
            os.fsync(fd)
    except OSError as err:
        assert err.errno is not None
        return done, err.errno
    finally:
        if fd >= 0:
            os.close(fd)
    return done, 0


def marks(disk: Path) -> list[str]:
    """The limits of the file system's that nobody should have left: the subvolumes of a btrfs."""
    if not btrfs.is_here(disk):
        return []
    done = subprocess.run(["btrfs", "subvolume", "list", disk], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_writer_meets_the_limit(store: Store, disk: Path) -> None:
    """What a container writes ends at the limit, a neighbour's and the store's does not; usage is what the quota counts."""
    snapshots = Snapshots(store)
    image = stored(store, "box.test/one:1", [lambda path: fill(path, {"a": "1", "big": b"y" * (2 << 20)})])
    limited = snapshots.create(BOX, image.chain_id, size=LIMIT)
    free = snapshots.create(Owner.container("free", "/nowhere"), image.chain_id)
    mount = snapshots.mount(image.chain_id, limited)
    try:
        done, error = fill_up("new", mount)
        assert error in (errno.EDQUOT, errno.ENOSPC)
        assert LIMIT // 2 <= done <= LIMIT
        with pytest.raises(OSError, match="exceeded|No space") as caught:
            os.close(os.open("big", os.O_WRONLY, dir_fd=mount))  # is copied up
        assert caught.value.errno in (errno.EDQUOT, errno.ENOSPC)
    finally:
        os.close(mount)
    assert done <= snapshots.usage(limited).size <= LIMIT
    assert (snapshots.usage(limited).inodes is None) is btrfs.is_here(disk)
    mount = snapshots.mount(image.chain_id, free)
    assert fill_up("new", mount)[0] > LIMIT
    os.close(mount)
    for one in (limited, free):
        snapshots.remove(one)
    assert marks(disk) == []
    assert os.listdir(store.layout.writables) == []


def test_removal_takes_the_limit_along(store: Store, disk: Path) -> None:
    snapshots = Snapshots(store)
    writable = snapshots.create(BOX, None, size=LIMIT)
    number = project.of(writable.upper.path)
    (writable.upper.fs / "a" / "b").mkdir(parents=True)
    if btrfs.is_here(disk):
        assert btrfs.is_subvolume(writable.upper.path)
    else:
        assert project.read(disk, number).limit == LIMIT
    writable.lease.end()
    assert snapshots.prune().keys == [BOX.key]
    assert marks(disk) == []
    if number:  # XFS frees the inodes a moment later
        wait_for(lambda: project.read(disk, number) == project.Quota(0, 0, 0), "the quota's end")


def test_a_limit_that_is_too_small(store: Store, disk: Path) -> None:
    """Not even the layer's own directories fit, or nothing can be written to it; nothing is left of it in either case."""
    snapshots = Snapshots(store)
    try:
        writable = snapshots.create(BOX, None, size=1)
    except Error as err:
        assert err.code == "exhausted"
        assert "quota" in err.message
    else:
        mount = snapshots.mount(None, writable)
        done, error = fill_up("f", mount)
        assert done == 0
        assert error in (errno.EDQUOT, errno.ENOSPC)
        os.close(mount)
        snapshots.remove(writable)
    assert store.writables.list() == []
    assert os.listdir(store.layout.writables) == []
    assert marks(disk) == []


@pytest.mark.parametrize("action", ["made", "removed"])
def test_killed_at_each_change(disk: Path, action: str) -> None:
    """Whatever a kill leaves, the next opening finishes: no directory, no subvolume, no limit."""
    root = disk / "images"

    def prepare() -> None:
        if root.exists():
            for one in (root / "writable").iterdir():
                remove_directory(one, Changes(sync=False))
            shutil.rmtree(root)
        with Store.open(root, sync=False) as store:
            if action == "removed":
                store.writables.create("box", None, size=LIMIT)
                (root / "writable" / "1" / "fs" / "written").mkdir()

    def change() -> None:
        with Store.open(root, sync=False) as store:
            if action == "made" and store.writables.get("box") is None:
                store.writables.create("box", None, size=LIMIT)
            elif action == "removed" and store.writables.get("box") is not None:
                store.writables.delete("box")

    count = 0
    for count in points(prepare, change):
        with Store.open(root, sync=False) as store:
            kept = [str(record.id) for record in store.writables.list()]
            assert os.listdir(store.layout.writables) == kept
            assert len(marks(disk)) == (len(kept) if btrfs.is_here(disk) else 0)
        assert fsck(root, sync=False) == [], f"killed before change {count}"
        change()
        with Store.open(root, sync=False) as store:
            assert len(store.writables.list()) == (action == "made")
            if action == "made":
                assert Snapshots(store).backend.usage(Upper(store.layout.writable(store.writables.list()[0].id))).size < LIMIT
    assert count > 8
    if project_numbers := [number for one in (root / "writable").iterdir() if (number := project.of(one))]:
        assert [project.read(disk, number).limit for number in project_numbers] == [LIMIT]


def test_who_may_not_destroy_a_subvolume(tmp_path: Path) -> None:
    """It is emptied, and removed as a directory is (since Linux 4.18)."""
    with mounted_btrfs(tmp_path / "disk", tmp_path, ""):
        one = tmp_path / "disk" / "one"
        btrfs.create(one)
        assert btrfs.is_subvolume(one)
        (one / "a" / "b" / "c").mkdir(parents=True)
        remove_tree(one, Changes(sync=False))
        assert not one.exists()
        assert marks(tmp_path / "disk") == []
        btrfs.create(one)
        btrfs.create(one / "nested")
        remove_directory(one, Changes(sync=False))
        assert marks(tmp_path / "disk") == []


def test_quotas_are_off(tmp_path: Path) -> None:
    with mounted_btrfs(tmp_path / "disk", tmp_path, ""), Store.open(tmp_path / "disk" / "images") as store:
        with pytest.raises(Error, match=r"cannot be limited here: quotas are off.*`btrfs quota enable") as caught:
            Snapshots(store).create(BOX, None, size=LIMIT)
        assert caught.value.code == "unsupported"
        assert store.writables.list() == []
        assert os.listdir(store.layout.writables) == []
        assert marks(tmp_path / "disk") == []


def test_a_file_system_without_quotas(tmp_path: Path) -> None:
    with Store.open(tmp_path / "images") as store:
        with pytest.raises(Error, match=r"the file system has no quota for that.*prjquota") as caught:
            Snapshots(store).create(BOX, None, size=LIMIT)
        assert caught.value.code == "unsupported"
        assert store.writables.list() == []
        assert os.listdir(store.layout.writables) == []


@pytest.mark.ocirt_only("peers know nothing of images")
def test_a_container_with_a_size(runtime: Runtime, disk: Path, place: Path) -> None:
    """By the command: a process in the container meets the limit, for `run` and for a bundle."""
    root = disk / "images"
    with Store.open(root) as store:
        busybox_image(store)
    runtime.env = os.environ | {"OCIRT_IMAGE_ROOT": str(root)}
    script = "dd if=/dev/zero of=/big bs=64k count=1000 2>&1; wc -c </big"
    words = ["--size", "8m", "--image", "busybox", "--name", runtime.new_id(), "--", "sh", "-c", script]
    done = runtime.call("run", *words).ok()
    assert "quota exceeded" in done.out.lower() or "no space left" in done.out.lower()
    assert LIMIT // 2 <= int(done.out.split()[-1]) <= LIMIT
    assert marks(disk) == []
    made = place / "demo"
    runtime.call("bundle", "--mount", "--size", "8MiB", "busybox", made, "--", "sh", "-c", script).ok()
    try:
        done = runtime.call("run", "--bundle", made, runtime.new_id()).ok()
        assert LIMIT // 2 <= int(done.out.split()[-1]) <= LIMIT
    finally:
        detach(made / "rootfs")
    shutil.rmtree(made)
    runtime.call("prune").ok()
    assert marks(disk) == []
    assert os.listdir(root / "writable") == []


@pytest.mark.ocirt_only("peers know nothing of images")
def test_sizes_that_say_nothing(runtime: Runtime, place: Path) -> None:
    runtime.env = os.environ | {"OCIRT_IMAGE_ROOT": str(place / "images")}
    with Store.open(place / "images") as store:
        busybox_image(store)
    for text in ("", "0", "-1", "10x", "1e9", "99999999999t"):
        done = runtime.call("run", "--size", text, "--image", "busybox", "--name", runtime.new_id(), "true")
        assert done.rc == 1
        assert f"--size {text!r}" in done.err
    done = runtime.call("bundle", "--size", "1g", "busybox", place / "demo")
    assert "--size without --mount" in done.err
    assert not (place / "demo").exists()
