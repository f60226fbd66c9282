"""Users: HOME from a passwd file that is the image's, and what is written for mappings."""

from __future__ import annotations

import os
import posix
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocirt.kernel.run import Run
from ocirt.kernel.steps import user
from tests.unit.kernel.children import open_descriptors

Home = Callable[..., str]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """The container's /etc."""
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


@pytest.fixture
def home(etc: Path) -> Iterator[Home]:
    """What HOME becomes for a user: `home(uid, env)`."""
    root = os.open(etc.parent, os.O_PATH | os.O_DIRECTORY)

    def look(uid: int, env: list[str] | None = None) -> str:
        run = Run([])
        run.root_fd = root
        before = open_descriptors()
        user.find_home(run, uid, env or [])
        assert open_descriptors() == before
        return run.home

    yield look
    os.close(root)


def reference(data: bytes, uid: int) -> str:
    """passwd(5): name:password:UID:GID:GECOS:directory:shell; the first entry with that UID counts."""
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == str(uid).encode():
            return os.fsdecode(fields[5]) or "/"
    return "/"


PASSWD = b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\ntwin:x:1000:1:::\nnohome:x:7:7:::/bin/sh\n"


@pytest.mark.parametrize(("uid", "wanted"), [(0, "/root"), (1000, "/home/alice"), (7, "/"), (42, "/"), (10, "/"), (100, "/")])
def test_a_usual_file(etc: Path, home: Home, uid: int, wanted: str) -> None:
    (etc / "passwd").write_bytes(PASSWD)
    assert home(uid) == wanted


def test_what_the_environment_says_counts(etc: Path, home: Home) -> None:
    (etc / "passwd").write_bytes(PASSWD)
    assert home(0, ["A=b", "HOME=/elsewhere"]) == ""
    assert home(0, ["HOMEX=/elsewhere", "XHOME=/y"]) == "/root"


@pytest.mark.parametrize(
    ("data", "uid", "wanted"),
    [
        (b"", 0, "/"),
        (b"\n\n\n", 0, "/"),
        (b"root:x:0:0:root:/root", 0, "/root"),
        (b"root:x:0:0:root", 0, "/"),
        (b"root:x:00:0:root:/zeros:\nroot:x:+0:0::/plus:\nroot:x: 0:0::/space:", 0, "/"),
        (b"root:x:0:0::/a:b:c:d:e", 0, "/a"),
        (b"root:x:0:0::/with space\t:", 0, "/with space\t"),
        (b"\xff\xfe:x:0:0:\xff:/ho\xffme:", 0, "/ho\udcffme"),
        (b"root:x:0:0::relative:", 0, "relative"),
        (b"root:x:0:0::/cr:\r\nother:x:1:1::/crlf\r\n", 1, "/crlf\r"),
        (b"#root:x:0:0::/comment:", 0, "/comment"),
        (b"+::::::\n-x:::::\nroot:x:0:0::/nis:", 0, "/nis"),
        (b"x" * 5_000_000 + b"\nroot:x:0:0::/after:\n", 0, "/after"),
        (b"root:x:0:0::/" + b"y" * 100_000, 0, "/" + "y" * 100_000),
        (b":" * 1_000_000 + b"\nroot:x:0:0::/colons:", 0, "/colons"),
        (b"a\n" * 1_000_000 + b"root:x:0:0::/lines:", 0, "/lines"),
        (b"x" * (9 << 20) + b"\nroot:x:0:0::/beyond:\n", 0, "/"),
    ],
    ids=range(17),
)
def test_odd_files(etc: Path, home: Home, data: bytes, uid: int, wanted: str) -> None:
    (etc / "passwd").write_bytes(data)
    assert home(uid) == wanted


LINES = st.one_of(
    st.binary(max_size=30),
    st.tuples(st.binary(max_size=4), st.integers(0, 3).map(lambda uid: str(uid).encode()), st.binary(max_size=8)).map(
        lambda parts: b":".join([parts[0], b"x", parts[1], b"0", b"", parts[2], b"/bin/sh"])
    ),
)


