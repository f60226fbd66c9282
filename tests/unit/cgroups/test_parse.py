"""The parsers of cgroup files: what kernels write, and whatever else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import parse

PARSERS = (
    parse.number,
    parse.signed,
    parse.flat,
    parse.numbers,
    parse.columns,
    parse.cpu_list,
    parse.device_lines,
    parse.device_keys,
    parse.pressure,
)


def test_number() -> None:
    assert parse.number("17\n") == 17
    assert parse.number("max\n") == parse.UNLIMITED
    # Some kernels show negative counts.
    assert parse.number("-5\n") == 0
    assert parse.signed("-1\n") == -1
    for text in ("", "x", "1 2", "1_0", "٣", "1" * 21, "--1", "0x1"):
        with pytest.raises(ValueError, match="no number"):
            parse.signed(text)


def test_flat() -> None:
    assert parse.flat("cache 5\nrss 0\nlimit max\nnegative -3\n") == {
        "cache": 5,
        "rss": 0,
        "limit": parse.UNLIMITED,
        "negative": 0,
    }
    assert parse.flat("numa 0 0 0\nword\n\nx y\nok 1") == {"ok": 1}


def test_columns() -> None:
    assert parse.columns("cpu user system\n0 5 6\n1 7 8\n") == ([5, 7], [6, 8])
    assert parse.columns("") == ([], [])
    assert parse.columns("cpu user system more\n0 5 6 9\nbroken\n1 x 2\n") == ([5], [6])


def test_cpu_list() -> None:
    assert parse.cpu_list("0-2,5\n") == [0, 1, 2, 5]
    assert parse.cpu_list("\n") == []
    for text in ("2-1", "0-99999999999", "a", "1,", "70000"):
        with pytest.raises(ValueError, match="no "):
            parse.cpu_list(text)


def test_device_lines() -> None:
    text = "8:0 Read 5\n8:0 Total 6\n8:16 7\nTotal 12\n\n8:0 Read x\n"
    assert parse.device_lines(text) == [(8, 0, "Read", 5), (8, 0, "Total", 6), (8, 16, "", 7)]


def test_device_keys() -> None:
    text = "8:16 rbytes=1 wbytes=2 rios=3 cost.usage=4\n8:0 \nnot a device\n8:1 rbytes=x wios=5\n"
    expected = [(8, 16, {"rbytes": 1, "wbytes": 2, "rios": 3, "cost.usage": 4}), (8, 0, {}), (8, 1, {"wios": 5})]
    assert parse.device_keys(text) == expected


def test_pressure() -> None:
    text = "some avg10=0.00 avg60=1.50 avg300=0.07 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
    none = {"avg10": 0, "avg60": 0, "avg300": 0}
    assert parse.pressure(text) == {"some": {"avg10": 0, "avg60": 1.5, "avg300": 0.07, "total": 123}, "full": none | {"total": 9}}
    assert parse.pressure("") == {}
    assert parse.pressure("some new=1\nother x\n") == {"some": none | {"total": 0}}
    for value in ("nan", "inf", "-1.0", "1e5", ""):
        with pytest.raises(ValueError, match="no percentage"):
            parse.pressure(f"some avg10={value}")


lines = st.lists(
    st.lists(
        st.one_of(st.text(), st.sampled_from(["8:0", "some", "avg10=", "total=", "max", "-1", "9" * 30, "0-9"])), max_size=5
    ).map(
        " ".join,
    ),
    max_size=6,
).map("\n".join)


@given(text=st.one_of(st.text(), lines))
def test_garbage(text: str) -> None:
    """A result or ValueError; nothing else, and nothing negative or larger than 64 bits."""
    for parser in PARSERS:
        try:
            found: Any = parser(text)
        except ValueError:
            continue
        if parser is not parse.signed:
            assert all(0 <= value < 10**20 for value in values_of(found))


def values_of(found: Any) -> list[float]:
    if isinstance(found, dict):
        return [value for item in found.values() for value in values_of(item)]
    if isinstance(found, (list, tuple)):
        return [value for item in found for value in values_of(item)]
    return [] if isinstance(found, str) else [found]


counts = st.integers(0, (1 << 64) - 1)
names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1)


@given(values=st.dictionaries(names, counts))
def test_what_the_kernel_writes_is_read(values: dict[str, int]) -> None:
    assert parse.flat("".join(f"{key} {value}\n" for key, value in values.items())) == values


@given(values=st.lists(st.tuples(counts, counts, st.sampled_from(["", "Read", "Sync"]), counts)))
def test_devices_are_read(values: list[tuple[int, int, str, int]]) -> None:
    text = "".join(f"{major}:{minor} {name} {value}\n".replace("  ", " ") for major, minor, name, value in values)
    assert parse.device_lines(text) == values


@given(values=st.sets(st.integers(0, 300)))
def test_lists_are_read(values: set[int]) -> None:
    assert parse.cpu_list(",".join(str(value) for value in sorted(values))) == sorted(values)
