"""Layers as mounts: what overlayfs shows of them, how they are handed out, what is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocirt_images.bundle import Image
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.snapshots import (
    ANNOTATION,
    Overlay,
    Owner,
    Snapshots,
    Upper,
    Usage,
    Writable,
    attach,
    calls,
    copy_layers,
    detach,
)
from ocirt_images.snapshots import overlay as module
from ocirt_images.store import Store
from ocirt_images.store.changes import Changes
from ocirt_images.store.trees import remove_tree
from tests.support.build import ROOT
from tests.support.layers import Maker, fill, layer, listing, opaque, stored, whiteout

# Both ways to tell the kernel of the lower layers, whichever this one would get.
RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
NEW = pytest.mark.skipif(RELEASE < (6, 8), reason="this kernel's overlayfs has no lowerdir+")
FORMS = pytest.mark.parametrize("append", [pytest.param(True, marks=NEW, id="lowerdir+"), pytest.param(False, id="lowerdir=")])
BOX = Owner.container("box", "/nowhere")


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return by_form(None, tmp_path)


def by_form(append: bool | None, root: Path) -> Overlay:
    (root / "empty").mkdir(exist_ok=True)
    return Overlay(root / "empty", append=append)


def upper_of(overlay: Overlay, path: Path, layers: list[Path]) -> Upper:
    upper = Upper(path)
    for directory in (path, upper.fs, upper.work):
        directory.mkdir(0o755)
    overlay.prepare(upper, layers)
    return upper


@contextmanager
def mounted(overlay: Overlay, layers: list[Path], upper: Upper | None = None, *, volatile: bool = False) -> Iterator[int]:
    fd = overlay.mount(layers, upper, volatile=volatile)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def at(mount: int, path: Path) -> Iterator[str]:
    """A mount attached for a while; its line in mountinfo."""
    path.mkdir(exist_ok=True)
    attach(mount, path)
    try:
        yield next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path} " in line)
    finally:
        detach(path)


def three_layers(tmp_path: Path) -> list[Path]:
    return [
        layer(tmp_path / "layers/1/fs", {"a": "1", "b": "1", "d/x": "1", "d/y": "1", "e/z": "1", "kept": "1"}),
        layer(tmp_path / "layers/2/fs", {"a": "2", "b": whiteout, "d": opaque, "d/new": "2", "e": whiteout}),
        layer(tmp_path / "layers/3/fs", {"b": "3", "e": "a file now"}),
    ]


THREE = {"a": "2", "b": "3", "d": "/", "d/new": "2", "e": "a file now", "kept": "1"}


@FORMS
def test_whiteouts_across_layers(tmp_path: Path, append: bool) -> None:
    with mounted(by_form(append, tmp_path), three_layers(tmp_path)) as fd:
        assert listing(fd) == THREE


def test_a_copy_is_the_same(tmp_path: Path) -> None:
    layers = three_layers(tmp_path)
    copy_layers(layers, tmp_path / "copy")
    fd = os.open(tmp_path / "copy", os.O_RDONLY)
    assert listing(fd) == THREE
    os.close(fd)


@FORMS
def test_the_number_of_layers(tmp_path: Path, append: bool) -> None:
    """127 is docker's largest; each layer hides the file of the one below."""
    layers = [layer(tmp_path / f"layers/{n}/fs", {f"only-{n}": "", "shared": str(n)}) for n in range(127)]
    overlay = by_form(append, tmp_path)
    with mounted(overlay, layers, upper_of(overlay, tmp_path / "w", layers)) as fd:
        found = listing(fd)
        assert found["shared"] == "126"
        assert len(found) == 128


def test_more_than_fit_on_the_page(tmp_path: Path) -> None:
    """A kernel without `lowerdir+` is told so before it is asked."""
    layers = [layer(tmp_path / f"layers/{n}-{'x' * 60}/fs", {"a": ""}) for n in range(100)]
    with pytest.raises(Error, match="100 layers: their names do not fit") as caught:
        by_form(False, tmp_path).mount(layers)
    assert caught.value.code == "unsupported"
    if RELEASE >= (6, 8):
        with mounted(by_form(True, tmp_path), layers) as fd:
            assert listing(fd) == {"a": ""}


