"""Images, or a part of one, as read-only volumes (KEP-4639).

The image's layers are directories already. One of them alone is bound; several are an overlay, which the runtime mounts with the
container's other mounts, so that nothing of it hangs in the host's tree. Where that cannot be (a user namespace, whose ids the
overlay would need; a kernel before 6.5) the daemon has to mount it beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid, shown
from ocirt_cri.spec.usernamespace import mapping

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig, Mount, PodSandboxConfig
    from ocirt_cri.spec.inputs import Host, ImageVolume, Json
    from ocirt_cri.spec.usernamespace import IdMap

REASON = "ImageVolumeMountFailed"  # the kubelet shows it
_APPENDS_LOWERS = (6, 5)  # overlayfs: `lowerdir+`, one layer a parameter
_CLOSED = ("nosuid", "nodev")


@dataclass(frozen=True, slots=True)
class WantedVolume:
    """number: of the mount; image: name or id; sub_path: below the image's root, "" for that

    mounted: `ImageVolume.paths` has to be one mount with all layers, its ids mapped by `ids`, if there are any; else the layers
    (or what `sub_path` is in each that shows there) will do.
    """

    number: int
    image: str
    sub_path: str
    mounted: bool
    ids: IdMap | None


def check(mount: Mount, field: str) -> None:
    """Raises Error for a volume that cannot be meant."""
    if not mount.image.image:
        raise invalid(field + ".image.image", "no image", "a name, a digest or an id")
    if mount.host_path:
        raise invalid(field + ".host_path", "a path of the host beside an image", "one of the two")
    if not mount.readonly:
        raise invalid(field + ".readonly", "an image as a volume can only be read", "readonly: true", reason=REASON)
    if mount.propagation:
        raise invalid(field + ".propagation", "an image has no mounts that could come and go", "PROPAGATION_PRIVATE")
    sub = mount.image_sub_path
    if sub.startswith("/") or ".." in sub.split("/") or "\0" in sub:
        raise invalid(
            field + ".image_sub_path", f"{shown(sub)} leads out of the image", "a relative path without `..`", reason=REASON
        )


def wanted_volumes(pod: PodSandboxConfig, config: ContainerConfig, host: Host) -> list[WantedVolume]:
    """The images that a checked request wants as volumes."""
    ids = mapping(pod.linux.security_context.namespace_options, "sandbox_config.linux.security_context.namespace_options")
    mounted = ids is not None or host.kernel < _APPENDS_LOWERS
    return [
        WantedVolume(number, mount.image.image, mount.image_sub_path.strip("/"), mounted, ids)
        for number, mount in enumerate(config.mounts)
        if mount.HasField("image")
    ]


def entry(mount: Mount, destination: str, volume: ImageVolume | None, field: str) -> Json:
    """The mount of a document. Raises Error for a volume that was not prepared, which is a missing image or path."""
    if volume is None or not volume.paths:
        what = f"{shown(mount.image.image)} is not there"
        if mount.image_sub_path:
            what = f"{shown(mount.image.image)} has nothing at {shown(mount.image_sub_path)}"
        raise invalid(field + ".image", what, "pull it, or another path of it", reason=REASON)
    options = ["ro", *_CLOSED, *mount.mount_options]
    if len(volume.paths) == 1:
        return {"destination": destination, "type": "bind", "source": volume.paths[0], "options": ["rbind", "rprivate", *options]}
    layers = [f"lowerdir+={path}" for path in volume.paths]
    return {"destination": destination, "type": "overlay", "source": "overlay", "options": [*options, *layers]}
