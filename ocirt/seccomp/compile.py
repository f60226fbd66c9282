"""Translate `/linux/seccomp` into a program for seccomp(2), by libseccomp.

A profile means the same as to runc: rules that repeat the default action are skipped, and so are names that libseccomp does not
know; a rule with two conditions on one argument becomes one rule for each of its conditions; the first rule of a call without
conditions beats all others. libseccomp translates the numbers, ocirt.seccomp.conditions the conditions. The program is exported
and loaded by us, so the flags depend on the kernel alone, not on libseccomp's age.
"""

from __future__ import annotations

import posix
import sys

from ocirt.errors import Error
from ocirt.kernel.ffi import CallError, syscall
from ocirt.seccomp import (
    FLAG_NEW_LISTENER,
    FLAG_SPEC_ALLOW,
    FLAG_TSYNC,
    FLAG_WAIT_KILLABLE_RECV,
    INSTRUCTION_SIZE,
    MAX_INSTRUCTIONS,
    SET_MODE_FILTER,
    Filter,
)
from ocirt.seccomp.front import assemble, highest
from ocirt.seccomp.library import ATTR_CTL_OPTIMIZE, load
from ocirt.seccomp.tables import ACTIONS, ALLOW, ARCHITECTURES, ERRNO, FLAGS, LOG, NOTIFY, OPERATORS, TRACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.seccomp.conditions import Condition, Instruction
    from ocirt.seccomp.library import Library

    # name, native number, action, conditions, JSON pointer
    Rule = tuple[bytes, int, int, list[Condition], str]

_EPERM = 1
_EFAULT = 14
_EINVAL = 22
_EDOM = 33
_ENOSYS = 38
_MAX_ERRNO = 4095  # linux/err.h
_MAX_ARGUMENTS = 6
_UNKNOWN = -1  # seccomp.h: __NR_SCMP_ERROR

_TREE_FROM = 32  # rules; below that a tree is no shorter than a list, and libseccomp 2.5 fails on an empty one

_ARCH_64BIT = 0x80000000  # linux/audit.h: __AUDIT_ARCH_64BIT
_ARCH_N32 = 0x20000000  # __AUDIT_ARCH_CONVENTION_MIPS64_N32

_MFD_CLOEXEC = 1
_MFD_NOEXEC_SEAL = 8


def compile_filter(section: dict[str, Any], *, pointer: str = "/linux/seccomp") -> Filter:
    """Translate a profile for this machine and kernel.

    Raises Error("invalid") or Error("unsupported") that names the JSON pointer of what cannot be translated, `pointer` being
    the section's own.
    """
    default = _action(section, "defaultAction", "defaultErrnoRet", pointer)
    library = load()
    native = library.arch_native()
    architectures = _architectures(section, native, pointer)
    rules, names = _rules(section, default, native, library, pointer)
    listener = default == NOTIFY or any(action == NOTIFY for _, _, action, _, _ in rules)
    flags = _flags(section, listener, pointer)
    program = _program(library, default, architectures, rules, names, pointer)
    length = len(program) // INSTRUCTION_SIZE
    if length > MAX_INSTRUCTIONS:
        raise Error(
            "unsupported",
            f"the profile becomes {length} instructions, and the kernel takes {MAX_INSTRUCTIONS}",
            subject=pointer,
            hint="name fewer architectures, or use fewer rules with conditions",
        )
    return Filter(program, flags, listener)


def flag_supported(flag: int) -> bool:
    """Whether this kernel knows a flag of seccomp(SET_MODE_FILTER). Nothing is loaded: the program's address is NULL."""
    if flag == FLAG_WAIT_KILLABLE_RECV:
        flag |= FLAG_NEW_LISTENER  # EINVAL without
    try:
        syscall("seccomp", SET_MODE_FILTER, flag, 0)
    except CallError as err:
        return err.errno == _EFAULT
    return False


def _known(table: dict[str, int], name: object, what: str, pointer: str) -> int:
    number = table.get(name) if isinstance(name, str) else None
    if number is None:
        raise Error("invalid", f"{name!r} is not {what}", subject=pointer, hint="known are " + ", ".join(table))
    return number


def _action(holder: dict[str, Any], key: str, errno_key: str, pointer: str) -> int:
    """The 32-bit return value that an action and its errno stand for."""
    action = _known(ACTIONS, holder.get(key), "an action of seccomp", pointer + "/" + key)
    errno = holder.get(errno_key)
    if action not in (ERRNO, TRACE):
        if errno is not None:
            raise Error("invalid", f"{holder[key]} returns no errno", subject=pointer + "/" + errno_key)
        return action
    if errno is None:
        return action | _EPERM
    limit = _MAX_ERRNO - 1 if action == ERRNO else 0xFFFF
    if not 0 <= errno <= limit:
        raise Error("invalid", f"{errno} is not between 0 and {limit}", subject=pointer + "/" + errno_key)
    return action | int(errno)


