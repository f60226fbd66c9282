"""What is looked at, on directories of ours in the place of the host's and an image's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ocirt.cgroups.layout import Layout
from ocirt.kernel import mountinfo
from ocirt.spec.capabilities import NAMES
from ocirt_cri import machine
from ocirt_cri.lookups import HostLookups, propagation_of
from ocirt_cri.spec.seccomp import LIMIT as PROFILE_LIMIT
from ocirt_images.bundle.users import LIMIT
from ocirt_images.errors import Error

TABLE = b"""\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /srv/a\\040b rw shared:9 master:1 - tmpfs tmpfs rw
23 21 0:6 / /srv rw master:1 - tmpfs tmpfs rw
24 23 0:7 / /srv/x rw - tmpfs tmpfs rw
25 23 0:8 / /srv/x rw shared:7 - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/", "shared"),
        ("/etc/passwd", "shared"),
        ("/srv", "slave"),
        ("/srv/not/there", "slave"),
        ("/srvother", "shared"),
        ("/srv/a b", "shared"),
        ("/srv/a b/c", "shared"),
        ("/srv/x/y", "shared"),
    ],
)
def test_propagation(path: str, wanted: str) -> None:
    assert propagation_of(TABLE, os.fsencode(path)) == wanted


def test_propagation_of_a_private_mount() -> None:
    assert propagation_of(b"1 1 8:1 / / rw - ext4 /dev/sda1 rw\n", b"/x") == "private"
    assert propagation_of(b"", b"/x") == "private"


def layer(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text)
    return place


def test_files_of_an_image(tmp_path: Path) -> None:
    """Of the topmost layer that has them; a link means what it means inside."""
    upper = layer(
        tmp_path / "1", {"etc/group": "new", "etc/passwd": "->/../../other/passwd", "loop": "->loop", "out": "->/etc/shadow"}
    )
    lower = layer(tmp_path / "2", {"etc/group": "old", "other/passwd": "found", "data/x": ""})
    with HostLookups([upper, lower]) as lookups:
        assert lookups.read_image("/etc/group") == b"new"
        assert lookups.read_image("/etc/passwd") == b"found"
        assert lookups.read_image("/etc/gone") is None
        assert lookups.read_image("/out") is None
        assert lookups.in_image("/data")
        assert lookups.in_image("/data/x")
        assert not lookups.in_image("/data/y")
        assert not lookups.in_image("/data/x/y")
        with pytest.raises(Error, match="plain file"):
            lookups.read_image("/data")
        with pytest.raises(Error, match="too many symlinks"):
            lookups.read_image("/loop")


def test_files_of_an_image_that_are_no_files(tmp_path: Path) -> None:
    place = layer(tmp_path / "1", {"etc/large": ""})
    os.truncate(place / "etc/large", LIMIT + 1)
    os.mkfifo(place / "etc/passwd")
    with HostLookups([place]) as lookups:
        with pytest.raises(Error, match="plain file"):
            lookups.read_image("/etc/passwd")
        with pytest.raises(Error, match="at most"):
            lookups.read_image("/etc/large")


def test_descriptors_are_closed(tmp_path: Path) -> None:
    place = layer(tmp_path / "1", {"x": ""})
    before = len(os.listdir("/proc/self/fd"))
    with HostLookups([place, place]) as lookups:
        assert lookups.in_image("/x")
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_image_without_layers() -> None:
    with HostLookups([]) as lookups:
        assert lookups.read_image("/etc/passwd") is None
        assert not lookups.in_image("/")


