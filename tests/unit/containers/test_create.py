"""What a creation keeps and says: the state for hooks, the directories that are to be made."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt import state
from ocirt.cgroups import control
from ocirt.containers import create as creation
from ocirt.containers.create import Creation
from ocirt.containers.destroy import hook_state
from ocirt.containers.failures import from_words
from ocirt.errors import Error
from ocirt.kernel.run import Run
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import HOOKS, host, request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


# -- the state that hooks read -------------------------------------------------------------------------------------------------


@given(
    container=st.text("abcXYZ019_+-.", min_size=1, max_size=12),
    bundle=TEXT,
    annotations=st.dictionaries(TEXT, TEXT, max_size=4),
    version=st.sampled_from(["1.0.0", "1.3.0+dev", "é"]),
    status=st.sampled_from(["creating", "created", "running", "stopped"]),
    pid=st.integers(1, 1 << 22),
)
def test_the_state_is_json(container: str, bundle: str, annotations: dict[str, str], version: str, status: str, pid: int) -> None:
    record = {"id": container, "bundle": bundle, "annotations": annotations, "spec_version": version}
    wanted = {
        "ociVersion": version,
        "id": container,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": annotations,
    }
    text = hook_state(record)
    assert json.loads(text(status, pid)) == wanted
    del wanted["pid"]
    assert json.loads(text(status, 0)) == wanted
    assert list(json.loads(text(status, pid))) == ["ociVersion", "id", "status", "pid", "bundle", "annotations"]


def test_a_bundle_whose_name_is_not_utf_8() -> None:
    record = {"id": "c1", "bundle": os.fsdecode(b"/\xff/b"), "annotations": {}}
    assert json.loads(hook_state(record)("created", 1))["bundle"] == "/\ufffd/b"


# -- cgroups that will have to be made -----------------------------------------------------------------------------------------


def test_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    paths = {"x": f"{tmp_path}/a/b/c", "y": f"{tmp_path}/a/b/c", "z": f"{tmp_path}/d", "": f"{tmp_path}/a"}
    assert control.missing(paths) == [f"{tmp_path}/a/b", f"{tmp_path}/a/b/c", f"{tmp_path}/d"]
    assert control.missing({}) == []
    assert control.missing({"x": str(tmp_path)}) == []


def test_what_is_missing_below_one_another(tmp_path: Path) -> None:
    paths = {"x": f"{tmp_path}/p/one", "y": f"{tmp_path}/p/two", "z": f"{tmp_path}/p"}
    found = control.missing(paths)
    assert found == [f"{tmp_path}/p", f"{tmp_path}/p/one", f"{tmp_path}/p/two"]
    assert not (tmp_path / "p").exists()


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=4), st.lists(st.sampled_from("abc"), max_size=3)
)
def test_what_is_missing_is_what_gets_made(wanted: list[list[str]], there: list[str]) -> None:
    """Parents first; and nothing is named that is there."""
    import tempfile  # noqa: PLC0415  (a directory for each example)

    with tempfile.TemporaryDirectory() as root:
        Path(root, *there).mkdir(parents=True, exist_ok=True)
        before = {str(path) for path in Path(root).rglob("*")}
        paths = {str(number): "/".join([root, *parts]) for number, parts in enumerate(wanted)}
        missing = control.missing(paths)
        for directory in missing:
            os.mkdir(directory)  # in this order
        assert before.isdisjoint(missing)
        assert len(set(missing)) == len(missing)
        assert all(os.path.isdir(path) for path in paths.values())


# -- preparing -----------------------------------------------------------------------------------------------------------------

MakeCreation = Callable[..., Creation]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCreation:
    """Makes a Creation for the default configuration with edits, on a machine without cgroups."""
    monkeypatch.setattr(creation, "look", lambda: host("none"))
    (tmp_path / "b").mkdir()

    def build(*, asked: dict[str, Any] | None = None, **edits: Any) -> Creation:
        (tmp_path / "b/config.json").write_text(json.dumps(edited(default_config(), **edits)))
        wish = request(**(asked or {}))
        wish.bundle = str(tmp_path / "b")
        return Creation(str(tmp_path / "root"), wish)

    return build


def test_a_record_is_there_before_anything_is_done(make: MakeCreation, tmp_path: Path) -> None:
    made = make(annotations={"a": "b"}, hooks=HOOKS)
    run = made.prepare()
    assert isinstance(run, Run)
    record = state.load(str(tmp_path / "root"), "c1")
    assert record["status"] == "creating"
    assert state.status(record) == "creating"
    assert record["creator"] == {"pid": os.getpid(), "start_time": state.process_start_time(os.getpid())}
    assert (record["pid"], record["start_time"]) == (0, 0)
    assert record["bundle"] == str(tmp_path / "b")
    assert record["rootfs"] == str(tmp_path / "b/rootfs")
    assert record["annotations"] == {"a": "b"}
    assert record["hooks"] == HOOKS
    assert record["namespaces"] == dict.fromkeys(("pid", "network", "ipc", "uts", "mount"), "")
    assert record["process"] == made.spec["process"]
    assert record["cgroup"] == {"mode": "none", "paths": {}, "created": []}
    late = record["late"]
    assert [late[key][0] for key in sorted(late, key=int)][-1] == "program.execve"
    assert json.loads(run.hook_state("creating", 5))["pid"] == 5
    assert os.listdir(tmp_path / "root/c1") == ["state.json"]


def test_a_start_that_fails_in_the_waiter_s_hands_names_the_program(
    make: MakeCreation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiter tells a step and an errno; all else has to come out of the record."""
    monkeypatch.setattr(creation, "look", lambda: host("none", waiter="/waiter"))
    make(args=["/bin/odd"]).prepare()
    record = state.load(str(tmp_path / "root"), "c1")
    (index,) = [index for index, words in record["late"].items() if words[0] == "waiter.hand_over"]
    told = from_words((int(index), errno.ENOEXEC, "", ""), record["late"], record["process"]["args"][0])
    assert "/bin/odd" in str(told)


