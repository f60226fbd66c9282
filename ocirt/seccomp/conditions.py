"""Rules with conditions on arguments, translated without libseccomp.

libseccomp 2.5 joins the conditions of a call into a tree and gets some of them wrong: of the rules `a1 <= 0` and `a1 >= 2**32`
its program lets `a1 == 1` match. So each rule stands for itself here, in the profile's order; the first that matches decides.
What libseccomp means is kept: the 32-bit architectures compare the lower half of an argument, and MASKED_EQ masks both sides.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Condition = tuple[int, int, int, int]  # index, operator, value, valueTwo
    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

# linux/bpf_common.h, linux/filter.h
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_OFFSET_ARGUMENTS = 16  # linux/seccomp.h, struct seccomp_data

# seccomp.h: enum scmp_compare
_NE, _LT, _LE, _EQ, _GE, _GT, _MASKED_EQ = 1, 2, 3, 4, 5, 6, 7

# Where a jump goes until the lengths are known
_MATCH = -1  # to the end of this condition
_MISS = -2  # to the end of this rule


def assemble_rules(rules: list[tuple[int, list[Condition]]], default: int, bits: int, *, little: bool) -> list[Instruction]:
    """The code that ends a call of one number: pairs of a return value and the conditions that must all hold for it.

    `bits` is the size of an argument, 32 or 64; `little` tells which half of one comes first.
    """
    out: list[Instruction] = []
    for action, conditions in rules:
        rule: list[Instruction] = []
        for condition in conditions:
            code = _condition(condition, bits, little)
            rule += [
                (op, *[len(code) - at - 1 if jump == _MATCH else jump for jump in (true, false)], k)  # type: ignore[misc]
                for at, (op, true, false, k) in enumerate(code)
            ]
        rule.append((_RETURN, 0, 0, action))
        # At most 6 conditions of 6 instructions: every jump is in reach.
        out += [
            (op, *[len(rule) - at - 1 if jump == _MISS else jump for jump in (true, false)], k)  # type: ignore[misc]
            for at, (op, true, false, k) in enumerate(rule)
        ]
    out.append((_RETURN, 0, 0, default))
    return out


def _condition(condition: Condition, bits: int, little: bool) -> list[Instruction]:  # noqa: FBT001
    index, operator, value, other = condition
    match, miss = _MATCH, _MISS
    if operator in (_NE, _LT, _LE):  # the opposite of EQ, GE and GT
        operator = {_NE: _EQ, _LT: _GE, _LE: _GT}[operator]
        match, miss = miss, match
    first = _OFFSET_ARGUMENTS + 8 * index
    low_offset, high_offset = (first, first + 4) if little else (first + 4, first)
    low, high = value & 0xFFFFFFFF, value >> 32

    if operator == _MASKED_EQ:
        code: list[Instruction] = []
        if bits == 64:
            code = [(_LOAD_WORD, 0, 0, high_offset), (_AND, 0, 0, high), (_JUMP_EQUAL, 0, miss, high & (other >> 32))]
        return [*code, (_LOAD_WORD, 0, 0, low_offset), (_AND, 0, 0, low), (_JUMP_EQUAL, match, miss, low & other)]
    code = []
    if bits == 64:
        code = [(_LOAD_WORD, 0, 0, high_offset)]
        if operator != _EQ:
            code.append((_JUMP_GREATER, match, 0, high))
        code.append((_JUMP_EQUAL, 0, miss, high))
    compare = {_EQ: _JUMP_EQUAL, _GE: _JUMP_GREATER_EQUAL, _GT: _JUMP_GREATER}[operator]
    return [*code, (_LOAD_WORD, 0, 0, low_offset), (compare, match, miss, low)]
