"""The tar reader: every format that writers of layers use, fed in pieces of every size, and what is no archive."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.apply.entry import CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry
from ocirt_images.apply.limits import LimitExceeded, Limits
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.tar import Reader
from tests.support.archives import END, base256, directory, file, header, link, octal, padded, pax, records, summed, symlink


def read(archive: bytes, cuts: tuple[int, ...] = (), limits: Limits = Limits()) -> list[tuple[Entry, bytes]]:  # noqa: B008
    """Entries with their data, of an archive that is fed in the pieces between the cuts."""
    reader = Reader(limits)
    found: list[tuple[Entry, bytes]] = []
    edges = [0, *cuts, len(archive)]
    for begin, end in zip(edges, edges[1:], strict=False):
        for item in reader.feed(archive[begin:end]):
            if isinstance(item, Entry):
                found.append((item, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + item)
    reader.close()
    for entry, data in found:
        assert len(data) == entry.stored
    return found


def one(archive: bytes) -> Entry:
    """The only entry of an archive."""
    [(entry, _)] = read(archive + END)
    return entry


def sparse_block(pairs: list[tuple[int, int]], *, more: bool, count: int = 21) -> bytes:
    """A block of GNU's old sparse format."""
    return b"".join(octal(a, 12) + octal(b, 12) for a, b in pairs).ljust(count * 24, b"\0") + bytes([more])


def gnu_sparse(name: bytes, pairs: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """A sparse file in GNU's old format: four pieces in the header, 21 in each block after it."""
    block = header(name, b"S", size=len(data), magic=b"ustar  \0")
    first, rest = pairs[:4], pairs[4:]
    out = summed(block[:386] + sparse_block(first, more=bool(rest), count=4) + octal(size, 12) + bytes(17))
    while rest:
        out += sparse_block(rest[:21], more=len(rest) > 21).ljust(512, b"\0")
        rest = rest[21:]
    return out + padded(data)


PIECES = [(at * 1000, 10) for at in range(30)]
DATA = bytes(range(256)) + bytes(44)
SPARSE_1 = padded(b"30\n" + b"".join(b"%d\n%d\n" % pair for pair in PIECES))
LONG = b"a/" * 100 + b"file"

SAMPLE = b"".join(
    (
        pax({b"comment": b"to all", b"mtime": b"7"}, b"g"),
        directory(b"./"),
        directory(b"bin/", 0o1777, uid=7, gid=8),
        file(b"bin/sh", b"x" * 1000, mode=0o4755, mtime=1234567890),
        file(b"empty"),
        symlink(b"bin/bash", b"sh"),
        link(b"bin/dash", b"bin/sh"),
        header(b"dev/null", b"3", device=(1, 3)),
        header(b"fifo", b"6"),
        header(b"././@LongLink", b"L", size=len(LONG) + 1, magic=b"ustar  \0") + padded(LONG + b"\0") + file(b"cut", b"long"),
        header(b"././@LongLink", b"K", size=len(LONG) + 1) + padded(LONG + b"\0") + symlink(b"to", b"cut"),
        pax({b"path": b"p\xff", b"uid": b"4000000000", b"SCHILY.xattr.user.x": b"\0v\n", b"size": b"4"}),
        file(b"ignored", b"data"),
        gnu_sparse(b"sparse", PIECES, 40000, DATA),
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.name": b"sparse1", b"GNU.sparse.realsize": b"40000"}),
        file(b"GNUSparseFile.0/sparse1", SPARSE_1 + DATA),
        END,
        b"after the end nothing counts",
    )
)  # fmt: skip
EXPECTED = read(SAMPLE)


def test_the_sample() -> None:
    names = [entry.name for entry, _ in EXPECTED]
    assert names == [
        b"./", b"bin/", b"bin/sh", b"empty", b"bin/bash", b"bin/dash", b"dev/null", b"fifo",
        LONG, b"to", b"p\xff", b"sparse", b"sparse1",
    ]  # fmt: skip
    kinds = [entry.kind for entry, _ in EXPECTED]
    assert kinds == [DIRECTORY] * 2 + [FILE] * 2 + [SYMLINK, LINK, CHARACTER, FIFO, FILE, SYMLINK] + [FILE] * 3
    by_name = {entry.name: (entry, data) for entry, data in EXPECTED}
    sh, data = by_name[b"bin/sh"]
    assert (sh.mode, sh.mtime, sh.size, data) == (0o4755, 7 * 10**9, 1000, b"x" * 1000)
    assert by_name[b"to"][0].link == LONG
    assert by_name[b"dev/null"][0].device == (1, 3)
    pax_file = by_name[b"p\xff"][0]
    assert (pax_file.uid, pax_file.xattrs) == (4000000000, {b"user.x": b"\0v\n"})
    for name in (b"sparse", b"sparse1"):
        entry, data = by_name[name]
        assert (entry.size, entry.stored, entry.sparse, data) == (40000, 300, PIECES, DATA)


def test_every_split() -> None:
    # Around the edges of blocks every one; between them, where nothing differs, some. The next test has them all.
    for cut in (cut for cut in range(1, len(SAMPLE)) if (cut + 8) % 512 < 16 or cut % 11 == 0):
        assert read(SAMPLE, (cut,)) == EXPECTED, cut


def test_byte_by_byte() -> None:
    assert read(SAMPLE, tuple(range(1, len(SAMPLE)))) == EXPECTED


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=30))
def test_pieces(cuts: list[int]) -> None:
    assert read(SAMPLE, tuple(sorted(cuts))) == EXPECTED


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=150).filter(
    lambda name: not name.endswith("/")
)


