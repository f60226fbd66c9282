"""The fixtures of the tests of containerd's shim: a containerd that there is none of, and containers in shims."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api.messages import task
from ocirt_api.messages.google import Any as Wrapped
from ocirt_api.messages.options import Options
from ocirt_api.messages.types import Mount
from tests.support.bundle import default_config, make_rootfs, merge
from tests.support.isolation import Isolation, mount_targets, umount
from tests.support.runtime import wait_for
from tests.support.taskshims import Containerd, TaskShim, kill

PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


class Held:
    """A container, by its shim."""

    def __init__(self, containers: Containers, name: str, shim: TaskShim) -> None:
        self.containers = containers
        self.name = name
        self.shim = shim

    @property
    def bundle(self) -> Path:
        return self.containers.containerd.bundle(self.name)

    def call(self, method: str, **fields: Any) -> Any:
        """A method about this container. Raises Error."""
        return self.shim.call(method, task.METHODS[method][0](id=self.name, **fields))

    def create(self, **fields: Any) -> int:
        pid: int = self.call("Create", bundle=str(self.bundle), options=Wrapped.of(self.containers.options), **fields).pid
        return pid

    def run(self) -> Any:
        """Start it and wait for its end."""
        self.call("Start")
        return self.call("Wait")

    def add(self, exec_id: str, *args: str, **fields: Any) -> None:
        process = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        self.call("Exec", exec_id=exec_id, spec=Wrapped(type_url=PROCESS, value=json.dumps(process).encode()), **fields)

    def status(self, exec_id: str = "") -> int:
        status: int = self.call("State", exec_id=exec_id).status
        return status

    def remove(self) -> Any:
        """Delete it, and let the shim go."""
        done = self.call("Delete")
        self.call("Shutdown")
        return done


class Containers:
    """Makes them, and removes them."""

    numbers = itertools.count()

    def __init__(self, containerd: Containerd, cgroup: str) -> None:
        self.containerd = containerd
        self.place = containerd.place
        self.rootfs = make_rootfs(self.place / "rootfs")
        self.options = Options(root=f"{self.place}/r")
        self._cgroup = cgroup
        self._made: list[Held] = []

    def config(self, name: str, *args: str, terminal: bool = False, **edits: Any) -> dict[str, Any]:
        config = merge(default_config(), {"root": {"path": str(self.rootfs), "readonly": False}})
        config["linux"]["cgroupsPath"] = f"{self._cgroup}/{name}"
        config = merge(config, edits)
        config["process"] |= {"args": list(args), "terminal": terminal}
        return config

    def shim(self, *args: str, name: str = "", **edits: Any) -> Held:
        """A bundle and its shim, without a container yet."""
        name = name or f"t{next(self.numbers)}"
        address = self.containerd.start(name, self.config(name, *args, **edits))
        held = Held(self, name, TaskShim(address))
        self._made.append(held)
        return held

    def __call__(
        self, *args: str, stdin: str = "", stdout: str = "", stderr: str = "", terminal: bool = False, **edits: Any
    ) -> Held:
        """A created container that runs a command over the tests' files."""
        held = self.shim(*args, terminal=terminal, **edits)
        held.create(stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal)
        return held

    def fifo(self, name: str) -> str:
        """A FIFO for a stream, which nobody has open yet."""
        path = self.place / f"fifo-{next(self.numbers)}-{name}"
        os.mkfifo(path)
        return str(path)

    def clean_up(self) -> None:
        end: list[tuple[str, dict[str, Any]]] = [("Kill", {"signal": 9, "all": True}), ("Wait", {}), ("Delete", {})]
        for calls in (end, [("Shutdown", {"now": True})]):
            for held in self._made:
                for method, fields in calls:
                    try:
                        held.call(method, **fields)
                    except (Error, OSError, AssertionError):
                        continue
        for held in self._made:
            held.shim.socket.close()
            try:
                gone(held.shim.pid)
            except AssertionError:
                kill(held.shim.pid)
                raise
        for target in reversed(mount_targets()):
            if target.is_relative_to(self.place):
                umount(str(target))


@pytest.fixture
def containerd(no_leaks: list[Path]) -> Iterator[Containerd]:
    """A short place: sockets are below it."""
    place = Path(tempfile.mkdtemp(prefix="ocirt-"))
    made = Containerd(place)
    yield made
    made.stop()
    shutil.rmtree(place)


@pytest.fixture
def containers(containerd: Containerd, isolation: Isolation) -> Iterator[Containers]:
    made = Containers(containerd, isolation.cgroup_parent)
    yield made
    made.clean_up()


def gone(shim: int) -> None:
    """Wait for a shim's end."""
    wait_for(lambda: not Path(f"/proc/{shim}/exe").exists(), "the end of a shim", 10)


def bind(source: Path, *options: str) -> Mount:
    """A mount as the native snapshotter gives it."""
    return Mount(type="bind", source=str(source), options=["rbind", *options])
