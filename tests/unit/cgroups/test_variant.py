"""Values of D-Bus as text, in annotations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import dbus, variant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", ("i", 5)),
        (" -5 ", ("i", -5)),
        ("0x1F", ("i", 31)),
        ("017", ("i", 15)),
        ("1.5", ("d", 1.5)),
        ("1e3", ("d", 1000.0)),
        ("double 2", ("d", 2.0)),
        ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
        ("byte 0xff", ("y", 255)),
        ("@t 7", ("t", 7)),
        ("true", ("b", True)),
        ("boolean false", ("b", False)),
        ("'a \\'b\\' \\u00e9\\n'", ("s", "a 'b' é\n")),
        ('"it\'s"', ("s", "it's")),
        ("objectpath '/a'", ("o", "/a")),
        ("signature 'a{sv}'", ("g", "a{sv}")),
        ("b'x\\x01\\0101'", ("ay", b"x\x01A\0")),
        ("['a.service', 'b.service']", ("as", ["a.service", "b.service"])),
        ("[uint32 1, 2]", ("au", [1, 2])),
        ("@as []", ("as", [])),
        ("[byte 1, 2]", ("ay", b"\1\2")),
        ("@ay [1, 2]", ("ay", b"\1\2")),
        ("[[1], [2]]", ("aai", [[1], [2]])),
        ("<'x'>", ("v", ("s", "x"))),
        ("{'a': 1, 'b': 2}", ("a{si}", [("a", 1), ("b", 2)])),
        ("@a{ss} {}", ("a{ss}", [])),
        ("{'a': <true>}", ("a{sv}", [("a", ("b", True))])),
    ],
)
def test_values(text: str, expected: tuple[str, Any]) -> None:
    assert variant.read(text) == expected
    assert dbus.encode("v", [expected])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5 6",
        "5x",
        "abc",
        "true false",
        "'open",
        "b'open",
        "[1, 'a']",
        "[]",
        "{}",
        "[1",
        "{'a' 1}",
        "<1",
        "byte 256",
        "uint32 -1",
        "99999999999",
        "uint64 1.5",
        "string 5",
        "@q 'a'",
        "@ss 'a'",
        "@zz 5",
        "int32 uint32 5",
        "'\\u12'",
        "b'\\x1'",
        "--5",
        "[" * 50,
    ],
)
def test_no_values(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        variant.read(text)


@given(st.text(max_size=30))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        signature, value = variant.read(text)
    except ValueError:
        return
    dbus.types_of(signature)
    del value


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_strings(text: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert variant.read(quoted) == ("s", text)


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_integers(number: int) -> None:
    assert variant.read(str(number)) == ("i", number)
