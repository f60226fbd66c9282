"""The state store: what is on disk, odd files, and what state a container is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt import state
from ocirt.errors import Error


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for init."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def record(**fields: Any) -> dict[str, Any]:
    """A record of this process, created by it."""
    me = os.getpid()
    whole: dict[str, Any] = {
        "id": "c1",
        "status": "created",
        "creator": {"pid": me, "start_time": state.process_start_time(me)},
        "pid": me,
        "start_time": state.process_start_time(me),
        "boot_id": state.boot_id(),
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "created": "2026-11-24T04:27:51Z",
        "annotations": {},
        "owner": "",
        "uid": 0,
        "cgroup": {"mode": "none", "paths": {}, "created": []},
        "namespaces": {},
        "hooks": {},
        "spec_version": "1.2.0",
    }
    return whole | fields


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A state root two directories deep, neither of which is there."""
    return str(tmp_path / "a/root")


def test_a_record_comes_back(root: str) -> None:
    where = state.reserve(root, "c1")
    assert where == f"{root}/c1"
    assert os.stat(where).st_mode & 0o7777 == 0o700
    assert os.stat(root).st_mode & 0o7777 == 0o700
    saved = record(process={"args": ["é", "\ud800"[:0]]})
    state.save(where, saved)
    assert state.load(root, "c1") == saved | {"version": 1, "directory": where}
    assert os.stat(f"{where}/state.json").st_mode & 0o7777 == 0o600
    assert os.listdir(where) == ["state.json"]
    # What was loaded can be saved: the directory is no part of the file.
    state.save(where, state.load(root, "c1") | {"pid": 7})
    assert json.loads(Path(where, "state.json").read_text()) == saved | {"version": 1, "pid": 7}


def test_a_name_is_given_once(root: str) -> None:
    state.reserve(root, "c1")
    with pytest.raises(Error, match=r"^container with given ID already exists$") as caught:
        state.reserve(root, "c1")
    assert caught.value.code == "exists"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a b", "é", "a\n", "@seccomp", "a\0", "٣"])
def test_bad_ids(root: str, name: str) -> None:
    for call in (state.reserve, state.load, state.directory):
        with pytest.raises(Error, match="invalid container ID format") as caught:
            call(root, name)
        assert caught.value.code == "invalid"
    assert not os.path.exists(root)


@given(st.from_regex(r"\A[A-Za-z0-9_+.-]+\Z"))
def test_good_ids(name: str) -> None:
    if name not in (".", ".."):
        state.validate_id(name)


def test_what_is_not_there(root: str) -> None:
    for _ in range(2):
        with pytest.raises(Error, match=r"^container does not exist$") as caught:
            state.load(root, "c1")
        assert caught.value.code == "not-found"
        with pytest.raises(Error, match=r"^container does not exist$"):
            state.lock(f"{root}/c1")
        os.makedirs(root, exist_ok=True)
    state.reserve(root, "c1")  # a directory without a state is no container yet
    with pytest.raises(Error, match=r"^container does not exist$"):
        state.load(root, "c1")
    Path(root, "file").touch()
    with pytest.raises(Error, match=r"^container does not exist$"):
        state.load(root, "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a value is expected"),
        ("{", "state.json: line 1"),
        ("[]", "not a container's state"),
        ("{}", "version None of a container's state, but this ocirt reads 1"),
        ('{"version": 2}', "version 2 of a container's state, but this ocirt reads 1"),
        ('{"version": 1}', "id: a value of type str is expected"),
        (json.dumps(record() | {"version": 1, "pid": "1"}), "pid: a value of type int is expected"),
        (json.dumps(record() | {"version": 1, "pid": True}), "pid: a value of type int is expected"),
        (json.dumps(record() | {"version": 1, "cgroup": {}}), "cgroup.paths: a value of type dict is expected"),
    ],
)
def test_odd_files(root: str, text: str, message: str) -> None:
    where = state.reserve(root, "c1")
    Path(where, "state.json").write_text(text)
    with pytest.raises(Error) as caught:
        state.load(root, "c1")
    assert caught.value.code == "state"
    assert message in str(caught.value)
    assert str(caught.value).startswith(where)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = str(tmp_path_factory.mktemp("state"))
    where = state.reserve(root, "c1")
    Path(where, "state.json").write_bytes(data)
    with pytest.raises(Error):
        state.load(root, "c1")


