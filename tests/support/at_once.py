"""A plugin of pytest's: what fails is shown at once, and not only at the end of a run that takes an hour."""

from __future__ import annotations

import os

import pytest

_LONGEST = 6000  # characters of one report; the whole follows at the end


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext[-_LONGEST:]}\n", flush=True)
