"""JSON without the standard library's Python half, beside it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni import jsonio
from ocirt_cni.errors import DECODING_FAILURE, Error

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_there_and_back(value: object) -> None:
    text = jsonio.dumps(value)
    assert json.loads(text) == value
    assert "\n" not in text
    assert jsonio.loads(text.encode("utf-8", "surrogatepass"), "x") == value
    assert jsonio.loads(json.dumps(value, indent=1).encode(), "x") == value


@given(st.binary(max_size=30) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u \t\n', max_size=30).map(str.encode))
def test_anything_is_a_value_or_an_error(data: bytes) -> None:
    try:
        expected = json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, UnicodeDecodeError):
        with pytest.raises(Error) as caught:
            jsonio.loads(data, "the input")
        assert caught.value.code == DECODING_FAILURE
        assert caught.value.subject in ("the input", "")
    else:
        assert jsonio.loads(data, "the input") == expected


def _refuse(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the input: line 1, column 1: a value is expected"),
        ("  \n ", "the input: line 2, column 2: a value is expected"),
        ('{"a": }', "the input: line 1, column 7: a value is expected"),
        ('{\n "a": 1,\n "b" 2}', "the input: line 3, column 6: expecting ':' delimiter"),
        ("[1, 2", "the input: line 1, column 6: expecting ',' delimiter"),
        ('{"a": 1} x', "the input: line 1, column 9: text after the end of the document"),
        ('{"a": "b', "the input: line 1, column 7: unterminated string starting at"),
    ],
)
def test_where_the_fault_is(text: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        jsonio.loads(text.encode(), "the input")
    assert str(caught.value) == said
    assert caught.value.code == DECODING_FAILURE


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_what_json_does_not_have(text: str) -> None:
    with pytest.raises(Error, match="is not JSON"):
        jsonio.loads(text.encode(), "x")


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(Error, match="byte 2 is not UTF-8"):
        jsonio.loads(b'{"\xff"}', "x")


def test_deep_nesting() -> None:
    with pytest.raises(Error, match="nested too deeply"):
        jsonio.loads(b"[" * 100_000, "x")


def test_an_integer_of_too_many_digits() -> None:
    with pytest.raises(Error) as caught:
        jsonio.loads(b"[" + b"9" * 5000 + b"]", "x")
    assert caught.value.code == DECODING_FAILURE


@pytest.mark.parametrize("text", ["[]", "1", '"a"', "null"])
def test_an_object_is_expected(text: str) -> None:
    with pytest.raises(Error, match="this is not an object"):
        jsonio.load_object(text.encode(), "x")
    assert jsonio.load_object(b'{"a": 1}', "x") == {"a": 1}


def test_what_has_no_form() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        jsonio.dumps({"a": {1}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonio.dumps(math.nan)
