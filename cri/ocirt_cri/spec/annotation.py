"""`annotations` of config.json: who the container is, for hooks and tools, and what the daemon's configuration lets through.

The names are those by which hooks and tools know containers of Kubernetes. Annotations of a request come from whoever wrote the
pod, and some steer the runtime; so only those go on that the configuration names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_cri.spec.inputs import Container, Pod, Settings

_CRI = "io.kubernetes.cri."
# What steers the runtime, or is said by us: no pattern lets it through.
_OURS = ("org.ocirt.", "org.systemd.property.", _CRI)


def of_container(pod: Pod, container: Container, settings: Settings) -> dict[str, str]:
    """Ours, and those of the request that the configuration names; the container's over its pod's."""
    metadata, config = pod.config.metadata, container.config
    passed = _passed(pod.config.annotations, settings.pod_annotations) | _passed(config.annotations, settings.annotations)
    return passed | {
        _CRI + "container-type": "container",
        _CRI + "container-name": config.metadata.name,
        _CRI + "image-name": container.image_name,
        _CRI + "sandbox-id": pod.id,
        _CRI + "sandbox-name": metadata.name,
        _CRI + "sandbox-namespace": metadata.namespace,
        _CRI + "sandbox-uid": metadata.uid,
    }


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of those that patterns name: itself, or the beginning before a `*`."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


def _passed(given: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    if not patterns:
        return {}
    return {
        name: value.replace("\0", "")
        for name, value in sorted(given.items())
        if name and "\0" not in name and not name.startswith(_OURS) and matches(name, patterns)
    }
