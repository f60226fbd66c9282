"""Layers on a real file system, as root: beside GNU tar, under attack, and below overlayfs."""

from __future__ import annotations

import base64
import ctypes
import errno
import gzip
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.apply import libc
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.settle import settle
from ocirt_images.apply.worker import Applied, Job, Workers
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from tests.support.archives import END, apply, directory, file, header, link, octal, padded, pax, symlink
from tests.support.trees import snapshot

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # CAP_NET_BIND_SERVICE, effective


@dataclass
class Place:
    """A host: what an attack must not change, and a directory for layers in it."""

    top: Path
    workers: Workers
    count: int = 0
    layers: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.top / "secret").write_text("untouched")
        (self.top / "etc").mkdir()
        (self.top / "etc/passwd").write_text("root")
        (self.top / "layers").mkdir()

    def job(self, archive: bytes, compression: str = "", **fields: object) -> Job:
        """A job for an archive, in a new directory."""
        self.count += 1
        packed = {"": lambda: archive, "gzip": lambda: gzip.compress(archive, 1), "zstd": lambda: zstandard.compress(archive)}
        source = self.top / f"layers/{self.count}.tar"
        source.write_bytes(packed[compression]())
        target = self.top / f"layers/{self.count}"
        target.mkdir()
        self.layers.append(target)
        fields.setdefault("diff_id", Digest.of(archive))
        return Job(source=source, target=target, compression=compression, **fields)  # type: ignore[arg-type]

    def apply(self, archive: bytes, compression: str = "", **fields: object) -> Applied:
        """Apply an archive by a worker."""
        return self.workers.apply(self.job(archive, compression, **fields)).result(timeout=60)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Workers(2) as workers:
        yield Place(tmp_path, workers)


# Beside GNU tar

NAMES = st.sampled_from(["f", "g", "d/f", "d/g", "d/e/f", "d/e/" + "long" * 40, "x/implied", "grün", "w ith\nodd"])
DIRECTORIES = st.sampled_from(["d", "d/e", "d/e/h", "only"])
MODES = st.integers(0, 0o7777)
IDS = st.sampled_from([0, 1, 1000, 65534, 3_000_000_000])
TIMES = st.integers(-(10**9), 4 * 10**9).flatmap(lambda s: st.integers(0, 999_999_999).map(lambda ns: (s, ns)))
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "security.capability"]), st.binary(min_size=1, max_size=30), max_size=2
)


