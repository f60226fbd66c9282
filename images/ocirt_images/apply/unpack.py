"""One layer, from compressed bytes to a directory, in this process: three threads, each with work that leaves the others alone.

    inflate ──full buffers──> hash ──> apply ──empty buffers──> inflate

Buffers go round, so memory is bounded, nothing is copied, and the slowest of the three decides the pace. With one processor all
is done in turn, without threads.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ocirt_images.apply.applier import Applier, NoDevices
from ocirt_images.apply.inflate import COMPRESSIONS, Inflater, inflater
from ocirt_images.apply.job import Applied
from ocirt_images.apply.limits import LimitExceeded, Limits
from ocirt_images.apply.names import Malformed, shown
from ocirt_images.apply.needs import Json
from ocirt_images.apply.owners import Owners
from ocirt_images.apply.source import Source
from ocirt_images.apply.tar import Reader
from ocirt_images.digest import Digest
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from hashlib import _Hash

BUFFER = 1 << 20
BUFFERS = 6


@dataclass(frozen=True, slots=True)
class Files:
    """The descriptors of a job: the compressed bytes, the empty directory, and a Growing's (or -1 with the source's size)."""

    source: int
    target: int
    size: int
    counter: int = -1


def unpack(order: Json, files: Files) -> Applied:
    """Apply a layer. `order` is a Job's JSON. Raises Error that names the layer.

    The process's umask becomes 0. After an error the directory holds anything.
    """
    os.umask(0)
    subject: str = order["name"]
    compression = order["compression"]
    if compression not in COMPRESSIONS:
        raise Error("unsupported", f"compression {compression!r}", subject=subject, hint="gzip, zstd or none")
    limits = Limits(**order["limits"])
    owners = Owners(order["uids"], order["gids"], squash=order["squash"])
    digest, diff_id = (Digest(order[name]) if order[name] else None for name in ("digest", "diff_id"))
    source = Source(files.source, files.size, files.counter, digest.hasher() if digest else None)
    hasher = (diff_id or Digest.of(b"")).hasher()
    applier: Applier | None = None
    try:
        applier = Applier(files.target, limits=limits, owners=owners, devices=order["devices"], xattrs=order["xattrs"])
        reader = Reader(limits)
        length = 0
        for piece in pieces(inflater(source, compression, limits), hasher):
            length += len(piece)
            applier.take(reader.feed(piece))
        reader.close()
        needs = applier.finish()
    except Exception as err:
        raise _for_a_person(err, subject, applier.name if applier else b"") from err
    finally:
        if applier is not None:
            applier.close()
    found = Digest.from_hash(hasher)
    _compare(digest, source.hasher, subject, "the compressed bytes have")
    _compare(diff_id, hasher, subject, "the inflated bytes have")
    return Applied(
        diff_id=found,
        digest=digest,
        size=applier.size,
        inodes=applier.inodes,
        length=length,
        skipped=applier.skipped,
        needs=needs,
    )


def pieces(stream: Inflater, hasher: _Hash) -> Iterator[memoryview]:
    """The bytes of a stream, hashed. A piece is valid until the next is asked for. Raises what reading raises."""
    if len(os.sched_getaffinity(0)) == 1:
        return _in_turn(stream, hasher)
    return _beside(stream, hasher)


def _in_turn(stream: Inflater, hasher: _Hash) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BUFFER))
    while size := stream.readinto(buffer):
        hasher.update(buffer[:size])
        yield buffer[:size]


_Full = tuple[memoryview, int] | BaseException | None


def _beside(stream: Inflater, hasher: _Hash) -> Iterator[memoryview]:
    """The three stages as threads; the caller's is the last. They end with it: a stage that waits is woken by a None."""
    empty: SimpleQueue[memoryview | None] = SimpleQueue()
    inflated: SimpleQueue[_Full] = SimpleQueue()
    hashed: SimpleQueue[_Full] = SimpleQueue()

    def inflate() -> None:
        try:
            while (buffer := empty.get()) is not None and (size := stream.readinto(buffer)):
                inflated.put((buffer, size))
            inflated.put(None)
        except BaseException as err:  # noqa: BLE001  (it is raised again where the caller sees it)
            inflated.put(err)

    def digest() -> None:
        while isinstance(full := inflated.get(), tuple):
            hasher.update(full[0][: full[1]])
            hashed.put(full)
        hashed.put(full)

    for _ in range(BUFFERS):
        empty.put(memoryview(bytearray(BUFFER)))
    # Daemons: one that waits for a download which never ends must not keep the process.
    threads = [threading.Thread(target=stage, daemon=True) for stage in (inflate, digest)]
    for thread in threads:
        thread.start()
    try:
        while isinstance(full := hashed.get(), tuple):
            yield full[0][: full[1]]
            empty.put(full[0])
        if full is not None:
            raise full
    finally:
        empty.put(None)


def _compare(wanted: Digest | None, hasher: _Hash | None, subject: str, what: str) -> None:
    if wanted is not None and hasher is not None and Digest.from_hash(hasher) != wanted:
        raise Error("corrupt", f"{what} another digest than {wanted}", subject=subject, cause=Digest.from_hash(hasher))


def _for_a_person(err: Exception, subject: str, name: bytes) -> Error:
    """What went wrong with a layer, by whom it was caused."""
    if isinstance(err, Error):
        return err
    if isinstance(err, Malformed):
        return Error("invalid", str(err), subject=subject)
    if isinstance(err, LimitExceeded):
        return Error("exhausted", str(err), subject=subject, hint="if the image can be trusted, raise this limit")
    if isinstance(err, NoDevices):
        hint = "only root outside of user namespaces may make it"
        return Error("unsupported", str(err), subject=subject, hint=hint)
    where = shown(name) or "the archive"
    if not isinstance(err, OSError):
        return Error("internal", where, subject=subject, cause=f"{type(err).__name__}: {err}")
    cause = f"{err.strerror or err}"
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
        return Error("exhausted", where, subject=subject, cause=cause)
    if err.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.EFBIG):
        return Error("invalid", where, subject=subject, cause=cause)
    hint = "the owners of its files need ids that are mapped here" if err.errno == errno.EPERM else ""
    return Error("kernel", where, subject=subject, cause=cause, hint=hint)
