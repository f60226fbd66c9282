"""The tests' own registry takes pushes as the specification has them, so that others may push to it."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from tests.support import images
from tests.support.registry import LocalRegistry
from tests.unit.images.conftest import MakeRegistry

BLOB = b"x" * 1000
DIGEST = images.digest(BLOB)


def ask(registry: LocalRegistry, method: str, url: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(registry.address)
    connection.request(method, url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_in_one(registry: LocalRegistry) -> None:
    assert ask(registry, "POST", f"/v2/new/blobs/uploads/?digest={DIGEST}", BLOB).status == 201
    assert ask(registry, "HEAD", f"/v2/new/blobs/{DIGEST}").status == 200
    assert ask(registry, "POST", f"/v2/new/blobs/uploads/?digest={DIGEST}", b"other").status == 400


def test_in_chunks(registry: LocalRegistry) -> None:
    registry.uploads.chunk_minimum = 400
    begun = ask(registry, "POST", "/v2/new/blobs/uploads/")
    where = begun.headers["Location"]
    assert (begun.status, begun.headers["OCI-Chunk-Min-Length"]) == (202, "400")
    first = ask(registry, "PATCH", where, BLOB[:400], Content_Range="0-399")
    assert first.headers["Range"] == "0-399"
    assert ask(registry, "PATCH", where, BLOB[400:], Content_Range="400-999").status == 400, "an old location"
    where = first.headers["Location"]
    assert ask(registry, "PATCH", where, BLOB[500:], Content_Range="500-999").status == 416
    looked = ask(registry, "GET", where)
    assert (looked.status, looked.headers["Range"]) == (204, "0-399")
    where = looked.headers["Location"]
    where = ask(registry, "PATCH", where, BLOB[400:900], Content_Range="400-899").headers["Location"]
    short = ask(registry, "PATCH", where, BLOB[900:950], Content_Range="900-949")
    where = short.headers["Location"]
    assert ask(registry, "PATCH", where, BLOB[950:], Content_Range="950-999").status == 416, "after one below the minimum"
    registry.uploads.running.clear()
    where = ask(registry, "POST", "/v2/new/blobs/uploads/").headers["Location"]
    where = ask(registry, "PATCH", where, BLOB[:900], Content_Range="0-899").headers["Location"]
    assert ask(registry, "PUT", f"{where}&digest={DIGEST}", BLOB[900:], Content_Range="900-999").status == 201
    assert registry.blobs[DIGEST] == BLOB
    assert ask(registry, "GET", where).status == 404


def test_a_body_that_breaks_off(registry: LocalRegistry) -> None:
    registry.break_off(300)
    where = ask(registry, "POST", "/v2/new/blobs/uploads/").headers["Location"]
    with pytest.raises(ConnectionError):
        ask(registry, "PUT", f"{where}&digest={DIGEST}", BLOB)
    assert ask(registry, "GET", where).headers["Range"] == "0-299"


def test_a_mount(registry: LocalRegistry) -> None:
    assert ask(registry, "POST", f"/v2/new/blobs/uploads/?mount={DIGEST}&from=old").status == 202
    registry.put_blob("old", DIGEST, BLOB)
    assert ask(registry, "GET", f"/v2/new/blobs/{DIGEST}").status == 404
    assert ask(registry, "POST", f"/v2/new/blobs/uploads/?mount={DIGEST}&from=old").status == 201
    assert ask(registry, "GET", f"/v2/new/blobs/{DIGEST}").status == 200


def test_a_manifest(registry: LocalRegistry, image: images.Image) -> None:
    def put() -> http.client.HTTPResponse:
        return ask(registry, "PUT", "/v2/new/manifests/x", image.manifest, Content_Type=image.media_type)

    assert put().status == 400
    for digest, blob in image.blobs.items():
        registry.put_blob("new", digest, blob)
    assert put().headers["Docker-Content-Digest"] == image.digest
    assert registry.tags["new"] == {"x": image.digest}
    assert ask(registry, "PUT", f"/v2/new/manifests/{DIGEST}", image.manifest).status == 400
    subject = images.image([], subject=image.descriptor)
    registry.put_blob("new", images.digest(subject.config), subject.config)
    assert ask(registry, "PUT", "/v2/new/manifests/y", subject.manifest).headers["OCI-Subject"] == image.digest
    assert ask(registry, "DELETE", f"/v2/new/manifests/{image.digest}").status == 202
    assert ask(registry, "GET", "/v2/new/manifests/x").status == 404


@pytest.mark.parametrize("kind", ["gzip", "zstd", ""])
def test_blobs_in_files(make_registry: MakeRegistry, tmp_path: Path, kind: str) -> None:
    registry = make_registry(directory=tmp_path)
    layer = images.random_layer(1, 5000, kind)
    registry.put_blob("new", layer.digest, layer.blob)
    assert (tmp_path / layer.digest.replace(":", "-")).read_bytes() == layer.blob
    assert ask(registry, "GET", f"/v2/new/blobs/{layer.digest}", Range="bytes=10-19").headers["Content-Length"] == "10"


def test_images(image: images.Image) -> None:
    manifest = json.loads(image.manifest)
    assert [one["digest"] for one in manifest["layers"]] == [one.digest for one in image.layers]
    assert set(image.blobs) == {*(one.digest for one in image.layers), manifest["config"]["digest"]}
    assert json.loads(image.config)["rootfs"]["diff_ids"] == [one.diff_id for one in image.layers]
