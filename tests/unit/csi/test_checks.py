"""Fields of requests, and what classes and inline volumes say: each error names its field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks, flags, parameters
from ocirt_csi.errors import BusyError, Error, RangeError
from ocirt_csi.kernel import mounts
from ocirt_csi.model import IMAGE, SUBVOLUME

MODES = csi.VolumeCapability.AccessMode


@given(st.text(min_size=1, max_size=300))
def test_a_name_is_kept_or_refused(name: str) -> None:
    """What passes is what was given: printable, and of 128 bytes at most."""
    try:
        found = checks.text(name, "name")
    except Error as err:
        assert err.code == "invalid"
        assert err.subject == "name"
        assert len(name.encode()) > 128 or not name.isprintable()
    else:
        assert found == name
        assert len(found.encode()) <= 128


@given(st.text(alphabet="/.a\0", max_size=30))
def test_a_path_that_passes_leads_down_only(path: str) -> None:
    try:
        found = checks.path(path, "target_path")
    except Error as err:
        assert err.code == "invalid"
    else:
        assert found.startswith("/")
        assert not found.endswith("/")
        assert ".." not in found.split("/")
        assert "\0" not in found


@pytest.mark.parametrize(
    ("required", "limit", "code"),
    [(-1, 0, "invalid"), (0, -1, "invalid"), (2, 1, RangeError), (0, 0, ""), (1, 0, ""), (1, 1, "")],
)
def test_sizes(required: int, limit: int, code: object) -> None:
    value = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
    if not code:
        assert checks.capacity(value) == (required, limit)
        return
    with pytest.raises(Error) as caught:
        checks.capacity(value)
    assert caught.value.code == code if isinstance(code, str) else isinstance(caught.value, RangeError)


@pytest.mark.parametrize("mode", MODES.Mode.values())
def test_only_what_one_node_can_have(mode: MODES.Mode.ValueType) -> None:
    value = csi.VolumeCapability(access_mode=MODES(mode=mode), block=csi.VolumeCapability.BlockVolume())
    if MODES.Mode.Name(mode).startswith("SINGLE"):
        assert checks.capability(value).mode == mode
    else:
        with pytest.raises(Error) as caught:
            checks.capability(value)
        assert caught.value.code == "invalid"


def test_what_was_asked_for_is_compared_as_a_whole() -> None:
    """The same capability is the same text, and each difference another."""
    found = {
        checks.capability(
            csi.VolumeCapability(
                access_mode=MODES(mode=MODES.SINGLE_NODE_WRITER),
                mount=csi.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=words, volume_mount_group=group),
            ),
            read_only=read_only,
        ).asked
        for fs_type in ("", "ext4")
        for words in ([], ["ro"], ["ro", "noexec"])
        for group in ("", "5")
        for read_only in (False, True)
        for _ in range(2)
    }
    assert len(found) == 24


@pytest.mark.parametrize("token", ["", "0", "17"])
def test_tokens(token: str) -> None:
    assert checks.page(0, token) == (0, int(token or 0))


@given(st.text(min_size=1, max_size=40))
def test_any_other_token_means_nothing(token: str) -> None:
    try:
        assert checks.page(1, token)[1] == int(token)
    except BusyError:
        assert not (token.isascii() and token.isdecimal() and len(token) <= 18)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10Gi", 10 << 30), ("500M", 500_000_000), ("2k", 2000), ("2Ki", 2048), ("3TiB", 3 << 40), ("0", 0)],
)
def test_sizes_in_words(text: str, size: int) -> None:
    assert parameters.size(text, "size") == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5Gi", "1 Gi", "1X", "9" * 19 + "P", "٣", "1\n"])
def test_words_that_are_no_size(text: str) -> None:
    with pytest.raises(Error, match="is not a size"):
        parameters.size(text, "size")


def test_parameters() -> None:
    """What sidecars add is left out; a misspelt one is told the right one."""
    given_ = {"class": "fast", "csi.storage.k8s.io/pvc/name": "x"}
    assert parameters.checked(given_, parameters.VOLUME, "parameters") == {"class": "fast"}
    with pytest.raises(Error, match="did you mean 'class'"):
        parameters.checked({"clas": "fast"}, parameters.VOLUME, "parameters")


def test_mutable_parameters() -> None:
    """Each layout has its own."""
    assert parameters.mutable({"readBps": "1Mi", "writeIops": "0"}, IMAGE) == {"readBps": "1048576", "writeIops": "0"}
    assert parameters.mutable({"compression": "zstd"}, SUBVOLUME) == {"compression": "zstd"}
    for given_, layout in (({"compression": "zstd"}, IMAGE), ({"readBps": "1"}, SUBVOLUME), ({"compression": "x"}, SUBVOLUME)):
        with pytest.raises(Error):
            parameters.mutable(given_, layout)


def test_mount_flags() -> None:
    """Attributes, read-only and words for the file system; nothing else passes, and nothing that hides a second one."""
    found = flags.read(["ro", "nosuid", "noexec", "relatime", "discard", "commit=5"], "ext4")
    assert found == (mounts.NO_SUID | mounts.NO_EXEC, True, ("discard", "commit=5"))
    for flag in ("bind", "remount", "loop", "context=x", "commit=5,ro", "DISCARD", "", "usrquota", "journal_path=/dev/sda"):
        with pytest.raises(Error) as caught:
            flags.read([flag], "ext4")
        assert caught.value.subject == "mount_flags"
    with pytest.raises(Error):
        flags.read(["discard"], "")