@given(
    st.lists(
        st.tuples(
            NAMES,
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
            st.integers(0, 2**32 - 2),
            st.one_of(st.integers(0, 2**33 - 1), st.integers(-(10**12), 10**12).map(lambda number: number / 1000)),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(1, 3000),
)
def test_what_tarfile_writes(files: list[tuple[str, bytes, int, int, float]], kind: int, step: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, data, mode, uid, mtime in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(data), mode, uid, mtime
            tar.addfile(info, io.BytesIO(data))
    archive = out.getvalue()
    found = read(archive, tuple(range(step, len(archive), step)))
    assert len(found) == len(files)
    for (entry, data), (name, wanted, mode, uid, mtime) in zip(found, files, strict=True):
        assert (entry.name, data, entry.mode, entry.uid) == (name.encode(), wanted, mode, uid)
        # GNU's format cuts to seconds.
        assert abs(entry.mtime / 1e9 - mtime) < (1e-3 if kind == tarfile.PAX_FORMAT else 1)


@given(st.binary(max_size=2000), st.integers(0, 511))
def test_garbage_is_refused_or_read(data: bytes, at: int) -> None:
    """Whatever the bytes are, nothing but Malformed and LimitExceeded comes out."""
    block = bytearray(header(b"name", size=3))
    block[at : at + len(data)] = data[: 512 - at]
    for archive in (data, summed(bytes(block[:512])) + padded(data), pax({b"size": data[:30] or b"1"}) + padded(data)):
        try:
            read(archive)
        except (Malformed, LimitExceeded):
            pass


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"uid": base256(3_000_000_000, 8)}, "uid", 3_000_000_000),
        ({"mtime": base256(-5, 12)}, "mtime", -5 * 10**9),
        ({"mtime": base256(2**90, 12)}, "mtime", (1 << 53) * 10**9),
        ({"mode": b"100644 "}, "mode", 0o644),
        ({"mode": b"   644\0 "}, "mode", 0o644),
        ({"mode": b""}, "mode", 0),
        ({"prefix": b"a/b"}, "name", b"a/b/n"),
        ({"prefix": b"a/b", "magic": b"ustar  \0"}, "name", b"n"),
        ({"prefix": b"a".ljust(131, b"\0") + b"00000000001\0", "rest": b"00000000001\0"[:8] + b"tar\0"}, "name", b"a/n"),
        ({"magic": bytes(8)}, "name", b"n"),
        ({"kind": b"7"}, "kind", FILE),
        ({"kind": b"\0"}, "kind", FILE),
        ({"kind": b"5", "size": 4096}, "stored", 0),
        ({"link": b"\xff" * 3, "kind": b"2", "signed": True}, "link", b"\xff" * 3),
        ({"link": b"l", "kind": b"1", "size": 4096}, "stored", 0),
    ],
)
def test_header(fields: dict[str, object], attribute: str, value: object) -> None:
    assert getattr(one(header(b"n", **fields)), attribute) == value  # type: ignore[arg-type]


