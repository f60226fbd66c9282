"""The tables of names against those that Python has from the C library."""

from __future__ import annotations

import resource
import signal

import pytest

from ocirt.errors import Error
from ocirt.spec import capabilities, rlimits, signals
from ocirt.spec.names import distance, nearest


def test_capabilities() -> None:
    assert len(capabilities.NAMES) == len(capabilities.NUMBERS) == 41
    # Spot checks from capability.h: the first, one amid, the last.
    assert capabilities.NUMBERS["CAP_CHOWN"] == 0
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_SETFCAP"] == 31
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_capability_mask() -> None:
    assert capabilities.mask([]) == 0
    assert capabilities.mask(["CAP_DAC_OVERRIDE", "CAP_NO_SUCH", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]) == 1 << 1 | 1 << 34
    assert capabilities.mask(capabilities.NAMES) == (1 << 41) - 1


@pytest.mark.parametrize("name", sorted(rlimits.NUMBERS))
def test_rlimit(name: str) -> None:
    here = getattr(resource, name, None)
    if here is None:  # the resource module leaves this one out
        assert name == "RLIMIT_LOCKS"
        assert rlimits.NUMBERS[name] == 10
    else:
        assert rlimits.NUMBERS[name] == here


def test_all_rlimits_are_there() -> None:
    assert sorted(rlimits.NUMBERS.values()) == list(range(16))


@pytest.mark.parametrize("item", list(signal.Signals))
def test_signal(item: signal.Signals) -> None:
    short = item.name.removeprefix("SIG")
    for text in (item.name, short, short.lower(), item.name.title(), str(item.value)):
        assert signals.number(text) == item.value
    assert signals.number(signals.name(item.value)) == item.value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("64", 64),
        ("RTMIN", 34),
        ("rtmin+3", 37),
        ("SIGRTMIN+30", 64),
        ("RTMAX", 64),
        ("SIGRTMAX-1", 63),
        ("sigcld", 17),
        ("POLL", 29),
    ],
)
def test_signal_number(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "65",
        "-1",
        "+9",
        " 9",
        "9.0",
        "1_0",
        "٣",
        "99999999999",
        "NOPE",
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX+1",
        "RTMAX-31",
        "RTMIN+",
        "RTMIN++1",
    ],
)
def test_no_signal(text: str) -> None:
    with pytest.raises(Error, match="unknown signal") as caught:
        signals.number(text)
    assert caught.value.code == "invalid"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "name"), [(6, "SIGABRT"), (17, "SIGCHLD"), (29, "SIGIO"), (34, "SIGRTMIN"), (40, "SIGRTMIN+6"), (99, "99")]
)
def test_signal_name(number: int, name: str) -> None:
    assert signals.name(number) == name


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "abd", 1),
        ("abc", "ab", 1),
        ("kitten", "sitting", 3),
    ],
)
def test_distance(one: str, other: str, edits: int) -> None:
    assert distance(one, other) == distance(other, one) == edits


@pytest.mark.parametrize(
    ("name", "found"),
    [("mounst", "mounts"), ("Hostname", "hostname"), ("rotfs", ""), ("", ""), ("hostnam" * 20, ""), ("hooks", "hooks")],
)
def test_nearest(name: str, found: str) -> None:
    assert nearest(name, ["mounts", "hostname", "hooks", "process"]) == found
