"""The applier as an ordinary user can run it: what a layer looks like afterwards, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ocirt_images.apply.limits import LimitExceeded, Limits
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.needs import Needs
from ocirt_images.apply.owners import Owners, kept
from tests.support.archives import END, apply, directory, file, header, link, listing, pax, symlink


def test_files(tmp_path: Path) -> None:
    archive = (
        directory(b"./", 0o755, mtime=3)
        + directory(b"ro", 0o555, mtime=2)
        + file(b"ro/f", b"data", mode=0o4711, mtime=1)
        + symlink(b"ro/l", b"/etc/passwd")
        + link(b"h", b"ro/f")
        + link(b"hl", b"./ro/l")
        + header(b"fifo", b"6", mode=0o600)
        + file(b"empty", mode=0)
        + END
    )
    made = apply(archive, tmp_path)
    status = (tmp_path / "ro/f").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4711
    assert status.st_nlink == 2
    assert (tmp_path / "ro/f").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "ro").stat().st_mode) == 0o555
    assert [int((tmp_path / name).stat().st_mtime) for name in ("", "ro", "h")] == [3, 2, 1]
    assert (tmp_path / "hl").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0
    assert made.needs == Needs()
    assert (made.applier.inodes, made.applier.size) == (5, 2 * 4096)


def test_sub_seconds(tmp_path: Path) -> None:
    apply(pax({b"mtime": b"1.123456789"}) + file(b"f") + END, tmp_path)
    assert (tmp_path / "f").stat().st_mtime_ns == 1_123_456_789


def test_holes(tmp_path: Path) -> None:
    values = {b"GNU.sparse.size": b"50000000", b"GNU.sparse.map": b"0,3,40000000,2", b"GNU.sparse.numblocks": b"2"}
    archive = pax(values) + file(b"f", b"abcde") + END
    for step in (1 << 20, 515, 1):
        target = tmp_path / str(step)
        target.mkdir()
        apply(archive, target, step=step)
        data = (target / "f").read_bytes()
        assert len(data) == 50_000_000
        assert (data[:3], data[40_000_000:40_000_002], data.count(0)) == (b"abc", b"de", len(data) - 5)
        assert (target / "f").stat().st_blocks < 1000


def test_implied_parents(tmp_path: Path) -> None:
    made = apply(file(b"a/b/c") + directory(b"a/b", 0o700) + file(b"d/e") + END, tmp_path)
    assert made.needs.parents == [b"", b"a", b"d"]
    assert listing(tmp_path) == {
        "a": "drwxr-xr-x", "a/b": "drwx------", "a/b/c": "-rw-r--r-- b''", "d": "drwxr-xr-x", "d/e": "-rw-r--r-- b''",
    }  # fmt: skip


def test_the_last_entry_counts(tmp_path: Path) -> None:
    archive = (
        file(b"f", b"1") + file(b"f", b"2")
        + directory(b"d") + file(b"d/x/y", b"old") + file(b"d", b"a file now")
        + file(b"e", b"1") + directory(b"e") + file(b"e/x")
        + symlink(b"s", b"f") + symlink(b"s", b"e") + file(b"s/through", b"3") + file(b"s", b"4")
        + file(b"linked", b"5") + link(b"other", b"linked") + file(b"linked", b"6")
        + END
    )  # fmt: skip
    made = apply(archive, tmp_path)
    assert listing(tmp_path) == {
        "d": "-rw-r--r-- b'a file now'",
        "e": "drwxr-xr-x",
        "e/through": "-rw-r--r-- b'3'",
        "e/x": "-rw-r--r-- b''",
        "f": "-rw-r--r-- b'2'",
        "linked": "-rw-r--r-- b'6'",
        "other": "-rw-r--r-- b'5'",
        "s": "-rw-r--r-- b'4'",
    }
    assert made.needs.opaque == [b"e"], "the file that it replaces hid what is below"
    assert made.applier.inodes == 8


def test_symlinks_in_parents(tmp_path: Path) -> None:
    """As image builders expect: within the layer, with its root for `/`."""
    archive = (
        directory(b"usr/lib") + symlink(b"lib", b"usr/lib") + file(b"lib/a", b"1")
        + symlink(b"abs", b"/usr/../../usr/./lib//") + file(b"abs/b", b"2")
        + symlink(b"usr/up", b"../new/dir") + file(b"usr/up/c", b"3")
        + link(b"abs/d", b"lib/a")
        + END
    )  # fmt: skip
    made = apply(archive, tmp_path)
    files = {name: text for name, text in listing(tmp_path).items() if text.startswith("-")}
    assert files == {
        "usr/lib/a": "-rw-r--r-- b'1'", "usr/lib/b": "-rw-r--r-- b'2'",
        "usr/lib/d": "-rw-r--r-- b'1'", "new/dir/c": "-rw-r--r-- b'3'",
    }  # fmt: skip
    assert made.needs.parents == [b"", b"new", b"new/dir", b"usr"]


def test_a_symlink_that_changes(tmp_path: Path) -> None:
    archive = directory(b"a") + directory(b"b") + symlink(b"s", b"a") + file(b"s/1") + symlink(b"s", b"b") + file(b"s/2") + END
    apply(archive, tmp_path)
    assert {name for name in listing(tmp_path) if "/" in name} == {"a/1", "b/2"}


def test_whiteouts(tmp_path: Path) -> None:
    archive = (
        file(b".wh.gone")
        + file(b".wh.both") + file(b"both", b"new")
        + file(b"first", b"kept") + file(b".wh.first")
        + file(b".wh.dir") + directory(b"dir") + file(b"dir/f")
        + file(b"late/f") + file(b".wh.late")
        + file(b"op/a") + file(b"op/.wh..wh..opq", b"with data") + file(b"op/b")
        + file(b".wh.implied") + file(b"implied/f")
        + file(b".wh..wh.plnk/x", b"aufs") + file(b".wh..wh.aufs") + directory(b".wh..wh.orph")
        + END
    )  # fmt: skip
    made = apply(archive, tmp_path)
    found = listing(tmp_path)
    assert found.pop("gone") == "whiteout"
    assert set(found) == {
        "both", "first", "dir", "dir/f", "late", "late/f", "op", "op/a", "op/b", "implied", "implied/f",
    }  # fmt: skip
    assert made.needs.opaque == [b"dir", b"implied", b"late", b"op"]
    assert b"gone" in made.needs.whiteouts
    assert made.needs.parents == [b"", b"op"]


def test_links_to_lower_layers(tmp_path: Path) -> None:
    archive = (
        link(b"a", b"lower") + link(b"b", b"a") + link(b"c", b"dir/lower")
        + link(b"d", b"lower") + file(b"d", b"mine after all")
        + file(b"e", b"1") + link(b"e", b"lower") + link(b"a", b"a")
        + link(b"f", b"lower") + directory(b"f")
        + END
    )  # fmt: skip
    made = apply(archive, tmp_path)
    assert made.needs.links == [(b"a", b"lower"), (b"b", b"lower"), (b"c", b"dir/lower"), (b"e", b"lower")]
    assert set(listing(tmp_path)) == {"d", "f"}


def test_a_thousand_directories(tmp_path: Path) -> None:
    """More than there are descriptors for, visited in turn."""
    archive = b"".join(file(b"d%d/sub/%d" % (n % 400, n)) for n in range(1200)) + END
    apply(archive, tmp_path)
    assert sum(1 for path in tmp_path.rglob("*") if path.is_file()) == 1200


@pytest.mark.parametrize(
    ("archive", "word"),
    [
        (file(b"/etc/passwd"), "absolute"),
        (file(b"../x"), "leads out"),
        (file(b"a/../../x"), "leads out"),
        (file(b"a/.."), "root of a layer is a directory"),
        (file(b".wh."), "whiteout of nothing"),
        (file(b"a/.wh.."), "whiteout of nothing"),
        (file(b".wh..."), "whiteout of nothing"),
        (file(b".wh.a/b"), "whiteout as a directory"),
        (link(b"a", b"../etc/passwd"), "leads out"),
        (link(b"a", b"/etc/passwd"), "absolute"),
        (link(b"a", b"."), "link to the root"),
        (directory(b"d") + link(b"a", b"d"), "no file"),
        (file(b".wh.x") + link(b"a", b"x"), "this layer removes"),
        (file(b"f") + file(b"f/x"), "not a directory"),
        (symlink(b"a", b"b") + symlink(b"b", b"a") + file(b"a/x"), "too many symlinks"),
        (header(b"dev", b"3", device=(1 << 13, 0)), "no such device"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, archive: bytes, word: str) -> None:
    if b"dev" in archive[:3] and os.geteuid():
        pytest.skip("an ordinary user's layers have no devices at all")
    with pytest.raises(Malformed, match=word):
        apply(archive + END, tmp_path)
    assert not [name for name, text in listing(tmp_path).items() if text.startswith("-") and name != "f"]


@pytest.mark.parametrize(
    ("archive", "limits", "word"),
    [
        (b"".join(file(b"%d" % n) for n in range(11)), Limits(entries=10), "entries: 11 is more than the limit of 10"),
        (pax({b"path": b"x" * 200}) + file(b"f"), Limits(path=100), "path"),
        (pax({b"path": b"a/" * 200 + b"x"}) + file(b"f"), Limits(depth=100), "depth"),
        (pax({b"linkpath": b"x" * 200}) + symlink(b"f", b"x"), Limits(path=100), "path"),
    ],
)
def test_limits(tmp_path: Path, archive: bytes, limits: Limits, word: str) -> None:
    with pytest.raises(LimitExceeded, match=word):
        apply(archive + END, tmp_path, limits=limits)


def test_depth_by_symlinks(tmp_path: Path) -> None:
    """Each turn through a link goes deeper than any name of the archive."""
    archive = directory(b"d") + symlink(b"l", b"/" + b"d/" * 20)
    turns = b"".join(symlink(b"l%d" % n, (b"l%d" % (n - 1) if n else b"l") + b"/d" * 20) for n in range(20))
    with pytest.raises(LimitExceeded, match="depth"):
        apply(archive + turns + file(b"l19/x") + END, tmp_path, limits=Limits(depth=256))


def test_an_error_of_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        apply(pax({b"path": b"x" * 256}) + file(b"f") + END, tmp_path)


def test_owners() -> None:
    own = (os.geteuid(), os.getegid())
    assert Owners().of(*own) is None
    assert Owners().of(own[0] + 1, own[1]) == (own[0] + 1, own[1])
    mapped = Owners([(0, 100_000, 10), (10, 5, 1)], [(0, 200_000, 10)])
    assert mapped.of(3, 4) == (100_003, 200_004)
    assert mapped.of(10, 0) == (5, 200_000)
    with pytest.raises(Malformed, match="user 11 has no mapping"):
        mapped.of(11, 0)
    with pytest.raises(Malformed, match="group 10 has no mapping"):
        mapped.of(0, 10)
    assert Owners([(0, 100_000, 1)], squash=True).of(7, 7) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"user.mime_type", True),
        (b"security.capability", True),
        (b"system.posix_acl_default", True),
        (b"user.overlay.opaque", False),
        (b"user.overlay.overlay.opaque", False),
        (b"trusted.overlay.opaque", False),
        (b"trusted.other", False),
        (b"security.selinux", False),
        (b"system.nfs4_acl", False),
    ],
)
def test_attributes(name: bytes, wanted: bool) -> None:
    assert kept(name) is wanted


def test_needs_cross_as_json() -> None:
    needs = Needs(parents=[b"", b"\xff/x"], links=[(b"a\xfe", b"b")], opaque=[b"\x80"], whiteouts=[b"\xee"])
    assert Needs.parse(needs.json()) == needs


@pytest.mark.parametrize("path", ["..", "a/../..", "/etc", "a/", "./a"])
def test_needs_of_a_worker_gone_wrong(path: str) -> None:
    good = Needs().json()
    for value in ({**good, "parents": [path]}, {**good, "links": [["x", path]]}, {**good, "whiteouts": [path]}):
        with pytest.raises(Malformed):
            Needs.parse(value)
