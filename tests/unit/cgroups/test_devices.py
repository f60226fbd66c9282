"""Device rules, held against a model that knows nothing of the kernel: the last rule to name a device and an access decides."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import devices
from ocirt.cgroups.devices import ALL, MKNOD, READ, WRITE, denies, program, rules, writes
from ocirt.errors import Error

TYPES = {"b": 1, "c": 2}
LETTERS = {"m": MKNOD, "r": READ, "w": WRITE}


def model(found: list[devices.Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """Whether `access` to a device is allowed: each access on its own, the last rule that names it."""

    def single(bit: int) -> bool:
        verdict = False
        for allow, rule_kind, rule_major, rule_minor, mask, _ in found:
            if rule_kind in ("a", kind) and rule_major in (-1, major) and rule_minor in (-1, minor) and mask & bit:
                verdict = allow
        return verdict

    return all(single(bit) for bit in (MKNOD, READ, WRITE) if access & bit)


def run(code: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """A tiny eBPF interpreter: the instructions of `devices.program`, with the checks of the verifier that could fail it."""
    context = struct.pack("=III", TYPES[kind] | access << 16, major, minor)
    registers: list[int | None] = [None] * 11
    registers[1] = 0  # stands for the context's address
    assert len(code) % 8 == 0
    instructions = [struct.unpack_from("=BBhi", code, offset) for offset in range(0, len(code), 8)]
    counter = steps = 0

    def value(number: int) -> int:
        found = registers[number]
        assert found is not None, "reads a register that was not set"
        return found

    while True:
        steps += 1
        assert steps <= len(instructions), "a loop"
        operation, nibbles, offset, constant = instructions[counter]
        target, source = (nibbles & 15, nibbles >> 4) if sys.byteorder == "little" else (nibbles >> 4, nibbles & 15)
        word = constant & 0xFFFFFFFF
        counter += 1
        if operation == 0x61:  # load a word
            assert value(source) == 0
            assert source == 1
            assert offset in (0, 4, 8)
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif operation == 0xBC:
            registers[target] = value(source)
        elif operation == 0xB4:
            registers[target] = word
        elif operation == 0x54:
            registers[target] = value(target) & word
        elif operation == 0x74:
            registers[target] = value(target) >> word
        elif operation in (0x16, 0x56):
            assert offset >= 0
            if (value(target) == word) == (operation == 0x16):
                counter += offset
        elif operation == 0x95:
            return value(0)
        else:
            raise AssertionError(f"unknown operation {operation:#x}")


def reachable(code: bytes) -> set[int]:
    """The instructions that some input could reach; the verifier refuses a program with others."""
    instructions = [struct.unpack_from("=BBhi", code, offset) for offset in range(0, len(code), 8)]
    seen: set[int] = set()
    todo = [0]
    while todo:
        counter = todo.pop()
        if counter in seen:
            continue
        seen.add(counter)
        operation, _, offset, _ = instructions[counter]
        if operation != 0x95:
            todo.append(counter + 1)
        if operation in (0x16, 0x56):
            todo.append(counter + 1 + offset)
    return seen


# Few numbers, so that rules meet; some that a sign would spoil.
numbers = st.sampled_from([0, 1, 3, 5, 136, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
entries = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans(), "access": st.sampled_from(["r", "w", "m", "rw", "wm", "rm", "rwm"])},
        optional={"type": st.sampled_from(["a", "b", "c"]), "major": numbers, "minor": numbers},
    ),
    max_size=8,
)
questions = st.tuples(st.sampled_from(["b", "c"]), numbers, numbers, st.integers(1, 7))


@given(entries, questions, st.booleans())
def test_program_decides_like_the_model(section: list[dict[str, Any]], question: tuple[str, int, int, int], bare: bool) -> None:
    """Version 2: the program, with and without the default rules."""
    found = rules(section)
    if bare:
        found = found[: len(section)]
    code = program(found)
    assert run(code, *question) == int(model(found, *question))
    assert reachable(code) == set(range(len(code) // 8))


def v1_allows(lines: list[tuple[str, str, str]], kind: str, major: int, minor: int, access: int) -> bool:
    """The devices controller of version 1: a default and exceptions; one exception must cover all, or overlap to forbid."""
    default = True
    exceptions: list[tuple[str, str, str, int]] = []
    for file, line, _ in lines:
        name, places, letters = line.split(" ")
        mask = sum(LETTERS[letter] for letter in letters)
        allow = file == "devices.allow"
        if name == "a":
            default, exceptions = allow, []
            continue
        assert allow != default, "a write that only takes an exception away"
        exceptions.append((name, *places.split(":"), mask))  # type: ignore[arg-type]
    for name, rule_major, rule_minor, mask in exceptions:
        if name == kind and rule_major in ("*", str(major)) and rule_minor in ("*", str(minor)):
            if default and mask & access:
                return False
            if not default and not access & ~mask:
                return True
    return default


@given(entries, questions)
def test_version_1_writes_decide_like_the_model(section: list[dict[str, Any]], question: tuple[str, int, int, int]) -> None:
    """Version 1: one access at a time, like the model, or refused; several at once, never more than the model."""
    found = rules(section)
    try:
        lines = writes(found)
    except Error as error:
        assert error.code == "invalid"
        assert "punch hole" in error.message
        return
    kind, major, minor, access = question
    for bit in (MKNOD, READ, WRITE):
        assert v1_allows(lines, kind, major, minor, bit) == model(found, kind, major, minor, bit)
    if v1_allows(lines, kind, major, minor, access):
        assert model(found, kind, major, minor, access)


DENY_ALL = {"allow": False, "access": "rwm"}


def test_default_rules() -> None:
    """What every container may use, and nothing else."""
    found = rules([DENY_ALL])
    code = program(found)
    allowed = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200), (136, 0), (136, 77)]
    for major, minor in allowed:
        assert run(code, "c", major, minor, ALL) == 1
        assert run(code, "b", major, minor, READ) == 0
    for major, minor in ((1, 1), (1, 11), (10, 232), (5, 1), (137, 0), (8, 0)):
        for kind in ("b", "c"):
            assert run(code, kind, major, minor, MKNOD) == 1
            assert run(code, kind, major, minor, READ) == run(code, kind, major, minor, WRITE | MKNOD) == 0
    assert [line for _, line, _ in writes(found)] == [
        "a *:* rwm",
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:8 rwm",
        "c 1:7 rwm",
        "c 5:0 rwm",
        "c 1:5 rwm",
        "c 1:9 rwm",
        "c 136:* rwm",
        "c 5:2 rwm",
        "c 10:200 rwm",
    ]


def test_a_listed_device_takes_the_place_of_the_default_one() -> None:
    """A config.json that puts something else at /dev/null does not get 1:3."""
    assert run(program(rules([DENY_ALL], ["/dev/null"])), "c", 1, 3, READ) == 0
    assert run(program(rules([DENY_ALL], ["/dev/nul"])), "c", 1, 3, READ) == 1


def test_everything_allowed() -> None:
    """Privileged: the shortest program, a single write and nothing after it but what the defaults leave out."""
    found = rules([{"allow": True, "access": "rwm"}])
    assert run(program(found), "b", 8, 0, ALL) == 1
    assert writes(found) == [("devices.allow", "a *:* rwm", "/linux/resources/devices/0")]


def test_no_rules() -> None:
    """What no rule names is denied."""
    nothing: list[list[dict[str, Any]] | None] = [None, []]
    for section in nothing:
        assert run(program(rules(section)), "b", 8, 0, READ) == 0
        assert writes(rules(section))[0][:2] == ("devices.deny", "a *:* rwm")


def test_a_deny_in_allow_mode_forbids_a_wider_access() -> None:
    """Opening for reading and writing needs both."""
    found = rules([{"allow": True, "access": "rwm"}, {"allow": False, "type": "b", "major": 8, "access": "w"}])
    assert run(program(found), "b", 8, 0, READ | WRITE) == 0
    assert run(program(found), "b", 8, 0, READ) == 1


def test_type_a_with_numbers_is_not_everything() -> None:
    """{"type": "a", "major": 1, "minor": 11} means these two devices."""
    found = rules([DENY_ALL, {"allow": True, "type": "a", "major": 1, "minor": 11, "access": "r"}])
    assert run(program(found), "c", 1, 11, READ) == run(program(found), "b", 1, 11, READ) == 1
    assert run(program(found), "c", 1, 1, READ) == run(program(found), "c", 1, 11, WRITE) == 0
    assert ("devices.allow", "b 1:11 r", "/linux/resources/devices/1") in writes(found)


def test_a_hole_in_a_wider_exception() -> None:
    """Version 1 would keep the device open in silence; version 2 can do it."""
    found = rules([DENY_ALL, {"allow": True, "type": "c", "major": 4, "access": "rw"}])
    assert writes(found)
    found = rules(
        [
            DENY_ALL,
            {"allow": True, "type": "c", "major": 4, "access": "rw"},
            {"allow": False, "type": "c", "major": 4, "minor": 1, "access": "w"},
        ]
    )
    with pytest.raises(Error) as caught:
        writes(found)
    assert caught.value.subject == "/linux/resources/devices/2"
    assert "/linux/resources/devices/1" in caught.value.hint
    assert run(program(found), "c", 4, 1, WRITE) == 0
    assert run(program(found), "c", 4, 1, READ) == run(program(found), "c", 4, 2, WRITE) == 1


def test_a_hole_by_major() -> None:
    """The same the other way round: any major, one minor."""
    every = {"allow": True, "type": "c", "minor": 7, "access": "rw"}
    hole = {"allow": False, "type": "c", "major": 4, "minor": 7, "access": "w"}
    with pytest.raises(Error, match="punch hole"):
        writes(rules([DENY_ALL, every, hole]))
    # Wider than the exception: all of it goes. Beside it, or another access: nothing does.
    assert "c *:7 rw" not in [line for _, line, _ in writes(rules([DENY_ALL, every, hole | {"major": None, "access": "rw"}]))]
    for change in ({"minor": 8}, {"access": "m"}, {"type": "b"}):
        assert "c *:7 rw" in [line for _, line, _ in writes(rules([DENY_ALL, every, hole | change]))]


@pytest.mark.parametrize(
    ("entry", "subject"),
    [
        ({"allow": True, "access": "rx"}, "/d/0/access"),
        ({"allow": True, "access": ""}, "/d/0"),
        ({"allow": True}, "/d/0"),
        ({"allow": True, "type": "p", "access": "r"}, "/d/0/type"),
    ],
)
def test_unreadable(entry: dict[str, Any], subject: str) -> None:
    """The pointer names the field."""
    with pytest.raises(Error) as caught:
        rules([entry], pointer="/d")
    assert caught.value.subject == subject


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (None, False),
        ([], False),
        ([{"allow": True, "access": "mwr"}], False),
        ([{"allow": True, "access": "rwm"}, {"allow": True, "access": "rw"}], True),
        ([DENY_ALL], True),
    ],
)
def test_denies(section: list[dict[str, Any]] | None, expected: bool) -> None:
    """Whether a container may go on without its rules."""
    assert denies(section) == expected
