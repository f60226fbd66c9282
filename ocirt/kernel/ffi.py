"""The way into the kernel: `syscall`, over the C core of ctypes.

The package `ctypes` costs 2 ms to import, its core `_ctypes` 0.3. Calls go out with the GIL held (FUNCFLAG_PYTHONAPI): the
process is single-threaded, a child of a raw clone needs no one to hand it the GIL, and no futex call comes between the seccomp
filter and execve.
"""

from __future__ import annotations

import _ctypes
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# System call numbers: (x86_64, everybody else, i.e. include/uapi/asm-generic/unistd.h). From 424 on all architectures agree.
_NUMBERS: dict[str, tuple[int, int]] = {
    "accept4": (288, 242),
    "bind": (49, 200),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fchmod": (91, 52),
    "fcntl": (72, 25),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "listen": (50, 201),
    "mmap": (9, 222),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat2": (437, 437),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "pwrite64": (18, 68),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "set_mempolicy": (238, 237),
    "setfsgid": (123, 152),
    "setfsuid": (122, 151),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "signalfd4": (289, 74),
    "recvmsg": (47, 212),
    "sendmsg": (46, 211),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "umount2": (166, 39),
    "unshare": (272, 97),
}
ARCH = posix.uname().machine
_COLUMN = 0 if ARCH == "x86_64" else 1
NR: dict[str, int] = {name: numbers[_COLUMN] for name, numbers in _NUMBERS.items()}


class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A machine word as an argument: takes an int, a bytes object (its address) or None."""

    _type_ = "P"


class _String(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """What the C library's `syscall` returns."""

    _type_ = "l"


class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """One byte of a Buffer."""

    _type_ = "c"


class Function(_ctypes.CFuncPtr):
    """A C function that returns a long and sets errno; the GIL stays held."""

    _flags_ = 1 | 4 | 8  # FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI | FUNCFLAG_USE_ERRNO
    _restype_ = Long


LIBC = _ctypes.dlopen(None, posix.RTLD_NOW)  # type: ignore[arg-type]  # (None is the process itself)

_syscall: Any = Function(_ctypes.dlsym(LIBC, "syscall"))
_syscall.argtypes = (Word,) * 7

get_errno = _ctypes.get_errno


class CallError(OSError):
    """A system call failed: `errno`, and `call`, its name."""

    def __init__(self, errno: int, call: str, path: str | bytes | None = None) -> None:
        super().__init__(errno, posix.strerror(errno), path)
        self.call = call


def syscall(
    name: str,
    a: int | bytes | None = 0,
    b: int | bytes | None = 0,
    c: int | bytes | None = 0,
    d: int | bytes | None = 0,
    e: int | bytes | None = 0,
    f: int | bytes | None = 0,
) -> int:
    """Call the kernel and return what it returned. Raises CallError.

    A bytes argument passes the address of its (NUL-terminated) buffer, which the kernel must only read; for a buffer that it
    writes to, pass `buffer(n)`'s address.
    """
    result: int = _syscall(NR[name], a, b, c, d, e, f)
    if result == -1:
        raise CallError(get_errno(), name)
    return result


raw_syscall = _syscall


_arrays: dict[int, Any] = {}  # types by length: to make one takes longer than most system calls


class Buffer:
    """Memory that the kernel may write to: `address` to pass, `bytes()` to read, `write` to fill."""

    __slots__ = ("_array", "address", "size")

    def __init__(self, size: int) -> None:
        array_type = _arrays.get(size)
        if array_type is None:
            array_type = _arrays[size] = type("Array", (_ctypes.Array,), {"_type_": Byte, "_length_": size})
        self._array = array_type()
        self.address: int = _ctypes.addressof(self._array)
        self.size = size

    def bytes(self) -> bytes:
        """A copy of the contents."""
        return bytes(memoryview(self._array).cast("B"))

    def write(self, data: memoryview) -> None:
        """Put `data` at the start."""
        memoryview(self._array).cast("B")[: data.nbytes] = data


def address_of(data: bytes) -> int:
    """The address of a bytes object's contents, valid as long as the object lives."""
    return Word.from_buffer(_String(data)).value or 0
