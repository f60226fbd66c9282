"""Which ids a user may map, and what is said where there is no user namespace."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls, namespace
from ocirt_images.snapshots.namespace import Mappings, _subordinate, enter_user, own_mappings

UID, GID = os.geteuid(), os.getegid()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ()),
        ("me:100000:65536\n", ((1, 100000, 65536),)),
        ("1234:100000:65536\n", ((1, 100000, 65536),)),
        ("you:1:1\nme:100000:10\n\n# a comment\nme:200000:5\n", ((1, 100000, 10), (11, 200000, 5))),
        ("me:100000\nme:x:y\nme:1:0\nme:1:2:3\n", ()),
        ("12345:1:1\nmee:1:1\n", ()),
    ],
)
def test_subordinate_ids(tmp_path: Path, text: str, lines: namespace.Lines) -> None:
    (tmp_path / "subuid").write_text(text)
    assert _subordinate(str(tmp_path / "subuid"), "me", 1234) == lines


def test_no_file_gives_none(tmp_path: Path) -> None:
    assert _subordinate(str(tmp_path / "subuid"), "me", 1234) == ()


@pytest.mark.parametrize("missing", ["", "subuid", "subgid", "newuidmap", "newgidmap"])
def test_all_or_nothing(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without one of the files or programs the user alone is mapped."""
    ranges: namespace.Lines = ((1, 100000, 65536),)
    monkeypatch.setattr(namespace, "_subordinate", lambda path, *_: () if missing and path.endswith(missing) else ranges)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    more = () if missing else ranges
    assert own_mappings() == Mappings(((0, UID, 1), *more), ((0, GID, 1), *more))


@pytest.mark.parametrize("size", [1, 2])
def test_no_user_namespaces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """With a process that waits outside, too: it ends."""

    def refuse(_: int) -> None:
        raise calls.CallError(errno.EPERM, "unshare")

    monkeypatch.setattr(calls, "unshare", refuse)
    lines: namespace.Lines = ((0, UID, 1), (1, 100000, 65536))[:size]
    with pytest.raises(Error, match="a user namespace cannot be made: Operation not permitted .*max_user_namespaces") as caught:
        enter_user(Mappings(lines, lines))
    assert caught.value.code == "unsupported"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