@given(st.lists(LINES, max_size=8).map(b"\n".join), st.integers(0, 3))
@example(b"a:x:1:0::/\0nul:", 1)
def test_any_file(etc: Path, home: Home, data: bytes, uid: int) -> None:
    (etc / "passwd").write_bytes(data)
    assert home(uid) == reference(data, uid)


def test_there_is_no_file(etc: Path, home: Home) -> None:
    assert home(0) == "/"
    (etc / "passwd").mkdir()
    assert home(0) == "/"


def test_a_link_leads_inside(etc: Path, home: Home) -> None:
    (etc / "real").write_bytes(b"root:x:0:0::/inside:")
    (etc / "passwd").symlink_to("/etc/real")
    assert home(0) == "/inside"
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("../../../../../../etc/real")
    assert home(0) == "/inside"
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("/proc/self/fd/0")
    assert home(0) == "/"
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("passwd")
    assert home(0) == "/"


def test_nothing_is_waited_for(etc: Path, home: Home) -> None:
    """A FIFO has no end."""
    os.mkfifo(etc / "passwd")
    assert stat.S_ISFIFO(os.stat(etc / "passwd").st_mode)
    assert home(0) == "/"


# -- mappings ------------------------------------------------------------------------------------------------------------------


class Written:
    """What is written below /proc, and what is run, instead of either."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int = 1000, gid: int = 1000) -> None:
        self.files: list[tuple[str, str]] = []
        self.helpers: list[tuple[str, int, Any]] = []
        monkeypatch.setattr(user, "write_text", lambda path, text: self.files.append((path, text)))
        monkeypatch.setattr(user, "_helper", lambda program, pid, lines: self.helpers.append((program, pid, lines)))
        monkeypatch.setattr(posix, "geteuid", lambda: uid)
        monkeypatch.setattr(posix, "getegid", lambda: gid)


def test_root_writes_mappings_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, 0, 0)
    run = Run([])
    run.pid = 42
    user.map(run, ((0, 1000, 1), (1, 100000, 65536)), ((0, 5, 10),), True)
    assert written.files == [("/proc/42/uid_map", "0 1000 1\n1 100000 65536\n"), ("/proc/42/gid_map", "0 5 10\n")]
    assert written.helpers == []


def test_anybody_maps_the_own_id(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    run = Run([])
    run.pid = 42
    user.map(run, ((0, 1000, 1),), ((0, 1000, 1),), False)
    assert written.files == [
        ("/proc/42/uid_map", "0 1000 1\n"),
        ("/proc/42/setgroups", "deny"),
        ("/proc/42/gid_map", "0 1000 1\n"),
    ]


def test_more_takes_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    run = Run([])
    run.pid = 42
    more = ((0, 1000, 1), (1, 100000, 65536))
    user.map(run, more, ((0, 1001, 1),), False)
    assert written.helpers == [("newuidmap", 42, more), ("newgidmap", 42, ((0, 1001, 1),))]
    assert written.files == []


def test_a_helper_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = open_descriptors()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        user._helper("newuidmap", 1, ((0, 1, 2),))
    assert "install uidmap" in str(caught.value.filename)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("script", "said"), [("echo 'no range' >&2; exit 1", "no range"), ("exit 1", "newuidmap"), ("kill -9 $$", "newuidmap")]
)
def test_a_helper_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "newuidmap"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    before = open_descriptors()
    with pytest.raises(OSError, match="Errno 1") as caught:
        user._helper("newuidmap", 1, ((0, 1, 2),))
    assert (caught.value.errno, caught.value.filename) == (1, said)
    assert open_descriptors() == before


def test_a_helper_gets_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "newgidmap"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    user._helper("newgidmap", 77, ((0, 1000, 1), (1, 100000, 65536)))
    assert (tmp_path / "words").read_text() == "77 0 1000 1 1 100000 65536\n"
