"""Talking to ocirtd (or to any other endpoint of the CRI) as a client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from ocirt.errors import Error
from ocirt_api.cri import api_pb2_grpc as services

ADDRESS = "unix:///run/ocirt/ocirt.sock"
PATIENCE = 10.0  # seconds for one call
_LARGEST = 16 << 20  # bytes of one message, as kubelets have it


def address(given: Any) -> str:
    """Where ocirtd listens: the flag, else the environment, else the usual place."""
    chosen = str(given.get("address") or os.environ.get("OCIRT_ADDRESS") or ADDRESS)
    return f"unix://{chosen}" if chosen.startswith("/") else chosen


@contextmanager
def connected(given: Any) -> Iterator[services.RuntimeServiceStub]:
    """The calls of the runtime's service. Raises grpc.RpcError, which `words` puts into words."""
    options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", _LARGEST)]
    with grpc.insecure_channel(address(given), options=options) as channel:
        yield services.RuntimeServiceStub(channel)


def words(given: Any, err: grpc.RpcError) -> Error:
    """What a call that failed means to a person."""
    where, code, text = address(given), err.code(), err.details() or ""
    if code == grpc.StatusCode.UNAVAILABLE:
        path = where.removeprefix("unix://")
        if where.startswith("unix://") and not os.path.exists(path):
            return Error("not-found", "ocirtd does not run", subject=path, hint="start it, or give --address")
        return Error("kernel", "ocirtd does not answer", subject=where, cause=text)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Error("kernel", f"no answer within {PATIENCE:g} seconds", subject=where)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return Error("unsupported", text or "not known there", subject=where)
    return Error("not-found" if code == grpc.StatusCode.NOT_FOUND else "invalid", text, subject=where)
