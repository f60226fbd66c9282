"""`ocirt inspect`: all that is known of images, as JSON with the names that docker gives to its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocirt_images.cli import look, names, output

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command
    from ocirt_images.cli.look import Image
    from ocirt_images.store import ImageRecord, Store


def run(command: Command, args: list[str]) -> int:
    """Print a list with an object for each image. Raises Error("not-found"), Error("invalid"), Error("corrupt")."""
    with command.store() as store:
        records = store.images.list()
        found = [_document(store, look.image(store, store.images.find(arg)), records) for arg in args]
    output.say_json(found)
    return 0


def _document(store: Store, image: Image, records: list[ImageRecord]) -> dict[str, Any]:
    record, config = image.record, image.config
    same = [(one, kept) for one in records if one.config == record.config and (kept := names.kept(one.name)) is not None]
    layers = [
        {"Digest": layer.digest, "MediaType": layer.media_type, "Size": layer.size, "DiffID": diff_id, "ChainID": chain_id}
        | ({"Unpacked": str(unpacked.path)} if (unpacked := store.layers.get(chain_id)) else {})
        for layer, diff_id, chain_id in zip(image.manifest.layers, config.diff_ids, image.chain, strict=False)
    ]
    parts = look.parts(store, record.target)
    return {
        "Id": record.config,
        "RepoTags": [one.name for one, kept in same if kept.tag],
        "RepoDigests": sorted({f"{kept.name}@{one.target.digest}" for one, kept in same}),
        "Created": config.created,
        "Author": config.raw.get("author", ""),
        "Os": config.platform.os,
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Size": image.size,
        "UnpackedSize": image.unpacked,
        "Config": config.raw.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Descriptor": record.target.json(),
        "Manifest": record.manifest,
        "Platforms": [str(one.descriptor.platform) for one in parts if one.here and one.kind == "image"]
        or [str(config.platform)],
        "Manifests": [
            {
                "ID": one.descriptor.digest,
                "Descriptor": one.descriptor.json(),
                "Available": one.here,
                "Size": one.size,
                "Kind": one.kind,
            }
            for one in parts
        ],
        "Annotations": image.manifest.annotations,
        "Layers": layers,
        "PulledBy": record.pulled_by,
        "Metadata": {"Pulled": output.stamp(record.created), "LastTagTime": output.stamp(record.updated)},
    }
