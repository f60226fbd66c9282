"""Records that this ocirt did not write: of an older one, of a newer one, and damaged ones."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocirt import state
from ocirt.cli import options
from ocirt.cli.main import command
from tests.unit.cli.conftest import Cli
from tests.unit.spec.documents import get, put
from tests.unit.spec.test_properties import pointers

STORED = Path(__file__).parents[1] / "data" / "state-1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state root with the container `c1` of version 1."""
    return Path(shutil.copytree(STORED, tmp_path / "root"))


@pytest.fixture
def cli(root: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command, in this process."""
    return Cli(root, capfd)


def test_a_stored_record_of_version_1_opens(root: Path, cli: Cli) -> None:
    """Whatever this version writes: what version 1 wrote is read, shown, and taken away with all that it names."""
    record = state.load(str(root), "c1")
    assert record["process"]["args"] == ["sleep", "60"]
    assert record["hooks"]["poststop"][0]["timeout"] == 5
    shown = json.loads(cli("state", "c1")[1])
    assert (shown["status"], shown["pid"], shown["ociVersion"]) == ("stopped", 0, "1.2.0")
    assert shown["annotations"] == {"org.example.a": "b"}
    assert json.loads(cli("list", "-f", "json")[1])[0]["id"] == "c1"
    assert cli("kill", "c1")[0] == 1
    assert "cannot exec in a stopped container" in cli("exec", "c1", "true")[2]
    assert "has stopped" in cli("start", "c1")[2]
    assert cli("delete", "c1") == (0, "", "")
    assert not (root / "c1").exists()


def test_what_version_1_had_at_least_is_enough(root: Path, cli: Cli) -> None:
    """Every other field is one that a record may lack."""
    file = root / "c1/state.json"
    whole = json.loads(file.read_text())
    for name in ("hooks", "seccomp", "keyring", "late", "spec_version", "process"):
        file.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        assert cli("state", "c1")[0] == 0, name
    assert cli("delete", "c1")[0] == 0


def test_a_newer_record_is_refused(root: Path, cli: Cli) -> None:
    file = root / "c1/state.json"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    for verb in ("state", "kill", "start", "pause", "resume", "ps", "delete"):
        status, out, err = cli(verb, "c1")
        assert (status, out) == (1, "")
        assert "version 2 of a container's state, but this ocirt reads 1 (a newer ocirt made this container" in err
    assert cli("list", "-q")[:2] == (0, "")
    assert cli("delete", "--force", "c1") == (0, "", "")
    assert not (root / "c1").exists()


def damage() -> st.SearchStrategy[Any]:
    """Values in the place of any part. No path but one that is nowhere: what a record names is removed."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([-1, 0, 1, 1 << 22, 1 << 31, 1 << 63, 1 << 64, 10**30, 0.5]),
        st.sampled_from(["", "\0", "x", "/nonexistent/x", "/nonexistent/\0", "a/../b", "created", "creating", "running", "v2"]),
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "pid", "freezer", "x\0"]), inner, max_size=3)
        ),
        max_leaves=5,
    )


RECORD = json.loads((STORED / "c1/state.json").read_text()) | {"anchor": {"path": "/nonexistent/x", "namespace": ""}}
PLACES = [pointer for pointer in pointers(RECORD) if pointer]
VERBS = (
    ["state", "c1"],
    ["list"],
    ["kill", "c1"],
    ["kill", "c1", "KILL"],
    ["ps", "--format=json", "c1"],
    ["pause", "c1"],
    ["resume", "c1"],
    ["start", "c1"],
    ["exec", "c1", "true"],
    ["events", "--stats", "c1"],
    ["update", "--memory", "1000000", "c1"],
    ["delete", "c1"],
)


def _call(capfd: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, str]:
    status = command(options.Options("ocirt"), ["--root", str(root), *words])
    return status, capfd.readouterr().err


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for init."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def _check(capfd: pytest.CaptureFixture[str], tmp_path: Path, data: bytes) -> None:
    for words in VERBS:
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        (root / "c1").mkdir(parents=True)
        (root / "c1/state.json").write_bytes(data)
        status, err = _call(capfd, root, *words)
        assert status in (0, 1, 255), words
        assert "internal error" not in err, (words, err)
    if (root / "c1").exists():
        status, err = _call(capfd, root, "delete", "--force", "c1")
        assert (status, err) == (0, "")
        assert not (root / "c1").exists()