def test_more_than_overlayfs_takes(overlay: Overlay, tmp_path: Path) -> None:
    with pytest.raises(Error, match="500 layers") as caught:
        overlay.mount([tmp_path] * 500)
    assert caught.value.code == "unsupported"


@FORMS
def test_names_that_options_would_split(tmp_path: Path, append: bool) -> None:
    layers = [
        layer(tmp_path / f"layers/{name}/fs", {name.encode().hex(): name}) for name in ("a:b", "a,b", "a\\b", "a\\:,b", "é")
    ]
    with mounted(by_form(append, tmp_path), layers) as fd:
        assert sorted(listing(fd).values()) == sorted(("a:b", "a,b", "a\\b", "a\\:,b", "é"))


@NEW
def test_paths_longer_than_a_value(tmp_path: Path) -> None:
    """fsconfig(2) takes 255 characters."""
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    layers = [layer(deep / str(n) / "fs", {f"f{n}": ""}) for n in range(3)]
    overlay = by_form(True, deep)
    with mounted(overlay, layers, upper_of(overlay, deep / "w", layers)) as fd:
        assert set(listing(fd)) == {"f0", "f1", "f2"}


def test_the_options_are_explicit(overlay: Overlay, tmp_path: Path) -> None:
    layers = three_layers(tmp_path)
    upper = upper_of(overlay, tmp_path / "w", layers)
    with mounted(overlay, layers, upper, volatile=True) as fd, at(fd, tmp_path / "here") as line:
        options = line.rpartition(" ")[2].split(",")
        assert {"redirect_dir=nofollow"} <= set(options)
        assert {"volatile", "fsync=volatile"} & set(options)
        # What is as it is by default in this kernel is not shown.
        assert not {"index=on", "metacopy=on", "xino=on", "xino=auto", "userxattr"} & set(options)


@FORMS
def test_read_only(tmp_path: Path, append: bool) -> None:
    with mounted(by_form(append, tmp_path), three_layers(tmp_path)) as fd:
        with pytest.raises(OSError, match="Read-only") as caught:
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        assert caught.value.errno == errno.EROFS


@FORMS
def test_one_layer_and_none(tmp_path: Path, append: bool) -> None:
    """A whiteout is never seen, though there is nothing below it; an image may have no layers at all."""
    overlay = by_form(append, tmp_path)
    one = layer(tmp_path / "layers/1/fs", {"a": "1", "gone": whiteout})
    with mounted(overlay, [one]) as fd:
        assert listing(fd) == {"a": "1"}
    with mounted(overlay, []) as fd:
        assert listing(fd) == {}
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=fd)
    with mounted(overlay, [], upper_of(overlay, tmp_path / "w", [])) as fd:
        os.mkdir("new", dir_fd=fd)
        assert listing(fd) == {"new": "/"}
        assert os.stat(".", dir_fd=fd).st_mode & 0o7777 == 0o755


def test_the_root_has_the_attributes_of_the_topmost_layer(overlay: Overlay, tmp_path: Path) -> None:
    layers = three_layers(tmp_path)
    layers[-1].chmod(0o1751)
    os.chown(layers[-1], 7, 8)
    os.setxattr(layers[-1], "trusted.colour", b"blue")
    with mounted(overlay, layers, upper_of(overlay, tmp_path / "w", layers)) as fd:
        found = os.stat(".", dir_fd=fd)
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o1751, 7, 8)
        root = os.open(".", os.O_RDONLY, dir_fd=fd)
        assert os.getxattr(root, "trusted.colour") == b"blue"
        os.close(root)


