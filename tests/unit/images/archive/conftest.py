"""A store for each test, and every way in which an archive may come."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from ocirt_images.archive.load import Loaded, Wish, load
from ocirt_images.events import Event
from ocirt_images.store import Store
from tests.support.layouts import Files, directory, tar

Load = Callable[..., list[Loaded]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", sync=False) as opened:
        yield opened


def by_pipe(store: Store, data: bytes, wish: Wish, events: list[Event]) -> list[Loaded]:
    """A pipe that a thread writes to, and stops writing to when nobody reads."""
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb") as file:
            try:
                file.write(data)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return load(store, reader, "pipe", wish, events.append)
    finally:
        os.close(reader)
        thread.join()


WAYS = ("directory", "tar", "tar.gz", "tar.zst", "pipe", "compressed pipe")


@pytest.fixture(params=WAYS)
def take(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Load:
    """Load files as an archive of some kind."""

    def way(files: Files, wish: Wish | None = None, events: list[Event] | None = None) -> list[Loaded]:
        wish, events = wish or Wish(), events if events is not None else []
        kind = request.param
        if kind == "directory":
            return load(store, directory(tmp_path / "archive", files), "archive", wish, events.append)
        data = tar(files)
        if "pipe" in kind:
            return by_pipe(store, gzip.compress(data) if "compressed" in kind else data, wish, events)
        data = {"tar": lambda: data, "tar.gz": lambda: gzip.compress(data), "tar.zst": lambda: zstandard.compress(data)}[kind]()
        path = tmp_path / f"archive.{kind}"
        path.write_bytes(data)
        return load(store, path, "archive", wish, events.append)

    return way


@pytest.fixture
def from_directory(store: Store, tmp_path: Path) -> Load:
    """Load files as a directory."""

    def way(files: Files, wish: Wish | None = None) -> list[Loaded]:
        return load(store, directory(tmp_path / "archive", files), "archive", wish or Wish())

    return way
