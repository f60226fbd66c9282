"""`paths`: which directories a container gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups.layout import Layout
from ocirt.cgroups.paths import below, resolve, writable
from ocirt.errors import Error

V1 = {"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "": "/c/unified"}


def layout(mode: str = "hybrid", own: str = "/") -> Layout:
    """No directory of it exists, so what is below `own` is found by text alone."""
    mounts = {"": "/c"} if mode == "v2" else V1
    return Layout(mode, mounts, dict.fromkeys(mounts, own))


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/a/b", "/a/b"),
        ("/a//b/./c/", "/a/b/c"),
        ("/../../a", "/a"),
        ("/a/../../../b", "/b"),
        (None, "/ocirt-id"),
        ("", "/ocirt-id"),
        ("a/b", "/a/b"),
        ("../../../a", "/a"),
    ],
)
def test_inner(path: str | None, inner: str) -> None:
    """With the process at the root, absolute and relative are the same; nothing leads out."""
    assert resolve(path, "id", layout(), False) == {name: mount + inner for name, mount in V1.items()}
    assert resolve(path, "id", layout("v2"), False) == {"": "/c" + inner}


@pytest.mark.parametrize("path", ["/", "//", "/..", "/a/..", ".", "..", "a/.."])
def test_the_root_is_nobodys(path: str) -> None:
    """The root holds the host's processes."""
    with pytest.raises(Error) as caught:
        resolve(path, "id", layout(), False)
    assert (caught.value.code, caught.value.subject) == ("invalid", "/linux/cgroupsPath")


@given(st.text(st.sampled_from("ab./"), max_size=12), st.booleans())
def test_nothing_leads_out(path: str, rootless: bool) -> None:
    """Whatever the path, the directory is below the mount point and lexically clean."""
    try:
        found = resolve(path, "id", layout("v2"), rootless)
    except Error:
        return
    rest = found[""].removeprefix("/c/").split("/")
    assert found[""].startswith("/c/")
    assert not {"", ".", ".."} & set(rest)


def test_relative_to_its_own(tmp_path: Path) -> None:
    """Version 1: below this process's cgroup. Version 2: beside it. Absolute: from the mount point all the same."""
    own = tmp_path / "user/session"
    own.mkdir(parents=True)
    for place in (tmp_path, tmp_path / "user", own):
        (place / "cgroup.procs").touch()
    for mode, controller, base in (("v1", "pids", own), ("v2", "", own.parent)):
        found = Layout(mode, {controller: str(tmp_path)}, {controller: "/user/session"})
        assert resolve("x", "id", found, False) == {controller: f"{base}/x"}
        assert resolve("/x", "id", found, True) == {controller: f"{tmp_path}/x"}
        assert resolve(None, "id", found, True) == {controller: f"{base}/ocirt-id"}
        assert resolve(None, "id", found, False) == {controller: f"{tmp_path}/ocirt-id"}


def test_below() -> None:
    """`exec --cgroup`."""
    paths = {"cpu": "/c/cpu/x", "": "/c/unified/x"}
    assert below(paths, "/") == below(paths, "") == paths
    assert below(paths, "a/b") == {"cpu": "/c/cpu/x/a/b", "": "/c/unified/x/a/b"}
    assert below(paths, "/a", "cpu") == {"cpu": "/c/cpu/x/a", "": "/c/unified/x"}
    for sub in ("..", "a/../../b", "../xy"):
        with pytest.raises(Error, match="bad sub cgroup path"):
            below(paths, sub)
    with pytest.raises(Error, match="unknown controller"):
        below(paths, "a", "memory")


def test_writable(tmp_path: Path) -> None:
    """The deepest directory that is there decides."""
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    paths = {"one": f"{tmp_path}/a/b/c", "two": f"{tmp_path}/a", "three": f"{tmp_path}/file/x"}
    assert writable(paths) == {"one": paths["one"], "two": paths["two"]}
    if os.geteuid() != 0:
        (tmp_path / "a").chmod(0o555)
        assert writable(paths) == {}