def test_a_reader_never_sees_half_a_record(root: str) -> None:
    where = state.reserve(root, "c1")
    sizes = (1, 300_000)
    state.save(where, record(process={"args": ["x"]}))
    done = threading.Event()

    def write() -> None:
        for turn in range(200):
            state.save(where, record(process={"args": ["x" * sizes[turn % 2]]}))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(len(state.load(root, "c1")["process"]["args"][0]))
    writer.join()
    assert seen <= set(sizes)


def test_a_link_in_the_way_of_the_temporary_file_is_not_followed(root: str, tmp_path: Path) -> None:
    where = state.reserve(root, "c1")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    os.symlink(victim, f"{where}/.state.json")
    with pytest.raises(OSError, match=r"\.state\.json"):
        state.save(where, record())
    assert victim.read_text() == "untouched"


def test_remove(root: str, tmp_path: Path) -> None:
    where = state.reserve(root, "c1")
    state.save(where, record())
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.symlink(outside, f"{where}/link")
    os.mkfifo(f"{where}/start.sock")
    os.mkdir(f"{where}/notify")
    Path(where, "notify/x").touch()
    state.remove(where)
    assert os.listdir(root) == []
    assert (outside / "file").exists()
    state.remove(where)  # gone is fine


def test_identifiers(root: str) -> None:
    for name in ("b", "a.1"):
        state.reserve(root, name)
    os.mkdir(f"{root}/@seccomp")
    assert state.identifiers(root) == ["a.1", "b"]


def test_the_lock_waits(root: str) -> None:
    where = state.reserve(root, "c1")
    held = state.lock(where)
    assert not os.get_inheritable(held)
    code = f"import sys; sys.path.insert(0, {os.getcwd()!r}); sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
    code += f"from ocirt import state; print('asks', flush=True); state.lock({where!r}); print('has', flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
        os.close(held)
        assert other.stdout.readline() == "has\n"


def environment(monkeypatch: pytest.MonkeyPatch, uid: int, user_namespace: bool, **variables: str) -> None:
    monkeypatch.setattr("posix.environ", {key.encode(): value.encode() for key, value in variables.items()})
    monkeypatch.setattr("posix.geteuid", lambda: uid)
    monkeypatch.setattr(state, "in_user_namespace", lambda: user_namespace)


@pytest.mark.parametrize(
    ("uid", "user_namespace", "variables", "expected"),
    [
        (0, False, {"XDG_RUNTIME_DIR": "/x"}, "/run/ocirt/runtime"),
        (0, True, {"XDG_RUNTIME_DIR": "/x"}, "/x/ocirt/runtime"),
        (0, True, {"XDG_RUNTIME_DIR": "/x", "USER": "root"}, "/run/ocirt/runtime"),
        (0, True, {"XDG_RUNTIME_DIR": "/x/", "USER": "me"}, "/x/ocirt/runtime"),
        (1000, False, {"XDG_RUNTIME_DIR": "/x", "USER": "root"}, "/x/ocirt/runtime"),
        (1000, False, {}, "/run/ocirt/runtime"),
    ],
)
def test_the_default_root(
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    user_namespace: bool,
    variables: dict[str, str],
    expected: str,
) -> None:
    environment(monkeypatch, uid, user_namespace, **variables)
    assert state.default_root() == expected


def test_a_users_root_is_sticky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment(monkeypatch, 1000, False, XDG_RUNTIME_DIR=str(tmp_path))
    state.reserve(state.default_root(), "c1")
    assert (tmp_path / "ocirt/runtime").stat().st_mode & 0o7777 == 0o1700


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [("sleep", "S", 4711), ("a) Z (b", "S", 4711), (") Z 1 1 1", "R", 4711), ("x", "Z", None), ("x", "X", None)],
)
def test_the_start_time_in_proc(monkeypatch: pytest.MonkeyPatch, name: str, kind: str, expected: int | None) -> None:
    line = f"12 ({name}) {kind} " + " ".join(str(number) for number in range(4, 22)) + " 4711 0 0\n"
    asked = []

    def read(path: str, limit: int) -> bytes:
        asked.append(path)
        return line.encode()[:limit]

    monkeypatch.setattr(state, "_read", read)
    assert state.process_start_time(12) == expected
    assert asked == ["/proc/12/stat"]


