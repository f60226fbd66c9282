"""Content: every blob's bytes against its name, rows against files, references against manifests."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

from ocirt_images.digest import ALGORITHMS, Digest
from ocirt_images.errors import Error
from ocirt_images.store.checks.findings import Check
from ocirt_images.store.content import insert
from ocirt_images.store.links import links_of_file
from ocirt_images.store.references import drop_content
from ocirt_images.store.trees import remove_tree

_PIECE = 1 << 20


def check(check: Check) -> None:
    """Files, rows and references of content."""
    files = _files(check)
    sizes = _rows(check)
    total = sum(_length(path) for path in files.values())
    done = 0
    for digest in sorted(sizes.keys() | files.keys()):
        path = check.store.layout.blob(digest)
        length, found = _hash(path, digest)
        done += max(length, 0)
        check.progress(done, max(total, done))
        if digest in sizes:
            _indexed(check, digest, sizes[digest], length, found)
        else:
            _lone(check, digest, found)
    _links(check)


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0  # removed meanwhile


def _files(check: Check) -> dict[Digest, Path]:
    """The files by digest. What has no digest for a name goes."""
    found = {}
    layout = check.store.layout
    for name in sorted(os.listdir(layout.blobs)):
        if name not in ALGORITHMS:
            _extra(check, layout.blobs / name)
            continue
        for encoded in sorted(os.listdir(layout.blobs / name)):
            try:
                found[Digest(f"{name}:{encoded}")] = layout.blobs / name / encoded
            except Error:
                _extra(check, layout.blobs / name / encoded)
    return found


def _extra(check: Check, path: Path) -> None:
    check.found("blob-extra", path, "no content has this name", partial(remove_tree, path, check.store.changes))


def _rows(check: Check) -> dict[Digest, object]:
    """The sizes by digest, as the rows have them. Rows without a digest go."""
    found: dict[Digest, object] = {}
    for text, size in check.rows("SELECT digest, size FROM content"):
        try:
            found[Digest(text if isinstance(text, str) else repr(text))] = size
        except Error as err:
            repair = partial(check.execute, "DELETE FROM content WHERE digest IS ?", text)
            check.found("row-invalid", f"content {text!r:.80}", err.message, repair)
    return found


def _hash(path: Path, digest: Digest) -> tuple[int, Digest | None]:
    """A file's length and digest; -1 and None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1, None
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return -1, None
        hasher, length = digest.hasher(), 0
        while piece := file.read(_PIECE):
            hasher.update(piece)
            length += len(piece)
    return length, Digest.from_hash(hasher)


def _indexed(check: Check, digest: Digest, size: object, length: int, found: Digest | None) -> None:
    """A row, and what is in its file."""
    if found == digest and size == length:
        return
    if not check.repair:
        # Others may have removed it since, or fetched it anew.
        with check.owned(check.store.layout.content_lock(digest)) as owned:
            row = check.rows("SELECT size FROM content WHERE digest = ?", digest)
            if not owned or not row:
                return
            ((size,),) = row
            length, found = _hash(check.store.layout.blob(digest), digest)
    if found != digest:
        check.gone.add(digest)
        kind, text = _damage(size, length)
        check.found(kind, digest, text, partial(_drop, check, digest))
    elif size != length:
        repair = partial(check.execute, "UPDATE content SET size = ? WHERE digest = ?", length, digest)
        check.found("size-wrong", digest, f"{length} bytes, and its row says {size!r:.40}", repair)


def _damage(size: object, length: int) -> tuple[str, str]:
    if length < 0:
        return "blob-missing", "there is no file"
    if isinstance(size, int) and length < size:
        return "blob-truncated", f"its file has {length} of {size} bytes"
    return "blob-damaged", f"its file's {length} bytes have another digest"


def _drop(check: Check, digest: Digest) -> None:
    with check.repairing() as connection:
        drop_content(connection, digest)
        # Without foreign keys nothing goes with it by itself.
        connection.execute("DELETE FROM links WHERE holder = ?", (digest,))
    remove_tree(check.store.layout.blob(digest), check.store.changes)
    check.store.references.finish_contents([digest])


def _lone(check: Check, digest: Digest, found: Digest | None) -> None:
    """A file without a row."""
    path = check.store.layout.blob(digest)

    def lone() -> bool:
        return os.path.lexists(path) and not check.rows("SELECT 1 FROM content WHERE digest = ?", digest)

    if not check.confirmed(check.store.layout.content_lock(digest), lone):
        return
    if found != digest:
        _extra(check, path)
        return
    check.unindexed.add(digest)
    check.found("blob-unindexed", digest, "its file is there, and no row", partial(_index, check, digest, path))


def _index(check: Check, digest: Digest, path: Path) -> None:
    size = path.stat().st_size
    targets = links_of_file(path, size)
    with check.repairing() as connection:
        insert(connection, digest, size, targets)


def _links(check: Check) -> None:
    """What each manifest refers to."""
    rows, links = check.tables("SELECT digest, size FROM content", "SELECT holder, target FROM links")
    said: dict[str, set[object]] = {}
    for holder, target in links:
        said.setdefault(holder, set()).add(target)
    sizes = {digest: size for digest, size in rows if isinstance(digest, str) and isinstance(size, int)}
    for holder in sorted(said.keys() - sizes.keys() - check.unindexed, key=repr):
        drop = partial(check.execute, "DELETE FROM links WHERE holder IS ?", holder)
        check.found("row-dangling", f"links of {holder!r:.90}", "there is no such content", drop)
    for text, size in sizes.items():
        try:
            digest = Digest(text)
            wanted = links_of_file(check.store.layout.blob(digest), size) if digest not in check.gone else None
        except (Error, OSError):
            continue  # found above, or removed meanwhile
        if wanted is not None and wanted != said.get(text, set()):
            told = f"{len(said.get(text, ()))} references, and it names {len(wanted)}"
            check.found("links-wrong", digest, told, partial(_relink, check, digest, wanted))


def _relink(check: Check, digest: Digest, wanted: set[Digest]) -> None:
    with check.repairing() as connection:
        connection.execute("DELETE FROM links WHERE holder = ?", (digest,))
        connection.executemany("INSERT INTO links VALUES (?, ?)", [(digest, target) for target in sorted(wanted)])