def test_run_keeps_no_words_for_a_barrier(make: MakeCreation, tmp_path: Path) -> None:
    make(asked={"waits": False}).prepare()
    assert "late" not in state.load(str(tmp_path / "root"), "c1")


def test_a_name_that_is_taken(make: MakeCreation, tmp_path: Path) -> None:
    make().prepare()
    before = (tmp_path / "root/c1/state.json").read_bytes()
    with pytest.raises(Error, match="container with given ID already exists"):
        make().prepare()
    assert (tmp_path / "root/c1/state.json").read_bytes() == before


def test_what_cannot_be_planned_leaves_nothing(make: MakeCreation, tmp_path: Path) -> None:
    made = make(resources={"memory": {"limit": 1 << 26}})  # without cgroups
    with pytest.raises(Error):
        made.prepare()
    assert not (tmp_path / "root").exists()


def test_a_record_that_cannot_be_written_leaves_nothing(
    make: MakeCreation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(where: str, record: Any) -> None:
        raise OSError(28, "No space left on device")

    made = make()
    monkeypatch.setattr(state, "save", full)
    with pytest.raises(OSError, match="No space"):
        made.prepare()
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize(
    ("terminal", "console", "message", "left"),
    [
        (True, "", "cannot allocate tty if runc will detach without setting console socket", ""),
        (False, "socket", "cannot use console socket if runc will not detach or allocate tty", ""),
        (True, "socket", "", "socket"),
        (True, "attached", "", "attached"),
        (False, "attached", "", ""),
        (False, "", "", ""),
    ],
)
def test_terminals(make: MakeCreation, terminal: bool, console: str, message: str, left: str) -> None:
    made = make(asked={"console": console}, terminal=terminal)
    if message:
        with pytest.raises(Error) as caught:
            made.check_terminal("runc")
        assert caught.value.message == message
        assert caught.value.code == "usage"
    else:
        made.check_terminal("runc")
        assert made.request.console == left


def test_committing(make: MakeCreation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of the created container stands ready, and is published in one step."""
    made = make()
    run = made.prepare()
    told: list[int] = []
    monkeypatch.setattr(made, "on_created", told.append)
    run.pid = os.getpid()
    run.prepare()
    assert state.load(str(tmp_path / "root"), "c1")["status"] == "creating"
    run.commit()
    record = state.load(str(tmp_path / "root"), "c1")
    assert record["status"] == "created"
    assert (record["pid"], record["start_time"]) == (os.getpid(), state.process_start_time(os.getpid()))
    assert told == [os.getpid()]
    assert os.listdir(tmp_path / "root/c1") == ["state.json"]


def test_undoing_leaves_nothing(make: MakeCreation, tmp_path: Path) -> None:
    made = make()
    made.prepare()
    made.undo()
    assert os.listdir(tmp_path / "root") == []
    made.undo()
