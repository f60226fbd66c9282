"""ENOSYS for system calls that are newer than the profile.

A profile's default action is meant for calls that its author knew and left out. A call that came after it should look like one
that the kernel lacks: then the C library falls back to an older one, while EPERM would be taken for an answer (glibc tried
faccessat2 and clone3 first, and whole distributions failed in older containers). So, as runc has it, a call with a number above
the highest that the profile names for the caller's architecture gets ENOSYS before the profile proper is asked.

The stub stands in front of the translated profile and falls into it: it ends either in its own return or with a jump to the
instruction after its last.
"""

from __future__ import annotations

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


def _compare(architecture: int, limit: int) -> list[Instruction]:
    """Return ENOSYS if the loaded number is above `limit`, else fall through."""
    out: list[Instruction] = []
    if architecture in _S390:
        # The kernel reports calls of multiplexers that it does not know as 0, which was setup(2) once.
        out = [(_JUMP_EQUAL, 1, 0, 0)]
    elif architecture == _ARM:
        out = [(_JUMP_GREATER_EQUAL, 2, 0, _ARM_PRIVATE)]
    return [*out, (_JUMP_GREATER, 0, 1, limit), (_RETURN, 0, 0, _RETURN_ENOSYS)]


def assemble(limits: dict[int, int], byte_order: Literal["little", "big"]) -> bytes:
    """The stub for `limits`: an architecture's token (libseccomp's SCMP_ARCH_*) to the highest number that may pass.

    Architectures with the limit 0 are left to the profile. `byte_order` is "little" or "big", the machine's.
    """
    sections: list[tuple[int, list[Instruction]]] = []
    for architecture, limit in limits.items():
        if limit and architecture not in (_X86_64, _X32):
            sections.append((architecture, _compare(architecture, limit)))
    # Both are one architecture for the kernel, told apart by a bit of the number.
    normal = _compare(_X86_64, limits[_X86_64]) if limits.get(_X86_64) else []
    x32 = _compare(_X32, limits[_X32]) if limits.get(_X32) else []
    if normal or x32:
        # A jump over the second half, which falls out of the section as does its end.
        halves = [(_JUMP_SET, len(normal) + 1, 0, _X32_BIT), *normal, (_JUMP, 0, 0, len(x32)), *x32]
        sections.append((_X86_64, halves))
    if not sections:
        return b""

    program: list[Instruction] = [(_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE)]
    left = sum(len(body) + 3 for _, body in sections)
    for architecture, body in sections:
        left -= len(body) + 3
        program.append((_JUMP_EQUAL, 0, len(body) + 2, architecture))
        program.append((_LOAD_WORD, 0, 0, _OFFSET_NUMBER))
        program += body
        program.append((_JUMP, 0, 0, left))
    return b"".join(
        [code.to_bytes(2, byte_order) + bytes((true, false)) + k.to_bytes(4, byte_order) for code, true, false, k in program],
    )