def test_a_name_that_fills_its_field() -> None:
    assert one(header(b"n" * 100)).name == b"n" * 100


def test_an_old_directory() -> None:
    assert one(header(b"d/", b"\0", magic=bytes(8))).kind == DIRECTORY


def test_a_dump_directory_and_a_label() -> None:
    archive = header(b"d/", b"D", size=4) + padded(b"Yx\0\0") + header(b"label", b"V") + file(b"f", b"1") + END
    assert [(entry.kind, data) for entry, data in read(archive)] == [(DIRECTORY, b""), (FILE, b"1")]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"1.5", 1_500_000_000),
        (b"-1.25", -1_250_000_000),
        (b"3", 3 * 10**9),
        (b"1.1234567899", 1_123_456_789),
        (b".5", 500_000_000),
    ],
)
def test_time(value: bytes, wanted: int) -> None:
    assert one(pax({b"mtime": value}) + file(b"f", mtime=9)).mtime == wanted


def test_libarchive_attributes() -> None:
    entry = one(
        pax({b"LIBARCHIVE.xattr.user.a%20b": b"dmFs", b"LIBARCHIVE.xattr.user.c": b"eA", b"SCHILY.xattr.user.c": b"y"})
        + file(b"f")
    )
    assert entry.xattrs == {b"user.a b": b"val", b"user.c": b"y"}


def test_local_before_global_and_taken_back() -> None:
    archive = pax({b"uid": b"1", b"gid": b"2"}, b"g") + pax({b"uid": b"3", b"gid": b""}) + file(b"f", gid=9) + file(b"g") + END
    assert [(entry.uid, entry.gid) for entry, _ in read(archive)] == [(3, 9), (1, 2)]


@pytest.mark.parametrize(
    "values",
    [
        [(b"GNU.sparse.size", b"100"), (b"GNU.sparse.numblocks", b"2")]
        + [
            (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.numbytes", b"3"),
            (b"GNU.sparse.offset", b"9"),
            (b"GNU.sparse.numbytes", b"1"),
        ],
        [
            (b"GNU.sparse.size", b"100"),
            (b"GNU.sparse.map", b"0,3,9,1"),
            (b"GNU.sparse.numblocks", b"2"),
            (b"GNU.sparse.name", b"f"),
        ],
    ],
)
def test_sparse_by_records(values: list[tuple[bytes, bytes]]) -> None:
    entry = one(pax(values) + file(b"f", b"abcd"))
    assert (entry.name, entry.size, entry.stored, entry.sparse) == (b"f", 100, 4, [(0, 3), (9, 1)])


def test_an_end_without_blocks_of_zeros() -> None:
    assert len(read(file(b"f", b"1"))) == 1
    assert read(b"") == []


V1 = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"100"}


