"""The fixtures of the tests of shims: a zygote for all of them, and containers, each in a shim of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api.messages.shim import CreateRequest, ExecRequest, Overlay
from tests.support.bundle import default_config, make_rootfs, merge
from tests.support.hungfs import HungFileSystem
from tests.support.isolation import Isolation
from tests.support.runtime import wait_for
from tests.support.shims import Shim, Zygote


class Box:
    """A container in a shim."""

    def __init__(self, shim: Shim, log: Path) -> None:
        self.shim = shim
        self.log = log

    def is_served(self) -> bool:
        """Whether its shim's process is there."""
        return Path(f"/proc/{self.shim.pid}/exe").exists()

    def call(self, method: str, request: Any = None) -> Any:
        return self.shim.call(method, request)

    def run(self) -> Any:
        """Start it and wait for its end."""
        self.call("Start")
        return self.call("Wait")

    def execute(self, *args: str, **more: Any) -> Any:
        process = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        return self.call("Exec", ExecRequest(process=json.dumps(process).encode(), **more))

    def entries(self) -> list[tuple[str, str, str]]:
        """Stream, tag and text of the log's lines."""
        return [(*line.split(" ", 3)[1:3], line.split(" ", 3)[3]) for line in self.log.read_text().splitlines()]  # type: ignore[misc]


class Boxes:
    """Makes containers, and removes them."""

    numbers = itertools.count()

    def __init__(self, zygote: Zygote, place: Path, cgroup: str) -> None:
        self.zygote = zygote
        self.place = place
        self.cgroup = cgroup
        self.rootfs = make_rootfs(place / "rootfs")
        self.made: list[Box] = []

    def __call__(
        self,
        *args: str,
        terminal: bool = False,
        stdin: bool = False,
        limit: int = 0,
        size: int = 0,
        waits: bool = True,
        beside: Box | None = None,
        **edits: Any,
    ) -> Box:
        """A created container that runs a command over the tests' files. beside: in the process of this one's shim."""
        name = f"c{next(self.numbers)}"
        config = merge(default_config(), {"root": {"path": str(self.rootfs), "readonly": False}})
        config["linux"]["cgroupsPath"] = f"{self.cgroup}/{name}"
        config = merge(config, edits)
        config["process"] |= {"args": list(args), "terminal": terminal}
        for number in ("upper", "work"):
            (self.place / name / number).mkdir(parents=True)
        root = Overlay(
            lowers=[str(self.rootfs)], upper=f"{self.place}/{name}/upper", work=f"{self.place}/{name}/work", volatile=True
        )
        shim = self.zygote.shim(self.place, name) if beside is None else beside.shim.share(self.place, name)
        box = Box(shim, self.place / name / "log")
        request = CreateRequest(
            id=name,
            state=str(shim.directory),
            config=json.dumps(config).encode(),
            root=root,
            log_path=str(box.log),
            stdin=stdin,
            terminal=terminal,
            log_line_limit=limit,
            log_size_limit=size,
        )
        self.made.append(box)
        call = box.shim.send("Create", request)
        if waits:
            box.shim.receive("Create", call)
        return box

    def begin(self, *args: str) -> Box:
        """A container that is being made."""
        return self(*args, waits=False)

    def clean_up(self) -> None:
        for box in self.made:
            if box.shim.directory.exists():
                try:
                    other = box.shim.again()
                    with other.socket:
                        other.call("Delete")
                except (OSError, AssertionError, Error):
                    with contextlib.suppress(ProcessLookupError):  # it was about to end
                        os.kill(box.shim.pid, signal.SIGKILL)
                wait_for(lambda box=box: not box.shim.directory.exists() or not box.is_served(), "the end of a shim", 10)  # type: ignore[misc]
            box.shim.socket.close()
        wait_for(lambda: not any(box.is_served() for box in self.made), "the end of all processes", 10)


@pytest.fixture
def zygote(no_leaks: list[Path]) -> Iterator[Zygote]:
    assert not no_leaks
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def boxes(no_leaks: list[Path], isolation: Isolation, zygote: Zygote, tmp_path: Path) -> Iterator[Boxes]:
    made = Boxes(zygote, tmp_path, isolation.cgroup_parent)
    yield made
    made.clean_up()


@pytest.fixture
def hung(boxes: Boxes, tmp_path: Path) -> Iterator[HungFileSystem]:
    del boxes  # these are taken away before it
    made = HungFileSystem(tmp_path / "hung")
    yield made
    made.close()
