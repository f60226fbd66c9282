"""Runs the command as the launcher does and notes which modules are loaded when its first process is cloned (or when it exits).

    python -I -S -B startup.py FOLDER NOTES ocirt ARGS...

FOLDER holds the package `ocirt`; NOTES gets one module name a line. Everything then goes on as usual.
"""

import sys
from posix import O_CREAT, O_WRONLY, open, write  # noqa: A004

folder, notes, name = sys.argv[1:4]
args = sys.argv[4:]
bare = set(sys.modules)
sys.path.append(folder)

import posix  # noqa: E402

from ocirt.kernel import ffi  # noqa: E402

noted = False


def note() -> None:
    """Write what is loaded now beyond the bare interpreter, once."""
    global noted  # noqa: PLW0603
    if not noted:
        noted = True
        fd = open(notes, O_WRONLY | O_CREAT, 0o600)
        write(fd, "\n".join(sorted(set(sys.modules) - bare)).encode())
        posix.close(fd)


real_syscall, real_exit, real_fork = ffi.raw_syscall, posix._exit, posix.fork


def syscall(number, *rest):  # type: ignore[no-untyped-def]
    if number == ffi.NR["clone3"]:
        note()
    return real_syscall(number, *rest)


def leave(status):  # type: ignore[no-untyped-def]
    note()
    real_exit(status)


def fork():  # type: ignore[no-untyped-def]
    note()
    return real_fork()


# Before anything else can take the originals from there.
ffi._syscall = ffi.raw_syscall = syscall
posix._exit, posix.fork = leave, fork

from ocirt.cli.main import main  # noqa: E402

main(name, args)