def test_the_start_time_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state.process_start_time(1 << 30) is None
    monkeypatch.setattr(state, "_read", lambda *_: b"")
    assert state.process_start_time(1) is None


def loaded(root: str, **fields: Any) -> dict[str, Any]:
    where = state.reserve(root, "c1")
    state.save(where, record(**fields))
    return state.load(root, "c1")


def test_status_of_a_running_container(root: str) -> None:
    found = loaded(root)
    phase = Path(found["directory"], "phase")
    assert state.status(found) == "running"  # init has nothing left to be told
    for data, expected in (
        (b"\0\0\0\0", "created"),
        (b"\1\0\0\0", "running"),
        (b"\xfe\xff\xff\xff", "running"),
        (b"\0", "running"),
    ):
        phase.write_bytes(data)
        assert state.status(found) == expected
    phase.write_bytes(b"\xfe\xff\xff\xff")
    assert state.phase(found) == -2


def test_status_after_the_end(root: str, child: subprocess.Popen[bytes]) -> None:
    found = loaded(root, pid=child.pid, start_time=state.process_start_time(child.pid))
    assert state.status(found) == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert state.status(found) == "stopped"  # a zombie
    child.wait()
    assert state.status(found) == "stopped"


@pytest.mark.parametrize("fields", [{"pid": 0, "start_time": 0}, {"start_time": 1}, {"boot_id": "other"}, {"pid": 1 << 30}])
def test_status_when_the_pid_means_another(root: str, fields: dict[str, Any]) -> None:
    assert state.status(loaded(root, **fields)) == "stopped"


def test_status_while_it_is_created(root: str) -> None:
    found = loaded(root, status="creating", pid=0, start_time=0)
    assert state.status(found) == "creating"
    for creator in ({"pid": os.getpid(), "start_time": 1}, {"pid": 1 << 30, "start_time": None}, {}):
        assert state.status(found | {"creator": creator}) == "stopped"
    assert state.status(found | {"boot_id": "other"}) == "stopped"


@pytest.mark.parametrize(
    ("controller", "file", "thawed", "frozen"),
    [("freezer", "freezer.state", "THAWED\n", "FROZEN\n"), ("", "cgroup.freeze", "0\n", "1\n")],
)
def test_status_of_a_paused_container(
    root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    controller: str,
    file: str,
    thawed: str,
    frozen: str,
) -> None:
    asked = []

    def answer(cgroup: dict[str, Any]) -> bool:
        asked.append(cgroup["paths"])
        return True

    monkeypatch.setattr("ocirt.cgroups.control.frozen", answer)
    found = loaded(root, cgroup={"mode": "v1", "paths": {controller: str(tmp_path)}, "created": []})
    assert state.status(found) == "running"  # no such file: no such cgroup
    (tmp_path / file).write_text(thawed)
    assert state.status(found) == "running"
    assert not asked
    (tmp_path / file).write_text(frozen)
    assert state.status(found) == "paused"
    assert asked == [{controller: str(tmp_path)}]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (1_795_478_478_000_000_001, "2026-11-24T00:01:18.000000001Z"),
    ],
)
def test_timestamps(nanoseconds: int, text: str) -> None:
    assert state.timestamp(nanoseconds) == text


def test_what_is_shown(root: str) -> None:
    found = loaded(root)
    shown = state.public(found)
    assert list(shown) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (shown["ociVersion"], shown["pid"], shown["owner"]) == ("1.2.0", os.getpid(), "")
    assert state.public(found | {"start_time": 1}, "me") | {"created": ""} == {
        "ociVersion": "1.2.0",
        "id": "c1",
        "pid": 0,
        "status": "stopped",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "created": "",
        "owner": "me",
    }