class Written(bytes):
    """An entry's bytes, which a failing test had better not print."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes: {self[512:700].partition(bytes(1))[0]!r}, {self[1180:1181]!r}>"


@st.composite
def entries(draw: st.DrawFn) -> Written:
    """One entry, with extended headers as needed."""
    kind = draw(st.sampled_from("0000555261s"))
    name = draw(DIRECTORIES if kind == "5" else NAMES)
    seconds, nanoseconds = draw(TIMES)
    mode, uid, gid = draw(MODES), draw(IDS), draw(IDS)
    values = {
        b"path": name.encode(),
        b"uid": str(uid).encode(),
        b"gid": str(gid).encode(),
        b"mtime": (f"{seconds}.{nanoseconds:09}" if seconds >= 0 else str(seconds)).encode(),
    }
    if kind in "05":
        for key, value in draw(XATTRS).items():
            if key != "security.capability":
                values[b"SCHILY.xattr." + key.encode()] = value
            elif kind == "0":
                values[b"SCHILY.xattr.security.capability"] = CAPABILITY
    if kind == "s":
        # GNU tar begins each piece at a block of the archive, and makes them so that this is where the one before ends.
        pieces = [*draw(st.lists(st.integers(1, 10).map(lambda blocks: blocks * 512), max_size=7)), draw(st.integers(1, 5000))]
        pairs, at = [], 0
        for size in pieces:
            at += draw(st.sampled_from([0, 4096, 1 << 20]))
            pairs.append((at, size))
            at += size
        total = at + draw(st.sampled_from([0, 70000]))
        data = bytes(n % 255 + 1 for n in range(sum(pieces)))
        pairs.append((total, 0))  # GNU tar knows the end from the last piece
        table = padded(f"{len(pairs)}\n".encode() + b"".join(b"%d\n%d\n" % pair for pair in pairs))
        values |= {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": str(total).encode()}
        values[b"GNU.sparse.name"] = values[b"path"]
        return Written(pax(values) + file(b"cut", table + data, mode=mode))
    if kind == "0":
        return Written(pax(values) + file(b"cut", draw(st.binary(max_size=3000)), mode=mode))
    # A link to itself is an error to GNU tar, and nothing to do for us.
    target = draw(NAMES.filter(lambda other: other != name)).encode() if kind in "12" else b""
    if kind in "12":
        values[b"linkpath"] = target
    return Written(pax(values) + header(b"cut", kind.encode(), mode=mode, link=target[:90]))


@given(st.lists(entries(), max_size=14))
def test_beside_gnu_tar(tmp_path: Path, found: list[Written]) -> None:
    """The same tree comes out, or GNU tar complains of a link to what is not there: what a lower layer has to have."""
    archive = directory(b"./", 0o755, mtime=1) + b"".join(found) + END
    number = len(list(tmp_path.iterdir()))
    ours, theirs = tmp_path / f"{number}.ours", tmp_path / f"{number}.theirs"
    ours.mkdir()
    theirs.mkdir()
    command = ["tar", "-xpPf", "-", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*"]
    command += ["--delay-directory-restore", "-C", str(theirs)]
    done = subprocess.run(command, input=archive, capture_output=True, umask=0o022, check=False)
    made = apply(archive, ours, squash=False)
    if made.needs.links:
        assert b"Cannot hard link" in done.stderr
        return
    mine, other = snapshot(ours), snapshot(theirs)
    for path in made.needs.parents:  # these have no time of their own
        name = os.fsdecode(path) or "."
        mine[name], other[name] = mine[name]._replace(mtime=0), other[name]._replace(mtime=0)
    assert {name: (mine.get(name), other.get(name)) for name in mine | other if mine.get(name) != other.get(name)} == {}
    # What is counted is what was made.
    assert made.applier.inodes == len({node.same for node in mine.values()}) - 1


def test_special_bits_of_a_fifo_before_linux_6_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fchmodat2(2)."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "fchmodat2")

    monkeypatch.setattr(libc, "chmod_node", missing)
    apply(file(b"f", b"") + header(b"f", b"6", mode=0o5640, uid=7) + END, tmp_path)
    assert snapshot(tmp_path)["f"].mode == "prwSr----T"


# Attacks


def huge(kind: bytes) -> bytes:
    """An extended header that says it has 8 GiB."""
    return header(b"x", kind, size=octal(8**11 - 1, 12)) + bytes(512)


ATTACKS: dict[str, tuple[bytes, str]] = {
    "absolute": (file(b"/secret", b"owned"), "invalid"),
    "absolute, doubled": (file(b"//secret", b"owned"), "invalid"),
    "dots": (file(b"../../secret", b"owned"), "invalid"),
    "dots inside": (directory(b"a") + file(b"a/../../../secret", b"owned"), "invalid"),
    "hard link out": (link(b"x", b"../../secret") + file(b"x", b"owned"), "invalid"),
    "hard link out, absolute": (link(b"x", b"/secret"), "invalid"),
    "hard link to a directory": (directory(b"d") + link(b"x", b"d"), "invalid"),
    "whiteout of dots": (file(b".wh.."), "invalid"),
    "whiteout of more dots": (file(b"a/.wh..."), "invalid"),
    "whiteout by dots": (file(b"../.wh.secret"), "invalid"),
    "bare whiteout": (file(b".wh."), "invalid"),
    "whiteout out by a link's name": (file(b"../../etc/.wh.passwd"), "invalid"),
    "opaque above": (file(b"../.wh..wh..opq"), "invalid"),
    "no such device": (header(b"dev", b"4", device=(8**6, 0)), "invalid"),
    "huge pax": (huge(b"x"), "exhausted"),
    "huge global pax": (huge(b"g"), "exhausted"),
    "huge name": (huge(b"L"), "exhausted"),
    "negative size": (header(b"f", size=b"\xff" * 12), "invalid"),
    "negative size in pax": (pax({b"size": b"-1"}) + file(b"f"), "invalid"),
    "sparse beyond its end": (pax({b"GNU.sparse.map": b"9,1", b"GNU.sparse.size": b"1"}) + file(b"f", b"x"), "invalid"),
    "owner of all": (pax({b"uid": b"4294967295"}) + file(b"f"), "invalid"),
    "links in a circle": (symlink(b"a", b"b") + symlink(b"b", b"a") + file(b"a/x"), "invalid"),
    "a name too long": (pax({b"path": b"n" * 256}) + file(b"f"), "invalid"),
    "a path too long": (pax({b"path": b"d/" * 3000 + b"f"}) + file(b"f"), "exhausted"),
    "too deep": (pax({b"path": b"d/" * 300 + b"f"}) + file(b"f"), "exhausted"),
    "truncated": (file(b"f", b"data" * 1000)[:1500], "invalid"),
    "garbage": (b"\x7fELF" * 1000, "invalid"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(place: Place, name: str) -> None:
    archive, code = ATTACKS[name]
    before = snapshot(place.top, ignore="layers")
    with pytest.raises(Error) as caught:
        place.apply(archive + END, "gzip")
    assert caught.value.code == code, caught.value
    assert str(Digest.of(archive + END)) in caught.value.subject
    assert snapshot(place.top, ignore="layers") == before
    assert len(os.listdir(place.top / "layers")) == 2


@pytest.mark.parametrize("target", [b"../../..", b"/", b"..", b"/etc", b"../../../etc", b"/proc/self/root"])
def test_symlinks_stay_inside(place: Place, target: bytes) -> None:
    """A symlink on the way leads within the layer, as it will for the container."""
    before = snapshot(place.top, ignore="layers")
    archive = (
        symlink(b"out", target) + file(b"out/secret", b"owned") + file(b"out/.wh.gone") + link(b"out/hard", b"out/secret") + END
    )
    place.apply(archive)
    assert snapshot(place.top, ignore="layers") == before
    [layer] = place.layers
    assert [path.read_text() for path in layer.rglob("secret")] == ["owned"]
    assert not [path for path in layer.rglob("*") if path.is_symlink() and path.name != "out"]


def test_a_symlink_in_place_of_a_file(place: Place) -> None:
    """What writes, owns or removes a name never follows it."""
    victim = str(place.top / "secret").encode()
    before = snapshot(place.top, ignore="layers")
    archive = (
        symlink(b"f", victim) + file(b"f", b"owned", mode=0o777, uid=5)
        + symlink(b"d", victim[:90]) + directory(b"d", 0o777)
        + symlink(b"g", victim) + link(b"h", b"g") + header(b"h", b"6", mode=0o4777, uid=5)
        + END
    )  # fmt: skip
    place.apply(archive)
    assert snapshot(place.top, ignore="layers") == before
    assert (place.layers[0] / "f").read_bytes() == b"owned"


@pytest.mark.parametrize("sandboxed", [True, False])
def test_a_symlink_exchanged_while_unpacking(place: Place, sandboxed: bool) -> None:
    """Somebody swaps a directory for a symlink to the host again and again. The applier alone has to hold, too."""
    outside = place.top / "outside"
    outside.mkdir()
    (outside / "keep").write_text("untouched")
    before = snapshot(outside)
    libc = ctypes.CDLL(None)
    # More directories than are kept open, so that `a` is opened again and again.
    names = [b"a/%d" % n if n % 2 else b"b%d/x" % n for n in range(3000)]
    archive = directory(b"a") + b"".join(directory(os.path.dirname(name)) + file(name, b"owned") for name in names)
    archive += b"".join(file(b"a/.wh.keep") + directory(b"a/sub%d" % n, 0o777) + file(b"a/sub%d/x" % n) for n in range(300)) + END
    for _ in range(4):
        job = place.job(archive)
        swap = job.target / "swap"
        swap.symlink_to(outside)
        done = threading.Event()

        def exchange(one: bytes = bytes(job.target / "a"), other: bytes = bytes(swap), done: threading.Event = done) -> None:
            while not done.is_set():
                libc.renameat2(-100, one, -100, other, 2)

        racer = threading.Thread(target=exchange)
        racer.start()
        try:
            if sandboxed:
                place.workers.apply(job).result(timeout=60)
            else:
                apply(archive, job.target, squash=False)
        except Error as err:
            assert sandboxed
            assert err.code in ("kernel", "invalid")
        except Exception as err:  # noqa: BLE001  (whatever the swapping leads to)
            assert not sandboxed, err
        finally:
            done.set()
            racer.join()
        assert snapshot(outside) == before


def test_bombs(place: Place) -> None:
    zeros = file(b"f", bytes(8 << 20)) + END
    for compression in ("gzip", "zstd"):
        with pytest.raises(Error, match=r"times as many \(ratio\)") as caught:
            place.apply(zeros, compression, limits=Limits(ratio_from=1 << 20))
        assert caught.value.code == "exhausted"
    with pytest.raises(Error, match=r"more than the limit of 1000 \(entries\)") as caught:
        place.apply(b"".join(header(b"%d" % n) for n in range(1001)) + END, limits=Limits(entries=1000))
    assert "layer sha256:" in caught.value.subject
    with pytest.raises(Error, match=r"limit of 1000000 \(size\)"):
        place.apply(
            pax({b"GNU.sparse.map": b"", b"GNU.sparse.size": b"99999999"}) + file(b"f") + END, limits=Limits(size=1_000_000)
        )


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_broken_streams(place: Place, compression: str) -> None:
    archive = file(b"f", os.urandom(100_000)) + END
    for damage in (lambda data: data[:-1], lambda data: data[:5000], lambda data: data + b"garbage", lambda _: b""):
        job = place.job(archive, compression, name="layer of the test")
        job.source.write_bytes(damage(job.source.read_bytes()))
        with pytest.raises(Error, match=f"layer of the test: .*{compression} stream"):
            place.workers.apply(job).result(timeout=60)


def test_digests(place: Place) -> None:
    archive = file(b"f") + END
    job = place.job(archive, "gzip")
    digest = Digest.of(job.source.read_bytes())
    assert place.apply(archive, "gzip", digest=digest).digest == digest
    wrong = Digest.of(b"")
    with pytest.raises(Error, match="inflated bytes have another digest") as caught:
        place.apply(archive, "gzip", diff_id=wrong)
    assert caught.value.code == "corrupt"
    with pytest.raises(Error, match="compressed bytes have another digest"):
        place.apply(archive, "gzip", digest=wrong)
    sha512 = Digest.of(archive, "sha512")
    assert place.apply(archive, diff_id=sha512).diff_id == sha512


def test_devices_and_capabilities(place: Place) -> None:
    archive = (
        header(b"null", b"3", mode=0o666, device=(1, 3), uid=7)
        + header(b"disk", b"4", mode=0o640, device=(8, 1))
        + pax({b"SCHILY.xattr.security.capability": CAPABILITY, b"SCHILY.xattr.trusted.overlay.opaque": b"y"})
        + file(b"ping", b"x", mode=0o755, uid=5)
        + pax({b"SCHILY.xattr.user.overlay.opaque": b"y", b"SCHILY.xattr.user.fine": b"y"})
        + directory(b"d")
        + END
    )
    place.apply(archive)
    found = snapshot(place.layers[0])
    assert (found["null"].mode, found["null"].owner, found["null"].content) == ("crw-rw-rw-", (7, 0), str(os.makedev(1, 3)))
    assert (found["disk"].mode, found["disk"].content) == ("brw-r-----", str(os.makedev(8, 1)))
    assert found["ping"].xattrs == (("security.capability", CAPABILITY),)
    assert found["d"].xattrs == (("user.fine", b"y"),)
    assert place.apply(archive, devices=False).skipped == 2
    assert set(snapshot(place.layers[1])) == {".", "ping", "d"}


@pytest.mark.parametrize("kind", ["x", "g"])
@pytest.mark.parametrize("form", ["SCHILY.xattr.", "LIBARCHIVE.xattr.", "LIBARCHIVE.xattr., escaped"])
@pytest.mark.parametrize("xattrs", ["trusted", "user"])
def test_attributes_that_are_not_a_layers_to_set(place: Place, kind: str, form: str, xattrs: str) -> None:
    """overlayfs' own and the administrator's: in no form of writing them, on no kind of file, and not by a copy-up."""
    names = [f"{one}.overlay.{name}" for one in ("trusted", "user") for name in ("opaque", "redirect", "metacopy", "origin")]
    names += ["trusted.a", "security.ima", "security.selinux"]
    values: dict[bytes, bytes] = {}
    for name in [*names, "user.fine"]:
        if form.startswith("SCHILY"):
            values[f"{form}{name}".encode()] = b"y"
        else:
            text = "".join(f"%{ord(one):02x}" for one in name) if "escaped" in form else name
            values[f"LIBARCHIVE.xattr.{text}".encode()] = base64.b64encode(b"y").rstrip(b"=")
    extended = pax(values, kind.encode())
    again = extended if kind == "x" else b""
    place.apply(
        extended + directory(b".") + again + directory(b"d") + again + file(b"d/f", b"1") + again + symlink(b"s", b"d/f")
        + again + header(b"p", b"6", mode=0o600) + END,
        xattrs=xattrs,
    )  # fmt: skip
    found = {name: [one for one, _ in node.xattrs] for name, node in snapshot(place.layers[0]).items()}
    assert found == {".": ["user.fine"], "d": ["user.fine"], "d/f": ["user.fine"], "s": [], "p": []}
    # What root put there himself, into a layer below, is not taken along by a hard link to it.
    for name in ("trusted.overlay.metacopy", "trusted.a"):
        os.setxattr(place.layers[0] / "d/f", name, b"y")
    applied = place.apply(link(b"d/linked", b"d/f") + END, xattrs=xattrs)
    settle(applied.needs, place.layers[1], [place.layers[0]], xattrs=xattrs)
    copied = snapshot(place.layers[1])["d/linked"]
    assert (copied.content, [one for one, _ in copied.xattrs]) == (snapshot(place.layers[0])["d/f"].content, ["user.fine"])


def test_mapped_owners(place: Place) -> None:
    archive = file(b"f", uid=0, gid=3) + END
    place.apply(archive, uids=((0, 100_000, 65_536),), gids=((0, 200_000, 65_536),))
    assert snapshot(place.layers[0])["f"].owner == (100_000, 200_003)
    with pytest.raises(Error, match="user 70000 has no mapping"):
        place.apply(file(b"f", uid=70_000) + END, uids=((0, 100_000, 65_536),))


def test_directories_that_would_be_inherited(place: Place) -> None:
    """A setgid directory and a default access list do not reach into what the archive has in them."""
    default = bytes.fromhex("020000000100070ffffffff"[:0]) or bytes.fromhex(
        "0200000001000700ffffffff04000500ffffffff20000500ffffffff"
    )
    archive = (
        pax({b"SCHILY.xattr.system.posix_acl_default": default}) + directory(b"d", 0o2777, gid=50)
        + file(b"d/f", mode=0o666) + directory(b"d/e", 0o777)
        + END
    )  # fmt: skip
    place.apply(archive)
    found = snapshot(place.layers[0])
    assert (found["d/f"].mode, found["d/f"].owner) == ("-rw-rw-rw-", (0, 0))
    assert (found["d/e"].mode, found["d/e"].owner, found["d/e"].xattrs) == ("drwxrwxrwx", (0, 0), ())
    assert found["d"].mode == "drwxrwsrwx"
    assert found["d"].xattrs == (("system.posix_acl_default", default),)
