"""The images of a containerd that is or was on this machine: from its socket, by `ctr`, or from its directory when it is down.

In the directory blobs lie as in an OCI layout, and the names of images in a bolt database: `v1/NAMESPACE/images/NAME/target`,
with the keys `digest`, `mediatype` and `size` (a signed varint) of a descriptor.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocirt_images.archive import bolt
from ocirt_images.archive.contents import Archive, Entry
from ocirt_images.archive.files import Directory
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
CONTENT = "io.containerd.content.v1.content"
KUBERNETES = "k8s.io"  # the namespace of the images that kubelet sees


def directory(root: Path, namespace: str) -> Archive:
    """The images in containerd's directory (`/var/lib/containerd`).

    Raises Error("in-use") while containerd runs, Error("not-found") for another directory or a namespace that is not there.
    """
    path = root / DATABASE
    if not path.is_file():
        raise Error(
            "not-found", f"there is no {DATABASE} in it", subject=str(root), hint="containerd's own is /var/lib/containerd"
        )
    try:
        database = bolt.read(path)
    except Error as err:
        if err.code != "in-use":
            raise
        hint = "stop it, or name its socket instead, as in /run/containerd/containerd.sock"
        raise Error("in-use", "containerd is running", subject=str(root), hint=hint) from None
    found = database.bucket("v1", namespace)
    if found is None:
        version = database.bucket("v1")
        there = ", ".join(version.buckets() if version is not None else []) or "none"
        raise Error("not-found", f"no namespace {namespace}", subject=str(root), hint=f"there are: {there}")
    images = found.bucket("images")
    entries = []
    for key, value in images.items() if images is not None else ():
        target = value.bucket("target") if isinstance(value, bolt.Bucket) else None
        name = _kept_name(key.decode(errors="replace"))
        if target is not None and name:
            entries.append(Entry((_descriptor(target, f"{path}: {name}"),), (name,)))
    return Archive(Directory(root / CONTENT), entries)


def _descriptor(target: bolt.Bucket, subject: str) -> Descriptor:
    digest = Digest(target.value("digest").decode(errors="replace"), f"{subject}/digest")
    return Descriptor(
        media_type=target.value("mediatype").decode(errors="replace"), digest=digest, size=_varint(target.value("size"))
    )


def _varint(data: bytes) -> int:
    """A number as Go's binary.PutVarint writes it."""
    found = 0
    for place, byte in enumerate(data):
        found |= (byte & 0x7F) << 7 * place
    return found >> 1 ^ -(found & 1)


def _kept_name(name: str) -> str:
    """A name to keep an image under, or "" for what is none: the CRI plugin names each image by its ID as well."""
    return "" if name.startswith("sha256:") else Reference.full(name)


def names(socket: Path, namespace: str) -> list[str]:
    """The names of all images of a containerd that runs, as `ctr` lists them.

    Raises Error("unsupported") without `ctr`, Error("unavailable") with its words if it fails, Error("not-found") for none.
    """
    try:
        done = subprocess.run(
            [*_ctr(socket, namespace), "list", "--quiet"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        hint = "stop containerd, and name its directory instead"
        raise Error("unsupported", "containerd's program `ctr` is not installed", hint=hint) from None
    if done.returncode:
        raise _failed(socket, done.stderr)
    found = [name for name in done.stdout.split() if _kept_name(name)]
    if not found:
        raise Error("not-found", f"no images in the namespace {namespace}", subject=str(socket), hint="see ctr namespaces list")
    return found


@contextmanager
def exported(socket: Path, namespace: str, name: str, *, everything: bool = False) -> Iterator[int]:
    """A descriptor from which an archive of one image comes, made by `ctr`. everything: with all of its platforms.

    Raises Error("unavailable") with its words if it fails, then or when the block is left.
    """
    with tempfile.TemporaryFile("w+") as words:
        flags = (*_whole(socket, namespace), *(("--all-platforms",) if everything else ()))
        command = [*_ctr(socket, namespace), "export", *flags, "-", name]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words) as ctr:
            assert ctr.stdout is not None
            failure: Error | None = None
            try:
                yield ctr.stdout.fileno()
            except Error as err:
                failure = err
            finally:
                ctr.stdout.close()  # it ends by SIGPIPE if it has more to say
        words.seek(0)
        if ctr.returncode > 0:  # then what came is no archive
            hint = "without --all-platforms what this machine runs is taken" if everything else ""
            raise _failed(f"{socket}: {name}", words.read(), hint) from failure
        if failure is not None:
            raise failure


@functools.cache
def _whole(socket: Path, namespace: str) -> tuple[str, ...]:
    """What makes `ctr` write an archive to its end.

    One of version 2 has the daemon write it, does not wait for the last of it, and ends as if all were well.
    """
    command = [*_ctr(socket, namespace), "export", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return ("--local",) if re.search(r"^\s*--local\b", done.stdout, re.MULTILINE) else ()


def _ctr(socket: Path, namespace: str) -> list[str]:
    return ["ctr", "--address", str(socket), "--namespace", namespace, "images"]


def _failed(subject: object, words: str, hint: str = "") -> Error:
    lines = words.strip().splitlines() or ["it failed"]
    return Error("unavailable", "ctr", subject=str(subject), cause=lines[-1].removeprefix("ctr: "), hint=hint)
