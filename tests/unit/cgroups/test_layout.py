"""`layout`: what is found of a host's hierarchies, on directories that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.cgroups.layout import detect, mount_table, own_cgroups, own_directory

SYSTEMD_HYBRID = """\
12:cpuset:/
11:cpu,cpuacct:/user.slice
2:devices:/user.slice
1:name=systemd:/user.slice/session-1.scope
3:name=mine:/x
0::/user.slice/session-1.scope
"""


class Host:
    """A root for /sys/fs/cgroup and one for /proc."""

    def __init__(self, base: Path, cgroup: str, mountinfo: str = "") -> None:
        self.root = base / "cg"
        self.proc = base / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/cgroup").write_text(cgroup)
        (self.proc / "self/mountinfo").write_text(mountinfo)
        self.root.mkdir()

    def mount(self, *names: str) -> None:
        for name in names:
            (self.root / name).mkdir(parents=True, exist_ok=True)
            (self.root / name / "cgroup.procs").touch()


def test_version_2(tmp_path: Path) -> None:
    """cgroup.controllers at the root: nothing else is looked at."""
    host = Host(tmp_path, "4:memory:/elsewhere\n0::/a/b\n")
    (host.root / "cgroup.controllers").write_text("cpu\n")
    found = detect(str(host.root), str(host.proc))
    assert (found.mode, found.mounts, found.own) == ("v2", {"": str(host.root)}, {"": "/a/b"})


def test_systemd_hybrid(tmp_path: Path) -> None:
    """Co-mounted controllers share a directory; of the named hierarchies only systemd's counts."""
    host = Host(tmp_path, SYSTEMD_HYBRID)
    host.mount("cpuset", "cpu,cpuacct", "devices", "systemd", "mine", "unified")
    found = detect(str(host.root), str(host.proc))
    assert found.mode == "hybrid"
    assert found.mounts == {
        "cpuset": f"{host.root}/cpuset",
        "cpu": f"{host.root}/cpu,cpuacct",
        "cpuacct": f"{host.root}/cpu,cpuacct",
        "devices": f"{host.root}/devices",
        "name=systemd": f"{host.root}/systemd",
        "": f"{host.root}/unified",
    }
    assert found.own["cpuacct"] == "/user.slice"
    assert "name=mine" not in found.own


def test_version_1_with_links_only(tmp_path: Path) -> None:
    """Without the unified mount it is version 1; a missing hierarchy is left out; links to co-mounts will do."""
    host = Host(tmp_path, SYSTEMD_HYBRID)
    host.mount("cpuacct,cpu", "devices")
    (host.root / "cpu").symlink_to("cpuacct,cpu")
    found = detect(str(host.root), str(host.proc))
    assert found.mode == "v1"
    assert found.mounts == {"cpu": f"{host.root}/cpu", "cpuacct": f"{host.root}/cpu", "devices": f"{host.root}/devices"}


def test_unusual_places(tmp_path: Path) -> None:
    """mountinfo is read when nothing is at the usual places."""
    other = tmp_path / "o t"
    lines = [
        f"30 20 0:27 / {other}/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct".replace("o t", "o\\040t"),
        f"31 20 0:28 /part {other}/two rw,relatime - cgroup2 cgroup2 rw".replace("o t", "o\\040t"),
        "32 20 0:29 / /tmp rw - tmpfs cgroup rw",
    ]
    host = Host(tmp_path, SYSTEMD_HYBRID, "\n".join(lines) + "\n")
    assert detect(str(host.root), str(host.proc)).mode == "none"
    for name in ("cpu", "two"):
        (other / name).mkdir(parents=True)
        (other / name / "cgroup.procs").touch()
    found = detect(str(host.root), str(host.proc))
    assert found.mode == "hybrid"
    assert found.mounts == {"cpu": f"{other}/cpu", "cpuacct": f"{other}/cpu", "": f"{other}/two"}


def test_nothing(tmp_path: Path) -> None:
    """A host without cgroups, and one without /proc."""
    host = Host(tmp_path, "")
    found = detect(str(host.root), str(host.proc))
    assert (found.mode, found.mounts) == ("none", {})
    with pytest.raises(OSError, match="No such file"):
        detect(str(host.root), str(tmp_path / "nope"))


def test_own_directory(tmp_path: Path) -> None:
    """Below the mount point; in a container without a cgroup namespace, without what is above its mount."""
    host = Host(tmp_path, "2:devices:/docker/abc/in\n0::/\n")
    host.mount("devices", "devices/docker/abc/in", "unified")
    found = detect(str(host.root), str(host.proc))
    assert own_directory(found, "devices", str(host.proc)) == f"{host.root}/devices/docker/abc/in"
    assert own_directory(found, "", str(host.proc)) == f"{host.root}/unified"

    inside = Host(tmp_path / "c", "2:devices:/docker/abc/in\n1:pids:/docker/abcdef/in\n")
    inside.mount("devices", "devices/in", "pids")
    (inside.proc / "self/mountinfo").write_text(
        f"1 2 0:3 /docker/abc {inside.root}/devices rw - cgroup cgroup rw,devices\n"
        f"1 2 0:4 /docker/abc {inside.root}/pids rw - cgroup cgroup rw,pids\n",
    )
    found = detect(str(inside.root), str(inside.proc))
    assert own_directory(found, "devices", str(inside.proc)) == f"{inside.root}/devices/in"
    # Outside of what is mounted: the mount point is all that can be reached.
    assert own_directory(found, "pids", str(inside.proc)) == f"{inside.root}/pids"


def test_texts() -> None:
    """Lines that are not there, paths with colons."""
    assert own_cgroups("1:a,b:/x:y\n\nbad\n0::/\n") == [(["a", "b"], "/x:y"), ([""], "/")]
    assert mount_table("bad\n1 2 0:3 / /m rw - ext4 /dev/x rw\n") == []
