"""`USER` of an image, looked up in the image's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocirt_images.bundle import User
from ocirt_images.bundle.users import LIMIT, resolve
from ocirt_images.errors import Error

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken
bad:x:one:two:::
toobig:x:4294967295:0:::

alice:x:1000:1001::/home:/bin/sh
7000:x:7:8:a name of digits::
twice:x:1000:5:::
"""
GROUP = """\
root:x:0:root
alice:x:1001:
audio:x:29:bob,alice
video:x:44: alice ,bob
9000:x:9:alice
nomembers:x:50
broken
"""
Resolve = Callable[[str], User]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "rootfs"
    (found / "etc").mkdir(parents=True)
    (found / "etc" / "passwd").write_text(PASSWD)
    (found / "etc" / "group").write_text(GROUP)
    return found


@pytest.fixture
def user(root: Path) -> Iterator[Resolve]:
    fd = os.open(root, os.O_PATH)
    yield lambda text: resolve(text, fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0,)),
        ("root", 0, 0, (0,)),
        ("0", 0, 0, (0,)),
        ("alice", 1000, 1001, (1001, 9, 29, 44)),
        ("1000", 1000, 1001, (1001, 9, 29, 44)),
        ("alice:audio", 1000, 29, (29,)),
        ("alice:44", 1000, 44, (44,)),
        ("alice:12345", 1000, 12345, (12345,)),
        ("1000:1002", 1000, 1002, (1002,)),
        ("1000:audio", 1000, 29, (29,)),
        ("4242", 4242, 0, (0,)),
        ("4242:4343", 4242, 4343, (4343,)),
        ("4294967294:4294967294", 4294967294, 4294967294, (4294967294,)),
        ("7000", 7, 8, (8,)),
        (":audio", 0, 29, (29,)),
        ("twice", 1000, 5, (5,)),
    ],
)
def test_users(user: Resolve, text: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    assert user(text) == User(uid, gid, groups)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("bob", "not-found", "/etc/passwd of the image: no user 'bob'"),
        ("bad", "not-found", "/etc/passwd of the image: no user 'bad'"),
        ("toobig", "not-found", "/etc/passwd of the image: no user 'toobig'"),
        ("alice:nobody", "not-found", "/etc/group of the image: no group 'nobody'"),
        ("alice:", "invalid", "'alice:' is no user"),
        ("a:b:c", "invalid", "'a:b:c' is no user"),
        ("4294967295", "invalid", "4294967295 is no user's number"),
        ("0:4294967295", "invalid", "4294967295 is no group's number"),
        ("-1", "not-found", "no user '-1'"),
        ("1" * 30, "not-found", "no user '111"),
        ("²", "not-found", "no user"),
    ],
)
def test_no_such_user(user: Resolve, text: str, code: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        user(text)
    assert caught.value.code == code
    assert said in str(caught.value)


def test_an_image_without_the_files(root: Path, user: Resolve) -> None:
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "group").unlink()
    assert user("") == User()
    assert user("5:6") == User(5, 6, (6,))
    with pytest.raises(Error, match="/etc/passwd of the image: no user 'alice'"):
        user("alice")
    (root / "etc").rmdir()
    assert user("0") == User()
    (root / "etc").write_text("")
    assert user("0") == User()


def test_a_link_stays_inside(root: Path, user: Resolve, tmp_path: Path) -> None:
    """Absolute, or up and away: it is read as a process in the container would."""
    (tmp_path / "outside").write_text("alice:x:666:666:::\n")
    passwd = root / "etc" / "passwd"
    for target in (f"{tmp_path}/outside", "../../outside", "../../../../../../../.." + f"{tmp_path}/outside"):
        passwd.unlink()
        passwd.symlink_to(target)
        with pytest.raises(Error, match="no user 'alice'"):
            user("alice")
    (root / "usr").mkdir()
    (root / "usr" / "passwd").write_text("alice:x:5:6:::\n")
    passwd.unlink()
    passwd.symlink_to("/usr/passwd")
    assert user("alice").uid == 5


def test_no_plain_file(root: Path, user: Resolve) -> None:
    """A fifo is not waited for, and nothing endless is read."""
    passwd = root / "etc" / "passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(Error, match="/etc/passwd of the image: not a plain file"):
        user("alice")
    passwd.unlink()
    passwd.mkdir()
    with pytest.raises(Error, match="/etc/passwd of the image: not a plain file"):
        user("alice")
    passwd.rmdir()
    passwd.symlink_to("/etc/passwd")
    with pytest.raises(Error, match="/etc/passwd of the image: it cannot be opened: Too many levels of symbolic links"):
        user("alice")
    passwd.unlink()
    with passwd.open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(Error, match=f"/etc/passwd of the image: {LIMIT + 1} bytes"):
        user("alice")


def test_bytes_that_are_no_text(root: Path, user: Resolve) -> None:
    (root / "etc" / "passwd").write_bytes(b"\xff\xfe:x:3:4:::\nalice:x:1:2:\xff::\n")
    assert user("alice").uid == 1
    assert user(b"\xff\xfe".decode("utf-8", "surrogateescape")).uid == 3
