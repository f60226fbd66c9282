"""What the command line hands over: descriptors, pid files, and the flags of `exec`."""

from __future__ import annotations

import errno
import os
import posix
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cli import exec as exec_verb
from ocirt.cli import given as handed
from ocirt.cli import options
from ocirt.errors import Error
from tests.support.bundle import default_config
from tests.unit.kernel.children import in_child

# -- descriptors ---------------------------------------------------------------------------------------------------------------


def taken(preserve: int, opened: int, *, inheritable: bool = True, **environment: str) -> Any:
    """What `descriptors` says in a process that has 3 and so on open, that many; for an Error its text."""

    def look() -> Any:
        os.closerange(3, 800)
        for fd in range(3, 3 + opened):
            os.dup2(0, fd, inheritable=inheritable)
        for name, value in environment.items():
            posix.environ[name.encode()] = (str(os.getpid()) if value == "own" else value).encode()
        try:
            return list(handed.descriptors(preserve))
        except Error as err:
            return [err.code, str(err)]

    return in_child(look)


def test_no_descriptors() -> None:
    assert taken(0, 0) == [0, 0]
    assert taken(0, 5) == [0, 0]


def test_descriptors_to_preserve() -> None:
    assert taken(2, 2) == [0, 2]
    assert taken(2, 5) == [0, 2]
    assert taken(3, 2) == ["usage", "--preserve-fds: descriptor 5 is not open"]
    assert taken(2, 2, inheritable=False) == ["usage", "--preserve-fds: descriptor 3 is not open"]
    assert taken(-1, 2)[0] == "usage"
    assert taken(1 << 40, 1) == ["usage", "--preserve-fds: descriptor 4 is not open"]


def test_listen_fds() -> None:
    assert taken(0, 2, LISTEN_FDS="2", LISTEN_PID="own") == [2, 2]
    assert taken(1, 3, LISTEN_FDS="2", LISTEN_PID="own") == [2, 3]
    assert taken(0, 1, LISTEN_FDS="2", LISTEN_PID="own") == ["usage", "LISTEN_FDS: descriptor 4 is not open"]
    assert taken(1, 2, LISTEN_FDS="2", LISTEN_PID="own") == ["usage", "--preserve-fds: descriptor 5 is not open"]


@pytest.mark.parametrize(
    ("fds", "pid"), [("2", "1"), ("2", ""), ("x", "own"), ("-1", "own"), ("", "own"), (" 2", "own"), ("2", "own ")]
)
def test_listen_fds_of_somebody_else_or_of_nobody(fds: str, pid: str) -> None:
    assert taken(0, 5, LISTEN_FDS=fds, LISTEN_PID=pid) == [0, 0]


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000])
def test_a_number_that_is_too_large(number: str) -> None:
    """Python refuses to read integers of more than 4300 digits: that must not look like a bug."""
    assert taken(0, 1, LISTEN_FDS=number, LISTEN_PID="own")[0] == "usage"


# -- pid files -----------------------------------------------------------------------------------------------------------------


def test_a_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    handed.write_pid_file(str(path), 4242)
    assert path.read_bytes() == b"4242"
    assert os.listdir(tmp_path) == ["pid"]
    handed.write_pid_file(str(path), 7)
    assert path.read_bytes() == b"7"


def test_its_mode_is_the_callers_choice(tmp_path: Path) -> None:
    for mask in (0o022, 0o077, 0):
        old = os.umask(mask)
        try:
            handed.write_pid_file(str(tmp_path / "pid"), 1)
        finally:
            os.umask(old)
        assert (tmp_path / "pid").stat().st_mode & 0o777 == 0o666 & ~mask


def test_over_what_a_dead_runtime_left(tmp_path: Path) -> None:
    (tmp_path / ".pid").write_text("12345678")
    handed.write_pid_file(str(tmp_path / "pid"), 42)
    assert (tmp_path / "pid").read_bytes() == b"42"
    assert os.listdir(tmp_path) == ["pid"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "pid").symlink_to("victim")
    (tmp_path / ".pid").symlink_to("victim")
    handed.write_pid_file(str(tmp_path / "pid"), 42)
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "pid").is_symlink()
    assert (tmp_path / "pid").read_bytes() == b"42"


def test_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handed.write_pid_file("pid", 3)
    assert os.listdir() == ["pid"]
    assert handed.absolute("pid") == f"{tmp_path}/pid"
    assert handed.absolute("/a/../b") == "/a/../b"
    assert handed.absolute("") == ""


def test_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        handed.write_pid_file(str(tmp_path / "missing/pid"), 1)
    (tmp_path / "pid").mkdir()
    with pytest.raises(OSError, match=os.strerror(errno.EISDIR)):
        handed.write_pid_file(str(tmp_path / "pid"), 1)
    (tmp_path / "other").write_text("")
    with pytest.raises(NotADirectoryError):
        handed.write_pid_file(str(tmp_path / "other/pid"), 1)


def test_where_it_cannot_be_nothing_is_left(tmp_path: Path) -> None:
    """A directory stands at its name."""
    (tmp_path / "pid").mkdir()
    with pytest.raises(IsADirectoryError):
        handed.write_pid_file(str(tmp_path / "pid"), 1)
    assert os.listdir(tmp_path) == ["pid"]


