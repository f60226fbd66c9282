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
    from collections.abc import Iterable
    from typing import Literal

    from ocirt.seccomp.conditions import Instruction

    Part = tuple[int, int, dict[int, list[Instruction]], bytes]

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


def highest(numbers: Iterable[int], architecture: int) -> int:
    """The highest of the system-call numbers that a profile names for an architecture; 0 when it names none.

    Negative numbers are libseccomp's, for calls that the architecture lacks. ARM's private calls lie far above all others and
    would make room for every future call.
    """
    return max([number for number in numbers if number > 0 and not (architecture == _ARM and number >= _ARM_PRIVATE)], default=0)


def assemble(parts: list[Part], byte_order: Literal["little", "big"]) -> bytes:
    """One program out of one for each architecture.

    A part is an architecture's token (libseccomp's SCMP_ARCH_*), the highest number that may pass (0: any), the code of calls
    that its program need not see, by number, and its program. That must return libseccomp's action for a wrong architecture
    when it meets one: the first part gets what fits none.
    """
    if len(parts) == 1 and not parts[0][1] and not parts[0][2]:
        return parts[0][3]
    # Jumps of any distance are written to a label first; labels of parts are their tokens, of their programs pairs.
    code: list[Instruction] = [(_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE)]
    jumps: dict[int, object] = {}
    labels: dict[object, int] = {}

    def jump(label: object) -> None:
        jumps[len(code)] = label
        code.append((_JUMP, 0, 0, 0))

    first = parts[0][0]
    tokens = [part[0] for part in parts]
    for token in tokens:
        if token not in (_X86_64, _X32):
            code.append((_JUMP_EQUAL, 0, 1, token))
            jump(token)
    if _X86_64 in tokens or _X32 in tokens:
        # For the kernel X32 is X86_64 with a bit set in the number.
        code += [(_JUMP_EQUAL, 0, 4, _X86_64), (_LOAD_WORD, 0, 0, _OFFSET_NUMBER), (_JUMP_SET, 0, 1, _X32_BIT)]
        jump(_X32 if _X32 in tokens else (first, "program"))
        jump(_X86_64 if _X86_64 in tokens else (first, "program"))
    jump((first, "program"))

    for token, limit, calls, _ in parts:
        labels[token] = len(code)
        code.append((_LOAD_WORD, 0, 0, _OFFSET_NUMBER))
        code += _compare(token, limit)
        for number in calls:
            code.append((_JUMP_EQUAL, 0, 1, number))
            jump((token, number))
        jump((token, "program"))
        for number, body in calls.items():
            labels[token, number] = len(code)
            code += body

    programs = b""
    for token, _, _, program in parts:
        labels[token, "program"] = len(code) + len(programs) // INSTRUCTION_SIZE
        programs += program
    for index, label in jumps.items():
        code[index] = (_JUMP, 0, 0, labels[label] - index - 1)
    return (
        b"".join(
            [op.to_bytes(2, byte_order) + bytes((true, false)) + k.to_bytes(4, byte_order) for op, true, false, k in code],
        )
        + programs
    )


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
