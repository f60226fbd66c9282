"""Images of real files, made from the machine's own /usr, and a registry on loopback that has them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

SHAPES = {"8 gzip layers": (8, "gzip"), "1 gzip layer": (1, "gzip"), "8 zstd layers": (8, "zstd")}
_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Made:
    """An image in an OCI layout: where, its bytes unpacked, its files, the sizes of its layers as they are pulled."""

    layout: Path
    size: int
    files: int
    layers: tuple[int, ...]


def real_files(size: int, parts: int, roots: tuple[str, ...] = ("/usr/lib", "/usr/share")) -> list[list[str]]:
    """Paths below `roots`, relative to /, in a fixed order, of about `size` bytes together, in lists of about the same size.

    A directory comes before its files. Files of more than 8 MiB are left out: a few would be most of the image.
    """
    found: list[list[str]] = [[]]
    total = 0
    for directory, names, files in chain.from_iterable(map(os.walk, roots)):
        names.sort()
        found[-1].append(directory.lstrip("/"))
        for name in sorted(files):
            path = os.path.join(directory, name)
            with suppress(OSError):
                length = os.lstat(path).st_size
                if length <= 8 << 20:
                    total += length
                    found[-1].append(path.lstrip("/"))
            if total >= size * len(found) // parts:
                if len(found) == parts:
                    return found
                found.append([])
    return found


def make(cache: Path, shape: str, size: int) -> Made:
    """The image of a shape of SHAPES. What was made once is kept below `cache`."""
    count, compression = SHAPES[shape]
    place = cache / f"{shape.replace(' ', '-')}-{size >> 20}"
    notes = place / "made.json"
    if not notes.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        notes.write_text(json.dumps(_make(place, real_files(size, count), compression)))
    value = json.loads(notes.read_text())
    return Made(place, value["size"], value["files"], tuple(value["layers"]))


def _make(place: Path, parts: list[list[str]], compression: str) -> dict[str, object]:
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers, diff_ids, total = [], [], 0
    for part in parts:
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            plain, packed = Path(scratch, "layer.tar"), Path(scratch, "layer")
            argv = ["tar", "-C", "/", "--no-recursion", "--numeric-owner", "--null", "-T", "-", "-cf", str(plain)]
            subprocess.run(argv, input="\0".join(part).encode(), check=True, stderr=subprocess.DEVNULL)
            with packed.open("wb") as out:
                words = ["gzip", "-n", "-c"] if compression == "gzip" else ["zstd", "-q", "-c"]
                subprocess.run([*words, str(plain)], stdout=out, check=True)
            diff_ids.append(f"sha256:{_hash(plain)}")
            total += plain.stat().st_size
            layers.append(_place(blobs, packed, f"{_TYPE}+{compression}"))
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/usr/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _write(blobs, config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    entry = _write(blobs, manifest, "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return {"size": total, "files": sum(map(len, parts)), "layers": [layer["size"] for layer in layers]}


def _hash(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _place(blobs: Path, path: Path, media_type: str) -> dict[str, object]:
    digest = _hash(path)
    size = path.stat().st_size
    path.rename(blobs / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _write(blobs: Path, value: object, media_type: str) -> dict[str, object]:
    path = blobs / "new"
    path.write_text(json.dumps(value))
    return _place(blobs, path, media_type)


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of loopback, empty; its HOST:PORT."""
    program = shutil.which("docker-registry")
    if program is None:
        sys.exit("docker-registry is not there: apt-get install docker-registry")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(work / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    path = work / "registry.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with (
        (work / "registry.log").open("wb") as log,
        subprocess.Popen([program, "serve", str(path)], stdout=log, stderr=log) as daemon,
    ):
        try:
            for _ in range(200):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/"):
                    break
                time.sleep(0.05)
            else:
                sys.exit(f"docker-registry does not answer: {(work / 'registry.log').read_text()[-500:]}")
            yield f"127.0.0.1:{port}"
        finally:
            daemon.terminate()


def push(made: Made, name: str) -> None:
    """Put an image into a registry, as it is."""
    argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{made.layout}:latest", f"docker://{name}"]
    subprocess.run(argv, check=True)