def _alive(sleeper: subprocess.Popen[bytes]) -> dict[str, Any]:
    started = state.process_start_time(sleeper.pid)
    record: dict[str, Any] = copy.deepcopy(RECORD)
    return record | {"pid": sleeper.pid, "start_time": started, "boot_id": state.boot_id()}


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(st.tuples(st.sampled_from(PLACES), damage()), min_size=1, max_size=3), st.booleans())
@example([("/hooks/poststop/0", {})], True)
@example([("/cgroup/paths/memory", "/nonexistent/\0")], False)
def test_damaged_records(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    sleeper: subprocess.Popen[bytes],
    changes: list[tuple[str, Any]],
    alive: bool,
) -> None:
    """No verb fails but in words; `delete --force` cleans up whatever is left of the record."""
    record = _alive(sleeper) if alive else copy.deepcopy(RECORD)
    # Nothing of the machine's own: the paths are nowhere.
    record["cgroup"]["paths"] = {"memory": "/nonexistent/m", "freezer": "/nonexistent/f"}
    record["cgroup"]["created"] = ["/nonexistent/m", "/nonexistent/f"]
    for pointer, value in changes:
        try:
            get(record, pointer)
            put(record, pointer, value)
        except (LookupError, TypeError, AttributeError, ValueError):
            pass  # another change has taken its place
    _check(capfd, tmp_path, json.dumps(record).encode())


@settings(max_examples=settings().max_examples // 4)
@given(st.integers(0, 2000), st.binary(max_size=4), st.integers(0, 50))
def test_torn_records(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    place: int,
    other: bytes,
    length: int,
) -> None:
    """Bytes of the file replaced, left out, or put in."""
    data = json.dumps(RECORD).encode()
    _check(capfd, tmp_path, data[:place] + other + data[place + length :])


def test_what_is_left_of_a_damaged_record_is_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], sleeper: subprocess.Popen[bytes]
) -> None:
    """Init is killed, although the record cannot be read as a whole."""
    record = _alive(sleeper) | {"annotations": 7, "cgroup": {}}
    (tmp_path / "root/c1").mkdir(parents=True)
    (tmp_path / "root/c1/state.json").write_text(json.dumps(record))
    assert _call(capfd, tmp_path / "root", "state", "c1")[0] == 1
    assert _call(capfd, tmp_path / "root", "delete", "--force", "c1") == (0, "")
    assert sleeper.wait(5) == -9
    assert not (tmp_path / "root/c1").exists()


def test_a_damaged_record_removes_no_directory_that_is_no_cgroup(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither one of anything else, nor a whole hierarchy."""
    precious = tmp_path / "precious"
    (precious / "empty").mkdir(parents=True)
    root = tmp_path / "root"
    for damaged in (True, False):
        record = copy.deepcopy(RECORD)
        record["cgroup"] = {"mode": "v2", "paths": {"": str(precious)}, "created": [str(precious)]}
        if damaged:
            record["annotations"] = None
        (root / "c1").mkdir(parents=True, exist_ok=True)
        (root / "c1/state.json").write_text(json.dumps(record))
        status, err = _call(capfd, root, "delete", "--force", "c1")
        assert (status == 0) == damaged
        assert ("is no cgroup" in err) == (not damaged)
        assert (precious / "empty").is_dir()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), False),
        (("cgroup.procs",), False),
        (("cgroup.procs", "cgroup.events"), True),
        (("cgroup.procs", "notify_on_release"), True),
        (("cgroup.procs", "notify_on_release", "release_agent"), False),
    ],
)
def test_what_a_cgroup_is(tmp_path: Path, files: tuple[str, ...], expected: bool) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert state.is_cgroup(str(tmp_path)) == expected
    assert not state.is_cgroup(os.path.relpath(tmp_path))
