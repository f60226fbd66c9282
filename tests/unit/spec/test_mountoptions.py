"""Mount options: one test for each option, then what they mean together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt.spec import mountoptions as m
from ocirt.spec.mountoptions import known, parse

ATIME = 0x70  # MOUNT_ATTR__ATIME

# option: what it changes against no options at all (mount(2), mount_setattr(2))
NON_RECURSIVE = {
    "async": {"clear": m.MS_SYNCHRONOUS},
    "atime": {"clear": m.MS_NOATIME, "attr_clear": ATIME},
    "bind": {"flags": m.MS_BIND, "bind": True},
    "defaults": {},
    "dev": {"clear": m.MS_NODEV, "attr_clear": 4},
    "diratime": {"clear": m.MS_NODIRATIME, "attr_clear": 0x80},
    "dirsync": {"flags": m.MS_DIRSYNC, "superblock": ["dirsync"]},
    "exec": {"clear": m.MS_NOEXEC, "attr_clear": 8},
    "iversion": {"flags": m.MS_I_VERSION},
    "lazytime": {"flags": m.MS_LAZYTIME, "superblock": ["lazytime"]},
    "loud": {"clear": m.MS_SILENT},
    "mand": {"flags": m.MS_MANDLOCK, "superblock": ["mand"]},
    "noatime": {"flags": m.MS_NOATIME, "attr_set": 0x10, "attr_clear": ATIME},
    "nodev": {"flags": m.MS_NODEV, "attr_set": 4},
    "nodiratime": {"flags": m.MS_NODIRATIME, "attr_set": 0x80},
    "noexec": {"flags": m.MS_NOEXEC, "attr_set": 8},
    "noiversion": {"clear": m.MS_I_VERSION},
    "nolazytime": {"clear": m.MS_LAZYTIME},
    "nomand": {"clear": m.MS_MANDLOCK},
    "norelatime": {"clear": m.MS_RELATIME, "attr_clear": ATIME},
    "nostrictatime": {"clear": m.MS_STRICTATIME, "attr_clear": ATIME},
    "nosuid": {"flags": m.MS_NOSUID, "attr_set": 2},
    "nosymfollow": {"flags": m.MS_NOSYMFOLLOW, "attr_set": 0x200000},
    "rbind": {"flags": m.MS_BIND | m.MS_REC, "bind": True, "recursive": True},
    "relatime": {"flags": m.MS_RELATIME, "attr_clear": ATIME},
    "remount": {"flags": m.MS_REMOUNT, "remount": True},
    "ro": {"flags": m.MS_RDONLY, "attr_set": 1},
    "rw": {"clear": m.MS_RDONLY, "attr_clear": 1},
    "silent": {"flags": m.MS_SILENT},
    "strictatime": {"flags": m.MS_STRICTATIME, "attr_set": 0x20, "attr_clear": ATIME},
    "suid": {"clear": m.MS_NOSUID, "attr_clear": 2},
    "symfollow": {"clear": m.MS_NOSYMFOLLOW, "attr_clear": 0x200000},
    "sync": {"flags": m.MS_SYNCHRONOUS, "superblock": ["sync"]},
}
RECURSIVE = {
    "ratime": {"rec_clear": ATIME},
    "rdev": {"rec_clear": 4},
    "rdiratime": {"rec_clear": 0x80},
    "rexec": {"rec_clear": 8},
    "rnoatime": {"rec_set": 0x10, "rec_clear": ATIME},
    "rnodev": {"rec_set": 4},
    "rnodiratime": {"rec_set": 0x80},
    "rnoexec": {"rec_set": 8},
    "rnorelatime": {"rec_clear": ATIME},
    "rnostrictatime": {"rec_clear": ATIME},
    "rnosuid": {"rec_set": 2},
    "rnosymfollow": {"rec_set": 0x200000},
    "rrelatime": {"rec_clear": ATIME},
    "rro": {"rec_set": 1},
    "rrw": {"rec_clear": 1},
    "rstrictatime": {"rec_set": 0x20, "rec_clear": ATIME},
    "rsuid": {"rec_clear": 2},
    "rsymfollow": {"rec_clear": 0x200000},
}
PROPAGATION = {
    "private": {"propagation": [1 << 18]},
    "rprivate": {"propagation": [1 << 18 | 16384]},
    "rshared": {"propagation": [1 << 20 | 16384]},
    "rslave": {"propagation": [1 << 19 | 16384]},
    "runbindable": {"propagation": [1 << 17 | 16384]},
    "shared": {"propagation": [1 << 20]},
    "slave": {"propagation": [1 << 19]},
    "unbindable": {"propagation": [1 << 17]},
}
OTHERS = {
    "idmap": {"idmap": "idmap"},
    "ridmap": {"idmap": "ridmap"},
    "tmpcopyup": {"tmpcopyup": True},
    "size=64k": {"data": ["size=64k"]},
}
NOTHING = {
    "flags": 0,
    "clear": 0,
    "attr_set": 0,
    "attr_clear": 0,
    "rec_set": 0,
    "rec_clear": 0,
    "propagation": [],
    "bind": False,
    "recursive": False,
    "remount": False,
    "idmap": None,
    "tmpcopyup": False,
    "superblock": [],
    "data": [],
}


@pytest.mark.parametrize(
    ("option", "change"), [*NON_RECURSIVE.items(), *RECURSIVE.items(), *PROPAGATION.items(), *OTHERS.items()]
)
def test_option(option: str, change: dict[str, object]) -> None:
    assert parse([option], "tmpfs") == NOTHING | change


def test_the_list_that_features_shows() -> None:
    names = known()
    assert names == sorted({*NON_RECURSIVE, *RECURSIVE, *PROPAGATION, "tmpcopyup"})
    assert len(names) == 60


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (["ro", "rw"], {"clear": 1, "attr_clear": 1}),
        (["rw", "ro"], {"flags": 1, "attr_set": 1}),
        (["noexec", "nosuid", "exec"], {"flags": 2, "clear": 8, "attr_set": 2, "attr_clear": 8}),
        (["noatime", "strictatime"], {"flags": m.MS_STRICTATIME, "attr_set": 0x20, "attr_clear": ATIME}),
        (["strictatime", "noatime", "relatime"], {"flags": m.MS_RELATIME, "attr_clear": ATIME}),
        (["noatime", "atime"], {"clear": m.MS_NOATIME, "attr_clear": ATIME}),
        (["strictatime", "atime"], {"flags": m.MS_STRICTATIME, "clear": m.MS_NOATIME, "attr_set": 0x20, "attr_clear": ATIME}),
        (["rnoatime", "rstrictatime"], {"rec_set": 0x20, "rec_clear": ATIME}),
        (["rro", "rrw"], {"rec_clear": 1}),
        (["rrw", "rro", "rnosuid"], {"rec_set": 3}),
        (["rro", "ro"], {"flags": 1, "attr_set": 1, "rec_set": 1}),
        (["rslave", "shared"], {"propagation": [1 << 19 | 16384, 1 << 20]}),
        (["dirsync", "sync", "lazytime", "async"], {"flags": 128 | 1 << 25, "clear": 16, "superblock": ["dirsync", "lazytime"]}),
        (["mode=755", "nodev", "size=1m"], {"flags": 4, "attr_set": 4, "data": ["mode=755", "size=1m"]}),
        (["defaults", "RO"], {"data": ["RO"]}),
    ],
)
def test_together(options: list[str], change: dict[str, object]) -> None:
    assert parse(options, "tmpfs") == NOTHING | change


@pytest.mark.parametrize(
    ("options", "kind", "word", "hint"),
    [
        (["bind", "size=1m"], "tmpfs", "size=1m", "leave it out"),
        (["rbind", "noexce"], "bind", "noexce", "noexec"),
        (["bind", "RO"], "", "RO", "ro"),
        (["ro"], "", "type is ''", '"rbind"'),
        (["nosuid"], "bind", "type is 'bind'", '"rbind"'),
        ([], "none", "type is 'none'", '"tmpfs"'),
    ],
)
def test_refused(options: list[str], kind: str, word: str, hint: str) -> None:
    with pytest.raises(Error) as caught:
        parse(options, kind, "/mounts/3")
    assert caught.value.code == "invalid"
    assert caught.value.subject == "/mounts/3/options"
    assert word in caught.value.message
    assert hint in caught.value.hint


def test_remount_needs_no_type() -> None:
    assert parse(["remount", "ro"])["flags"] == m.MS_REMOUNT | m.MS_RDONLY


@given(st.lists(st.sampled_from([*known(), "idmap", "mode=755"])))
def test_the_kernel_takes_the_attributes(options: list[str]) -> None:
    """What mount_setattr(2) says of its fields holds for any list of options."""
    parsed = parse([*(option for option in options if option not in ("bind", "rbind"))], "tmpfs")
    for to_set, to_clear in ((parsed["attr_set"], parsed["attr_clear"]), (parsed["rec_set"], parsed["rec_clear"])):
        assert to_clear & ATIME in (0, ATIME)
        assert to_set & ATIME in (0, 0x10, 0x20)
        assert not to_set & ATIME or to_clear & ATIME
        assert not to_set & to_clear & ~ATIME
        assert not (to_set | to_clear) & ~(0xF | ATIME | 0x80 | 0x200000)
    assert not parsed["flags"] & parsed["clear"]
    assert parsed["flags"] & (m.MS_NOATIME | m.MS_RELATIME | m.MS_STRICTATIME) in (
        0,
        m.MS_NOATIME,
        m.MS_RELATIME,
        m.MS_STRICTATIME,
    )
    assert len(parsed["propagation"]) == sum(option in m.PROPAGATION for option in options)
