"""Layers as mounts: what overlayfs shows of them, how they are handed out, what is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ocirt_images.errors import Error
from ocirt_images.snapshots import Overlay, Owner, Snapshots, Usage, Writable, attach, calls, copy_layers, detach, tree
from ocirt_images.snapshots import overlay as module
from tests.support.build import ROOT
from tests.support.layers import layer, listing, opaque, whiteout

OWNER = Owner(kind="container", name="box", root="/nowhere")
# Both ways to tell the kernel of the lower layers, whichever this one would get.
FORMS = pytest.mark.parametrize("append", [True, False], ids=["lowerdir+", "lowerdir="])


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "images")


def snapshots_by(append: bool, root: Path) -> Snapshots:
    return Snapshots(root / "images", Overlay(root / "images" / "writable" / "empty", append=append))


@contextmanager
def mounted(
    snapshots: Snapshots, layers: list[Path], writable: Writable | None = None, *, volatile: bool = False
) -> Iterator[int]:
    fd = snapshots.mount(layers, writable, volatile=volatile)
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
    with mounted(snapshots_by(append, tmp_path), three_layers(tmp_path)) as fd:
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
    snapshots = snapshots_by(append, tmp_path)
    with snapshots.create(OWNER, layers) as writable, mounted(snapshots, layers, writable) as fd:
        found = listing(fd)
        assert found["shared"] == "126"
        assert len(found) == 128
        writable.remove()


def test_more_than_fit_on_the_page(tmp_path: Path) -> None:
    """A kernel without `lowerdir+` is told so before it is asked."""
    layers = [layer(tmp_path / f"layers/{n}-{'x' * 60}/fs", {"a": ""}) for n in range(100)]
    with pytest.raises(Error, match="100 layers: their names do not fit") as caught:
        snapshots_by(False, tmp_path).mount(layers)
    assert caught.value.code == "unsupported"
    with mounted(snapshots_by(True, tmp_path), layers) as fd:
        assert listing(fd) == {"a": ""}


def test_more_than_overlayfs_takes(snapshots: Snapshots, tmp_path: Path) -> None:
    with pytest.raises(Error, match="500 layers") as caught:
        snapshots.mount([tmp_path] * 500)
    assert caught.value.code == "unsupported"


@FORMS
def test_names_that_options_would_split(tmp_path: Path, append: bool) -> None:
    layers = [
        layer(tmp_path / f"layers/{name}/fs", {name.encode().hex(): name}) for name in ("a:b", "a,b", "a\\b", "a\\:,b", "é")
    ]
    with mounted(snapshots_by(append, tmp_path), layers) as fd:
        assert sorted(listing(fd).values()) == sorted(("a:b", "a,b", "a\\b", "a\\:,b", "é"))


def test_paths_longer_than_a_value(tmp_path: Path) -> None:
    """fsconfig(2) takes 255 characters."""
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    layers = [layer(deep / str(n) / "fs", {f"f{n}": ""}) for n in range(3)]
    snapshots = Snapshots(deep)
    with snapshots.create(OWNER, layers) as writable, mounted(snapshots, layers, writable) as fd:
        assert set(listing(fd)) == {"f0", "f1", "f2"}
        writable.remove()


def test_the_options_are_explicit(snapshots: Snapshots, tmp_path: Path) -> None:
    layers = three_layers(tmp_path)
    with snapshots.create(OWNER, layers) as writable, mounted(snapshots, layers, writable, volatile=True) as fd:
        with at(fd, tmp_path / "here") as line:
            options = line.rpartition(" ")[2].split(",")
            assert {"redirect_dir=nofollow"} <= set(options)
            assert {"volatile", "fsync=volatile"} & set(options)
            # What is as it is by default in this kernel is not shown.
            assert not {"index=on", "metacopy=on", "xino=on", "xino=auto", "userxattr"} & set(options)
        writable.remove()


@FORMS
def test_read_only(tmp_path: Path, append: bool) -> None:
    with mounted(snapshots_by(append, tmp_path), three_layers(tmp_path)) as fd:
        with pytest.raises(OSError, match="Read-only") as caught:
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        assert caught.value.errno == errno.EROFS


@FORMS
def test_one_layer_and_none(tmp_path: Path, append: bool) -> None:
    """A whiteout is never seen, though there is nothing below it; an image may have no layers at all."""
    snapshots = snapshots_by(append, tmp_path)
    one = layer(tmp_path / "layers/1/fs", {"a": "1", "gone": whiteout})
    with mounted(snapshots, [one]) as fd:
        assert listing(fd) == {"a": "1"}
    with mounted(snapshots, []) as fd:
        assert listing(fd) == {}
    with snapshots.create(OWNER, []) as writable, mounted(snapshots, [], writable) as fd:
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert listing(fd) == {"new": ""}
        assert os.stat(".", dir_fd=fd).st_mode & 0o7777 == 0o755
        writable.remove()


def test_the_root_has_the_attributes_of_the_topmost_layer(snapshots: Snapshots, tmp_path: Path) -> None:
    layers = three_layers(tmp_path)
    layers[-1].chmod(0o1751)
    os.chown(layers[-1], 7, 8)
    os.setxattr(layers[-1], "user.colour", b"blue")
    with snapshots.create(OWNER, layers) as writable, mounted(snapshots, layers, writable) as fd:
        found = os.stat(".", dir_fd=fd)
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o1751, 7, 8)
        root = os.open(".", os.O_RDONLY, dir_fd=fd)
        assert os.getxattr(root, "user.colour") == b"blue"
        os.close(root)
        writable.remove()


def test_what_is_written(snapshots: Snapshots, tmp_path: Path) -> None:
    """It lies in the writable layer, the layers stay as they are, and it is counted."""
    layers = three_layers(tmp_path)
    before = [listing_of(one) for one in layers]
    writable = snapshots.create(OWNER, layers)
    assert snapshots.usage(writable).inodes == 1
    with mounted(snapshots, layers, writable) as fd:
        with open(os.open("big", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
            file.write(b"x" * 100_000)
        os.link("big", "again", src_dir_fd=fd, dst_dir_fd=fd)
        os.unlink("kept", dir_fd=fd)
        os.mkdir("dir", dir_fd=fd)
        os.rename("dir", "dir2", src_dir_fd=fd, dst_dir_fd=fd)
    found = snapshots.usage(writable)
    assert found.inodes == 4  # the root, big, the whiteout, dir2
    assert 100_000 <= found.size < 200_000
    assert [listing_of(one) for one in layers] == before
    path = writable.upper.path
    writable.remove()
    assert not path.exists()


def test_a_volatile_layer_is_removed(snapshots: Snapshots, tmp_path: Path) -> None:
    """overlayfs leaves work/work with mode 0, and below it a mark that it was volatile."""
    layers = three_layers(tmp_path)
    writable = snapshots.create(OWNER, layers)
    with mounted(snapshots, layers, writable, volatile=True) as fd:
        os.mkdir("x", dir_fd=fd)
    assert (writable.upper.work / "work").stat().st_mode & 0o777 == 0
    writable.remove()
    assert os.listdir(snapshots.writables.root) == ["empty"]


def test_a_detached_descriptor(snapshots: Snapshots, tmp_path: Path) -> None:
    """Nothing of it is in a mount tree until it is attached, and it is gone with its descriptor."""
    before = Path("/proc/self/mountinfo").read_text()
    with mounted(snapshots, three_layers(tmp_path)) as fd:
        assert Path("/proc/self/mountinfo").read_text() == before
        assert not os.get_inheritable(fd)
        with at(fd, tmp_path / "here"):
            assert (tmp_path / "here" / "a").read_text() == "2"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_nowhere_to_attach(snapshots: Snapshots, tmp_path: Path) -> None:
    with mounted(snapshots, three_layers(tmp_path)) as fd, pytest.raises(Error, match="nothing can be mounted there") as caught:
        attach(fd, tmp_path / "not there")
    assert caught.value.code == "not-found"
    assert caught.value.subject == str(tmp_path / "not there")


def test_a_layer_that_is_gone_is_named(snapshots: Snapshots, tmp_path: Path) -> None:
    layers = [*three_layers(tmp_path), tmp_path / "layers/4/fs"]
    with pytest.raises(Error) as caught:
        snapshots.mount(layers)
    assert (caught.value.code, caught.value.subject) == ("not-found", str(layers[-1]))
    layers[-1].parent.mkdir()
    layers[-1].write_text("")
    with pytest.raises(Error, match="not a directory"):
        snapshots.mount(layers)


def test_two_writable_layers_of_one_image(snapshots: Snapshots, tmp_path: Path) -> None:
    """Names do not collide, and neither sees what the other writes."""
    layers = three_layers(tmp_path)
    first, second = snapshots.create(OWNER, layers), snapshots.create(OWNER, layers)
    with mounted(snapshots, layers, first) as one, mounted(snapshots, layers, second) as two:
        os.mkdir("mine", dir_fd=one)
        assert "mine" not in listing(two)
    first.remove()
    second.remove()


def test_a_full_disk(tmp_path: Path) -> None:
    """A writable layer that cannot be made, or a copy that does not fit, is an error that says so and leaves nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,nr_inodes=40", "tmpfs", disk], check=True)
    try:
        layers = [layer(tmp_path / "layers/1/fs", {"big": b"x" * (2 << 20)})]
        with pytest.raises(Error, match="copying: No space left") as caught:
            copy_layers(layers, disk / "copy")
        assert (caught.value.code, caught.value.subject) == ("exhausted", str(disk / "copy" / "big"))
        tree.remove(disk / "copy")
        snapshots = Snapshots(disk / "images")
        held: list[Writable] = []
        with pytest.raises(Error, match="making a writable layer: No space left") as caught:
            held.extend(snapshots.create(OWNER, layers) for _ in range(40))
        assert caught.value.code == "exhausted"
        assert len(held) == len(os.listdir(snapshots.writables.root)) > 3
        for one in held:
            one.remove()
        assert os.listdir(snapshots.writables.root) == []
    finally:
        detach(disk)


