"""Messages between a caller and the zygote's forks, however the stream is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import CODES, Error
from ocirt.zygote import wire

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(TEXT, VALUES, max_size=5)


def decoded(decoder: wire.Decoder) -> list[dict[str, Any]]:
    found = []
    while (message := decoder.next()) is not None:
        found.append(message)
    return found


@given(st.lists(MESSAGES, max_size=4), st.data())
def test_what_goes_in_comes_out(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    stream = b"".join(map(wire.encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, found = wire.Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoder.feed(stream[start:end])
        found += decoded(decoder)
    assert found == messages


@given(MESSAGES)
def test_byte_by_byte(message: dict[str, Any]) -> None:
    decoder, stream = wire.Decoder(), wire.encode(message)
    for at in range(len(stream)):
        assert decoder.next() is None
        decoder.feed(stream[at : at + 1])
    assert decoded(decoder) == [message]


@given(st.sampled_from(sorted(CODES)), TEXT, TEXT, TEXT, TEXT)
def test_errors(code: str, message: str, subject: str, cause: str, hint: str) -> None:
    err = Error(code, message, subject=subject, cause=cause, hint=hint)
    decoder = wire.Decoder()
    decoder.feed(wire.encode(wire.from_error(err)))
    [told] = decoded(decoder)
    again = wire.to_error(told)
    assert (again.code, str(again), again.hint) == (code, str(err), hint)


@given(st.binary(max_size=64))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    decoder = wire.Decoder()
    decoder.feed(noise)
    try:
        for message in decoded(decoder):
            assert isinstance(message, dict)
    except Error:
        pass


def test_what_is_no_message() -> None:
    for noise in ((wire.LARGEST + 1).to_bytes(4, "little"), b"\2\0\0\0[]"):
        decoder = wire.Decoder()
        decoder.feed(noise)
        with pytest.raises(Error, match="not a message"):
            decoder.next()