# -- the flags of exec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "1", "00", "007", "1000", "4294967294"])
def test_ids(text: str) -> None:
    assert exec_verb._number(text, "user") == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+1",
        "1 ",
        " 1",
        "1_0",
        "0x10",
        "1e3",
        "1.0",
        "root",
        "4294967295",
        "4294967296",
        "9" * 5000,
        "٣",
        "²",
        "1\n",
        "\0",
    ],
)
def test_what_only_looks_like_an_id(text: str) -> None:
    with pytest.raises(Error) as caught:
        exec_verb._number(text, "user")
    assert caught.value.code == "usage"
    assert "--user" in caught.value.message


@given(st.text(max_size=12))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        number = exec_verb._number(text, "user")
    except Error:
        return
    assert 0 <= number < (1 << 32) - 1
    assert text.lstrip("0") == (str(number) if number else "")


def process_of(*args: str, **process: Any) -> dict[str, Any]:
    """The process of `exec ARGS` in a container whose own process is the default with changes."""
    values, rest = options.parse(options.VERBS["exec"][2], list(args), reorder=False)
    chosen = options.Options("ocirt")
    chosen.set_verb("exec", options.VERBS["exec"][2], values)
    record = {"process": default_config()["process"] | process}
    return exec_verb._from_flags(chosen, rest, record)


def refused(*args: str, **process: Any) -> Error:
    """The Error of `process_of`."""
    with pytest.raises(Error) as caught:
        process_of(*args, **process)
    return caught.value


def test_a_process_is_the_container_s_with_other_arguments() -> None:
    base = default_config()["process"]
    made = process_of("ls", "-l", consoleSize={"height": 1, "width": 2}, oomScoreAdj=7, terminal=True)
    assert made["args"] == ["ls", "-l"]
    assert made["terminal"] is False
    assert made["consoleSize"] == {"height": 1, "width": 2}  # as with runc: a terminal of exec is as large as the container's
    assert "oomScoreAdj" not in made
    for name in ("cwd", "env", "capabilities", "rlimits", "noNewPrivileges", "user"):
        assert made[name] == base[name]
    assert process_of("-t", "ls")["terminal"] is True


def test_the_record_is_not_changed() -> None:
    values, rest = options.parse(
        options.VERBS["exec"][2], ["-e", "A=b", "-c", "CAP_CHOWN", "-g", "5", "-u", "1", "ls"], reorder=False
    )
    chosen = options.Options("ocirt")
    chosen.set_verb("exec", options.VERBS["exec"][2], values)
    record = {"process": default_config()["process"]}
    exec_verb._from_flags(chosen, rest, record)
    assert record == {"process": default_config()["process"]}


@pytest.mark.parametrize(
    ("flags", "own", "wanted"),
    [
        ([], {"uid": 5, "gid": 6, "umask": 63}, {"uid": 5, "gid": 6, "umask": 63}),
        (["-u", "7"], {"uid": 5, "gid": 6}, {"uid": 7, "gid": 6}),
        (["-u", "7:8"], {"uid": 5, "gid": 6, "additionalGids": [9]}, {"uid": 7, "gid": 8}),
        (["-g", "1", "-g", "2"], {"uid": 5, "gid": 6, "additionalGids": [9]}, {"uid": 5, "gid": 6, "additionalGids": [9, 1, 2]}),
        (["-u", "0:0", "-g", "3"], {"uid": 5, "gid": 6, "additionalGids": [9]}, {"uid": 0, "gid": 0, "additionalGids": [3]}),
    ],
)
def test_users(flags: list[str], own: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert process_of(*flags, "ls", user=own)["user"] == wanted


@pytest.mark.parametrize(
    "flags", [["-u", "root"], ["-u", "1:"], ["-u", ":1"], ["-u", "1:2:3"], ["-u", "-1"], ["-g", "wheel"], ["-g", ""]]
)
def test_users_that_are_none(flags: list[str]) -> None:
    assert refused(*flags, "ls").code == "usage"


def test_environment_and_directory() -> None:
    made = process_of("-e", "A=1", "-e", "TERM=dumb", "--cwd", "/tmp", "ls")
    assert made["env"][-2:] == ["A=1", "TERM=dumb"]
    assert made["cwd"] == "/tmp"
    assert process_of("-e", "A=", "ls", env=None)["env"] == ["A="]
    assert refused("-e", "A", "ls").subject == "/env/2"
    assert refused("-e", "=x", "ls").subject == "/env/2"
    assert refused("--cwd", "tmp", "ls").subject == "/cwd"


def test_privileges() -> None:
    assert process_of("--no-new-privs", "ls", noNewPrivileges=False)["noNewPrivileges"] is True
    assert process_of("--no-new-privs=false", "ls")["noNewPrivileges"] is False
    own = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    made = process_of("-c", "CAP_CHOWN", "-c", "CAP_KILL", "ls", capabilities=own)["capabilities"]
    assert made == {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in own}
    made = process_of("-c", "CAP_CHOWN", "ls", capabilities=None)["capabilities"]
    assert made == {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}


def test_a_command_is_needed() -> None:
    assert refused().message == "process args cannot be empty"
    assert refused("").subject == "/args/0"
