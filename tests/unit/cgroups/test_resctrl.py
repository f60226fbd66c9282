"""resctrl: where it is mounted, which schemata are the same, and what `update` does; on plain files."""

from __future__ import annotations

import posix
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import resctrl
from ocirt.cgroups.resctrl import Resctrl
from ocirt.errors import Error

HERE = "24 1 0:22 / /sys rw shared:2 - sysfs sysfs rw\n"
ELSEWHERE = "30 1 0:30 / /mnt/r\\040c rw shared:2 master:1 - resctrl resctrl rw\n"
NAMED = "31 1 0:31 / /mnt/x rw - tmpfs resctrl rw\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with the files of a resctrl root and of one group."""
    found = tmp_path / "resctrl"
    for name in ("info/L3", "info/MB", "gold/mon_groups"):
        (found / name).mkdir(parents=True)
    (found / "info/MB/bandwidth_gran").write_text("10\n")
    (found / "info/last_cmd_status").write_text("ok\n")
    (found / "gold/schemata").write_text("    L3:0=ff;1=00f\n    MB:0=  30;1= 100\n")
    (found / "gold/tasks").touch()
    return found


# -- where it is ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usual", "magic", "mounts", "found"),
    [
        (False, 0, HERE + ELSEWHERE, ""),  # a kernel that can do it makes the directory
        (True, 0x62656572, HERE, ""),
        (True, 0x62656572, HERE + NAMED, ""),
        (True, 0x62656572, HERE + ELSEWHERE, "/mnt/r c"),
        (True, 0x7655821, HERE + ELSEWHERE, "usual"),
    ],
)
def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual: bool, magic: int, mounts: str, found: str) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(mounts)
    place = tmp_path / "usual"
    if usual:
        place.mkdir()
    monkeypatch.setattr(resctrl, "fstatfs_type", lambda fd: magic)
    monkeypatch.setattr(posix, "listdir", lambda path: ["L3", path])
    seen = resctrl.find(str(place), str(tmp_path))
    if not found:
        assert seen is None
        return
    wanted = str(place) if found == "usual" else found
    assert seen is not None
    assert (seen.root, seen.resources) == (wanted, frozenset(("L3", wanted + "/info")))


# -- which schemata are the same -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("L3:0=ff\n", True),
        ("L3:1=f;0=0xFF\nMB:0=30\n", True),
        ("MB:0=21\n", True),  # rounded up
        ("MB:0=20\n", False),
        ("MB:0=31\n", False),
        ("L3:0=fe\n", False),
        ("L3:2=ff\n", False),
        ("L2:0=ff\n", False),
        ("L3:0=zz\n", False),
    ],
)
def test_a_group_that_is_there(root: Path, text: str, same: bool) -> None:
    """Nothing is written to it, whether or not it will do."""
    before = (root / "gold/schemata").read_text()
    if same:
        resctrl.make(str(root), f"{root}/gold", "", text, shared=True)
    else:
        with pytest.raises(Error, match="does not match the group") as caught:
            resctrl.make(str(root), f"{root}/gold", "", text, shared=True)
        assert caught.value.subject == "/linux/intelRdt/closID"
    assert (root / "gold/schemata").read_text() == before


SCHEMATA = st.dictionaries(
    st.tuples(st.sampled_from(["L3", "L2", "MB", "L3CODE"]), st.integers(0, 300).map(str)), st.integers(1, 4095), min_size=1
)


@given(SCHEMATA)
def test_what_is_written_is_read(values: dict[tuple[str, str], int]) -> None:
    lines: dict[str, list[str]] = {}
    for (resource, domain), value in values.items():
        lines.setdefault(resource, []).append(f"{domain}={value:x}")
    text = "".join(f"  {resource}:{';'.join(each)}\n" for resource, each in lines.items())
    assert resctrl.parse(text) == {key: f"{value:x}" for key, value in values.items()}


@given(st.text(max_size=60))
def test_any_text_is_read(text: str) -> None:
    resctrl.parse(text)


# -- what the record keeps, and what becomes of it -----------------------------------------------------------------------------


def test_the_section(root: Path) -> None:
    rdt = {"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "", "enableMonitoring": True}
    assert resctrl.section(str(root), rdt, "c1") == {
        "root": str(root),
        "group": f"{root}/gold",
        "monitor": f"{root}/gold/mon_groups/c1",
        "created": [f"{root}/gold/mon_groups/c1"],
        "shared": True,
        "schemata": {"l3CacheSchema": "L3:0=f"},
    }
    assert resctrl.section(str(root), {}, "c1")["created"] == [f"{root}/c1"]


@pytest.mark.parametrize(
    ("created", "shared", "failed", "left"),
    [
        (["group"], False, False, []),
        (["group"], False, True, []),
        (["group"], True, False, ["group"]),
        (["group"], True, True, []),
        ([], False, False, ["group"]),
        ([], True, True, ["group"]),
    ],
)
def test_what_is_removed(tmp_path: Path, created: list[str], shared: bool, failed: bool, left: list[str]) -> None:
    (tmp_path / "group").mkdir()
    kept: Any = {"group": str(tmp_path / "group"), "monitor": "", "shared": shared}
    kept["created"] = [str(tmp_path / name) for name in created]
    for _ in range(2):  # what is gone already is fine
        resctrl.remove(kept, failed=failed)
    assert [path.name for path in tmp_path.iterdir()] == left


def test_a_monitoring_group_goes_with_its_container(tmp_path: Path) -> None:
    kept: Any = {"group": str(tmp_path), "monitor": str(tmp_path / "monitor"), "shared": True, "created": []}
    (tmp_path / "monitor").mkdir()
    resctrl.remove(kept, failed=True)  # somebody else's
    assert (tmp_path / "monitor").exists()
    resctrl.remove(kept, failed=False)
    assert not (tmp_path / "monitor").exists()


def test_update(root: Path) -> None:
    """What is not given stays as it was, and is written again; it can be taken back."""
    rdt = {"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1"]}
    kept = resctrl.section(str(root), rdt, "c1")
    after = resctrl.after_update(kept, "", "MB:0=50")
    assert after == kept | {"schemata": {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50", "schemata": ["L2:0=1"]}}
    assert kept["schemata"]["memBwSchema"] == "MB:0=20"
    file = root / "gold/schemata"
    had = file.read_text()
    before = resctrl.set_schemata(after)
    assert before == had
    assert file.read_text().startswith("L3:0=f\nMB:0=50\nL2:0=1\n")
    resctrl.put_back(after, before)
    assert file.read_text() == had


@pytest.mark.parametrize(
    ("resources", "cache", "bandwidth", "words"),
    [
        (("MB",), "L3:0=1", "", "Intel RDT/CAT: l3 cache schema is not enabled"),
        (("L3",), "", "MB:0=1", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        (("L3", "MB"), "L3:0=1", "MB:0=1", "updating a non-existent Intel RDT configuration is not supported"),
    ],
)
def test_update_of_what_is_not_there(resources: tuple[str, ...], cache: str, bandwidth: str, words: str) -> None:
    on = Resctrl("/r", frozenset(resources))
    with pytest.raises(Error) as caught:
        resctrl.check_update(None, cache, bandwidth, on)
    assert caught.value.message == words
    resctrl.check_update(None, "", "", on)
