"""`apply`: the order of writes that depend on each other, and errors; on plain files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ocirt.cgroups import apply as module
from ocirt.cgroups.apply import apply
from ocirt.cgroups.files import join_files
from ocirt.cgroups.limits import OPTIONAL, OR_NEXT, REQUIRED
from ocirt.errors import Error


def make(directory: Path, *names: str) -> dict[str, str]:
    """A "cgroup" with these files."""
    for name in names:
        (directory / name).touch()
    return {"cpu": str(directory), "memory": str(directory)}


def test_missing_files(tmp_path: Path) -> None:
    """Optional: left out. An alternative: tried, and left out when the first is there."""
    paths = make(tmp_path, "b", "c", "d")
    entries = [
        ("cpu", "a", "1", "/p", OPTIONAL),
        ("cpu", "no", "2", "/p", OR_NEXT),
        ("cpu", "b", "3", "/p", REQUIRED),
        ("cpu", "c", "4", "/p", OR_NEXT),
        ("cpu", "d", "5", "/p", REQUIRED),
    ]
    apply(paths, entries)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "3", "c": "4", "d": ""}
    with pytest.raises(Error) as caught:
        apply(paths, [("cpu", "e", "1", "/linux/resources/cpu", REQUIRED)])
    assert caught.value.subject == "/linux/resources/cpu"
    assert str(tmp_path / "e") in caught.value.message


def test_no_such_hierarchy(tmp_path: Path) -> None:
    """Also the words that callers of runc know."""
    with pytest.raises(Error) as caught:
        apply(make(tmp_path), [("pids", "pids.max", "1", "/linux/resources/pids/limit", REQUIRED)])
    assert caught.value.message == "cannot set pids limit: container could not join or create cgroup"
    with pytest.raises(Error, match="cannot set pids limit"):
        apply({}, [("pids", "pids.max", "1", "/p", REQUIRED)])


def test_controller_that_is_not_there(tmp_path: Path) -> None:
    """Version 2 without a controller: its name, not just ENOENT."""
    (tmp_path / "cgroup.controllers").write_text("cpu\n")
    with pytest.raises(Error, match='controller "memory" not available'):
        apply({"": str(tmp_path)}, [("memory", "memory.max", "1", "/p", REQUIRED)])
    with pytest.raises(Error, match="failed to write '1' to"):
        apply({"": str(tmp_path)}, [("cpu", "cpu.nonsense", "1", "/p", REQUIRED)])


def test_contradictions_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """memory above memory+swap, and the like: in the given order, what was refused again at the end, once."""
    state = {"memory": 10, "memsw": 10}
    log: list[str] = []

    def write(path: str, text: bytes) -> None:
        name, value = Path(path).name, int(text)
        log.append(f"{name}={value}")
        new = state | {name: value}
        if new["memory"] > new["memsw"]:
            raise OSError(errno.EINVAL, "Invalid argument", path)
        state.update(new)

    monkeypatch.setattr(module, "write", write)
    paths = make(tmp_path)
    entries = [("memory", "memory", "20", "/m", REQUIRED), ("memory", "memsw", "30", "/s", REQUIRED)]
    apply(paths, entries)
    assert state == {"memory": 20, "memsw": 30}
    assert log == ["memory=20", "memsw=30", "memory=20"]
    apply(paths, [("memory", "memory", "5", "/m", REQUIRED), ("memory", "memsw", "6", "/s", REQUIRED)])
    assert state == {"memory": 5, "memsw": 6}
    with pytest.raises(Error) as caught:
        apply(paths, [("memory", "memory", "7", "/m", REQUIRED)])
    assert (caught.value.subject, caught.value.cause) == ("/m", "Invalid argument")


def test_join_files() -> None:
    """Each directory once; `tasks` in version 1 only."""
    assert join_files({"cpu": "/a", "cpuacct": "/a", "pids": "/b", "": "/u"}) == ["/a/tasks", "/b/tasks", "/u/cgroup.procs"]
