"""Loop devices by their marks, and file systems that are made in memory."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, extents, loops
from ocirt_csi.model import Volume
from ocirt_csi.pools import devices
from ocirt_csi.pools.images import Images

MIB = 1 << 20
VOLUME = Volume(id="v", pool="p", place="v", size=300 * MIB, charge=330 * MIB, layout=model.IMAGE, fs_type="ext4")
NEEDS_EXT4 = pytest.mark.skipif(not devices.is_available("ext4"), reason="not installed: mkfs.ext4")


class Loops:
    """Devices by their marks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.marks = {"mine:a": "/dev/loop1"}
        self.looks = 0
        monkeypatch.setattr(loops, "all_marked", self.look)
        monkeypatch.setattr(loops, "mark_of", lambda device: next((k for k, v in self.marks.items() if v == device), ""))
        monkeypatch.setattr(loops, "attach", self.attach)

    def look(self, prefix: str) -> dict[str, str]:
        self.looks += 1
        return {mark: device for mark, device in self.marks.items() if mark.startswith(prefix)}

    def attach(self, path: str, mark: str, *, read_only: bool) -> str:
        self.marks[mark] = f"/dev/loop{len(self.marks) + 1}"
        return self.marks[mark]


def test_devices_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a life before are found, and one that somebody took away, or gave another file, is not believed in."""
    kernel = Loops(monkeypatch)
    marked = loops.Marked("mine:")
    assert marked.find("mine:a") == "/dev/loop1"
    assert marked.attach("/a", "mine:a") == "/dev/loop1"
    assert marked.find("mine:b") is None
    assert marked.attach("/b", "mine:b") == "/dev/loop2" == marked.find("mine:b")
    kernel.marks = {"theirs": "/dev/loop1"}
    assert marked.find("mine:a") is None
    assert marked.attach("/a", "mine:a", read_only=True) == "/dev/loop2"
    assert marked.find("mine:b") is None
    assert kernel.looks == 1


def test_zeros_are_not_written(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    content = bytes(8192) + b"x" * 5000 + bytes(4096 * 30) + b"end"
    source.write_bytes(content)
    with target.open("wb") as file:
        file.truncate(len(content))
    with calls.opened(str(source), os.O_RDONLY) as old, calls.opened(str(target), os.O_RDWR) as new:
        extents.fill(old, new, len(content))
    assert target.read_bytes() == content
    assert target.stat().st_blocks < source.stat().st_blocks


def copied(source: Path, target: Path) -> None:
    """Copy it onto a file of the same length."""
    length = source.stat().st_size
    with target.open("wb") as file:
        file.truncate(length)
    with calls.opened(str(source), os.O_RDONLY) as old, calls.opened(str(target), os.O_RDWR) as new:
        extents.copy(old, new, length)


@pytest.mark.parametrize("tail", [0, 1, 5000])
@pytest.mark.parametrize("is_direct", [True, False])
def test_a_copy_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_direct: bool, tail: int) -> None:
    """By any number of pieces, with holes and without whole blocks at the end, and where the cache cannot be passed by."""
    source, target = tmp_path / "source", tmp_path / "target"
    parts = ((0, 9 * MIB + 4096), (20 * MIB, 4096), (30 * MIB + 8192, MIB), (40 * MIB, 8192 + tail))
    with source.open("wb") as file:
        for at, length in parts:
            file.seek(at)
            file.write(os.urandom(length))
    if not is_direct:
        real = os.open

        def refuse(path: str, flags: int, *more: int) -> int:
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "cannot", path)
            return real(path, flags, *more)

        monkeypatch.setattr(os, "open", refuse)
    copied(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 12 * MIB


def test_a_copy_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who copy end, and the first error is told."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(40 * MIB))
    pieces: list[int] = []

    def full(fd: int, _: object, at: int) -> int:
        pieces.append(at)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="full"):
        copied(source, tmp_path / "target")
    assert len(pieces) <= 4
    assert not [one for one in threading.enumerate() if one.name.startswith("copy")]


@NEEDS_EXT4
@pytest.mark.parametrize("in_memory", [True, False])
def test_an_ext4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    """It is whole, and no group waits for the kernel to write zeros that are there."""
    if not in_memory:
        monkeypatch.setattr(devices, "_IN_MEMORY", 0)
    Images("mark").make(str(tmp_path), VOLUME)
    path = tmp_path / "data"
    assert path.stat().st_size == VOLUME.charge
    subprocess.run(["e2fsck", "-f", "-n", path], check=True, capture_output=True, env={"PATH": calls.PATH})
    said = subprocess.run(["dumpe2fs", path], check=True, capture_output=True, text=True, env={"PATH": calls.PATH}).stdout
    groups = re.findall(r"^Group \d+:.*$", said, re.MULTILINE)
    assert len(groups) == 3
    if devices._PREZEROED in devices._of_zeros():
        assert all("ITABLE_ZEROED" in one for one in groups)


@NEEDS_EXT4
def test_what_makes_an_ext4_is_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An e2fsprogs that does not know how zeros are named is not told so."""
    monkeypatch.setattr(devices, "_PREZEROED", "no_such_option=1")
    devices._of_zeros.cache_clear()
    try:
        Images("mark").make(str(tmp_path), VOLUME)
        subprocess.run(["e2fsck", "-f", "-n", tmp_path / "data"], check=True, capture_output=True, env={"PATH": calls.PATH})
    finally:
        devices._of_zeros.cache_clear()


def test_what_makes_an_ext4_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are told, and nothing of it stays open."""
    before = os.listdir("/proc/self/fd")
    program = tmp_path / "mkfs.ext4"
    program.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(program))
    with pytest.raises(Error, match="no such luck"):
        Images("mark").make(str(tmp_path), replace(VOLUME, charge=MIB))
    assert os.listdir("/proc/self/fd") == before
