"""The jump to an architecture's program, and ENOSYS before it, for machines that are not at hand as well."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

import pytest

from ocirt.seccomp.front import assemble, highest
from ocirt.seccomp.tables import ARCHITECTURES
from tests.unit.seccomp import bpf
from tests.unit.seccomp.model import ENOSYS, X32, X32_BIT, X86, X86_64

if TYPE_CHECKING:
    from ocirt.seccomp.front import Part

ARM, AARCH64 = ARCHITECTURES["SCMP_ARCH_ARM"], ARCHITECTURES["SCMP_ARCH_AARCH64"]
S390X, S390 = ARCHITECTURES["SCMP_ARCH_S390X"], ARCHITECTURES["SCMP_ARCH_S390"]


def returning(value: int, byte_order: str = "little", padding: int = 300) -> bytes:
    """A program that returns `value`, and is longer than a conditional jump reaches."""
    order = "<" if byte_order == "little" else ">"
    return struct.pack(order + "HBBI", bpf.LD, 0, 0, 0) * padding + struct.pack(order + "HBBI", bpf.RET, 0, 0, value)


def test_each_architecture_gets_its_own_program() -> None:
    """The first part gets what no part is for."""
    joined = assemble([(AARCH64, 0, {}, returning(1)), (ARM, 0, {}, returning(2)), (X86, 0, {}, returning(3))], "little")
    assert [bpf.run(joined, 7, token, (), "little") for token in (AARCH64, ARM, X86, X86_64)] == [1, 2, 3, 1]


def test_calls_with_code_of_their_own_never_reach_the_program() -> None:
    """For their architecture only, and however many they are."""
    own = {number: [(bpf.LD, 0, 0, 0)] * 50 + [(bpf.RET, 0, 0, 1000 + number)] for number in range(20, 40)}
    joined = assemble([(AARCH64, 30, own, returning(1)), (ARM, 0, {}, returning(2))], "little")
    assert [bpf.run(joined, number, AARCH64, (), "little") for number in (19, 20, 30, 31)] == [1, 1020, 1030, ENOSYS]
    assert bpf.run(joined, 20, ARM, (), "little") == 2
    assert bpf.run(assemble([(X86, 0, own, returning(1))], "little"), 39, X86, (), "little") == 1039


def test_nothing_is_added_to_a_single_program_without_a_limit() -> None:
    """A profile that lets all newer calls pass."""
    assert assemble([(AARCH64, 0, {}, returning(1))], "little") == returning(1)


@pytest.mark.parametrize("x32", [None, 0, X32_BIT | 500])
@pytest.mark.parametrize("wide", [0, 400])
def test_x32_is_told_from_x86_64(wide: int, x32: int | None) -> None:
    """Without a part of its own it goes to X86_64's program, which refuses it as a wrong architecture."""
    parts: list[Part] = [(X86_64, wide, {}, returning(1)), (X86, 300, {}, returning(2))]
    if x32 is not None:
        parts.append((X32, x32, {}, returning(3)))
    joined = assemble(parts, "little")
    theirs = 1 if x32 is None else 3
    for number in (0, 400, 401, 500, 501, 0x3FFFFFFF):
        assert bpf.run(joined, number, X86_64, (), "little") == (ENOSYS if wide and number > wide else 1)
        expected = ENOSYS if x32 and number | X32_BIT > x32 else theirs
        assert bpf.run(joined, number | X32_BIT, X86_64, (), "little") == expected
        assert bpf.run(joined, number, X86, (), "little") == (ENOSYS if number > 300 else 2)


def test_s390_reports_unknown_calls_as_0() -> None:
    """On a big-endian machine too."""
    order: Literal["big"] = "big"
    joined = assemble([(S390X, 450, {}, returning(1, order)), (S390, 440, {}, returning(2, order))], order)
    assert [bpf.run(joined, number, S390X, (), order) for number in (0, 1, 450, 451)] == [ENOSYS, 1, 1, ENOSYS]
    assert [bpf.run(joined, number, S390, (), order) for number in (0, 1, 440, 441)] == [ENOSYS, 2, 2, ENOSYS]


def test_arm_s_private_calls_are_neither_new_nor_a_limit() -> None:
    """cacheflush has the number 0x0f0002."""
    assert highest([3, 439, 0x0F0002, -10001], ARM) == 439
    assert highest([3, 439, 0x0F0002, -10001], X86) == 0x0F0002
    assert highest([-1, -10001], ARM) == 0
    joined = assemble([(AARCH64, 450, {}, returning(1)), (ARM, 439, {}, returning(2))], "little")
    assert [bpf.run(joined, number, ARM, (), "little") for number in (439, 440, 0x0F0002)] == [2, ENOSYS, 2]
    assert bpf.run(joined, 0x0F0002, AARCH64, (), "little") == ENOSYS
