"""The images in memory: how one is found, and that memory is not older than the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_cri.images.catalog import Catalog
from ocirt_cri.images.image import Details
from ocirt_images.errors import Error
from ocirt_images.store import ImageRecord, Store
from tests.support.cri_services import put_image


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", sync=False) as found:
        yield found


async def found(catalog: Catalog, text: str) -> str:
    image = await catalog.find(text)
    return "" if image is None else image.id


def test_by_all_its_names(store: Store) -> None:
    one, two = put_image(store, "r.example/app:1", 1), put_image(store, "docker.io/library/box:latest", 2)
    put_image(store, "r.example/app:2", 1)

    async def run() -> None:
        catalog = Catalog(store)
        digest = store.images.list()[1].target.digest
        for text in ("r.example/app:1", "r.example/app:2", f"r.example/app@{digest}", one, one[7:], one[:20], one[7:20]):
            assert await found(catalog, text) == one, text
        for text in ("box", "box:latest", "library/box", "docker.io/library/box", two):
            assert await found(catalog, text) == two, text
        for text in ("r.example/app", "r.example/app:3", "boxes", f"r.example/other@{digest}", "f" * 64):
            assert await found(catalog, text) == "", text
        assert await found(catalog, str(digest)) == one
        (listed,) = [image for image in await catalog.every() if image.id == one]
        assert list(listed.message.repo_tags) == ["r.example/app:1", "r.example/app:2"]
        assert list(listed.message.repo_digests) == [f"r.example/app@{digest}"]
        catalog.close()

    asyncio.run(run())


def test_a_name_comes_before_an_id(store: Store) -> None:
    """A short name of hexadecimal digits may be the beginning of an id, too."""
    ids = [put_image(store, f"r.example/app:{number}", number) for number in range(3)]
    named = put_image(store, f"docker.io/library/{ids[0][7:11]}:latest", 9)

    async def run() -> None:
        catalog = Catalog(store)
        assert await found(catalog, ids[0][7:11]) == named
        assert await found(catalog, ids[0][7:12]) == ids[0]
        catalog.close()

    asyncio.run(run())


def test_the_beginning_of_many(store: Store) -> None:
    ids = sorted(put_image(store, f"r.example/app:{number}", number) for number in range(40))

    async def run() -> None:
        catalog = Catalog(store)
        digit = next(one for one in "0123456789abcdef" if sum(known[7] == one for known in ids) > 1)
        with pytest.raises(Error) as many:
            await catalog.find(digit)
        assert many.value.code == "invalid"
        assert next(known for known in ids if known[7] == digit)[7:19] in str(many.value)
        for known in ids:
            assert await found(catalog, known[7:30]) == known
        catalog.close()

    asyncio.run(run())


def test_nothing_is_read_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put_image(store, f"r.example/app:{number}", number)
    reads: list[str] = []
    look = Catalog._look

    def counted(self: Catalog, kept: ImageRecord) -> Details | None:
        reads.append(kept.name)
        return look(self, kept)

    monkeypatch.setattr(Catalog, "_look", counted)

    async def run() -> None:
        catalog = Catalog(store)
        await asyncio.gather(*(catalog.every() for _ in range(10)))
        assert len(reads) == 5
        first = await catalog.every()
        assert await catalog.every() is first
        put_image(store, "r.example/app:new", 7)
        store.images.tag("r.example/app:1", "r.example/other:1")
        assert len(await catalog.every()) == 6
        assert len(reads) == 6
        with store.leases.lease():
            pass  # something that is no image's business
        same = await catalog.every()
        assert await catalog.every() is same
        store.images.delete("r.example/app:0")
        assert len(await catalog.every()) == 5
        assert len(reads) == 6
        catalog.close()

    asyncio.run(run())


def test_a_damaged_image_hides_no_other(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    put_image(store, "r.example/app:1", 1)
    whole = put_image(store, "r.example/app:2", 2)
    broken = store.images.list()[0].config
    (store.layout.blob(broken)).unlink()

    async def run() -> None:
        catalog = Catalog(store)
        with caplog.at_level(logging.WARNING):
            assert [image.id for image in await catalog.every()] == [whole]
        assert "r.example/app:1 is left out" in caplog.text
        catalog.close()

    asyncio.run(run())


def test_pinned_by_what_people_call_it(store: Store) -> None:
    for number, name in enumerate(("docker.io/library/pause:3", "r.example/a/pause:1", "r.example/app:1")):
        put_image(store, name, number)

    async def run() -> None:
        for pattern, count in (("pause:*", 1), ("*/pause:*", 2), ("r.example/*", 2), ("docker.io/library/pause:3", 1), ("x", 0)):
            catalog = Catalog(store, (pattern,))
            assert sum(image.message.pinned for image in await catalog.every()) == count, pattern
            catalog.close()

    asyncio.run(run())
