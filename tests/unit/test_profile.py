"""The settings of properties stand in one place, tests/conftest.py: what one test said for itself, another would forget."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, settings

from tests.support.build import ROOT


def test_no_example_has_a_time_limit() -> None:
    profile = settings()
    assert profile.deadline is None
    assert HealthCheck.too_slow in profile.suppress_health_check


@pytest.mark.parametrize("folder", ["tests", "conformance", "bench"])
def test_no_test_says_it_again(folder: str) -> None:
    again = re.compile(r"settings\([^)]*\b(deadline|suppress_health_check)=")
    sources = [path for path in (ROOT / folder).rglob("*.py") if path.name != "conftest.py"]
    assert [str(path.relative_to(ROOT)) for path in sources if again.search(path.read_text())] == []
