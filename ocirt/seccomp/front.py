"""What stands in front of the translated profiles of each architecture: the way to the right one, and ENOSYS.

A profile's default action is meant for calls that its author knew and left out. A call that came after it should look like one
that the kernel lacks: then the C library falls back to an older one, while EPERM would be taken for an answer (glibc tried
faccessat2 and clone3 first, and whole distributions failed in older containers). So, as runc has it, a call with a number above
the highest that the profile names for the caller's architecture gets ENOSYS before the profile proper is asked.
"""

from __future__ import annotations

from ocirt.seccomp import INSTRUCTION_SIZE
from ocirt.seccomp.tables import ARCHITECTURES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

# linux/bpf_common.h, linux/filter.h
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# linux/seccomp.h, struct seccomp_data
_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4

_RETURN_ENOSYS = 0x00050000 | 38  # SECCOMP_RET_ERRNO

_X86_64 = ARCHITECTURES["SCMP_ARCH_X86_64"]
_X32 = ARCHITECTURES["SCMP_ARCH_X32"]
_ARM = ARCHITECTURES["SCMP_ARCH_ARM"]
_S390 = (ARCHITECTURES["SCMP_ARCH_S390"], ARCHITECTURES["SCMP_ARCH_S390X"])

_X32_BIT = 0x40000000  # asm/unistd.h: __X32_SYSCALL_BIT
_ARM_PRIVATE = 0x0F0000  # asm/unistd.h: __ARM_NR_BASE, where breakpoint, cacheflush and set_tls live


def highest(numbers: list[int], architecture: int) -> int:
    """The highest of the system-call numbers that a profile names for an architecture; 0 when it names none.

    Negative numbers are libseccomp's, for calls that the architecture lacks. ARM's private calls lie far above all others and
    would make room for every future call.
    """
    return max([number for number in numbers if 0 < number and not (architecture == _ARM and number >= _ARM_PRIVATE)], default=0)


def assemble(parts: list[tuple[int, int, bytes]], byte_order: Literal["little", "big"]) -> bytes:
    """One program out of one for each architecture.

    A part is an architecture's token (libseccomp's SCMP_ARCH_*), the highest number that may pass (0: any) and its program,
    which must return libseccomp's action for a wrong architecture when it meets one: the first part gets what fits none.
    """
    if len(parts) == 1 and not parts[0][1]:
        return parts[0][2]
    starts = {}
    programs = b""
    for token, _, program in parts:
        starts[token] = len(programs) // INSTRUCTION_SIZE
        programs += program
    first = parts[0][0]

    # For the kernel X32 is X86_64 with a bit set in the number.
    sections: list[tuple[int, list[Instruction]]] = []
    for token, limit, _ in parts:
        if token not in (_X86_64, _X32):
            sections.append((token, [*_compare(token, limit), (_JUMP, 0, 0, starts[token])]))
    limits = {token: limit for token, limit, _ in parts}
    if _X86_64 in limits or _X32 in limits:
        normal = [*_compare(_X86_64, limits.get(_X86_64, 0)), (_JUMP, 0, 0, starts.get(_X86_64, starts[first]))]
        x32 = [*_compare(_X32, limits.get(_X32, 0)), (_JUMP, 0, 0, starts.get(_X32, starts[first]))]
        sections.append((_X86_64, [(_JUMP_SET, len(normal), 0, _X32_BIT), *normal, *x32]))

    front: list[Instruction] = [(_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE)]
    for architecture, body in sections:
        front += [(_JUMP_EQUAL, 0, len(body) + 1, architecture), (_LOAD_WORD, 0, 0, _OFFSET_NUMBER), *body]
    # So far a jump's k is the place in `programs`; it has to be counted from the instruction after the jump.
    for index, (code, true, false, k) in enumerate(front):
        if code == _JUMP:
            front[index] = (code, true, false, len(front) - index - 1 + k)
    return b"".join(
        [code.to_bytes(2, byte_order) + bytes((true, false)) + k.to_bytes(4, byte_order) for code, true, false, k in front],
    ) + programs


def _compare(architecture: int, limit: int) -> list[Instruction]:
    """Return ENOSYS if the loaded number is above `limit`, else fall through."""
    if not limit:
        return []
    out: list[Instruction] = []
    if architecture in _S390:
        # The kernel reports calls of multiplexers that it does not know as 0, which was setup(2) once.
        out = [(_JUMP_EQUAL, 1, 0, 0)]
    elif architecture == _ARM:
        out = [(_JUMP_GREATER_EQUAL, 2, 0, _ARM_PRIVATE)]
    return [*out, (_JUMP_GREATER, 0, 1, limit), (_RETURN, 0, 0, _RETURN_ENOSYS)]
