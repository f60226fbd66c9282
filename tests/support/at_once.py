"""A plugin of pytest's, for a run that takes an hour: what fails is shown at once, and some files are never run side by side."""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_LONGEST = 6000  # characters of one report; the whole follows at the end
# Units of systemd's, and options of /sys/fs/cgroup, belong to the machine, not to a session of tests.
_ALONE = tuple(f"tests/system/test_{name}.py" for name in ("systemd", "systemd_checkpoint", "systemd_limits", "check_features"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext[-_LONGEST:]}\n", flush=True)


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return _ALONE[0] if file in _ALONE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return _Scheduling(config, log)