def test_what_is_written(overlay: Overlay, tmp_path: Path) -> None:
    """It lies in the writable layer, the layers stay as they are, and it is counted."""
    layers = three_layers(tmp_path)
    before = [listing_of(one) for one in layers]
    upper = upper_of(overlay, tmp_path / "w", layers)
    assert overlay.usage(upper).inodes == 1
    with mounted(overlay, layers, upper) as fd:
        with open(os.open("big", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
            file.write(b"x" * 100_000)
        os.link("big", "again", src_dir_fd=fd, dst_dir_fd=fd)
        os.unlink("kept", dir_fd=fd)
        os.mkdir("dir", dir_fd=fd)
        os.rename("dir", "dir2", src_dir_fd=fd, dst_dir_fd=fd)
    found = overlay.usage(upper)
    assert found.inodes == 4  # the root, big, the whiteout, dir2
    assert 100_000 <= found.size < 200_000
    assert [listing_of(one) for one in layers] == before


def test_a_detached_descriptor(overlay: Overlay, tmp_path: Path) -> None:
    """Nothing of it is in a mount tree until it is attached, and it is gone with its descriptor."""
    before = Path("/proc/self/mountinfo").read_text()
    with mounted(overlay, three_layers(tmp_path)) as fd:
        assert Path("/proc/self/mountinfo").read_text() == before
        assert not os.get_inheritable(fd)
        with at(fd, tmp_path / "here"):
            assert (tmp_path / "here" / "a").read_text() == "2"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_nowhere_to_attach(overlay: Overlay, tmp_path: Path) -> None:
    with mounted(overlay, three_layers(tmp_path)) as fd, pytest.raises(Error, match="nothing can be mounted there") as caught:
        attach(fd, tmp_path / "not there")
    assert caught.value.code == "not-found"
    assert caught.value.subject == str(tmp_path / "not there")


def test_a_layer_that_is_gone_is_named(overlay: Overlay, tmp_path: Path) -> None:
    layers = [*three_layers(tmp_path), tmp_path / "layers/4/fs"]
    with pytest.raises(Error) as caught:
        overlay.mount(layers)
    assert (caught.value.code, caught.value.subject) == ("not-found", str(layers[-1]))
    layers[-1].parent.mkdir()
    layers[-1].write_text("")
    with pytest.raises(Error, match="not a directory"):
        overlay.mount(layers)


def test_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has `lowerdir+` if it is new enough. One that takes any option, and one that refuses this one, get the other form."""
    assert module._appends() is (RELEASE >= (6, 8))
    for taken in (("lowerdir+", "no-such-option"), ()):
        module._appends.cache_clear()
        monkeypatch.setattr(calls, "takes", lambda kind, name, value, taken=taken: name in taken)
        assert module._appends() is False
    module._appends.cache_clear()


AS_USER = """
import os, sys
from pathlib import Path
from ocirt_images.errors import Error
from ocirt_images.snapshots import Overlay, Upper, copy_layers
root = Path(sys.argv[1])
overlay = Overlay(root / "empty")
layers = [root / "layers/1/fs", root / "layers/2/fs"]
upper = Upper(root / "w")
try:
    overlay.prepare(upper, layers)
    fd = overlay.mount(layers, upper)
    os.unlink("b", dir_fd=fd)
    os.mkdir("new", dir_fd=fd)
    print(sorted(os.listdir(os.open(".", os.O_RDONLY, dir_fd=fd))), oct((upper.fs / "b").lstat().st_mode))
except Error as err:
    print(err.code, err)
    copy_layers(layers, root / "copy")
    print(sorted(os.listdir(root / "copy")), os.listdir(root / "copy/d"))
"""


def run_as_user(root: Path, *wrapper: str) -> str:
    """A script of a user's, with the tree `root` as theirs."""
    subprocess.run(["chown", "-R", "1000:1000", root], check=True)
    command = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *wrapper, sys.executable, "-c", AS_USER, str(root)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "images")}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_unprivileged(no_leaks: list[Path]) -> None:
    """The root of a user namespace mounts with user.overlay.*; who has none is told what to do, which works."""
    root = Path(tempfile.mkdtemp())
    no_leaks.append(root)
    layer(root / "layers/1/fs", {"a": "1", "b": "1", "d/x": "1"})
    layer(root / "layers/2/fs", {"a": whiteout, "d/y": "2"})
    try:
        os.setxattr(root / "layers/2/fs/d", "user.overlay.opaque", b"y")
    except OSError as err:
        assert err.errno == errno.EOPNOTSUPP
        pytest.skip("user.* attributes cannot be had in the directory of temporary files (tmpfs before Linux 6.6)")
    for name in ("empty", "w", "w/fs", "w/work"):
        (root / name).mkdir()
    said = run_as_user(root)
    assert said.startswith("unsupported layers cannot be mounted by this user")
    assert "make a copy" in said
    assert said.endswith("['b', 'd'] ['y']\n")
    assert run_as_user(root, "unshare", "--user", "--map-root-user", "--mount") == "['d', 'new'] 0o20000\n"


