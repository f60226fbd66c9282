"""Media types of manifests, configurations and layers, OCI's and docker's (image-spec, media-types.md)."""

from __future__ import annotations

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

INDEXES = frozenset((INDEX, DOCKER_LIST))
MANIFESTS = frozenset((MANIFEST, DOCKER_MANIFEST))
KNOWN = INDEXES | MANIFESTS  # what an index of images points to
CONFIGS = frozenset((CONFIG, DOCKER_CONFIG))
# docker's first schema: no content addresses, signed in a way of its own. Old registries answer with it when asked for nothing
# else.
SCHEMA_1 = frozenset(
    ("application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
)
ACCEPT = ", ".join((INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

# Layer: how it is compressed ("" for not at all).
LAYERS = {
    LAYER: "",
    LAYER + "+gzip": "gzip",
    LAYER + "+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    DOCKER_LAYER: "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    DOCKER_FOREIGN: "gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "",
}
# Layers whose makers do not allow a registry to hand them out: they may be pulled (from `urls`), never pushed.
NONDISTRIBUTABLE = frozenset(name for name in LAYERS if "nondistributable" in name or "foreign" in name)


def plain(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
