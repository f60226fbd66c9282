"""How a verb has something done: by the driver that runs, or, if none does, in this process by the same services."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import config as configuration
from ocirt_csi.config import Config
from ocirt_csi.driver import STATE, Driver, open_pool
from ocirt_csi.errors import Error
from ocirt_csi.locks import driver_runs
from ocirt_csi.parts import Parts
from ocirt_csi.pools.pool import Pool
from ocirt_csi.services.moves import NAME as LOCAL
from ocirt_csi.services.moves import MoveService
from ocirt_csi.store import Store

_PATIENCE = 600.0  # seconds: a volume may be copied
_SERVICES = ("Identity", "Controller", "Node")


@contextlib.contextmanager
def looking(config: Config) -> Iterator[tuple[Config, Store, dict[str, Pool]]]:
    """The state and the pools, to look at beside a driver that runs. Raises Error."""
    path = os.path.join(config.state, STATE)
    if not os.path.exists(path):
        raise Error("not-found", "no driver was started here yet", subject=config.state, hint="ocirt-csi --pool DIR create NAME")
    store = Store(path)
    try:
        config = configuration.kept(store, config)
        yield config, store, _pools(store, config)
    finally:
        store.close()


def _pools(store: Store, config: Config) -> dict[str, Pool]:
    """Pools by class. One that cannot be used is named, and left out; the first error is raised if all cannot."""
    found: dict[str, Pool] = {}
    errors: list[Error | OSError] = []
    for one in config.settings().pools:
        try:
            found[one.name] = open_pool(store, one)
        except (Error, OSError) as err:
            errors.append(err)
            sys.stderr.write(f"ocirt-csi: the pool {one.name} cannot be used: {err}\n")
    if errors and not found:
        raise errors[0]
    return found


class Client:
    """Calls of the driver's services by name."""

    def __init__(self, config: Config) -> None:
        path = os.path.join(config.state, STATE)
        if os.path.exists(path):
            store = Store(path)
            try:
                config = configuration.kept(store, config)
            finally:
                store.close()
        self.config = config
        self._channel: Any = None
        self._parts: Parts | None = None
        if driver_runs(config.state):
            import grpc  # noqa: PLC0415  (a command that does all itself has no need of it)

            self._grpc = grpc
            self._channel = grpc.insecure_channel(f"unix:{config.socket}")
        else:
            self._parts = Parts(config.settings())
            configuration.keep(self._parts.driver.store, config)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None) -> None:
        if self._parts is not None:
            self._parts.close()
        if self._channel is not None:
            self._channel.close()

    @property
    def driver(self) -> Driver:
        """The driver of this process, where no other runs."""
        assert self._parts is not None
        return self._parts.driver

    def call(self, name: str, request: Any) -> Any:
        """The answer of an RPC. Raises Error, OSError."""
        if self._parts is not None:
            return next(getattr(one, name) for one in self._parts.services if hasattr(one, name))(request)
        for service in _SERVICES:
            descriptor = csi.DESCRIPTOR.services_by_name[service]
            if name in descriptor.methods_by_name:
                return self._call(f"/{descriptor.full_name}/{name}", getattr(csi, f"{name}Response"), request)
        raise AssertionError(name)

    def take_in(self, pool: str, folder: str, name: str, head: dict[str, Any]) -> str:
        """Have what came into a folder of a pool as a snapshot; its id. Raises Error, OSError."""
        text = StringValue(value=json.dumps({"class": pool, "folder": folder, "name": name, "head": head}))
        if self._parts is not None:
            return next(one for one in self._parts.services if isinstance(one, MoveService)).TakeIn(text).value
        return str(self._call(f"/{LOCAL}/TakeIn", StringValue, text).value)

    def _call(self, path: str, answer: Any, request: Any) -> Any:
        call = self._channel.unary_unary(
            path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
        )
        try:
            return call(request, timeout=_PATIENCE, wait_for_ready=True)
        except self._grpc.RpcError as err:
            raise Error("state", err.details() or str(err.code())) from None
