"""The images of the store in memory, and how one is found.

The store is shared with the `ocirt` command, so memory may be out of date at any time: SQLite's `data_version` says within
microseconds whether anybody committed anything, and a look at the times of all names whether that was about images. Only if so
are the names read again, and what is new of them looked into.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
from bisect import bisect_left
from typing import TYPE_CHECKING

from ocirt_cri.images import image as one
from ocirt_cri.images import names
from ocirt_images.errors import Error
from ocirt_images.store.database import connect, said
from ocirt_images.store.images import COLUMNS, record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cri.images.image import Details, Image
    from ocirt_images.digest import Digest
    from ocirt_images.store import ImageRecord, Store

_log = logging.getLogger(__name__)
_Row = tuple[str, str, str, str, "str | None", str, float, float]
_SHOWN = 5  # ids that an error names
# Whatever happens to a name, one of these changes: who names an image anew writes down when.
_MARK = "SELECT count(*), count(layer), total(updated), max(updated) FROM images"


class _View:
    """One state of the store. Nothing in it changes."""

    def __init__(self, images: Iterable[Image]) -> None:
        self.images = sorted(images, key=lambda found: (found.message.repo_tags[:1], found.id))
        self.by_hex = {found.id.removeprefix("sha256:"): found for found in self.images}
        self.hexes = sorted(self.by_hex)
        self.by_name: dict[str, Image] = {}
        self.by_digest: dict[str, Image] = {}
        for found in self.images:
            for kept in found.records:
                self.by_name[kept.name] = found
                for digest in (kept.manifest, kept.target.digest):
                    self.by_digest[digest] = found
                    if reference := names.stored(kept.name):
                        self.by_digest[f"{reference.name}@{digest}"] = found


class Catalog:
    """The images. Of the event loop's thread, but for what is read from disk.

    pinned: names or ids of images, `*` and `?` as in file names, that the kubelet is asked not to collect
    """

    def __init__(self, store: Store, pinned: Iterable[str] = ()) -> None:
        self._store = store
        self._pinned = tuple(pinned)
        self._connection = connect(store.database.path)
        self._version: object = None
        self._mark: object = None
        self._rows: dict[_Row, ImageRecord | None] = {}
        self._details: dict[tuple[Digest, Digest, Digest | None], Details] = {}
        self._view = _View(())
        self._reading = asyncio.Lock()

    def close(self) -> None:
        """Ends the connection to the store's database."""
        self._connection.close()

    async def every(self) -> list[Image]:
        """All images, in an order that stays."""
        return (await self._current()).images

    async def find(self, text: str, field: str = "image.image") -> Image | None:
        """The image that a client means: by name, by name and digest, by id or the beginning of one. None: it is not there.

        Raises Error("invalid") for what is no name, and for the beginning of several ids, which it lists.
        """
        view = await self._current()
        digits = names.hexadecimal(text)
        if len(digits) == 64:
            return view.by_hex.get(digits) or view.by_digest.get(f"sha256:{digits}")
        found = self._named(view, text, field)
        if found is not None or not digits:
            return found
        return self._beginning(view, digits, field)

    async def get(self, text: str, field: str = "image.image") -> Image:
        """The same. Raises Error("not-found"), too."""
        found = await self.find(text, field)
        if found is None:
            raise Error("not-found", f"no image {text[:200]}", subject=field, hint="pull it first")
        return found

    @staticmethod
    def _named(view: _View, text: str, field: str) -> Image | None:
        reference = names.reference(text, field)
        if reference.digest is None:
            return view.by_name.get(str(reference))
        return view.by_name.get(str(reference)) or view.by_digest.get(str(reference))

    @staticmethod
    def _beginning(view: _View, digits: str, field: str) -> Image | None:
        start = bisect_left(view.hexes, digits)
        found = [one for one in view.hexes[start : start + _SHOWN] if one.startswith(digits)]
        if len(found) > 1:
            listed = ", ".join(one[:12] for one in found)
            raise Error("invalid", f"{digits} is the beginning of several images' ids", subject=field, cause=listed)
        return view.by_hex[found[0]] if found else None

    async def _current(self) -> _View:
        if self._is_old():
            async with self._reading:
                version, mark = self._ask("PRAGMA data_version"), self._ask(_MARK)
                if self._mark != mark:
                    self._view = await asyncio.to_thread(self._read)
                self._version, self._mark = version, mark
        return self._view

    def _is_old(self) -> bool:
        """Whether the names are to be read again; what is asked is answered from memory, and waits for nobody."""
        version = self._ask("PRAGMA data_version")
        if version != self._version and self._ask(_MARK) == self._mark:
            self._version = version
        return self._version != version

    def _ask(self, said_in_sql: str) -> object:
        with said(self._store.database.path):
            return self._connection.execute(said_in_sql).fetchone()

    def _read(self) -> _View:
        with self._store.database.reading() as connection:
            rows: list[_Row] = connection.execute(f"SELECT {COLUMNS} FROM images ORDER BY name").fetchall()
        self._rows = {row: self._rows[row] if row in self._rows else _parsed(row) for row in rows}
        by_config: dict[Digest, list[ImageRecord]] = {}
        for kept in self._rows.values():
            if kept is not None:
                by_config.setdefault(kept.config, []).append(kept)
        used: dict[tuple[Digest, Digest, Digest | None], Details] = {}
        images = []
        for records in by_config.values():
            best = next((one for one in records if one.layer is not None), records[0])
            key = best.manifest, best.config, best.layer
            found = self._details.get(key) or self._look(best)
            if found is not None:
                used[key] = found
                images.append(one.build(records, found, pinned=self._is_pinned(records)))
        self._details = used
        return _View(images)

    def _look(self, kept: ImageRecord) -> Details | None:
        """One damaged image must not hide all others."""
        try:
            return one.details(self._store, kept)
        except Error as err:
            _log.warning("image %s is left out: %s", kept.name, err)
            return None

    def _is_pinned(self, records: list[ImageRecord]) -> bool:
        called = [str(records[0].config), *(kept.name for kept in records)]
        called += [reference.familiar for kept in records if (reference := names.stored(kept.name))]
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._pinned for name in called)


def _parsed(row: _Row) -> ImageRecord | None:
    try:
        return record(row)
    except Error as err:
        _log.warning("image %s is left out: %s", row[0], err)
        return None
