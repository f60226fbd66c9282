"""`ocirt images`: the images in the store, as a table, as JSON, by ID or by name."""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING

from ocirt_images.cli import look, names, output
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_images.cli.command import Command
    from ocirt_images.cli.look import Image
    from ocirt_images.store import ImageRecord, Store

    Keep = Callable[[ImageRecord, Image | None], bool]


def run(command: Command, args: list[str]) -> int:
    """Print the images. One whose content is damaged is shown without what it says of itself.

    Raises Error("not-found") for a name that no image has, Error("usage") for a filter that is none.
    """
    with command.store() as store:
        records = store.images.list()
        if args:
            records = _named(store, args, records)
        if command.flag("names") and not command.texts("filter"):
            output.out("".join(f"{one.name}\n" for one in records if names.kept(one.name)))
            return 0
        filters = [_filter(store, text) for text in command.texts("filter")]
        shown = [(one, image) for one in records for image in [_image(store, one)] if all(keep(one, image) for keep in filters)]
    shown.sort(key=lambda one: -_created(*one))
    if command.flag("names"):
        output.out("".join(f"{one.name}\n" for one, _ in shown if names.kept(one.name)))
    elif command.flag("quiet"):
        whole = command.flag("no-trunc")
        output.out("".join(f"{one}\n" for one in dict.fromkeys(str(r.config) if whole else r.config.short for r, _ in shown)))
    elif command.flag("json"):
        output.say_json([_json(*one) for one in shown])
    else:
        output.out(output.table(_table(command, shown)))
    return 0


def _image(store: Store, record: ImageRecord) -> Image | None:
    try:
        return look.image(store, record)
    except Error:
        return None


def _named(store: Store, args: list[str], records: list[ImageRecord]) -> list[ImageRecord]:
    """Those that are named; a repository means all of its tags. Raises Error("not-found")."""
    found: dict[str, ImageRecord] = {}
    for arg in args:
        try:
            repository = Reference.parse(arg, short=True, tag="").name if ":" not in arg.rpartition("/")[2] else ""
        except Error:
            repository = ""
        tags = [one for one in records if repository and names.parts(one.name)[0] == repository]
        if not tags:
            wanted = store.images.find(arg)
            tags = (
                [wanted]
                if wanted.name in (arg, str(names.kept(arg) or ""))
                else [r for r in records if r.config == wanted.config]
            )
        found |= {one.name: one for one in tags}
    return list(found.values())


def _created(record: ImageRecord, image: Image | None) -> float:
    """When the image was made, or if it does not say, when it came."""
    return (output.time(image.config.created) if image else 0.0) or record.created


def _table(command: Command, shown: list[tuple[ImageRecord, Image | None]]) -> list[tuple[str, ...]]:
    digests, now = command.flag("digests"), time.time()
    rows: list[tuple[str, ...]] = [
        ("REPOSITORY", "TAG", *(("DIGEST",) if digests else ()), "IMAGE ID", "CREATED", "SIZE", "UNPACKED")
    ]
    for record, image in shown:
        repository, tag = names.parts(record.name)
        rows.append(
            (
                repository,
                tag,
                *((str(record.target.digest),) if digests else ()),
                str(record.config) if command.flag("no-trunc") else record.config.short,
                output.age(_created(record, image), now),
                output.size(image.size) if image else "damaged",
                output.size(image.unpacked) if image and image.unpacked is not None else "-",
            )
        )
    return rows


def _json(record: ImageRecord, image: Image | None) -> dict[str, object]:
    return {
        "name": record.name,
        "id": str(record.config),
        "digest": str(record.target.digest),
        "manifest": str(record.manifest),
        "created": output.stamp(_created(record, image)),
        "pulled": output.stamp(record.created),
        "platform": str(image.config.platform) if image else None,
        "size": image.size if image else None,
        "unpacked": image.unpacked if image else None,
        "labels": image.config.labels if image else {},
    }


# -- filters -------------------------------------------------------------------------------------------------------------------


def _filter(store: Store, text: str) -> Keep:
    """A filter of the command line. Raises Error("usage")."""
    key, equals, value = text.partition("=")
    makers: dict[str, Callable[[Store, str], Keep]] = {
        "before": lambda store, value: _beside(store, value, -1),
        "dangling": _dangling,
        "label": _label,
        "reference": _reference,
        "since": lambda store, value: _beside(store, value, 1),
        "until": _until,
    }
    if key not in makers or not equals:
        raise Error("usage", f"no such filter: {text}", hint=f"one of {', '.join(f'{one}=…' for one in makers)}")
    return makers[key](store, value)


def _dangling(_: Store, value: str) -> Keep:
    if value not in ("true", "false"):
        raise Error("usage", f"dangling={value}", hint="true or false")
    return lambda record, _: (names.kept(record.name) is None) == (value == "true")


def _label(_: Store, value: str) -> Keep:
    key, equals, wanted = value.partition("=")

    def keep(_: ImageRecord, image: Image | None) -> bool:
        labels = image.config.labels if image else {}
        return key in labels and (not equals or labels[key] == wanted)

    return keep


def _reference(_: Store, value: str) -> Keep:
    def keep(record: ImageRecord, _: Image | None) -> bool:
        found = names.kept(record.name)
        # With and without the tag, and as people write docker.io's.
        forms = {str(found), found.name, found.familiar, found.familiar.rpartition(":")[0]} if found else set()
        return any(fnmatch.fnmatchcase(form, value) for form in forms)

    return keep


def _beside(store: Store, value: str, sign: int) -> Keep:
    other = store.images.find(value)
    then = _created(other, _image(store, other))
    return lambda record, image: sign * (_created(record, image) - then) > 0


def _until(_: Store, value: str) -> Keep:
    age = output.seconds(value)
    then = time.time() - age if age is not None else output.time(value)
    if not then:
        raise Error("usage", f"until={value}", hint="a time such as 2026-01-31T12:00:00Z, or an age such as 24h or 7d")
    return lambda record, image: _created(record, image) < then
