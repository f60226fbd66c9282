"""What the command line's tests share: a command that runs in this process, and containers that are only records."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt import state
from ocirt.cli import options
from ocirt.cli.main import command

MakeRecord = Callable[..., dict[str, Any]]


class Cli:
    """Runs command lines with a state root of their own."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capture = capture

    def __call__(self, *args: str, name: str = "ocirt") -> tuple[int, str, str]:
        """Exit status, standard output and standard error of `ocirt --root ROOT args`."""
        return self.bare("--root", str(self.root), *args, name=name)

    def bare(self, *args: str, name: str = "ocirt") -> tuple[int, str, str]:
        """The same without --root."""
        self._capture.readouterr()
        status = command(options.Options(name), list(args))
        out, err = self._capture.readouterr()
        return status, out, err


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state root that does not exist yet."""
    return tmp_path / "root"


@pytest.fixture
def cli(root: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command, called in this process."""
    return Cli(root, capfd)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for a container's init."""
    with subprocess.Popen(["sleep", "60"]) as process:
        # Its start time is fixed at fork; nothing has to be waited for.
        yield process
        process.kill()


@pytest.fixture
def make(root: Path, sleeper: subprocess.Popen[bytes]) -> MakeRecord:
    """Make a container that is only a record: `make("c1", pid=…)` overrides fields. Its init is `sleeper`, and was started."""

    def record(container_id: str = "c1", **fields: Any) -> dict[str, Any]:
        where = state.reserve(str(root), container_id)
        whole: dict[str, Any] = {
            "id": container_id,
            "status": "created",
            "creator": {"pid": os.getpid(), "start_time": state.process_start_time(os.getpid())},
            "pid": sleeper.pid,
            "start_time": state.process_start_time(sleeper.pid),
            "boot_id": state.boot_id(),
            "bundle": "/b",
            "rootfs": "/b/rootfs",
            "created": state.timestamp(time.time_ns()),
            "annotations": {},
            "owner": "root",
            "uid": os.geteuid(),
            "cgroup": {"mode": "none", "paths": {}, "created": []},
            "namespaces": {"pid": ""},
            "hooks": {},
            "process": {"args": ["sleep", "60"]},
            "spec_version": "1.3.0",
        } | fields
        state.save(where, whole)
        set_phase(root, container_id, 1)
        return whole

    return record


def set_phase(root: Path, container_id: str, value: int) -> None:
    """Write what init writes."""
    (root / container_id / "phase").write_bytes(value.to_bytes(4, "little", signed=True))
