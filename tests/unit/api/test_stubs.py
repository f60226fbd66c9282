"""The stubs: all of them load, and serve and call over gRPC."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.csi import api_pb2 as csi
from ocirt_api.csi import options_pb2

API = Path(__file__).resolve().parents[3] / "api"
SOURCES = sorted(str(path.relative_to(API).with_suffix("")) for path in API.rglob("*.proto"))

# In a process of its own: grpc has threads, and other tests fork.
CALL = """\
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import grpc
from ocirt_api.cri import api_pb2, api_pb2_grpc
from ocirt_api.csi import api_pb2_grpc as csi
from ocirt_api.kubelet import registration_pb2_grpc

class Runtime(api_pb2_grpc.RuntimeServiceServicer):
    async def Version(self, request, context):
        return api_pb2.VersionResponse(version=request.version, runtime_name="ocirt")

    async def StreamContainers(self, request, context):
        for id in ("a", "b"):
            yield api_pb2.StreamContainersResponse(containers=[api_pb2.Container(id=id)])

async def main():
    server = grpc.aio.server()
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(Runtime(), server)
    server.add_insecure_port("unix:" + sys.argv[2])
    await server.start()
    async with grpc.aio.insecure_channel("unix:" + sys.argv[2]) as channel:
        runtime = api_pb2_grpc.RuntimeServiceStub(channel)
        print((await runtime.Version(api_pb2.VersionRequest(version="0.1.0"))).runtime_name)
        print([each.containers[0].id async for each in runtime.StreamContainers(api_pb2.StreamContainersRequest())])
        try:
            await runtime.CheckpointPod(api_pb2.CheckpointPodRequest())
        except grpc.aio.AioRpcError as error:
            print(error.code().name)
    await server.stop(None)

asyncio.run(main())
"""


def test_a_service_over_grpc(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, API, tmp_path / "s"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines() == ["ocirt", "['a', 'b']", "UNIMPLEMENTED"], done.stderr


@pytest.mark.parametrize("source", SOURCES)
def test_every_proto_file_has_a_stub(source: str) -> None:
    module = importlib.import_module(source.replace("/", ".") + "_pb2")
    assert module.DESCRIPTOR.name == f"{source}.proto"


@pytest.mark.parametrize(("module", "folder"), [(cri, "cri"), (csi, "csi")])
def test_one_module_has_all_messages(module: ModuleType, folder: str) -> None:
    for source in SOURCES:
        if source.startswith(f"ocirt_api/{folder}/"):
            part = importlib.import_module(source.replace("/", ".") + "_pb2")
            assert set(part.DESCRIPTOR.message_types_by_name) <= set(vars(module)), source


def test_an_environment_variable_need_not_be_text() -> None:
    pair = cri.KeyValue(key="K", value=b"\xff")
    assert cri.KeyValue.FromString(pair.SerializeToString()).value == b"\xff"


def test_what_is_secret_says_so() -> None:
    """So that one function can leave it out of logs."""
    fields = csi.CreateVolumeRequest.DESCRIPTOR.fields
    assert [field.name for field in fields if field.GetOptions().Extensions[options_pb2.csi_secret]] == ["secrets"]
    auth = cri.AuthConfig.DESCRIPTOR.fields
    secret = {field.name for field in auth if field.GetOptions().debug_redact}
    assert secret == {"password", "auth", "identity_token", "registry_token"}
