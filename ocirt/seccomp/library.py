"""libseccomp's functions, as far as the compiler needs them, over the C core of ctypes (see ocirt.kernel.ffi)."""

from __future__ import annotations

import _ctypes
import posix

from ocirt.errors import Error
from ocirt.kernel.ffi import Function, Word
from ocirt.seccomp import LIBRARY, library_places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# enum scmp_filter_attr
ATTR_CTL_OPTIMIZE = 8


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Unsigned(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class Library:
    """The loaded library. Every attribute but `version` is the C function seccomp_<name>; see its manual page."""

    __slots__ = (
        "arch_add",
        "arch_native",
        "arch_remove",
        "attr_set",
        "export_bpf",
        "init",
        "release",
        "rule_add_array",
        "syscall_resolve_name_arch",
        "version",
    )

    def __init__(self, handle: int) -> None:
        def function(name: str, arguments: int, restype: Any = _Int) -> Any:
            found: Any = Function(_ctypes.dlsym(handle, "seccomp_" + name))
            found.argtypes = (Word,) * arguments
            found.restype = restype
            return found

        self.arch_add = function("arch_add", 2)
        self.arch_native = function("arch_native", 0, _Unsigned)
        self.arch_remove = function("arch_remove", 2)
        self.attr_set = function("attr_set", 3)
        self.export_bpf = function("export_bpf", 2)
        self.init = function("init", 1, Word)
        self.release = function("release", 1, None)
        self.rule_add_array = function("rule_add_array", 5)
        self.syscall_resolve_name_arch = function("syscall_resolve_name_arch", 2)
        address = function("version", 0, Word)()
        self.version: tuple[int, int, int] = (
            _Unsigned.from_address(address).value,
            _Unsigned.from_address(address + 4).value,
            _Unsigned.from_address(address + 8).value,
        )


_loaded: list[Library] = []


def load() -> Library:
    """The library, loaded once. Raises Error("unsupported") when there is none."""
    if _loaded:
        return _loaded[0]
    # By absolute path first: the cache's key is made from these files, and what a caller's LD_LIBRARY_PATH names does not count.
    cause = ""
    for name in (*library_places(), LIBRARY):
        try:
            library = Library(_ctypes.dlopen(name, posix.RTLD_NOW))
        except OSError as err:
            cause = str(err)
            continue
        _loaded.append(library)
        return library
    raise Error(
        "unsupported",
        "libseccomp is needed to translate a seccomp profile and cannot be loaded",
        cause=cause,
        hint="install libseccomp 2.5 or newer (Debian: libseccomp2)",
    )
