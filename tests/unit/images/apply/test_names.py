"""Names of archives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.apply.names import Malformed, clean, shown


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"a/b", [b"a", b"b"]),
        (b"./a//b/./", [b"a", b"b"]),
        (b"a/../b", [b"b"]),
        (b"..a/b..", [b"..a", b"b.."]),
        (b"", []),
        (b".", []),
        (b"./", []),
        (b"/", []),
        (b"a/..", []),
        (b"\xff\n", [b"\xff\n"]),
    ],
)
def test_clean(name: bytes, parts: list[bytes]) -> None:
    assert clean(name) == parts


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../../b", b"./../a", b"/etc", b"//etc", b"/../etc", b"a\0b"])
def test_refused(name: bytes) -> None:
    with pytest.raises(Malformed):
        clean(name)


@given(st.binary(max_size=300))
def test_what_is_shown_fits_a_line(name: bytes) -> None:
    assert shown(name).isprintable()


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"", b"b"]), max_size=12))
def test_nothing_leads_out(parts: list[bytes]) -> None:
    try:
        found = clean(b"/".join(parts))
    except Malformed:
        return
    assert not {b"..", b".", b""} & set(found)
