"""Disks of the tests' own, each in a file: file systems whose ids this kernel can map, and a disk that is shared by weight.

Their modules bring nodes in /dev along, which the search for leaks would find: call `load_modules` from a fixture of a module or
wider.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.isolation import mount

TMPFS = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 3)
SIZE = 8 << 20  # bytes


def load_modules() -> None:
    """What a disk in a file needs, where the kernel does not have it built in."""
    subprocess.run(["modprobe", "-q", "-a", "loop", "ext4", "btrfs", "xfs", "quota_v2"], check=False)


def _image(path: Path, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def mount_mappable(path: Path, work: Path) -> None:
    """Mount a file system whose ids this kernel can map: a tmpfs (since Linux 6.3), or an ext4 in a file below `work`."""
    if TMPFS:
        mount("tmpfs", str(path), "tmpfs", 0)
        return
    image = _image(work / f"{path.name}.ext4")
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)


@contextlib.contextmanager
def mounted_btrfs(path: Path, work: Path, quotas: str) -> Iterator[None]:
    """A btrfs at `path` (made), in a file below `work`. quotas: "full", "simple", or "" for none. Skips the test without."""
    image = _image(work / "disk.btrfs", 256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, stdout=subprocess.DEVNULL)
    path.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"btrfs cannot be mounted here: {done.stderr.strip()}")
    try:
        if quotas:
            enable = {"full": 1, "simple": 4}[quotas]  # BTRFS_QUOTA_CTL_ENABLE, BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
            fd = os.open(path, os.O_RDONLY)
            try:
                fcntl.ioctl(fd, 3 << 30 | 16 << 16 | 0x94 << 8 | 40, struct.pack("QQ", enable, 0))  # BTRFS_IOC_QUOTA_CTL
            except OSError as err:
                if err.errno != errno.EINVAL:
                    raise
                pytest.skip(f"this kernel's btrfs has no {quotas} quotas")
            finally:
                os.close(fd)
        yield
    finally:
        subprocess.run(["umount", path], check=True)
        image.unlink()


@contextlib.contextmanager
def mounted_with_projects(path: Path, work: Path, kind: str = "ext4") -> Iterator[None]:
    """An ext4 or XFS with project quota at `path` (made), in a file below `work`. Skips the test where the kernel has none."""
    if kind == "ext4":
        image = _image(work / "disk.ext4", 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image], check=True)
    else:
        image = _image(work / "disk.xfs", 512 << 20)  # mkfs.xfs makes none below 300 MiB
        subprocess.run(["mkfs.xfs", "-q", image], check=True)
    path.mkdir()
    done = subprocess.run(["mount", "-o", "loop,prjquota", image, path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel has no project quota for {kind} (CONFIG_QFMT_V2, CONFIG_XFS_QUOTA)")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)
        image.unlink()


@contextlib.contextmanager
def shared_by_weight(work: Path) -> Iterator[tuple[int, int]]:
    """The number (major, minor) of a disk in a file below `work`, with the scheduler BFQ. Skips the test without."""
    loaded = Path("/sys/module/bfq").exists()
    done = subprocess.run(["losetup", "--find", "--show", _image(work / "disk")], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be made of a file: {done.stderr.strip()}")
    disk = Path(done.stdout.strip())
    try:
        subprocess.run(["modprobe", "-q", "bfq"], check=False)
        try:
            Path("/sys/block", disk.name, "queue/scheduler").write_text("bfq")
        except OSError as error:
            pytest.skip(f"no disk can have the scheduler BFQ here: {error}")
        number = disk.stat().st_rdev
        yield os.major(number), os.minor(number)
    finally:
        subprocess.run(["losetup", "--detach", disk], check=True)
        if not loaded:  # with it every cgroup has files that it had not before; as a part of the kernel it stays
            subprocess.run(["modprobe", "-q", "-r", "bfq"], check=False)