def listing_of(path: Path) -> dict[str, str]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return listing(fd)
    finally:
        os.close(fd)


def test_usage_is_what_the_tree_takes(tmp_path: Path) -> None:
    """As du(1) counts it, at any depth."""
    upper = Upper(tmp_path / "w")
    upper.fs.mkdir(parents=True)
    here = os.open(upper.fs, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    blocks = subprocess.run(["du", "-s", "--block-size=1", upper.fs], capture_output=True, text=True, check=True)
    assert by_form(None, tmp_path).usage(upper) == Usage(int(blocks.stdout.split()[0]), 3001)
    remove_tree(upper.path, Changes(sync=False))


def test_usage_beside_a_writer(tmp_path: Path) -> None:
    """What goes away or is moved while it is counted makes the count smaller, and fails nothing."""
    upper = Upper(tmp_path / "w")
    layer(upper.fs, {f"{n}/{m}/x": "" for n in range(20) for m in range(20)})
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            shutil.move(upper.fs / str(number % 20), tmp_path / "elsewhere")
            shutil.move(tmp_path / "elsewhere", upper.fs / str(number % 20))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        overlay = by_form(None, tmp_path)
        assert all((overlay.usage(upper).inodes or 0) <= 1 + 20 + 400 + 400 for _ in range(50))
    finally:
        ended.set()
        writer.join()


# Over a store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "images") as opened:
        yield opened


def three_stored(store: Store) -> Image:
    makers: list[Maker] = [
        lambda path: fill(path, {"a": "1", "b": "1", "d/x": "1"}),
        lambda path: fill(path, {"a": "2", "b": whiteout}),
        lambda path: fill(path, {"c": "3"}),
    ]
    return stored(store, "box.test/three:1", makers)


def test_a_snapshot_of_an_image(store: Store) -> None:
    snapshots = Snapshots(store)
    image = three_stored(store)
    fd = snapshots.mount(image.chain_id)
    assert listing(fd) == {"a": "2", "c": "3", "d": "/", "d/x": "1"}
    os.close(fd)


def test_a_layer_that_is_not_unpacked(store: Store) -> None:
    with pytest.raises(Error, match="not unpacked") as caught:
        Snapshots(store).mount(Digest.of(b"x"))
    assert caught.value.code == "not-found"


def test_a_writable_layer(store: Store) -> None:
    """It keeps its layers when the image is gone, and they go with it."""
    snapshots = Snapshots(store)
    image = three_stored(store)
    writable = snapshots.create(BOX, image.chain_id)
    fd = snapshots.mount(image.chain_id, writable, volatile=True)
    os.mkdir("new", dir_fd=fd)
    assert snapshots.usage(writable).inodes == 2
    store.images.delete(image.name)
    assert len(store.layers.list()) == 3
    os.close(fd)
    # overlayfs leaves work/work with mode 0, and below it a mark that it was volatile.
    assert (writable.upper.work / "work").stat().st_mode & 0o777 == 0
    snapshots.remove(writable)
    assert not writable.upper.path.exists()
    assert store.layers.list() == []
    assert store.writables.list() == []


def test_names_that_collide(store: Store, tmp_path: Path) -> None:
    """A second container of the same name is refused as long as the first one is there, or is being made."""
    snapshots = Snapshots(store)
    image = three_stored(store)
    owner = Owner.container("box", str(tmp_path))
    first = snapshots.create(owner, image.chain_id)
    with pytest.raises(Error, match="has a container of this name already") as caught:
        snapshots.create(owner, image.chain_id)
    assert caught.value.code == "exists"
    (tmp_path / "box").mkdir()
    first.lease.end()
    with pytest.raises(Error, match="has a container of this name already"):
        snapshots.create(owner, image.chain_id)
    (tmp_path / "box").rmdir()
    second = snapshots.create(owner, image.chain_id)
    assert second.record.id != first.record.id
    assert [record.id for record in store.writables.list()] == [second.record.id]
    other = snapshots.create(Owner.container("box", "/another/root"), image.chain_id)
    for one in (second, other):
        snapshots.remove(one)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b"])
def test_no_id(store: Store, name: str) -> None:
    with pytest.raises(Error, match="is no container's ID"):
        Snapshots(store).create(Owner.container(name, "/nowhere"), None)
    assert store.writables.list() == []


def test_what_nobody_wants_any_more(store: Store, tmp_path: Path) -> None:
    """A container is known by its state directory, a bundle by its config.json or its mount; others' layers are not ours."""
    snapshots = Snapshots(store)
    owner = Owner.container("box", str(tmp_path))
    container = snapshots.create(owner, None)
    bundle = snapshots.create(Owner.bundle(tmp_path / "bundle"), None)
    store.writables.create("sandbox/1", None)
    assert snapshots.prune().keys == []  # at work
    container.lease.end()
    bundle.lease.end()
    (tmp_path / "box").mkdir()
    (tmp_path / "bundle" / "rootfs").mkdir(parents=True)
    config = tmp_path / "bundle" / "config.json"
    config.write_text(json.dumps({"annotations": {ANNOTATION: str(bundle.record.id)}}))
    assert snapshots.prune().keys == []
    (tmp_path / "box").rmdir()
    assert snapshots.prune().keys == [owner.key]
    config.write_text(json.dumps({"annotations": {ANNOTATION: "77"}}))
    fd = snapshots.mount(None, bundle)
    attach(fd, tmp_path / "bundle" / "rootfs")
    os.close(fd)
    assert snapshots.prune().keys == []
    detach(tmp_path / "bundle" / "rootfs")
    assert snapshots.prune().keys == [f"bundle:{tmp_path}/bundle"]
    assert [record.key for record in store.writables.list()] == ["sandbox/1"]


def test_a_dead_process_is_at_work_with_nothing(store: Store) -> None:
    """A lease goes with its process, however that ends."""
    script = (
        "import os, sys; from pathlib import Path; from ocirt_images.store import Store; from ocirt_images.snapshots import *\n"
        "Snapshots(Store.open(Path(sys.argv[1]))).create(Owner.container('box', '/nowhere'), None); os.kill(os.getpid(), 9)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "images")}
    done = subprocess.run([sys.executable, "-c", script, store.root], env=env, check=False)
    assert done.returncode == -9
    assert Snapshots(store).prune().keys == [BOX.key]
    assert os.listdir(store.layout.writables) == []


def test_a_full_disk(tmp_path: Path) -> None:
    """A writable layer that cannot be made, or a copy that does not fit, is an error that says so and leaves nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,nr_inodes=60", "tmpfs", disk], check=True)
    try:
        layers = [layer(tmp_path / "layers/1/fs", {"big": b"x" * (2 << 20)})]
        with pytest.raises(Error, match="copying: No space left") as caught:
            copy_layers(layers, disk / "copy")
        assert (caught.value.code, caught.value.subject) == ("exhausted", str(disk / "copy" / "big"))
        remove_tree(disk / "copy", Changes(sync=False))
        (disk / "room").write_text("")
        with Store.open(disk / "images") as store:
            snapshots = Snapshots(store)
            held: list[Writable] = []
            with pytest.raises(Error, match="(?i)no space left") as caught:
                held.extend(snapshots.create(Owner.container(f"box-{number}", "/nowhere"), None) for number in range(60))
            assert caught.value.code == "exhausted"
            assert len(held) > 3
            (disk / "room").unlink()  # a removal takes a lock, which is a file
            for one in held:
                snapshots.remove(one)
            assert store.writables.list() == []
    finally:
        detach(disk)
