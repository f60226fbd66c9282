"""`import ocirt` in tests: with the state root and the cgroups of the test, and a zygote that ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ocirt
from ocirt.zygote import client
from tests.support.build import ROOT
from tests.support.bundle import make_rootfs
from tests.support.isolation import Isolation
from tests.support.runtime import Runtime, wait_for


class Library:
    """The library with the state root and the cgroups of the test."""

    def __init__(self, runtime: Runtime, isolation: Isolation, rootfs: Path) -> None:
        self.runtime = runtime
        self.rootfs = rootfs
        self._parent = isolation.cgroup_parent

    def words(self, given: dict[str, Any]) -> dict[str, Any]:
        """The keywords that every container of the test gets."""
        name = self.runtime.new_id()
        usual: dict[str, Any] = {"id": name, "root": self.runtime.root}
        if not {"bundle", "config"} & given.keys():
            usual["cgroup"] = f"{self._parent}/{name}"
            if "mounts" not in given:
                usual["rootfs"] = self.rootfs
        return usual | given

    def texts(self) -> dict[str, str]:
        """`words` for a program of its own."""
        return {key: str(value) for key, value in self.words({}).items()}

    def run(self, *args: Any, **given: Any) -> ocirt.CompletedProcess:
        return ocirt.run(list(args) or None, **self.words(given))

    def shell(self, script: str, **given: Any) -> ocirt.CompletedProcess:
        """A line of shell, with what it writes as text."""
        return self.run("sh", "-c", script, **({"capture_output": True, "text": True} | given))

    def create(self, *args: Any, **given: Any) -> ocirt.Container:
        return ocirt.Container.create(list(args) or None, **self.words(given))

    def names(self) -> list[str]:
        """What the command lists."""
        return self.runtime.call("list", "-q").ok().out.split() if self.runtime.root.exists() else []

    def running(self, name: str) -> int:
        """The pid of a container's init, once it runs."""
        wait_for(lambda: self.names() == [name] and self.runtime.status(name) == "running", "the container")
        return self.runtime.pid(name)


@pytest.fixture
def library(runtime: Runtime, isolation: Isolation, no_leaks: list[Path]) -> Iterator[Library]:
    """The library; its zygote ends with the test."""
    rootfs = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(rootfs)
    rootfs.chmod(0o755)
    make_rootfs(rootfs)
    ocirt.close()
    yield Library(runtime, isolation, rootfs)
    ocirt.close()


def zygote() -> int:
    """The pid of this process's zygote."""
    assert client._zygote is not None
    return client._zygote.pid


def program(text: str, **environment: str) -> subprocess.Popen[str]:
    """A Python program of its own, with the clone on its path."""
    code = f"import sys; sys.path.append({str(ROOT)!r})\n" + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
