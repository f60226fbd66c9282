"""Loading a device program and attaching it to a version 2 cgroup (bpf(2); kernel, cgroup-v2.rst, "Device controller").

Attached programs all have to allow an access, and live as long as their cgroup.
"""

from __future__ import annotations

import _ctypes
import posix
from _struct import pack, pack_into, unpack_from
from errno import EACCES, EAGAIN, ENOENT, EPERM

from ocirt.kernel import process
from ocirt.kernel.ffi import Byte, CallError, address_of, syscall

# include/uapi/linux/bpf.h
_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
# The most programs that a cgroup can have (BPF_CGROUP_MAX_PROGS).
_MOST_PROGRAMS = 64
_RLIMIT_MEMLOCK = 8  # include/uapi/asm-generic/resource.h
_UNLIMITED = (1 << 64) - 1
_LICENSE = b"Apache-2.0\0"


def load_and_attach(program: bytes, cgroup_fd: int, *, replace: bool = False) -> None:
    """Load `program` (struct bpf_insn array) and attach it to the cgroup directory `cgroup_fd`.

    With `replace`, programs that were attached before (because the cgroup existed) are detached afterwards, as far as they may
    be. Raises CallError: EPERM without CAP_BPF and CAP_NET_ADMIN or in a user namespace, EINVAL or EACCES when the verifier
    refuses (its words are then `filename`).
    """
    old = attached(cgroup_fd) if replace else []
    try:
        fd = _loaded(program)
        try:
            _bpf(_PROG_ATTACH, pack("=IIII", cgroup_fd, fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            posix.close(fd)
        for previous in old:
            _bpf(_PROG_DETACH, pack("=III", cgroup_fd, previous, _ATTACH_CGROUP_DEVICE))
    finally:
        for previous in old:
            posix.close(previous)


def _loaded(program: bytes) -> int:
    """Load it while its memory may be locked, which kernels before 5.11 count. Best effort: that takes CAP_SYS_RESOURCE."""
    # Not by the module `resource`: to load its library takes longer than all that is done here.
    soft, hard = process.get_rlimit(0, _RLIMIT_MEMLOCK)
    try:
        process.set_rlimit(0, _RLIMIT_MEMLOCK, _UNLIMITED, _UNLIMITED)
    except CallError:
        return _load(program)
    try:
        return _load(program)
    finally:
        # By our limit it is told what init has; and a program that uses the library keeps its own.
        process.set_rlimit(0, _RLIMIT_MEMLOCK, soft, hard)


def attached(cgroup_fd: int) -> list[int]:
    """Descriptors of the device programs attached to this very cgroup; those that may not be opened are left out.

    Raises CallError.
    """
    identifiers = bytearray(4 * _MOST_PROGRAMS)
    # A whole union bpf_attr: Linux 6.17 to 7.1 write a field behind those of the command, whatever size is passed.
    attributes = bytearray(128)
    pack_into("=IIIIQI", attributes, 0, cgroup_fd, _ATTACH_CGROUP_DEVICE, 0, 0, _address(identifiers), _MOST_PROGRAMS)
    syscall("bpf", _PROG_QUERY, _address(attributes), len(attributes))
    (count,) = unpack_from("=I", attributes, 24)
    found = []
    for identifier in unpack_from(f"={count}I", identifiers):
        try:
            found.append(_bpf(_PROG_GET_FD_BY_ID, pack("=I", identifier)))
        except CallError as error:
            # ENOENT: gone meanwhile; the others: not ours to see, and one more program only forbids more.
            if error.errno not in (EPERM, EACCES, ENOENT):
                for fd in found:
                    posix.close(fd)
                raise
    return found


def _load(program: bytes) -> int:
    head = pack("=IIQQ", _TYPE_CGROUP_DEVICE, len(program) // 8, address_of(program), address_of(_LICENSE))
    # A signal interrupts the verifier with EAGAIN.
    for attempt in range(30):
        try:
            return _bpf(_PROG_LOAD, head)
        except CallError as error:
            if error.errno == EAGAIN and attempt < 29:
                continue
            failure = error
            break
    if failure.errno != EPERM:
        log = bytearray(1 << 16)
        try:
            posix.close(_bpf(_PROG_LOAD, head + pack("=IIQ", 1, len(log), _address(log))))
        except CallError:
            failure.filename = log.partition(b"\0")[0].decode("ascii", "replace").strip() or None
    raise failure


def _bpf(command: int, attributes: bytes) -> int:
    return syscall("bpf", command, attributes, len(attributes))


def _address(memory: bytearray) -> int:
    return _ctypes.addressof(Byte.from_buffer(memory))
