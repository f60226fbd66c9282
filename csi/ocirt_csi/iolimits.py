"""Limits of a volume's device for the pod that has it, in the pod's cgroup: io.max, or blkio.throttle of version 1.

A kubelet publishes below .../pods/UID/, and names the pod's cgroup after the UID.
"""

from __future__ import annotations

import os
import re

from ocirt_csi.model import DEVICES, Volume
from ocirt_csi.parameters import LIMITS
from ocirt_csi.pools.pool import Pool

ROOT = "/sys/fs/cgroup"
_POD = re.compile(r"/pods/([0-9a-fA-F-]{8,64})/")
_DEPTH = 4  # folders between the root and a pod's
_V1 = dict(zip(LIMITS, ("read_bps", "write_bps", "read_iops", "write_iops"), strict=True))
_V2 = dict(zip(LIMITS, ("rbps", "wbps", "riops", "wiops"), strict=True))


def limit(pool: Pool, volume: Volume, target: str) -> None:
    """Let a volume's limits hold for the pod of a target, if there is one. Raises OSError."""
    pod = _POD.search(target)
    if not volume.mutable or volume.layout not in DEVICES or pod is None:
        return
    number = os.stat(pool.back_end(volume).device(pool.place(volume), volume)).st_rdev
    for folder in folders(pod[1]):
        write(folder, f"{os.major(number)}:{os.minor(number)}", volume.mutable)


def folders(uid: str, root: str = ROOT) -> list[str]:
    """The cgroups of a pod that can limit: of version 2, or of blkio."""
    below = os.path.join(root, "blkio") if os.path.isdir(os.path.join(root, "blkio")) else root
    names = {f"pod{uid}", f"pod{uid.replace('-', '_')}.slice"}
    found = []
    for path, children, _ in os.walk(below):
        depth = path.removeprefix(below).count("/")
        found += [os.path.join(path, one) for one in children if one in names or one.rpartition("-")[2] in names]
        children[:] = [one for one in children if depth < _DEPTH and "kubepods" in path + one]
    return found


def write(folder: str, device: str, limits: dict[str, str]) -> None:
    """Write limits for a device ("7:3") into a cgroup. Raises OSError."""
    if os.path.exists(os.path.join(folder, "io.max")):
        words = " ".join(f"{_V2[name]}={'max' if value == '0' else value}" for name, value in limits.items())
        _put(os.path.join(folder, "io.max"), f"{device} {words}")
        return
    for name, value in limits.items():
        _put(os.path.join(folder, f"blkio.throttle.{_V1[name]}_device"), f"{device} {value}")


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
