"""The ImageService: ListImages, StreamImages, ImageStatus, PullImage, RemoveImage, ImageFsInfo."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Protocol

from ocirt_api.cri import api_pb2 as cri
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocirt_cri.images.image import Image
    from ocirt_cri.images.images import Images
    from ocirt_cri.reserve import Reserve
    from ocirt_cri.stats.layers import LayerUsage

_AT_ONCE = 200  # images in one message of a stream: 100 KB or so


class Context(Protocol):
    """What the service needs of the daemon. layers: what containers have written; reserve: room for removals."""

    images: Images
    layers: LayerUsage
    reserve: Reserve


class ImageService:
    """Answers from memory; pulls and removals are `Images`'."""

    def __init__(self, context: Context) -> None:
        self._images = context.images
        self._layers = context.layers
        self._reserve = context.reserve

    async def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """All images, or the one that the filter names."""
        return cri.ListImagesResponse(images=[image.message for image in await self._filtered(request.filter)])

    async def StreamImages(self, request: cri.StreamImagesRequest) -> AsyncIterator[cri.StreamImagesResponse]:
        """The same in parts."""
        found = await self._filtered(request.filter)
        for start in range(0, len(found), _AT_ONCE):
            yield cri.StreamImagesResponse(images=[image.message for image in found[start : start + _AT_ONCE]])

    async def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """One image; without `image` if it is not there."""
        found = await self._images.catalog.find(request.image.image)
        if found is None:
            return cri.ImageStatusResponse()
        info = {"info": await self._info(found)} if request.verbose else {}
        return cri.ImageStatusResponse(image=found.message, info=info)

    async def PullImage(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        """Bring an image. A client that gives up ends the pull, unless others wait for it."""
        return cri.PullImageResponse(image_ref=await self._images.pull(request.image, request.auth))

    async def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """Remove an image with all its names."""
        await self._reserve.spend(lambda: self._images.remove(request.image.image))
        return cri.RemoveImageResponse()

    async def ImageFsInfo(self, _: cri.ImageFsInfoRequest) -> cri.ImageFsInfoResponse:
        """What images take, and what containers have written beside them."""
        images, written = await self._images.taken(), self._layers.total()
        return cri.ImageFsInfoResponse(
            image_filesystems=[self._usage(images.size, images.inodes)],
            container_filesystems=[self._usage(written.size, written.inodes or 0)],
        )

    def _usage(self, size: int, inodes: int) -> cri.FilesystemUsage:
        return cri.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=cri.FilesystemIdentifier(mountpoint=str(self._images.store.root)),
            used_bytes=cri.UInt64Value(value=size),
            inodes_used=cri.UInt64Value(value=inodes),
        )

    async def _filtered(self, wanted: cri.ImageFilter) -> list[Image]:
        if not wanted.image.image:
            return await self._images.catalog.every()
        found = await self._images.catalog.find(wanted.image.image, "filter.image.image")
        return [] if found is None else [found]

    async def _info(self, image: Image) -> str:
        """For a person."""
        try:
            config: object = (await self._images.config(image)).raw
        except Error as err:
            config = str(err)
        record = image.records[0]
        value = {
            "chainID": image.layer or "",
            "manifest": record.manifest,
            "names": image.names,
            "pulledBy": record.pulled_by,
            "imageSpec": config,
        }
        return json.dumps(value)
