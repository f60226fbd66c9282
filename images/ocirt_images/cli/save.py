"""`ocirt save`: images as an archive that every tool can load."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.archive.save import Chosen, DirectoryWriter, TarWriter, save
from ocirt_images.cli import names
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt_images.archive.save import Writer
    from ocirt_images.cli.command import Command
    from ocirt_images.store import Store


def run(command: Command, args: list[str]) -> int:
    """Write the images. An archive that fails leaves no file.

    Raises Error("usage") if it is not clear where to, Error("not-found"), Error("corrupt"), Error("exists"), OSError.
    """
    wanted = Platform.named(command.text("platform")) if command.text("platform") else None
    with command.store() as store:
        images = [_chosen(store, arg) for arg in args]
        with _writer(command) as writer:
            save(store, images, writer, wanted)
    return 0


def _chosen(store: Store, text: str) -> Chosen:
    """An image, with its name if it was named by it."""
    record = store.images.find(text)
    named = record.name in (text, Reference.full(text))
    return Chosen(record.target, record.manifest, names.kept(record.name) if named else None)


@contextmanager
def _writer(command: Command) -> Iterator[Writer]:
    output, directory = command.text("output"), command.text("directory")
    if output and directory:
        raise Error("usage", "--output and --directory", hint="one of them")
    if directory:
        with _whole_directory(Path(directory)) as path:
            yield DirectoryWriter(path)
    elif output and output != "-":
        with _whole_file(Path(output)) as fd:
            yield TarWriter(fd)
    elif os.isatty(1):
        raise Error("usage", "standard output is a terminal", hint="--output FILE, or a pipe")
    else:
        try:
            yield TarWriter(1)
        except BrokenPipeError:
            os._exit(141)


@contextmanager
def _whole_file(path: Path) -> Iterator[int]:
    """A descriptor for a file that appears when it is whole; what is no regular file (a pipe, a device) is written to at once."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        scratch.rename(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def _whole_directory(path: Path) -> Iterator[Path]:
    """A directory that is emptied again after a failure, and removed if it was new."""
    new = not path.exists()
    empty = new or not any(path.iterdir())
    try:
        yield path
    except BaseException:
        if empty and path.is_dir():
            for one in path.iterdir():
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            if new:
                path.rmdir()
        raise