@pytest.mark.parametrize(
    ("archive", "word"),
    [
        (SAMPLE[:600], "truncated"),
        (header(b"f", size=1), "truncated"),
        (file(b"f", b"1")[:-1], "truncated"),
        (pax({b"path": b"x"}), "truncated"),
        (header(b"f")[:511], "truncated"),
        (b"\1" + header(b"f")[1:], "checksum"),
        (b"x" * 512, "a number should be"),
        (header(b"f", mode=b"99"), "a number should be"),
        (header(b"f", size=b"-1"), "a number should be"),
        (header(b"f", size=b"1_0"), "a number should be"),
        (header(b"f", size=base256(-1, 12)), "a size of -1"),
        (header(b"f", size=base256(1 << 64, 12)), "a size of"),
        (header(b"f", uid=base256(-1, 8)), "no such owner"),
        (pax({b"uid": b"4294967295"}) + file(b"f"), "no such owner"),
        (header(b"f", b"M"), "type b'M'"),
        (header(b"f", b"2"), "without a target"),
        (bytes(512) + file(b"f"), "after a block of zeros"),
        (pax({b"size": b"-4"}) + file(b"f"), "no number"),
        (pax({b"size": str(1 << 63).encode()}) + file(b"f"), "a size of"),
        (pax({b"mtime": b"nan"}) + file(b"f"), "no time"),
        (pax({b"path": b"a\0b"}) + file(b"f"), "zero byte"),
        (pax({b"LIBARCHIVE.xattr.user.x": b"!"}) + file(b"f"), "base64"),
        (header(b"x", b"x", size=9) + padded(b"12 a=b\n12"), "broken record"),
        (header(b"x", b"x", size=7) + padded(b"7 a=bcd"), "broken record"),
        (header(b"x", b"x", size=6) + padded(b"6 abc\n"), "broken record"),
        (header(b"x", b"x", size=5) + padded(b"-5 a\n"), "broken record"),
        (header(b"x", b"x", size=4) + padded(b"2 a\n"), "broken record"),
        (pax([(b"GNU.sparse.numbytes", b"1")]) + file(b"f"), "alternate"),
        (pax({b"GNU.sparse.map": b"0,1,2"}) + file(b"f"), "odd number"),
        (pax({b"GNU.sparse.map": b"5,2,6,2", b"GNU.sparse.size": b"99"}) + file(b"f", b"abcd"), "overlap"),
        (pax({b"GNU.sparse.map": b"5,4", b"GNU.sparse.size": b"8"}) + file(b"f", b"abcd"), "beyond its end"),
        (pax({b"GNU.sparse.map": b"5,3", b"GNU.sparse.size": b"8"}) + file(b"f", b"abcd"), "3 bytes, its data 4"),
        (pax(V1) + file(b"f", padded(b"x\n")), "no number"),
        (pax(V1) + file(b"f", padded(b"1" * 40)), "begin with a count"),
        (pax(V1) + file(b"f", padded(b"100\n")) + END, "longer than its data"),
        (pax({**V1, b"GNU.sparse.name": b"a\0"}) + file(b"f", padded(b"0\n")), "zero byte"),
    ],
)
def test_refused(archive: bytes, word: str) -> None:
    with pytest.raises(Malformed, match=word):
        read(archive)


@pytest.mark.parametrize(
    ("archive", "limits", "word"),
    [
        (header(b"x", b"x", size=1 << 30), Limits(), r"metadata"),
        (header(b"x", b"L", size=1 << 21), Limits(), r"metadata"),
        (b"".join(pax({b"k%d" % n: b"v" * 300}, b"g") for n in range(4)), Limits(metadata=1000), "global"),
        (header(b"f", size=1001), Limits(size=1000), r"the size of f: 1001 is more than the limit of 1000 \(size\)"),
        (pax({b"SCHILY.xattr.user.x": b"v" * 11}) + file(b"f"), Limits(xattr=10), "xattr"),
        (pax({b"SCHILY.xattr.user.%d" % n: b"v" * 10 for n in range(9)}) + file(b"f"), Limits(xattrs=100), "xattrs"),
        (pax({b"GNU.sparse.map": b"0,0," * 11 + b"0,0"}) + file(b"f"), Limits(segments=10), "segments"),
        (pax(V1) + file(b"f", padded(b"99999999\n")), Limits(), "segments"),
        (gnu_sparse(b"f", PIECES, 40000, DATA), Limits(segments=29), "segments"),
    ],
)
def test_limits(archive: bytes, limits: Limits, word: str) -> None:
    with pytest.raises(LimitExceeded, match=word):
        read(archive, limits=limits)


def test_slices_are_not_copies() -> None:
    archive = file(b"f", b"data" * 100)
    items = list(Reader().feed(archive))
    assert isinstance(items[1], memoryview)
    assert items[1].obj is archive


def test_records_know_their_length() -> None:
    assert records([(b"path", b"x" * 90)]).startswith(b"99 path=")
