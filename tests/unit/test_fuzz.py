"""Files that anybody may have written: whatever is in them, an Error or an answer comes out. (OCIRT_TEST_FUZZ: how long)"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ocirt import state
from ocirt.cgroups import control, layout
from ocirt.cgroups.paths import resolve
from ocirt.cli.spec import default
from ocirt.errors import Error
from ocirt.kernel.run import Run
from ocirt.kernel.steps import user
from ocirt.seccomp.compile import compile_filter
from ocirt.spec.load import read_process, read_spec
from tests.seccomp_profiles import small
from tests.unit.spec.documents import podman, put
from tests.unit.spec.test_properties import JSON, pointers


def torn(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with some bytes replaced, left out, or put in, at a few places."""

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        out = data
        for place, length, other in changes:
            start = place % (len(data) + 1)
            out = out[:start] + other + out[start + length :]
        return out

    inserted = st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"{", b"}", b",", b"null", b"1e999", b"\\ud800", b"\0", b"-"])
    return st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 20), inserted), min_size=1, max_size=4).map(apply)


SPECS = [json.dumps(build()).encode() for build in (default, podman)]


@given(st.sampled_from(SPECS).flatmap(torn))
def test_config(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    try:
        read_spec(str(tmp_path))
    except Error as err:
        assert err.code in ("invalid", "unsupported")
        assert err.message


@given(
    torn(json.dumps(podman()["process"]).encode()) | st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_process(tmp_path: Path, data: bytes) -> None:
    """Of `exec --process`."""
    (tmp_path / "process.json").write_bytes(data)
    try:
        assert read_process(str(tmp_path / "process.json"))["args"]
    except Error as err:
        assert err.code in ("invalid", "unsupported")


PROFILE = small()
PROFILE_PLACES = [pointer for pointer in pointers(PROFILE) if pointer]


@given(st.lists(st.tuples(st.sampled_from(PROFILE_PLACES), JSON), min_size=1, max_size=3))
def test_profile(tmp_path: Path, changes: list[tuple[str, Any]]) -> None:
    """What the judge lets through, the translator takes, or refuses in words."""
    spec = default()
    spec["linux"]["seccomp"] = small()
    for pointer, value in changes:
        try:
            put(spec["linux"]["seccomp"], pointer, value)
        except (LookupError, TypeError, AttributeError, ValueError):
            pass  # another change has taken its place
    (tmp_path / "config.json").write_text(json.dumps(spec))
    try:
        if section := read_spec(str(tmp_path))["linux"].get("seccomp"):
            compile_filter(section)
    except Error as err:
        assert err.subject.startswith("/linux/seccomp") or err.subject == "config.json"


MOUNTS = b"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
32 30 0:28 /a\\040b /sys/fs/cgroup/cpu\\040x rw,nosuid - cgroup cgroup rw,cpu,cpuacct
"""
OWN = b"4:memory:/user.slice/a:b\n3:cpu,cpuacct:/\n2:name=systemd:/x\n1:name=other:/y\n0::/user.slice\n"


@given(torn(MOUNTS) | st.binary(max_size=100), torn(OWN) | st.binary(max_size=100), st.booleans())
def test_mounts_and_own_cgroups(tmp_path: Path, mounts: bytes, own: bytes, there: bool) -> None:
    """/proc/self/mountinfo and /proc/self/cgroup."""
    (tmp_path / "self").mkdir(exist_ok=True)
    (tmp_path / "self/mountinfo").write_bytes(mounts)
    (tmp_path / "self/cgroup").write_bytes(own)
    for name in ("memory", "unified"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.procs").touch()
    found = layout.detect(str(tmp_path) if there else str(tmp_path / "nothing"), str(tmp_path))
    assert found.mode in ("v1", "v2", "hybrid", "none")
    for relative in ("a/b", "/a"):
        for directory in resolve(relative, "c1", found, True).values():
            assert directory.startswith("/")
            assert ".." not in directory.split("/") or ".." in own.decode(errors="replace") + mounts.decode(errors="replace")


PASSWD = b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n# nothing\nbob:x:1001:1001:b:/:"


@given(torn(PASSWD) | st.binary(max_size=200), st.sampled_from([0, 1, 1000, 1001, (1 << 32) - 2]))
def test_passwd(tmp_path: Path, data: bytes, uid: int) -> None:
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/passwd").write_bytes(data)
    run = Run([])
    run.root_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        user.find_home(run, uid, ["A=b"])
    finally:
        os.close(run.root_fd)
    assert run.home
    assert "\n" not in run.home
    assert ":" not in run.home


@given(st.binary(max_size=40) | torn(b"1\n22\n333\n"), st.binary(max_size=20) | torn(b"THAWED\n"))
def test_files_of_a_cgroup(tmp_path: Path, listed: bytes, frozen: bytes) -> None:
    (tmp_path / "cgroup.procs").write_bytes(listed)
    for name in ("freezer.state", "freezer.self_freezing", "cgroup.freeze"):
        (tmp_path / name).write_bytes(frozen)
    for controller in ("freezer", ""):
        cgroup = {"mode": "v1", "paths": {controller: str(tmp_path)}, "created": []}
        assert isinstance(control.frozen(cgroup), bool)
        assert isinstance(state.paused({"cgroup": cgroup}), bool)
        assert all(pid >= 0 for pid in control.processes(cgroup))
