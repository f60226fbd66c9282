"""Pushes to a `LocalRegistry`: monolithic, in chunks, by mount (distribution-spec, "Push")."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING

from tests.support.registry_http import Reply, Seen, error

if TYPE_CHECKING:
    from tests.support.registry import LocalRegistry


def handle(registry: LocalRegistry, seen: Seen, name: str, session: str) -> Reply:
    """A request below `blobs/uploads/`."""
    with registry.lock:
        if not session:
            return _begin(registry, seen, name) if seen.method == "POST" else error(405, "UNSUPPORTED")
        if session not in registry.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        match seen.method:
            case "GET":
                return _state(registry, name, session, 204)
            case "DELETE":
                del registry.uploads[session]
                return Reply(204)
            case "PATCH":
                return _append(registry, seen, session) or _state(registry, name, session, 202)
            case "PUT":
                if seen.body and (refused := _append(registry, seen, session)):
                    return refused
                return _finish(registry, name, bytes(registry.uploads.pop(session)), seen.query.get("digest", ""))
            case _:
                return error(405, "UNSUPPORTED")


def _begin(registry: LocalRegistry, seen: Seen, name: str) -> Reply:
    mount, digest = seen.query.get("mount"), seen.query.get("digest")
    if mount and mount in registry.blobs and (seen.query.get("from"), mount) in registry.links:
        registry.links.add((name, mount))
        return Reply(201, {"Location": f"{registry.root}/{name}/blobs/{mount}", "Docker-Content-Digest": mount})
    if digest:
        return _finish(registry, name, seen.body, digest)
    session = uuid.uuid4().hex
    registry.uploads[session] = bytearray()
    return _state(registry, name, session, 202)


def _state(registry: LocalRegistry, name: str, session: str, status: int) -> Reply:
    headers = {"Location": f"{registry.root}/{name}/blobs/uploads/{session}?state=a%2Fb", "Docker-Upload-UUID": session}
    size = len(registry.uploads[session])
    headers["Range"] = f"0-{max(0, size - 1)}"
    if registry.chunk_minimum:
        headers["OCI-Chunk-Min-Length"] = str(registry.chunk_minimum)
    return Reply(status, headers)


def _append(registry: LocalRegistry, seen: Seen, session: str) -> Reply | None:
    """None if it went well."""
    data = registry.uploads[session]
    said = seen.headers.get("Content-Range")
    if said is not None:
        match = re.fullmatch(r"(\d+)-(\d+)", said)
        if not match or int(match[1]) != len(data) or int(match[2]) - int(match[1]) + 1 != len(seen.body):
            return error(416, "BLOB_UPLOAD_INVALID", Range=f"0-{max(0, len(data) - 1)}")
    data += seen.body
    return None


def _finish(registry: LocalRegistry, name: str, data: bytes, digest: str) -> Reply:
    algorithm = digest.partition(":")[0]
    if algorithm not in ("sha256", "sha512") or f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
        return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
    registry.put_blob(name, digest, data)
    return Reply(201, {"Location": f"{registry.root}/{name}/blobs/{digest}", "Docker-Content-Digest": digest})