def test_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """This kernel has `lowerdir+` if it is new enough; one that refuses the option gets the other form."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    module._appends.cache_clear()
    assert module._appends() is (release >= (6, 8))

    def refuse(*_: object) -> int:
        raise calls.CallError(errno.EINVAL, "fsconfig", "lowerdir+=/", "overlay: Unknown parameter 'lowerdir+'")

    monkeypatch.setattr(calls, "new_mount", refuse)
    module._appends.cache_clear()
    assert module._appends() is False
    module._appends.cache_clear()


AS_USER = """
import os, sys
from pathlib import Path
from ocirt_images.errors import Error
from ocirt_images.snapshots import Owner, Snapshots
root = Path(sys.argv[1])
snapshots = Snapshots(root / "images")
layers = [root / "layers/1/fs", root / "layers/2/fs"]
owner = Owner(kind="container", name="box", root="/nowhere")
try:
    with snapshots.create(owner, layers) as writable:
        fd = snapshots.mount(layers, writable)
        os.unlink("b", dir_fd=fd)
        os.mkdir("new", dir_fd=fd)
        print(sorted(os.listdir(os.open(".", os.O_RDONLY, dir_fd=fd))), oct((writable.upper.fs / "b").lstat().st_mode))
        os.close(fd)
        writable.remove()
