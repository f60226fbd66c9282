"""Pushes to a `LocalRegistry`: monolithic, in chunks, by mount (distribution-spec, "Push")."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.registry_http import Reply, Seen, error

if TYPE_CHECKING:
    from tests.support.registry import LocalRegistry


@dataclass
class Uploads:
    """How a registry takes uploads, and those that are under way.

    chunk_minimum: bytes of a chunk that is not the last; limit: bytes of a body, above which it is refused (413)
    single_post: it takes a blob along with POST; mounts: it mounts; forgets: what broke off is not kept
    absolute: its locations are whole URLs, those of another origin if `elsewhere` names one; without `ranges` it does not say how
    far it is; refusals: so many chunks are refused (416), whatever they are
    """

    chunk_minimum: int = 0
    limit: int | None = None
    single_post: bool = True
    mounts: bool = True
    forgets: bool = False
    absolute: bool = False
    elsewhere: str = ""
    ranges: bool = True
    refusals: int = 0
    running: dict[str, Running] = field(default_factory=dict)


@dataclass
class Running:
    """An upload. `step` stands in its location and changes with each answer: only the newest location is good."""

    data: bytearray = field(default_factory=bytearray)
    step: int = 0
    short: bool = False  # a chunk below the minimum came: it must have been the last


def handle(registry: LocalRegistry, seen: Seen, name: str, session: str) -> Reply:
    """A request below `blobs/uploads/`."""
    uploads = registry.uploads
    if uploads.limit is not None and len(seen.body) > uploads.limit:
        return error(413, "SIZE_INVALID")
    with registry.lock:
        if not session:
            return _begin(registry, seen, name) if seen.method == "POST" else error(405, "UNSUPPORTED")
        running = uploads.running.get(session)
        if running is None:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        if seen.broken:
            return _broken(uploads, session, running, seen)
        if seen.method == "DELETE":
            del uploads.running[session]
            return Reply(204)
        # A look at it may use an older location: the answer with the newer one may have been lost.
        if seen.method != "GET" and seen.query.get("state") != f"a/{running.step}":
            return error(400, "BLOB_UPLOAD_INVALID", "not the newest location")
        match seen.method:
            case "GET":
                return _state(registry, name, session, 204)
            case "PATCH":
                return _append(registry, seen, running) or _state(registry, name, session, 202)
            case "PUT":
                if seen.body and (refused := _append(registry, seen, running)):
                    return refused
                del uploads.running[session]
                return _finish(registry, name, bytes(running.data), seen.query.get("digest", ""))
            case _:
                return error(405, "UNSUPPORTED")


def _begin(registry: LocalRegistry, seen: Seen, name: str) -> Reply:
    mount, digest = seen.query.get("mount"), seen.query.get("digest")
    uploads = registry.uploads
    if mount and uploads.mounts and mount in registry.blobs and (seen.query.get("from"), mount) in registry.links:
        registry.links.add((name, mount))
        return Reply(201, {"Location": f"{registry.root}/{name}/blobs/{mount}", "Docker-Content-Digest": mount})
    if digest and uploads.single_post:
        return _finish(registry, name, seen.body, digest)
    session = uuid.uuid4().hex
    uploads.running[session] = Running()
    return _state(registry, name, session, 202)


def _state(registry: LocalRegistry, name: str, session: str, status: int) -> Reply:
    uploads = registry.uploads
    running = uploads.running[session]
    running.step += 1
    base = uploads.elsewhere or (registry.url if uploads.absolute else "")
    location = f"{base}{registry.root}/{name}/blobs/uploads/{session}?state=a%2F{running.step}"
    headers = {"Location": location, "Docker-Upload-UUID": session}
    if uploads.ranges:
        headers["Range"] = f"0-{max(0, len(running.data) - 1)}"
    if uploads.chunk_minimum:
        headers["OCI-Chunk-Min-Length"] = str(uploads.chunk_minimum)
    return Reply(status, headers)


def _append(registry: LocalRegistry, seen: Seen, running: Running) -> Reply | None:
    """None if it went well."""
    data = running.data
    if seen.method == "PATCH" and registry.uploads.refusals:
        registry.uploads.refusals -= 1
        return error(416, "BLOB_UPLOAD_INVALID")
    said = seen.headers.get("Content-Range")
    if said is not None:
        match = re.fullmatch(r"(\d+)-(\d+)", said)
        if not match or int(match[1]) != len(data) or int(match[2]) - int(match[1]) + 1 != len(seen.body):
            return error(416, "BLOB_UPLOAD_INVALID", Range=f"0-{max(0, len(data) - 1)}")
    if running.short:
        return error(416, "BLOB_UPLOAD_INVALID", "a chunk after one that is below the minimum")
    running.short = seen.method == "PATCH" and len(seen.body) < registry.uploads.chunk_minimum
    data += seen.body
    return None


def _broken(uploads: Uploads, session: str, running: Running, seen: Seen) -> Reply:
    """What came before the connection broke is kept, or not. Nobody gets this answer."""
    if uploads.forgets:
        del uploads.running[session]
    else:
        running.data += seen.body
    return Reply(500)


def _finish(registry: LocalRegistry, name: str, data: bytes, digest: str) -> Reply:
    algorithm = digest.partition(":")[0]
    if algorithm not in ("sha256", "sha512") or f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
        return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
    registry.put_blob(name, digest, data)
    return Reply(201, {"Location": f"{registry.root}/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
