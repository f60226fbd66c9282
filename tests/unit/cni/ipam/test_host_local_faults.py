"""host-local when one call to the kernel fails, whichever it is."""

from __future__ import annotations

import errno
import os
import posix
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.call import ADD, DEL, GC, Call
from ocirt_cni.errors import IO_FAILURE, Error
from ocirt_cni.plugins import invoke

CALLS = ("open", "write", "rename", "symlink", "unlink", "pwrite", "ftruncate")


class Choke:
    """Counts the calls that change something, and lets one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.failing = 0
        self.what = ""
        for name in CALLS:
            monkeypatch.setattr(posix, name, self._choked(name, getattr(posix, name)))

    def _choked(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            changes = name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)
            if changes:
                self.count += 1
                if self.count == self.failing:
                    self.what = f"{name}{args}"
                    raise OSError(errno.EIO, os.strerror(errno.EIO), args[0] if isinstance(args[0], str) else None)
            return real(*args, **options)

        return call

    def arm(self, number: int) -> None:
        """From now on let this call fail; 0: none."""
        self.count, self.failing, self.what = 0, number, ""


@pytest.fixture
def choke(monkeypatch: pytest.MonkeyPatch) -> Choke:
    return Choke(monkeypatch)


def call(folder: Path, command: str, container: str = "c1") -> Any:
    ipam = {"type": "host-local", "dataDir": str(folder), "ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/64"}]]}
    document = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam}
    options: dict[str, Any] = {"container": container, "ifname": "eth0", "netns": "/n"} if command in (ADD, DEL) else {}
    return invoke("host-local", Call(command, document, **options))


def state(folder: Path) -> tuple[set[str], set[str]]:
    """The leases, and what the index names."""
    path = folder / "net"
    if not path.exists():
        return set(), set()
    index = path / ".ocirt/of"
    return {name for name in os.listdir(path) if name.startswith(("10.", "fd"))}, set(os.listdir(index) if index.exists() else ())


def turns(folder: Path, count: int) -> None:
    for number in range(count):
        call(folder, ADD, f"x{number}")
        call(folder, DEL, f"x{number}")


@pytest.mark.parametrize("before", [0, 1, 7])
def test_add(tmp_path: Path, choke: Choke, before: int) -> None:
    """It says so and leaves nothing, or does not need the call. `before`: turns, so that addresses are new or were used."""
    failed = 0
    for number in range(1, 100):
        folder = tmp_path / str(number)
        choke.arm(0)
        turns(folder, before)
        choke.arm(number)
        try:
            call(folder, ADD)
        except Error as err:
            failed += 1
            assert err.code == IO_FAILURE, choke.what
            assert "Input/output error" in str(err)
            assert state(folder)[0] == set(), choke.what
        else:
            assert len(state(folder)[0]) == 2, choke.what
        reached = bool(choke.what)
        choke.arm(0)
        call(folder, DEL)
        assert state(folder) == (set(), set()), choke.what
        turns(folder, 6)
        if not reached:
            break
    assert failed > 5
    assert number < 99


@pytest.mark.parametrize("command", [DEL, GC])
def test_undoing(tmp_path: Path, choke: Choke, command: str) -> None:
    """What fails is done by the next call."""
    for number in range(1, 100):
        folder = tmp_path / str(number)
        choke.arm(0)
        call(folder, ADD)
        choke.arm(number)
        try:
            call(folder, command)
        except Error as err:
            assert err.code == IO_FAILURE, choke.what
        reached = choke.what
        choke.arm(0)
        call(folder, command)
        assert state(folder) == (set(), set()), reached
        turns(folder, 6)
        if not reached:
            break
    assert 4 < number < 99
