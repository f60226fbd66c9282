"""An interpreter of classic BPF, as far as the kernel takes it for seccomp (Documentation/networking/filter.rst)."""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Sequence
from typing import Literal

# BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K, and BPF_JMP with JA, JEQ, JGT, JGE and JSET by K
LD, AND, RET, JA, JEQ, JGT, JGE, JSET = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35, 0x45


@functools.lru_cache(4)
def instructions(program: bytes, byte_order: Literal["little", "big"] = sys.byteorder) -> list[tuple[int, int, int, int]]:
    """The program as (code, jt, jf, k). Raises AssertionError for what the kernel's checker would refuse."""
    found = list(struct.iter_unpack("<HBBI" if byte_order == "little" else ">HBBI", program))
    assert 0 < len(found) <= 4096
    for index, (code, true, false, k) in enumerate(found):
        assert code in (LD, AND, RET, JA, JEQ, JGT, JGE, JSET), hex(code)
        if code == LD:
            assert k % 4 == 0
            assert k < 64
        elif code == JA:
            assert index + 1 + k < len(found)
        elif code not in (AND, RET):
            assert index + 1 + max(true, false) < len(found)
    assert found[-1][0] == RET
    return found


def run(
    program: bytes,
    number: int,
    architecture: int,
    arguments: Sequence[int] = (),
    byte_order: Literal["little", "big"] = sys.byteorder,
) -> int:
    """What the filter returns for a system call; `architecture` is an AUDIT_ARCH_*."""
    order = "<" if byte_order == "little" else ">"
    data = struct.pack(order + "IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    words = struct.unpack(order + "16I", data)
    found = instructions(program, byte_order)
    accumulator = place = 0
    while True:
        code, true, false, k = found[place]
        place += 1
        if code == RET:
            return k
        if code == LD:
            accumulator = words[k // 4]
        elif code == AND:
            accumulator &= k
        elif code == JA:
            place += k
        elif code == JEQ:
            place += true if accumulator == k else false
        elif code == JGT:
            place += true if accumulator > k else false
        elif code == JGE:
            place += true if accumulator >= k else false
        else:
            place += true if accumulator & k else false
