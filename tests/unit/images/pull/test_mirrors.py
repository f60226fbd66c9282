"""Mirrors that send other bytes than asked for, or stop: the next place is asked, for what is missing."""

from __future__ import annotations

import pytest

from ocirt_images import events
from ocirt_images.pull import download
from ocirt_images.reference import Reference
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Fault
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.pull.box import Box, blob_requests
from tests.unit.images.pull.conftest import MakeHosts

APP = Reference.parse("r.example/team/app")


def asked(registry: LocalRegistry, digest: str) -> list[str]:
    return [range_ for one, range_ in blob_requests(registry) if one == digest]


@pytest.mark.parametrize("what", ["layer", "configuration"])
@pytest.mark.parametrize(
    "fault", [faults.wrong_bytes, faults.wrong_size(5), faults.status(404), faults.status(500), faults.hang_up()]
)
def test_a_mirror_that_is_wrong(
    box: Box, make_registry: MakeRegistry, make_hosts: MakeHosts, image: images.Image, fault: Fault, what: str
) -> None:
    mirror, upstream = make_registry(), make_registry()
    digest = image.layers[0].digest if what == "layer" else images.digest(image.config)
    mirror.plant(fault, path=digest, times=None)
    box.holds(box.pull(APP, hosts=make_hosts(mirror, server=upstream)), image)
    assert asked(upstream, digest) == [""]
    retried = [one for one in box.seen if isinstance(one, events.Retrying)]
    assert len(retried) == (1 if fault is faults.wrong_bytes and what == "layer" else 0)
    if retried:
        assert f"sent by {mirror.address}" in retried[0].reason


def test_a_mirror_that_stops(box: Box, make_registry: MakeRegistry, make_hosts: MakeHosts, image: images.Image) -> None:
    """Not a byte that it sent is asked for again."""
    mirror, upstream = make_registry(), make_registry()
    layer = image.layers[1]
    mirror.plant(faults.cut(1000), path=layer.digest)
    mirror.plant(faults.cut(0), path=layer.digest, times=None, skip=1)
    box.holds(box.pull(APP, hosts=make_hosts(mirror, server=upstream)), image)
    assert asked(upstream, layer.digest) == [f"bytes=1000-{len(layer.blob) - 1}"]


def test_all_are_wrong(box: Box, make_registry: MakeRegistry, make_hosts: MakeHosts, image: images.Image) -> None:
    one, two, upstream = make_registry(), make_registry(), make_registry()
    digest = image.layers[0].digest
    for registry in (one, two, upstream):
        registry.plant(faults.wrong_bytes, path=digest, times=None)
    found = box.refused("corrupt", f"sent by {upstream.address}", APP, hosts=make_hosts(one, two, server=upstream))
    assert "have the digest sha256:" in found.message
    assert [len(asked(registry, digest)) for registry in (one, two, upstream)] == [1, 1, 1]


def test_of_two_that_sent_parts_one_was_wrong(
    box: Box, make_registry: MakeRegistry, make_hosts: MakeHosts, image: images.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror has no more than some ranges, and these are wrong; then the registry's own bytes are enough."""
    monkeypatch.setattr(download, "RANGE", 10_000)
    mirror, upstream = make_registry(), make_registry()
    digest = image.layers[0].digest
    mirror.plant(faults.status(404), path=digest, times=None, skip=2)
    mirror.plant(faults.wrong_bytes, path=digest, times=2)
    box.holds(box.pull(APP, hosts=make_hosts(mirror, server=upstream), connections=1), image)


def test_a_manifest_of_a_mirror(box: Box, make_registry: MakeRegistry, make_hosts: MakeHosts, image: images.Image) -> None:
    mirror, upstream = make_registry(), make_registry()
    whole = images.index([({"os": "linux", "architecture": "amd64"}, image)])
    for registry in (mirror, upstream):
        registry.add("team/app", whole, "latest")
    mirror.manifests["team/app", image.digest] = image.media_type, image.manifest + b" "
    record = box.pull(APP, hosts=make_hosts(mirror, server=upstream))
    assert (record.target.digest, record.manifest) == (whole.digest, image.digest)
    assert upstream.asked("GET", "/manifests/") == 1
    box.check()
