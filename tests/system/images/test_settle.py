"""Applied layers below overlayfs: what a container sees is what the archives say, one after the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.apply.settle import settle
from ocirt_images.errors import Error
from tests.support.archives import END, apply, directory, file, header, link, pax, symlink
from tests.support.isolation import mount, umount
from tests.support.trees import Node, snapshot


@dataclass
class Stack:
    """Layers, each applied and settled over the ones before."""

    top: Path
    layers: list[Path] = field(default_factory=list)

    def add(self, archive: bytes) -> Path:
        """Apply a layer by its archive."""
        target = self.top / f"l{len(os.listdir(self.top))}"
        target.mkdir()
        made = apply(archive + END, target, squash=False)
        settle(made.needs, target, self.layers[::-1], name="layer of the test")
        self.layers.append(target)
        return target

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The layers as a container sees them."""
        place, empty = self.top / "merged", self.top / "empty"
        place.mkdir()
        empty.mkdir()
        lower = ":".join(str(one) for one in [*self.layers[::-1], empty])
        mount("overlay", str(place), "overlay", 1, f"lowerdir={lower}")
        try:
            yield place
        finally:
            umount(str(place))
            place.rmdir()
            empty.rmdir()

    def merged(self) -> dict[str, Node]:
        """Everything in the mounted layers. Overlayfs gives a hard link an inode of its own."""
        with self.mounted() as place:
            return {name: node._replace(same="") for name, node in snapshot(place).items()}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


# A model: the tree as a dictionary, changed layer by layer


@dataclass(frozen=True)
class Change:
    """An entry: kind "f", "d", "w" (whiteout) or "o" (opaque), with a number that is its content or mode."""

    kind: str
    path: str
    number: int = 0

    def archive(self) -> bytes:
        parent, _, name = self.path.rpartition("/")
        prefix = f"{parent}/" if parent else ""
        if self.kind == "d":
            return directory(self.path.encode(), 0o700 + self.number % 8)
        if self.kind == "w":
            return file(f"{prefix}.wh.{name}".encode())
        if self.kind == "o":
            return file(f"{self.path}/.wh..wh..opq".encode())
        return file(self.path.encode(), b"%d" % self.number)


Model = dict[str, str]


def drop(model: Model, path: str, *, itself: bool) -> None:
    """Remove what is at a path, or below it."""
    for one in [one for one in model if one.startswith(path + "/") or (itself and one == path)]:
        del model[one]


def change(lower: Model, changes: list[Change]) -> Model:
    """The model with a layer over it. Whiteouts first: they mean what is below, wherever they stand."""
    model = dict(lower)
    for one in changes:
        if one.kind in "wo":
            drop(model, one.path, itself=one.kind == "w")
    for one in changes:
        parts = one.path.split("/")
        parents = ["/".join(parts[:size]) for size in range(1, len(parts))] + ([one.path] if one.kind == "o" else [])
        for parent in parents:
            if not model.get(parent, "").startswith("d"):
                model[parent] = "drwxr-xr-x"
        if one.kind == "d":
            model[one.path] = stat.filemode(stat.S_IFDIR | 0o700 + one.number % 8)
        elif one.kind == "f":
            drop(model, one.path, itself=True)
            model[one.path] = str(one.number)
    return model


