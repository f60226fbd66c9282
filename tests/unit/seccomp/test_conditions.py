"""Conditions, for 32 and 64 bits and both byte orders."""

from __future__ import annotations

import struct
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt.seccomp.conditions import assemble_rules
from ocirt.seccomp.tables import OPERATORS
from tests.unit.seccomp import bpf

VALUE = st.sampled_from([0, 1, 0xFFFFFFFF, 1 << 32, (1 << 32) | 1, 1 << 63, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
NEAR = st.sampled_from([-(1 << 32), -1, 0, 1, 1 << 32])


def _expected(operator: str, seen: int, value: int, other: int) -> bool:
    return {
        "SCMP_CMP_NE": seen != value,
        "SCMP_CMP_LT": seen < value,
        "SCMP_CMP_LE": seen <= value,
        "SCMP_CMP_EQ": seen == value,
        "SCMP_CMP_GE": seen >= value,
        "SCMP_CMP_GT": seen > value,
        "SCMP_CMP_MASKED_EQ": seen & value == other & value,
    }[operator]


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("bits", [32, 64])
@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(sorted(OPERATORS)), VALUE, VALUE, NEAR), min_size=6, max_size=6))
def test_every_condition_of_a_rule_counts(
    byte_order: Literal["little", "big"],
    bits: int,
    wanted: list[tuple[str, int, int, int]],
) -> None:
    """A rule of six, tried with arguments at and beside its values, each alone and all together."""
    mask = (1 << bits) - 1
    arguments = [(value + near) % (1 << 64) for _, value, _, near in wanted]
    holds = [
        _expected(op, seen & mask, value & mask, other & mask)
        for (op, value, other, _), seen in zip(wanted, arguments, strict=True)
    ]
    conditions = [(index, OPERATORS[op], value, other) for index, (op, value, other, _) in enumerate(wanted)]
    rules = [(7, conditions), *[(index + 1, [condition]) for index, condition in enumerate(conditions)]]
    code = assemble_rules(rules, 99, bits, little=byte_order == "little")
    program = b"".join(struct.pack("<HBBI" if byte_order == "little" else ">HBBI", *one) for one in code)
    expected = 7 if all(holds) else next((index + 1 for index, held in enumerate(holds) if held), 99)
    assert bpf.run(program, 0, 0, arguments, byte_order) == expected