def _architectures(section: dict[str, Any], native: int, pointer: str) -> dict[int, str]:
    """Tokens of the architectures and where they stand. The native one is always there: libseccomp never leaves it out."""
    found = {native: pointer}
    for index, name in enumerate(section.get("architectures") or ()):
        where = f"{pointer}/architectures/{index}"
        found[_known(ARCHITECTURES, name, "an architecture of seccomp", where)] = where
    return found


def _flags(section: dict[str, Any], listener: bool, pointer: str) -> int:
    names = section.get("flags")
    flags = FLAG_NEW_LISTENER if listener else 0
    if names is None:
        return flags | FLAG_SPEC_ALLOW if flag_supported(FLAG_SPEC_ALLOW) else flags
    for index, name in enumerate(names):
        where = f"{pointer}/flags/{index}"
        flag = _known(FLAGS, name, "a flag of seccomp", where)
        if flag == FLAG_TSYNC:
            continue  # the container's process has one thread; with a listener the kernel refuses it
        if not flag_supported(flag):
            raise Error("unsupported", f"this kernel does not know {name}", subject=where)
        if flag != FLAG_WAIT_KILLABLE_RECV or listener:  # it is about waiting for a listener; EINVAL without one
            flags |= flag
    return flags


def _conditions(arguments: list[dict[str, Any]], pointer: str) -> list[list[Condition]]:
    """The conditions of the rules that an entry's `args` stand for: one rule, or one each if an argument stands there twice."""
    found: list[Condition] = []
    seen = set()
    for position, argument in enumerate(arguments):
        where = f"{pointer}/args/{position}"
        index = argument.get("index", 0)
        if not 0 <= index < _MAX_ARGUMENTS:
            raise Error("invalid", f"{index} is not between 0 and {_MAX_ARGUMENTS - 1}", subject=where + "/index")
        operator = _known(OPERATORS, argument.get("op"), "an operator of seccomp", where + "/op")
        seen.add(index)
        found.append((index, operator, argument.get("value") or 0, argument.get("valueTwo") or 0))
    if len(seen) == len(found):
        return [found]
    return [[one] for one in found]


def _pack(condition: Condition) -> bytes:
    """struct scmp_arg_cmp."""
    return b"".join([part.to_bytes(size, sys.byteorder) for part, size in zip(condition, (4, 4, 8, 8), strict=True)])


def _rules(
    section: dict[str, Any],
    default: int,
    native: int,
    library: Library,
    pointer: str,
) -> tuple[list[Rule], dict[bytes, int]]:
    """The rules in the profile's order, and every name of the profile with its number on the native architecture."""
    resolve = library.syscall_resolve_name_arch
    rules: list[Rule] = []
    names: dict[bytes, int] = {}
    seen: dict[tuple[object, ...], int] = {}
    for index, entry in enumerate(section.get("syscalls") or ()):
        where = f"{pointer}/syscalls/{index}"
        action = _action(entry, "action", "errnoRet", where)
        groups = _conditions(entry.get("args") or [], where)
        for position, name in enumerate(entry.get("names") or ()):
            if not name:
                raise Error("invalid", "the name of a system call is empty", subject=f"{where}/names/{position}")
            key = name.encode("utf-8", "surrogatepass")  # libseccomp knows none that is not ASCII
            number = names.get(key)
            if number is None:
                # C would read no further than a NUL, and take another call's name.
                number = names[key] = _UNKNOWN if "\0" in name else resolve(native, key)
            if number != _UNKNOWN and action != default:
                for conditions in groups:
                    if conditions and seen.setdefault((number, *conditions), action) != action:
                        message = f"another rule for {name} has the same conditions and another action"
                        raise Error("invalid", message, subject=where)
                    rules.append((key, number, action, conditions, where))
    return rules, names