NAMES = ["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "b/b/b"]


def sensible(changes: list[Change]) -> bool:
    """No file of the layer has something in it, and no name is told twice: the archive's order would count then."""
    files = {one.path for one in changes if one.kind == "f"}
    told = [one.path for one in changes if one.kind in "fd"]
    return len(told) == len(set(told)) and not any(
        one.path.startswith(path + "/") or (one.kind == "o" and one.path == path) for one in changes for path in files
    )


CHANGES = st.builds(Change, st.sampled_from("ffddwo"), st.sampled_from(NAMES), st.integers(1, 1000))
LAYERS = st.lists(st.lists(CHANGES, max_size=7).filter(sensible), min_size=1, max_size=4)


@given(LAYERS)
def test_whiteouts_beside_a_model(tmp_path: Path, layers: list[list[Change]]) -> None:
    place = tmp_path / str(len(os.listdir(tmp_path)))
    place.mkdir()
    stack = Stack(place)
    model: Model = {}
    for changes in layers:
        stack.add(b"".join(one.archive() for one in changes))
        # A parent that is a file below is hidden by the implied directory.
        model = change(model, changes)
        with stack.mounted() as top:
            found = {
                str(path.relative_to(top)): stat.filemode(path.lstat().st_mode) if path.is_dir() else path.read_text()
                for path in top.rglob("*")
            }
        assert found == model


# One by one


def test_implied_parents_take_what_is_below(stack: Stack) -> None:
    values = {b"SCHILY.xattr.user.x": b"y", b"mtime": b"5.5"}
    stack.add(directory(b"./", 0o750, mtime=3) + pax(values) + directory(b"a", 0o1777, uid=7, gid=8) + directory(b"a/b", 0o700))
    stack.add(file(b"a/b/c") + directory(b"a/new", 0o711))
    stack.add(file(b"a/b/d"))
    found = stack.merged()
    assert (found["."].mode, found["."].mtime) == ("drwxr-x---", 3 * 10**9)
    assert (found["a"].mode, found["a"].owner, found["a"].mtime) == ("drwxrwxrwt", (7, 8), 5_500_000_000)
    assert found["a"].xattrs == (("user.x", b"y"),)
    assert found["a/b"].mode == "drwx------"
    assert set(found) == {".", "a", "a/b", "a/b/c", "a/b/d", "a/new"}


def test_a_whited_out_parent_gives_nothing(stack: Stack) -> None:
    stack.add(directory(b"a", 0o700, uid=7) + directory(b"a/b", 0o700, uid=7))
    stack.add(file(b"a/.wh.b") + file(b"a/b/c") + file(b".wh.gone"))
    stack.add(file(b"gone/x"))
    found = stack.merged()
    assert (found["a"].owner, found["a/b"].owner, found["a/b"].mode) == ((7, 0), (0, 0), "drwxr-xr-x")


def test_a_parent_that_is_a_symlink_below(stack: Stack) -> None:
    """Merged /usr: what goes to lib/ goes where lib leads, and lib stays a symlink."""
    stack.add(
        directory(b"usr")
        + directory(b"usr/lib", 0o711, uid=5, mtime=9)
        + file(b"usr/lib/old", b"1")
        + symlink(b"lib", b"usr/lib")
    )
    stack.add(file(b"lib/new", b"2") + file(b"lib/sub/deep", b"3") + file(b"lib/.wh.old") + link(b"lib/hard", b"lib/new"))
    stack.add(directory(b"usr/lib/sub", 0o700) + file(b"lib/sub/more", b"4"))
    found = stack.merged()
    assert found["lib"].content == "usr/lib"
    assert {name for name in found if "lib/" in name} == {
        "usr/lib", "usr/lib/new", "usr/lib/hard", "usr/lib/sub", "usr/lib/sub/deep", "usr/lib/sub/more",
    } - {"usr/lib"}  # fmt: skip
    assert (found["usr/lib"].mode, found["usr/lib"].owner, found["usr/lib"].mtime) == ("drwx--x--x", (5, 0), 9 * 10**9)
    assert found["usr/lib/sub"].mode == "drwx------"


def test_a_symlink_below_that_leads_up(stack: Stack) -> None:
    """`..` ends at the container's root."""
    stack.add(directory(b"d") + symlink(b"d/up", b"../../../../../../target") + directory(b"target"))
    stack.add(file(b"d/up/f", b"1"))
    assert set(stack.merged()) == {".", "d", "d/up", "target", "target/f"}


@pytest.mark.parametrize(
    "kind", [file(b"d/f", b"data", mode=0o4755, uid=7, mtime=3), symlink(b"d/f", b"x"), header(b"d/f", b"6", uid=7)]
)
def test_hard_links_to_lower_layers(stack: Stack, kind: bytes) -> None:
    stack.add(directory(b"d", 0o700, uid=7, mtime=5) + kind + symlink(b"s", b"d"))
    top = stack.add(link(b"one", b"d/f") + link(b"two", b"s/f") + link(b"new/three", b"one"))
    found = stack.merged()
    for name in ("one", "two", "new/three"):
        assert found[name] == found["d/f"]
    assert (found["d"].mode, found["d"].owner, found["d"].mtime) == ("drwx------", (7, 0), 5 * 10**9)
    inodes = {os.lstat(top / name).st_ino for name in ("one", "two", "new/three", "d/f")}
    assert len(inodes) == 1


def test_a_hard_link_keeps_holes_out_of_it(stack: Stack) -> None:
    data = os.urandom(3 << 20)
    stack.add(file(b"f", data))
    top = stack.add(link(b"g", b"f"))
    assert (top / "g").read_bytes() == data


@pytest.mark.parametrize(
    ("lower", "archive", "word"),
    [
        (file(b"other"), link(b"x", b"f"), "neither this layer has nor one below"),
        (directory(b"f"), link(b"x", b"f"), "is a directory"),
        (file(b"d/f"), file(b".wh.d") + link(b"x", b"d/f"), "neither this layer has"),
        (file(b"d/f"), file(b"d/.wh..wh..opq") + link(b"x", b"d/f"), "neither this layer has"),
        (symlink(b"a", b"b") + symlink(b"b", b"a"), link(b"x", b"a/f"), "too many symlinks"),
        (symlink(b"s", b"d") + directory(b"d"), file(b"s/f") + file(b"d/f"), "twice"),
    ],
)
def test_refused(stack: Stack, lower: bytes, archive: bytes, word: str) -> None:
    stack.add(lower)
    with pytest.raises(Error, match=f"layer of the test: .*{word}"):
        stack.add(archive)


def test_a_link_of_a_lower_layer_leads_nowhere(stack: Stack) -> None:
    """A lower layer's symlink is read as the container would: never by the host's own paths."""
    victim = stack.top / "victim"
    victim.mkdir()
    (victim / "f").write_text("host")
    stack.add(symlink(b"s", str(victim).encode()[:99]) + symlink(b"t", str(victim / "f").encode()[:99]))
    stack.add(file(b"s/g", b"in the layer"))
    with pytest.raises(Error, match="neither this layer has"):
        stack.add(link(b"x", b"s/f"))
    assert os.listdir(victim) == ["f"]
    stack.add(link(b"y", b"t"))
    assert (stack.layers[-1] / "y").is_symlink()


def test_no_layer_below(stack: Stack) -> None:
    stack.add(file(b"a/b/.wh..wh..opq") + file(b"a/b/c"))
    assert stack.merged()["a/b"].mode == "drwxr-xr-x"
    assert os.getxattr(stack.layers[0] / "a/b", "trusted.overlay.opaque") == b"y"


def test_opaque_for_users(tmp_path: Path) -> None:
    target, lower = tmp_path / "target", tmp_path / "lower"
    for one in (target, lower):
        one.mkdir()
    apply(directory(b"a", 0o700, uid=9) + directory(b"a/b", 0o700, uid=9) + END, lower, squash=False)
    made = apply(file(b"a/.wh..wh..opq") + file(b"a/b/c") + END, target, squash=False, xattrs="user")
    assert made.needs.opaque == []
    settle(made.needs, target, [lower], xattrs="user")
    assert os.getxattr(target / "a", "user.overlay.opaque") == b"y"
    assert (target / "a/b").stat().st_uid == 0
