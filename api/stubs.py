"""Make the stubs: `python api/stubs.py` puts modules beside each .proto file, `python api/stubs.py clean` takes them away.

For `pods.proto` these are `pods_pb2.py` (the messages) and its types, `pods_pb2.pyi`; for a file with services that are
spoken over gRPC also `pods_pb2_grpc.py` and its types. It takes grpcio-tools and mypy-protobuf; the packaging backend uses
the same functions.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "ocirt_api"
# Where services are spoken over gRPC. Those of the other folders go over ttrpc.
GRPC = ("cri", "csi", "kubelet")
MESSAGES, SERVICES = ("_pb2.py", "_pb2.pyi"), ("_pb2_grpc.py", "_pb2_grpc.pyi")


def sources() -> list[Path]:
    """All .proto files, in order."""
    return sorted(PACKAGE.rglob("*.proto"))


def has_stub(source: Path) -> bool:
    """Does the file have services that are spoken over gRPC?"""
    return source.parent.name in GRPC and bool(re.search(r"^service ", source.read_text(), re.MULTILINE))


def stubs(source: Path) -> list[Path]:
    """The files that are made from one .proto file."""
    endings = MESSAGES + SERVICES if has_stub(source) else MESSAGES
    return [source.with_name(source.stem + ending) for ending in endings]


def are_fresh() -> bool:
    """Is every stub there, and newer than all .proto files?"""
    made = [stub for source in sources() for stub in stubs(source)]
    newest = max(source.stat().st_mtime_ns for source in sources())
    return all(stub.exists() and stub.stat().st_mtime_ns >= newest for stub in made)


def clean() -> None:
    """Remove what was made, also from .proto files that are gone."""
    for ending in MESSAGES + SERVICES:
        for stub in PACKAGE.rglob("*" + ending):
            stub.unlink()


def make() -> None:
    """Make all stubs anew. Raises RuntimeError if a tool is missing, or a .proto file is wrong."""
    try:
        import grpc_tools  # noqa: PLC0415  (only here: `clean` and fresh stubs do without)
        import mypy_protobuf  # noqa: F401, PLC0415
        from grpc_tools import protoc  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError(f"the stubs of api/ are made by grpcio-tools and mypy-protobuf: {error}") from error
    clean()
    includes = [f"-I{HERE}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    with tempfile.TemporaryDirectory() as scratch:
        for to, options, files in (
            (("python", "mypy"), ["--mypy_opt=quiet"], sources()),
            (("grpc_python", "mypy_grpc"), ["--mypy_grpc_opt=quiet"], [source for source in sources() if has_stub(source)]),
        ):
            plugins = [plugin(Path(scratch), "mypy", "main"), plugin(Path(scratch), "mypy_grpc", "grpc")]
            argv = ["protoc", *includes, *plugins, *options, *(f"--{name}_out={HERE}" for name in to), *map(str, files)]
            if protoc.main(argv):
                raise RuntimeError("protoc failed: see above")


def plugin(scratch: Path, name: str, function: str) -> str:
    """protoc's option for a plugin of mypy-protobuf: by this interpreter, whatever PATH says."""
    script = scratch / name
    code = f"from mypy_protobuf.main import {function}; {function}()"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    script.chmod(0o755)
    return f"--plugin=protoc-gen-{name}={script}"


if __name__ == "__main__":
    if sys.argv[1:] == ["clean"]:
        clean()
    else:
        try:
            make()
        except RuntimeError as problem:
            sys.exit(str(problem))
