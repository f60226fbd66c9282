"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# What a caller's shell has set must not reach the containers by way of a runtime.
for _name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "PYTHONPATH", "PYTHONSTARTUP"):
    os.environ.pop(_name, None)

# What holds for every property, so that none says it itself. A machine at work is no reason to fail: no example has a time limit,
# nor has the making of examples. A fixture of a test is made once for all examples, as these tests want it.
# OCIRT_TEST_FUZZ=N: N times as many examples.
settings.register_profile(
    "ocirt",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=100 * int(os.environ.get("OCIRT_TEST_FUZZ", "1")),
)
settings.load_profile("ocirt")

# Their tests speak gRPC from this process, whose threads stay to the end. A fork of other tests, which loads nothing anew, then
# waits now and then for a lock that one of these threads held.
_SPEAK_GRPC = tuple(ROOT / "tests" / name for name in ("unit/cri", "system/cri", "system/cri_images"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: any(item.path.is_relative_to(place) for place in _SPEAK_GRPC))
