"""Device rules of config.json as writes for version 1 and as an eBPF program for version 2. Pure.

Rules apply in their order, each to the devices and accesses that it names; what no rule names is denied (runtime-spec,
config-linux.md, "Allowed Device List"). After the rules of config.json come those that every container gets: mknod of anything,
the default devices, pseudo-terminals and /dev/net/tun.

A rule is (allow, type, major, minor, access, pointer): type "b", "c" or "a" for both, a number of -1 for any, access a mask of
MKNOD, READ and WRITE.
"""

from __future__ import annotations

import sys
from _struct import pack

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Rule = tuple[bool, str, int, int, int, str]

POINTER = "/linux/resources/devices"

# BPF_DEVCG_ACC_* of include/uapi/linux/bpf.h.
MKNOD = 1
READ = 2
WRITE = 4
ALL = MKNOD | READ | WRITE
_ACCESS = {"m": MKNOD, "r": READ, "w": WRITE}

# Path in the container ("" for none), type, major, minor, access. A device that config.json puts at the same path takes the
# place of the default one.
DEFAULTS = (
    ("", "c", -1, -1, MKNOD),
    ("", "b", -1, -1, MKNOD),
    ("/dev/null", "c", 1, 3, ALL),
    ("/dev/random", "c", 1, 8, ALL),
    ("/dev/full", "c", 1, 7, ALL),
    ("/dev/tty", "c", 5, 0, ALL),
    ("/dev/zero", "c", 1, 5, ALL),
    ("/dev/urandom", "c", 1, 9, ALL),
    ("", "c", 136, -1, ALL),  # pts
    ("", "c", 5, 2, ALL),  # ptmx
    ("", "c", 10, 200, ALL),  # tun
)


def rules(section: list[dict[str, Any]] | None, nodes: Iterable[str] = (), pointer: str = POINTER) -> list[Rule]:
    """The rules of `section` (linux.resources.devices), then the default ones.

    `nodes` are the paths of linux.devices. A type left out means both, a number left out any. Raises Error for an access that
    can't be read.
    """
    found: list[Rule] = []
    for index, entry in enumerate(section or ()):
        place = f"{pointer}/{index}"
        access = 0
        for letter in entry.get("access") or "":
            if letter not in _ACCESS:
                raise Error("invalid", f"unknown device access {letter!r}", subject=place + "/access", hint="any of r, w and m")
            access |= _ACCESS[letter]
        if not access:
            raise Error("invalid", f"device access at {index} field cannot be empty", subject=place)
        kind = entry.get("type") or "a"
        if kind not in ("a", "b", "c"):
            raise Error("invalid", f"invalid cgroup device type {kind!r}", subject=place + "/type", hint="a, b or c")
        major, minor = entry.get("major"), entry.get("minor")
        found.append(
            (bool(entry.get("allow")), kind, -1 if major is None else major, -1 if minor is None else minor, access, place)
        )
    taken = frozenset(nodes)
    for path, kind, major, minor, access in DEFAULTS:
        if path not in taken:
            found.append((True, kind, major, minor, access, pointer))
    return found


def denies(section: list[dict[str, Any]] | None) -> bool:
    """Whether a rule of config.json takes anything away or allows less than everything.

    Only when not may a container start although the kernel took no rules (a program can't be loaded in a user namespace).
    """
    return any(not entry.get("allow") or not {"r", "w", "m"} <= set(entry.get("access") or "") for entry in section or ())


def _everything(rule: Rule) -> bool:
    return rule[1:5] == ("a", -1, -1, ALL)


# -- version 1 -----------------------------------------------------------------------------------------------------------------


