"""Whether ocirtd answers, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.cli.checkup import BAD, OK, WARNING, Finding
from ocirt_cri.cli.client import PATIENCE, connected, words


def answers(given: Any) -> Iterator[Finding]:
    """Its conditions."""
    try:
        with connected(given) as calls:
            version = calls.Version(cri.VersionRequest(), timeout=PATIENCE)
            status = calls.Status(cri.StatusRequest(), timeout=PATIENCE).status
    except grpc.RpcError as err:
        said = words(given, err)
        yield Finding("ocirtd", WARNING if said.code == "not-found" else BAD, str(said), said.hint or "look at its log")
        return
    yield Finding("ocirtd", OK, f"{version.runtime_name} {version.runtime_version}")
    for condition in status.conditions:
        text = condition.message or condition.reason
        yield Finding(condition.type, OK if condition.status else BAD, text or "yes" if condition.status else text)