def _program(
    library: Library,
    default: int,
    architectures: dict[int, str],
    rules: list[Rule],
    names: dict[bytes, int],
    pointer: str,
) -> bytes:
    """Translate for each architecture alone, then join: libseccomp's time grows with the square of what it holds at once."""
    # libseccomp keeps an ordered list and walks it from its start: highest first is a third faster. The sort is stable, so the
    # rules of one system call, whose order matters, keep it.
    resolve = library.syscall_resolve_name_arch
    known = [name for name, number in names.items() if number != _UNKNOWN]
    # Those that an architecture has behind socketcall(2) or ipc(2) share a number there, so their order matters with them.
    behind = {name for name in known if name in (b"socketcall", b"ipc")}
    behind |= {name for name in known for architecture in architectures if resolve(architecture, name) < 0}
    rules = sorted(rules, key=lambda rule: (1, 0) if rule[0] in behind else (0, rule[1]), reverse=True)
    # The default action lets newer calls pass, or says ENOSYS itself. Who gets them instead (NOTIFY, TRACE) may emulate them.
    passing = default in (ALLOW, LOG, NOTIFY, ERRNO | _ENOSYS) or default & 0xFFFF0000 == TRACE
    parts = []
    for architecture, where in architectures.items():
        numbers = {name: resolve(architecture, name) for name in known}
        limit = 0 if passing else highest(numbers.values(), architecture)
        calls, rest = _conditional(rules, numbers, default, architecture)
        parts.append((architecture, limit, calls, _translate(library, default, architecture, rest, where, pointer)))
    return assemble(parts, sys.byteorder)


def _conditional(
    rules: list[Rule],
    numbers: dict[bytes, int],
    default: int,
    architecture: int,
) -> tuple[dict[int, list[Instruction]], list[Rule]]:
    """The code for calls with conditions, by number, and the rules that are left to libseccomp.

    Those are the ones without conditions, and the ones for calls that an architecture has behind socketcall(2) or ipc(2), whose
    numbers are negative.
    """
    unconditional = {numbers[name] for name, _, _, conditions, _ in rules if not conditions}
    found: dict[int, list[tuple[int, list[Condition]]]] = {}
    rest = []
    for rule in rules:
        name, _, action, conditions, _ = rule
        number = numbers[name]
        if not conditions or number < 0:
            rest.append(rule)
        elif number not in unconditional:
            found.setdefault(number, []).append((action, conditions))
    if not found:
        return {}, rest
    from ocirt.seccomp.conditions import assemble_rules  # noqa: PLC0415

    bits = 64 if architecture & _ARCH_64BIT and not architecture & _ARCH_N32 else 32
    little = sys.byteorder == "little"
    return {number: assemble_rules(own, default, bits, little=little) for number, own in found.items()}, rest


def _translate(
    library: Library,
    default: int,
    architecture: int,
    rules: list[Rule],
    where: str,
    pointer: str,
) -> bytes:
    """The program for one architecture, named at `where`. The numbers of the rules are the native architecture's."""
    context = library.init(default)
    if not context:
        raise Error("unsupported", "libseccomp or the kernel does not know this action", subject=pointer + "/defaultAction")
    try:
        native = library.arch_native()
        # In this order: a context without any architecture is refused.
        if architecture != native and (result := library.arch_add(context, architecture) or library.arch_remove(context, native)):
            raise _refused(result, where)
        if len(rules) > _TREE_FROM:
            # With docker's profile: 0.2 ms instead of 0.6 in every seccomp(2), which tries the filter on each number. A
            # library that cannot do it makes a list, which means the same.
            library.attr_set(context, ATTR_CTL_OPTIMIZE, 2)
        add = library.rule_add_array
        for _, number, action, conditions, rule in rules:
            packed = b"".join([_pack(condition) for condition in conditions]) if conditions else None
            if result := add(context, action, number, len(conditions), packed):
                raise _refused(result, rule)
        return _export(library, context, pointer)
    finally:
        library.release(context)


def _refused(result: int, pointer: str) -> Error:
    """The error for what libseccomp refuses; `result` is a negative errno."""
    cause = posix.strerror(-result)
    if result == -_EDOM:
        return Error("invalid", "the byte order is not this machine's", subject=pointer, cause=cause)
    if result == -_EINVAL:
        return Error("unsupported", "libseccomp or the kernel does not know this", subject=pointer, cause=cause)
    return Error("internal", "libseccomp failed", subject=pointer, cause=cause)


def _export(library: Library, context: int, pointer: str) -> bytes:
    """The finished program. libseccomp writes to a descriptor only (to memory from 2.6 on)."""
    try:
        try:
            fd = posix.memfd_create("seccomp", _MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
        except OSError:  # before Linux 6.3; later, vm.memfd_noexec=2 wants the flag
            fd = posix.memfd_create("seccomp", _MFD_CLOEXEC)
        try:
            if result := library.export_bpf(context, fd):
                raise _refused(result, pointer)
            return posix.pread(fd, posix.fstat(fd).st_size, 0)
        finally:
            posix.close(fd)
    except OSError as err:
        raise Error("kernel", "the filter cannot be exported", subject=pointer, cause=str(err)) from None