def writes(found: list[Rule]) -> list[tuple[str, str, str]]:
    """(file, value, pointer) for a cgroup of the version 1 devices controller, whatever state it is in.

    Version 1 knows a default and a flat set of exceptions to it, so the rules are worked out here and what is written is their
    result. Raises Error for a rule that makes a hole in a wider exception: the kernel would ignore it in silence.
    """
    allowed = False
    reset = POINTER
    exceptions: dict[tuple[str, int, int], tuple[int, str]] = {}
    for rule in found:
        allow, kind, major, minor, access, pointer = rule
        if _everything(rule):
            allowed, reset, exceptions = allow, pointer, {}
            continue
        for one in ("b", "c") if kind == "a" else (kind,):
            key = (one, major, minor)
            if allow == allowed:
                _subtract(exceptions, key, access, pointer)
            else:
                exceptions[key] = (exceptions.get(key, (0, ""))[0] | access, pointer)
    lines = [("devices.allow" if allowed else "devices.deny", "a *:* rwm", reset)]
    file = "devices.deny" if allowed else "devices.allow"
    for (kind, major, minor), (access, pointer) in exceptions.items():
        numbers = f"{'*' if major < 0 else major}:{'*' if minor < 0 else minor}"
        letters = "".join(letter for letter, bit in (("r", READ), ("w", WRITE), ("m", MKNOD)) if access & bit)
        lines.append((file, f"{kind} {numbers} {letters}", pointer))
    return lines


def _subtract(
    exceptions: dict[tuple[str, int, int], tuple[int, str]], key: tuple[str, int, int], access: int, pointer: str
) -> None:
    kind, major, minor = key
    for other, (had, place) in list(exceptions.items()):
        if other[0] != kind or not had & access:
            continue
        if (major >= 0 and other[1] >= 0 and other[1] != major) or (minor >= 0 and other[2] >= 0 and other[2] != minor):
            continue  # no device in common
        if (major >= 0 and other[1] != major) or (minor >= 0 and other[2] != minor):
            raise Error(
                "invalid",
                "not supported by devices cgroupv1 (cannot punch hole in existing wildcard rule)",
                subject=pointer,
                hint=f"it is part of what {place} names",
            )
        if had & ~access:
            exceptions[other] = (had & ~access, place)
        else:
            del exceptions[other]


# -- version 2 -----------------------------------------------------------------------------------------------------------------

# eBPF operation codes (RFC 9669). The 32-bit comparisons (Linux 5.1) compare a major number without extending its sign.
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + offset)
_MOVE_REGISTER = 0xBC  # dst = (u32) src
_MOVE = 0xB4  # dst = (u32) constant
_AND = 0x54
_SHIFT_RIGHT = 0x74
_JUMP_EQUAL = 0x16
_JUMP_NOT_EQUAL = 0x56
_EXIT = 0x95
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_LITTLE = sys.byteorder == "little"


def _instruction(code: int, register: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    # The register nibbles are bit fields, which follow the byte order.
    registers = source << 4 | register if _LITTLE else register << 4 | source
    if constant >= 1 << 31:
        constant -= 1 << 32
    return pack("=BBhi", code, registers, offset, constant)


def program(found: list[Rule]) -> bytes:
    """The BPF_PROG_TYPE_CGROUP_DEVICE program (struct bpf_insn array) for `found`: returns 1 to allow, 0 to deny.

    The last rule to name a device and an access decides, so the rules are tried from the last to the first: an allow takes the
    accesses that it names off those still asked for and allows when none is left; a deny that names any of them denies.
    """
    # r2 = type, r3 = accesses asked for, r4 = major, r5 = minor, of struct bpf_cgroup_dev_ctx in r1; r1 is free afterwards.
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, constant=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    verdict = False
    for rule in reversed(found):
        allow, kind, major, minor, access, _ = rule
        if _everything(rule):
            verdict = allow  # no rule before it matters
            break
        decide = [_instruction(_MOVE, 0, constant=int(allow)), _instruction(_EXIT)]
        if access != ALL and allow:
            decide[:0] = [_instruction(_AND, 3, constant=~access & ALL), _instruction(_JUMP_NOT_EQUAL, 3, offset=2)]
        elif access != ALL:
            decide[:0] = [
                _instruction(_MOVE_REGISTER, 1, 3),
                _instruction(_AND, 1, constant=access),
                _instruction(_JUMP_EQUAL, 1, offset=2),
            ]
        compare: list[bytes] = []
        for register, value in ((5, minor), (4, major), (2, _TYPES.get(kind, -1))):
            if value >= 0:
                compare.insert(0, _instruction(_JUMP_NOT_EQUAL, register, offset=len(decide) + len(compare), constant=value))
        code += compare
        code += decide
    code += [_instruction(_MOVE, 0, constant=int(verdict)), _instruction(_EXIT)]
    return b"".join(code)
