"""Images: pulled, looked at, listed and removed by all that they are called."""

from __future__ import annotations

import concurrent.futures

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.critest_images import Made
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.specs import PAUSES, TEST_IMAGE, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MANAGER = "Image Manager "
CONSISTENCY = "Image Consistency should "
IDENTIFIER = "Image Identifier Consistency should return the same image identifier "
TAGGED = f"{TEST_IMAGE}tag:test"
TAGS = [f"{TEST_IMAGE}tags:{number}" for number in (1, 2, 3)]


def status(node: Ocirtd, name: str) -> cri.Image | None:
    """None if it is not there."""
    found = node.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)), timeout=PATIENCE)
    return found.image if found.HasField("image") else None


def there(node: Ocirtd, name: str) -> cri.Image:
    """The image, which has to be there."""
    found = status(node, name)
    assert found is not None, name
    return found


def remove(node: Ocirtd, name: str) -> None:
    """Remove an image by anything that it is called."""
    node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)), timeout=PATIENCE)


def listed(node: Ocirtd) -> list[cri.Image]:
    """All images."""
    return list(node.images.ListImages(cri.ListImagesRequest(), timeout=PATIENCE).images)


@pytest.fixture(autouse=True)
def others(node: Ocirtd) -> object:
    """A test leaves the images that there were."""
    before = {one.id for one in listed(node)}
    yield
    for one in listed(node):
        if one.id not in before:
            remove(node, one.id)
    assert {one.id for one in listed(node)} == before


def pulled_and_removed(node: Ocirtd, name: str) -> cri.Image:
    """What an image was between the two, by its id at last."""
    assert status(node, name) is None
    reference = specs.pull(node, name)
    found = there(node, name)
    assert found.id == reference
    assert found.size > 0
    remove(node, found.id)
    assert status(node, name) is None
    return found


@spec(MANAGER + "public image with tag should be pulled and removed [Conformance]")
def test_by_tag(node: Ocirtd) -> None:
    assert list(pulled_and_removed(node, TAGGED).repo_tags) == [TAGGED]


@spec(MANAGER + "public image should timeout if requested [Conformance]")
def test_too_little_time(node: Ocirtd) -> None:
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        node.images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=TAGGED)), timeout=0.001)


@spec(MANAGER + "public image without tag should be pulled and removed [Conformance]")
def test_without_a_tag(node: Ocirtd) -> None:
    assert list(pulled_and_removed(node, f"{TEST_IMAGE}latest").repo_tags) == [f"{TEST_IMAGE}latest:latest"]


@spec(MANAGER + "public image with digest should be pulled and removed [Conformance]")
def test_by_digest(node: Ocirtd, made: list[Made]) -> None:
    [image] = [one.image for one in made if one.repository.endswith("/test-image-1")]
    name = f"{TEST_IMAGE}1@{image.digest}"
    found = pulled_and_removed(node, name)
    assert list(found.repo_tags) == []
    assert list(found.repo_digests) == [name]


@spec(MANAGER + "image status should support all kinds of references [Conformance]")
def test_all_references(node: Ocirtd) -> None:
    """The answer is the same, whatever it was asked by."""
    name = f"{TEST_IMAGE}tag:all"
    specs.pull(node, name)
    found = there(node, name)
    names = [found.id, *found.repo_tags, *found.repo_digests]
    assert len(names) == 3
    assert [there(node, one) for one in names] == [found] * 3


@spec(MANAGER + "image status get image fields should not have Uid|Username empty [Conformance]")
def test_users(node: Ocirtd) -> None:
    for suffix, uid, name in (
        ("user-uid", 1002, ""),
        ("user-username", None, "www-data"),
        ("user-uid-group", 1003, ""),
        ("user-username-group", None, "www-data"),
    ):
        specs.pull(node, TEST_IMAGE + suffix)
        found = there(node, TEST_IMAGE + suffix)
        assert (found.uid.value if found.HasField("uid") else None) == uid
        assert found.username == name


@spec(MANAGER + "listImage should get exactly 3 image in the result list [Conformance]")
def test_three_images(node: Ocirtd) -> None:
    names = [f"{TEST_IMAGE}{number}:latest" for number in (1, 2, 3)]
    ids = [specs.pull(node, name) for name in names]
    found = {one.id: list(one.repo_tags) for one in listed(node) if one.id in ids}
    assert found == {identifier: [name] for identifier, name in zip(ids, names, strict=True)}
    assert len(found) == 3


@spec(MANAGER + "listImage should get exactly 3 repoTags in the result image [Conformance]")
def test_three_tags(node: Ocirtd) -> None:
    [identifier] = {specs.pull(node, name) for name in TAGS}
    [found] = [one for one in listed(node) if one.id == identifier]
    assert sorted(found.repo_tags) == TAGS


def all_names_go(node: Ocirtd, *names: str) -> None:
    """Several names of one image; it is removed by the first."""
    [identifier] = {specs.pull(node, name) for name in names}
    assert sorted(there(node, identifier).repo_tags) == sorted(names)
    remove(node, names[0])
    assert [status(node, one) for one in (*names, identifier)] == [None] * (len(names) + 1)


@spec(MANAGER + "removing image by one tag should remove all tags [Conformance]")
def test_removal_by_one_tag(node: Ocirtd) -> None:
    all_names_go(node, *TAGS)


@spec(MANAGER + "removing image from one registry should remove all tags from other registries [Conformance]")
def test_removal_by_one_registry(node: Ocirtd) -> None:
    all_names_go(node, *PAUSES)


# -- what holds as soon as a call has returned --


@spec(CONSISTENCY + "not list or get image status immediately after removal [Conformance]")
def test_after_removal(node: Ocirtd) -> None:
    specs.pull(node, TAGGED)
    remove(node, TAGGED)
    assert [one for one in listed(node) if TAGGED in one.repo_tags] == []
    assert status(node, TAGGED) is None


@spec(CONSISTENCY + "list and get image status immediately after pulling [Conformance]")
def test_after_a_pull(node: Ocirtd) -> None:
    reference = specs.pull(node, TAGGED)
    assert [one.id for one in listed(node) if TAGGED in one.repo_tags] == [reference]
    assert there(node, TAGGED).id == reference


@spec(CONSISTENCY + "not fail on simultaneous RemoveImage calls [Conformance]")
def test_removals_at_once(node: Ocirtd) -> None:
    """Whichever of five has returned: the image is not there any more."""
    identifier = specs.pull(node, TAGGED)

    def call(_: int) -> cri.Image | None:
        remove(node, identifier)
        return status(node, identifier)

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        assert list(threads.map(call, range(5))) == [None] * 5


# -- one name everywhere --


def container_of(node: Ocirtd, image: str, name: str) -> str:
    """A container that was started, by an id and what the user called the image."""
    config = specs.container_config(node, image=image)
    config.image.user_specified_image = name
    box = node.create(specs.run_pod(node), config)
    node.start_container(box)
    return box


@spec(IDENTIFIER + "across all APIs [Conformance]")
def test_one_identifier(node: Ocirtd) -> None:
    reference = specs.pull(node, TAGGED)
    box = container_of(node, reference, TAGGED)
    [listing] = node.containers(id=box)
    assert {there(node, TAGGED).id, node.status(box).image_id, listing.image_id} == {reference}


@spec(IDENTIFIER + "when pulled from different registries [Conformance]")
def test_one_identifier_for_two_registries(node: Ocirtd) -> None:
    [reference] = {specs.pull(node, name) for name in PAUSES}
    assert {there(node, name).id for name in PAUSES} == {reference}
    assert node.status(container_of(node, reference, PAUSES[1])).image_id == reference
