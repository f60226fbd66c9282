"""A registry of our own on loopback, which can be told its faults and counts what it is asked.

    with LocalRegistry() as registry:
        registry.add("app", image, "latest")
        registry.plant(faults.cut(1000), path="/blobs/")     # the next GET of a blob ends after 1000 bytes
        ...
        assert registry.asked("GET", "/blobs/") == 2

It serves pulls and simple pushes as distribution-spec has them, on threads. What it holds is in memory, or its blobs in files.
The faults are in `registry_faults`, who may ask is in `registry_auth`, pushes are in `registry_uploads`.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ocirt_images import mediatypes
from tests.support import registry_uploads
from tests.support.registry_http import Fault, Reply, Seen, Server, error

if TYPE_CHECKING:
    from tests.support.images import Image
    from tests.support.registry_auth import Auth


@dataclass
class _Break:
    at: int
    method: str
    left: int | None
    skip: int


@dataclass
class _Plant:
    fault: Fault
    method: str
    path: re.Pattern[str]
    skip: int
    left: int | None
    instead: bool


class LocalRegistry:
    """The registry. `address` is its host and port; attributes may be changed while it runs.

    directory: keeps blobs in files there; auth: who may do what; root: the path in place of `/v2`
    referrers_api: it knows the referrers API; filters: it filters what it lists there; page: how many tags or referrers it gives
    at once; uploads: how it takes them; ranges: it serves parts of blobs; digest_header: it names digests in headers
    sparse: it takes indexes of which it has not all; etags: it knows If-Match; multiple_tags: it knows `?tag=`
    reads: an event, for which it waits before it reads a blob
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        auth: Auth | None = None,
        tls: ssl.SSLContext | None = None,
        root: str = "/v2",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.directory = directory
        self.auth = auth
        self.root = root
        self.blobs: dict[str, bytes | Path] = {}
        self.links: set[tuple[str, str]] = set()
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.uploads = registry_uploads.Uploads()
        self.seen: list[Seen] = []
        self.trouble: list[BaseException] = []
        self.referrers_api = True
        self.filters = True
        self.digest_header = True
        self.ranges = True
        self.sparse = False
        self.etags = False
        self.multiple_tags = True
        self.reads: threading.Event | None = None
        self.page = 0
        self.lock = threading.RLock()
        self._plants: list[_Plant] = []
        self._breaks: list[_Break] = []
        self._server = Server((host, port), self.answer, self.trouble, tls, self.takes)
        self.scheme = "https" if tls else "http"
        self.port: int = self._server.server_address[1]
        self.address = f"{host}:{self.port}"
        self.url = f"{self.scheme}://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name=f"registry {self.port}")
        self._thread.start()

    def __enter__(self) -> LocalRegistry:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        assert kind is not None or not self.trouble, self.trouble

    def close(self) -> None:
        """Answer no more: connections that are open are closed too."""
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._thread.join()

    # What it holds

    def add(self, repository: str, image: Image, *tags: str) -> str:
        """Hold an image, with all that it needs. Its digest."""
        with self.lock:
            for digest, data in image.blobs.items():
                self.put_blob(repository, digest, data)
            for digest, (kind, data) in image.manifests.items():
                self.manifests[repository, digest] = kind, data
            self.tags.setdefault(repository, {}).update(dict.fromkeys(tags, image.digest))
        return image.digest

    def put_blob(self, repository: str, digest: str, data: bytes | Path) -> None:
        """Hold a blob under this digest, whatever it is."""
        with self.lock:
            if self.directory is not None and isinstance(data, bytes) and digest not in self.blobs:
                path = self.directory / digest.replace(":", "-")
                path.write_bytes(data)
                data = path
            self.blobs.setdefault(digest, data)
            self.links.add((repository, digest))

    def put_manifest(self, repository: str, data: bytes, media_type: str, *tags: str, digest: str = "") -> str:
        """Hold a manifest of any bytes and type. Its digest."""
        digest = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        with self.lock:
            self.manifests[repository, digest] = media_type, data
            self.tags.setdefault(repository, {}).update(dict.fromkeys(tags, digest))
        return digest

    # What it is asked

    def asked(self, method: str, path: str = "") -> int:
        """How many requests of a method had a path in which the pattern `path` is found."""
        return sum(1 for one in list(self.seen) if one.method == method and re.search(path, one.path))

    @property
    def counts(self) -> Counter[tuple[str, str, str]]:
        """Requests by method, path and range."""
        return Counter((one.method, one.path, one.range) for one in list(self.seen))

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return self._server.connections

    def forget(self) -> None:
        """Count anew."""
        self.seen.clear()

    def plant(
        self,
        fault: Fault,
        *,
        method: str = "GET",
        path: str = "/blobs/",
        times: int | None = 1,
        skip: int = 0,
        instead: bool = False,
    ) -> None:
        """Let requests fail: `times` of them (None: all) after the first `skip`; of a method, with `path` found in their path.

        instead: nothing is done for them, else only the answer is another one
        """
        with self.lock:
            self._plants.append(_Plant(fault, method, re.compile(path), skip, times, instead))

    def heal(self) -> None:
        """No more faults."""
        with self.lock:
            self._plants.clear()
            self._breaks.clear()

    def break_off(self, at: int, *, method: str = "PUT", times: int | None = 1, skip: int = 0) -> None:
        """Let requests of an upload break: the connection is reset when `at` bytes of the body have come. Others as for `plant`.

        A body of no more bytes than that is taken whole.
        """
        with self.lock:
            self._breaks.append(_Break(at, method, times, skip))

    # How it answers

    def takes(self, seen: Seen) -> int | None:
        """How many bytes of a request's body are taken before the connection breaks; None: all of them."""
        if self.reads is not None and seen.method == "PUT" and "/uploads/" in seen.path:
            self.reads.wait(60)
        with self.lock:
            for one in self._breaks:
                if one.method != seen.method or "/uploads/" not in seen.path or one.left == 0 or seen.length <= one.at:
                    continue
                if one.skip:
                    one.skip -= 1
                    continue
                one.left = None if one.left is None else one.left - 1
                return one.at
        return None

    def answer(self, seen: Seen) -> Reply:
        """What a request is answered, faults included."""
        self.seen.append(seen)
        plants = self._faults(seen)
        instead = any(one.instead for one in plants)
        reply = error(404, "UNKNOWN") if instead else self._refused(seen) or self._routed(seen)
        for plant in plants:
            plant.fault(reply, seen)
        seen.status = reply.status
        return reply

    def _faults(self, seen: Seen) -> list[_Plant]:
        found = []
        with self.lock:
            for plant in self._plants:
                if plant.method != seen.method or not plant.path.search(seen.path) or plant.left == 0:
                    continue
                if plant.skip:
                    plant.skip -= 1
                    continue
                plant.left = None if plant.left is None else plant.left - 1
                found.append(plant)
        return found

    def _refused(self, seen: Seen) -> Reply | None:
        if self.auth is None:
            return None
        return self.auth.check(seen, self)

    def _routed(self, seen: Seen) -> Reply:
        if seen.path.startswith("/data/"):
            return self._data(seen)
        if not seen.path.startswith(f"{self.root}/"):
            return Reply(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        rest = seen.path.removeprefix(f"{self.root}/")
        if not rest:
            return Reply(200, {"Content-Type": "application/json"}, b"{}")
        for pattern, route in _ROUTES:
            match = re.fullmatch(pattern, rest)
            if match:
                name = match[1]
                other = match[2] if match.lastindex == 2 else ""
                return route(self, seen, name, other)
        return error(404, "NAME_UNKNOWN")

    def _data(self, seen: Seen) -> Reply:
        """Blobs as a storage service has them: without a registry around, and refusing credentials that it did not ask for."""
        if seen.authorization:
            return Reply(400, {"Content-Type": "application/xml"}, b"<Error><Code>InvalidArgument</Code></Error>")
        blob = self.blobs.get(seen.path.removeprefix("/data/"))
        return error(404, "BLOB_UNKNOWN") if blob is None else self._ranged(seen, blob, {})

    def manifest(self, seen: Seen, name: str, target: str) -> Reply:
        with self.lock:
            if seen.method == "PUT":
                return self._put_manifest(seen, name, target)
            digest = target if ":" in target else self.tags.get(name, {}).get(target, "")
            found = self.manifests.get((name, digest))
            if found is None:
                known = name in self.tags
                return error(404, "MANIFEST_UNKNOWN" if known else "NAME_UNKNOWN", "manifest unknown" if known else "")
            if seen.method == "DELETE":
                del self.manifests[name, digest]
                return Reply(202)
        headers = {"Content-Type": found[0], **({"Docker-Content-Digest": digest} if self.digest_header else {})}
        if self.etags:
            headers["ETag"] = f'"{digest}"'
        return Reply(200, headers, found[1])

    def _put_manifest(self, seen: Seen, name: str, target: str) -> Reply:
        algorithm = target.partition(":")[0] if ":" in target else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, seen.body).hexdigest()}"
        if ":" in target and digest != target:
            return error(400, "DIGEST_INVALID")
        before = self.tags.get(name, {}).get(target)
        if self.etags and (wanted := seen.headers.get("If-Match")) is not None and wanted != f'"{before}"':
            return error(412, "UNKNOWN", "it has changed")
        value = json.loads(seen.body)
        if missing := self._missing(name, value):
            return error(400, "MANIFEST_BLOB_UNKNOWN", missing)
        self.manifests[name, digest] = seen.headers.get("Content-Type", ""), seen.body
        given = [seen.query["tag"]] if "tag" in seen.query and self.multiple_tags else []
        tags = given if ":" in target else [target]
        self.tags.setdefault(name, {}).update(dict.fromkeys(tags, digest))
        headers = {"Location": f"{self.root}/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if ":" in target and tags:
            headers["OCI-Tag"] = ", ".join(tags)
        if self.referrers_api and value.get("subject"):
            headers["OCI-Subject"] = value["subject"]["digest"]
        return Reply(201, headers)

    def _missing(self, name: str, value: dict[str, Any]) -> str:
        """What a manifest refers to that is not here; "" if all is."""
        for one in [*value.get("layers", []), *([value["config"]] if "config" in value else [])]:
            if (name, one["digest"]) not in self.links and not one.get("urls"):
                return f"blob unknown: {one['digest']}"
        for one in value.get("manifests", []):
            if (name, one["digest"]) not in self.manifests and not self.sparse:
                return f"manifest unknown: {one['digest']}"
        return ""

    def blob(self, seen: Seen, name: str, digest: str) -> Reply:
        with self.lock:
            found = self.blobs.get(digest) if (name, digest) in self.links else None
            if found is None:
                return error(404, "BLOB_UNKNOWN")
            if seen.method == "DELETE":
                self.links.discard((name, digest))
                return Reply(202)
        return self._ranged(seen, found, {"Docker-Content-Digest": digest} if self.digest_header else {})

    def _ranged(self, seen: Seen, content: bytes | Path, headers: dict[str, str]) -> Reply:
        reply = Reply(200, {"Content-Type": "application/octet-stream", **headers}, content)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range)
        if not match or not self.ranges:
            return reply
        start, stop = int(match[1]), min(reply.whole, int(match[2]) + 1 if match[2] else reply.whole)
        if start >= stop:
            return error(416, "RANGE_INVALID", **{"Content-Range": f"bytes */{reply.whole}"})
        reply.status, reply.span = 206, (start, stop)
        reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{reply.whole}"
        return reply

    def tag_list(self, seen: Seen, name: str, _: str) -> Reply:
        with self.lock:
            if name not in self.tags:
                return error(404, "NAME_UNKNOWN", "repository name not known to registry")
            found = sorted(one for one in self.tags[name] if one > seen.query.get("last", ""))
        count = min(int(seen.query.get("n", "0")) or len(found), self.page or len(found))
        headers = {"Content-Type": "application/json"}
        if count < len(found):
            query = urlencode({"n": str(count), "last": found[count - 1]})
            headers["Link"] = f'<{self.root}/{name}/tags/list?{query}>; rel="next"'
        return Reply(200, headers, json.dumps({"name": name, "tags": found[:count]}).encode())

    def referrer_list(self, seen: Seen, name: str, digest: str) -> Reply:
        if not self.referrers_api:
            return error(404, "UNSUPPORTED")
        with self.lock:
            found = [one for (where, _), one in self.manifests.items() if where == name]
            entries = [entry for kind, data in found if (entry := referrer(kind, data, digest))]
        wanted = seen.query.get("artifactType")
        headers = {"Content-Type": mediatypes.INDEX}
        if wanted and self.filters:
            entries = [one for one in entries if one.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        first = int(seen.query.get("from", "0"))
        if self.page and first + self.page < len(entries):
            headers["Link"] = f'<?from={first + self.page}>; rel="next"'
        shown = entries[first : first + self.page] if self.page else entries
        body = {"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": shown}
        return Reply(200, headers, json.dumps(body).encode())


def referrer(kind: str, data: bytes, digest: str) -> dict[str, Any] | None:
    """The descriptor of a manifest whose subject is `digest`."""
    value = json.loads(data)
    if (value.get("subject") or {}).get("digest") != digest:
        return None
    found = {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
    artifact = value.get("artifactType") or value.get("config", {}).get("mediaType", "")
    if artifact:
        found["artifactType"] = artifact
    if value.get("annotations"):
        found["annotations"] = value["annotations"]
    return found


# What stands below the root, and what answers it
_ROUTES: list[tuple[str, Callable[[LocalRegistry, Seen, str, str], Reply]]] = [
    (r"(.+)/manifests/([^/]+)", LocalRegistry.manifest),
    (r"(.+)/blobs/uploads/([^/]*)", registry_uploads.handle),
    (r"(.+)/blobs/([^/]+)", LocalRegistry.blob),
    (r"(.+)/tags/list", LocalRegistry.tag_list),
    (r"(.+)/referrers/([^/]+)", LocalRegistry.referrer_list),
]


def counted(registry: LocalRegistry, method: str = "GET") -> Counter[tuple[str, str]]:
    """Requests of a method that were answered well, by path and range."""
    return Counter((one.path, one.range) for one in list(registry.seen) if one.method == method and one.status < 300)
