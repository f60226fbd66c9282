"""Clients run where the system tests run: in namespaces of their own, searched for leaks after every test."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import tests.conftest  # noqa: E402, F401  (it cleans the environment)
from conformance.drivers import Machine  # noqa: E402
from conformance.imagetools import made, podman, skopeo  # noqa: E402, F401
from conformance.registries import registry  # noqa: E402, F401
from tests.support.isolation import Isolation  # noqa: E402
from tests.system.conftest import (  # noqa: E402, F401
    isolation,
    leaks,
    no_leaks,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    pytest_sessionfinish,
)


@pytest.fixture(scope="session")
def machine(isolation: Isolation) -> Iterator[Machine]:  # noqa: F811
    """A directory for what clients keep, and a root file system to make images from."""
    # A short path: podman refuses a runroot of more than 50 characters.
    found = Machine(Path(tempfile.mkdtemp(prefix="ocirt-")), isolation.token, isolation.cgroup_parent)
    yield found
    found.remove()
