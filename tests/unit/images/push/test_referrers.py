"""What refers to another manifest is found by it: by the registry's own list, or by the one that clients keep under a tag."""

from __future__ import annotations

import json

import pytest

from ocirt_images import mediatypes
from ocirt_images.digest import Digest
from ocirt_images.registry.listing import stand_in
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry_http import Reply, Seen
from tests.unit.images.push.conftest import Pushing
from tests.unit.images.registry.asking import refused

SUBJECT = images.image([images.layer({"a": b"b"})])
TAG = f"sha256-{SUBJECT.digest.removeprefix('sha256:')}"


def referrer(number: int, *, artifact_type: str = "", annotations: dict[str, str] | None = None) -> images.Image:
    layers = [images.layer({f"r{number}": b"b"})]
    return images.image(layers, subject=SUBJECT.descriptor, artifact_type=artifact_type, annotations=annotations)


def listed(pushing: Pushing) -> list[images.Json]:
    digest = pushing.registry.tags["team/app"][TAG]
    kind, data = pushing.registry.manifests["team/app", digest]
    assert kind == mediatypes.INDEX
    found: list[images.Json] = json.loads(data)["manifests"]
    return found


def test_a_registry_with_the_api(pushing: Pushing) -> None:
    one = referrer(1)
    pushing(one, "team/app:r")
    assert pushing.registry.tags == {"team/app": {"r": one.digest}}
    assert pushing.registry.asked("GET") == 0
    assert [found.digest for found in pushing.client.referrers(pushing.reference(), Digest(SUBJECT.digest))] == [one.digest]


def test_a_registry_without(pushing: Pushing) -> None:
    """The list is begun, and grows; each entry is there once, however often it is pushed."""
    pushing.registry.referrers_api = False
    one, other = referrer(1, annotations={"a": "b"}), referrer(2, artifact_type="application/vnd.example")
    pushing(one, "team/app:r1")
    assert listed(pushing) == [{**one.descriptor, "artifactType": mediatypes.CONFIG, "annotations": {"a": "b"}}]
    pushing(other, "team/app:r2")
    pushing(one, "team/app:r1")
    assert [entry["digest"] for entry in listed(pushing)] == [one.digest, other.digest]
    assert listed(pushing)[1]["artifactType"] == "application/vnd.example"
    found = pushing.client.referrers(pushing.reference(), Digest(SUBJECT.digest), "application/vnd.example")
    assert [entry.digest for entry in found] == [other.digest]


def test_a_list_that_failed_is_mended_by_the_next_push(pushing: Pushing) -> None:
    pushing.registry.referrers_api = False
    one = referrer(1)
    pushing.registry.plant(faults.status(403), method="PUT", path=TAG, times=1, instead=True)
    refused("unauthorized", f"refuses list of referrers {TAG}", lambda: pushing(one, "team/app:r"))
    pushing(one, "team/app:r")
    assert [entry["digest"] for entry in listed(pushing)] == [one.digest]


def test_what_others_wrote_stays(pushing: Pushing) -> None:
    """Fields that we do not know, too."""
    pushing.registry.referrers_api = False
    entry = {**images.image([]).descriptor, "org.example": [1]}
    value = {"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": [entry], "org.example": {"a": 1}}
    pushing.registry.put_manifest("team/app", images.encode(value), mediatypes.INDEX, TAG)
    pushing.registry.sparse = True
    pushing(referrer(1), "team/app:r")
    assert listed(pushing)[0] == entry
    digest = pushing.registry.tags["team/app"][TAG]
    assert json.loads(pushing.registry.manifests["team/app", digest][1])["org.example"] == {"a": 1}


def test_a_tag_that_is_no_list(pushing: Pushing) -> None:
    pushing.registry.referrers_api = False
    pushing.registry.add("team/app", SUBJECT, TAG)
    refused("invalid", "it is no list of referrers (the tag is in the way: delete it)", lambda: pushing(referrer(1)))
    assert pushing.registry.tags["team/app"][TAG] == SUBJECT.digest


@pytest.mark.parametrize("times", [1, None])
def test_somebody_else_is_faster(pushing: Pushing, times: int | None) -> None:
    """Between our reading of the list and our writing of it. Registries with If-Match say so, and it is tried again."""
    pushing.registry.referrers_api = False
    pushing.registry.etags = True
    pushing.registry.sparse = True
    pushing(referrer(0), "team/app:r0")
    theirs: list[str] = []

    def write(reply: Reply, seen: Seen) -> None:
        entry = {**images.image([], annotations={"n": str(len(theirs))}).descriptor}
        value = {"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": [*listed(pushing), entry]}
        pushing.registry.put_manifest("team/app", images.encode(value), mediatypes.INDEX, TAG)
        theirs.append(entry["digest"])

    one = referrer(1)
    pushing.registry.plant(write, method="GET", path=TAG, times=times)
    if times is None:
        refused("unavailable", "others change the list of referrers", lambda: pushing(one, "team/app:r"))
        assert len(theirs) == 5
        return
    pushing(one, "team/app:r")
    assert [entry["digest"] for entry in listed(pushing)] == [referrer(0).digest, *theirs, one.digest]


def test_the_tag_of_a_sha512() -> None:
    """Cut, as the specification has it, so that it is a tag."""
    assert stand_in(Digest("sha512:" + "ab" * 64)) == "sha512-" + "ab" * 32