except Error as err:
    writable.remove()
    print(err.code, err)
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


def test_unprivileged(no_leaks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The root of a user namespace mounts with user.overlay.*; who has none is told what to do."""
    root = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    no_leaks.append(root)
    layer(root / "layers/1/fs", {"a": "1", "b": "1", "d/x": "1"})
    layer(root / "layers/2/fs", {"a": whiteout, "d/y": "2"})
    os.setxattr(root / "layers/2/fs/d", "user.overlay.opaque", b"y")
    assert run_as_user(root, "unshare", "--user", "--map-root-user", "--mount") == "['d', 'new'] 0o20000\n"
    said = run_as_user(root)
    assert said.startswith("unsupported layers cannot be mounted by this user")
    assert "make a copy" in said
    assert os.listdir(root / "images/writable") == ["empty"]


def listing_of(path: Path) -> dict[str, str]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return listing(fd)
    finally:
        os.close(fd)


def test_usage_is_what_the_tree_takes(snapshots: Snapshots, tmp_path: Path) -> None:
    """As du(1) counts it, at any depth."""
    writable = snapshots.create(OWNER, [])
    here = os.open(writable.upper.fs, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    blocks = subprocess.run(["du", "-s", "--block-size=1", writable.upper.fs], capture_output=True, text=True, check=True)
    assert snapshots.usage(writable) == Usage(int(blocks.stdout.split()[0]), 3001)
    writable.remove()
    assert os.listdir(snapshots.writables.root) == []