def test_devices(tmp_path: Path) -> None:
    lookups = HostLookups([])
    (null,) = lookups.devices("/dev/null")
    assert (null.path, null.kind, null.major, null.minor, null.mode) == ("/dev/null", "c", 1, 3, 0o666)
    assert "/dev/null" in [node.path for node in lookups.devices("/dev")]
    (tmp_path / "file").touch()
    assert lookups.devices(str(tmp_path)) == []
    with pytest.raises(ValueError, match="file"):
        lookups.devices(str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        lookups.devices(str(tmp_path / "gone"))


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("gone")
    lookups = HostLookups([], lambda name: f"/proc/{name}/ns/pid")
    assert lookups.resolve(str(tmp_path / "link")) == str(tmp_path / "real")
    with pytest.raises(FileNotFoundError):
        lookups.resolve(str(tmp_path / "dangling"))
    assert lookups.propagation(str(tmp_path)) in ("shared", "slave", "private")
    assert lookups.pid_namespace("7") == "/proc/7/ns/pid"


def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = HostLookups([])
    place = tmp_path / "profile.json"
    place.write_bytes(b"{}")
    assert lookups.read(str(place)) == b"{}"
    os.truncate(place, PROFILE_LIMIT + 100)
    assert len(lookups.read(str(place))) == PROFILE_LIMIT + 1
    with pytest.raises(FileNotFoundError):
        lookups.read(str(tmp_path / "gone"))
    loaded = tmp_path / "profiles"
    loaded.write_text("k8s-strict (enforce)\nocirt-default (complain)\n/usr/bin/man (enforce)\n")
    monkeypatch.setattr("ocirt.apparmor.PROFILES", str(loaded))
    assert lookups.has_apparmor_profile("ocirt-default")
    assert lookups.has_apparmor_profile("/usr/bin/man")
    assert not lookups.has_apparmor_profile("k8s")
    assert not lookups.has_apparmor_profile("")


def test_a_profile_that_is_a_pipe(tmp_path: Path) -> None:
    """It is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert HostLookups([]).read(str(tmp_path / "pipe")) == b""


def test_specifications(tmp_path: Path) -> None:
    first, second = tmp_path / "etc", tmp_path / "run"
    layer(first, {"b.json": json.dumps({"kind": "b"}), "a.json": "{", "ignored.txt": "", "c.yaml": "\0"})
    layer(second, {"a.json": json.dumps({"kind": "a"})})
    found = HostLookups([], cdi=(str(first), str(second), str(tmp_path / "gone"))).cdi()
    assert [(one.directory, Path(one.path).name, one.document) for one in found] == [
        (0, "a.json", None),
        (0, "b.json", {"kind": "b"}),
        (0, "c.yaml", None),
        (1, "a.json", {"kind": "a"}),
    ]


@pytest.mark.parametrize(
    ("release", "wanted"),
    [("6.1.0-18-amd64", (6, 1)), ("5.10", (5, 10)), ("6.18.5+", (6, 18)), ("7.0-rc1", (7, 0)), ("x", (0, 0)), ("", (0, 0))],
)
def test_kernel(release: str, wanted: tuple[int, int]) -> None:
    assert machine.version(release) == wanted


def test_masks() -> None:
    assert machine.capabilities("0") == ()
    assert machine.capabilities("1ffffffffff") == NAMES
    assert machine.capabilities("200000") == ("CAP_SYS_ADMIN",)


def test_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
    (tmp_path / "cgroup.procs").touch()
    assert machine.controllers(Layout("v2", {"": str(tmp_path)}, {"": "/"})) == {"cpu", "io", "memory"}
    mounts = {"memory": "/m", "blkio": "/b", "name=systemd": "/s", "": "/u"}
    assert machine.controllers(Layout("hybrid", mounts, {})) == {"memory", "io"}


def test_swap(tmp_path: Path) -> None:
    of = Layout("v2", {"": str(tmp_path)}, {"": "/"})
    assert machine.counts_swap(of)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/memory.max").touch()
    assert not machine.counts_swap(of)
    (tmp_path / "a/memory.swap.max").touch()
    assert machine.counts_swap(of)
    assert not machine.counts_swap(Layout("v1", {"memory": str(tmp_path)}, {}))


def test_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the longest mount point, and the last one there."""
    assert machine.file_system("/proc/self/fd") == machine.file_system("/proc") == "proc"
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/vda rw",
        r"2 1 0:30 / /ä\040b rw shared:1 - tmpfs none rw",
        "3 1 0:31 / /over rw - xfs /dev/vdb rw",
        "4 3 0:32 / /over rw - nfs4 server:/ rw",
    )
    monkeypatch.setattr(mountinfo, "read", lambda: [mountinfo.Mount(line.encode()) for line in lines])
    wanted = {"/x": "ext4", "/ä b": "tmpfs", "/ä b/c": "tmpfs", "/ä bc": "ext4", "/over/images": "nfs4"}
    assert {path: machine.file_system(path) for path in wanted} == wanted
    monkeypatch.undo()
    monkeypatch.setattr(machine, "file_system", lambda _: "nfs4")
    assert not machine.look(str(tmp_path)).mapped_layers


def test_this_machine() -> None:
    found = machine.look()
    assert found.kernel > (4, 0)
    assert found.hostname == os.uname().nodename
    assert found.hard_limits["RLIMIT_NOFILE"] >= 1024
