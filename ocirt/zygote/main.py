"""What the interpreter of a zygote runs: protect its file, load everything, then fork on request.

`client` starts it as `PYTHON -I -S -B -X utf8 -c BOOT HOME PYTHON STAGE`, with descriptors 3 (the control socket) and 4 (a pidfd
of the owner), and a pipe as standard error, which is read only until the zygote says that it is ready.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import sys

from ocirt.kernel import messages
from ocirt.kernel.ffi import syscall

CONTROL = 3
OWNER = 4
READY = b"ready"
BOOT = "import sys; sys.path.append(sys.argv[1]); from ocirt.zygote.main import main; main()"
FLAGS = ("-I", "-S", "-B", "-X", "utf8", "-c", BOOT)
BARE, PROTECTED = "bare", "protected"

# What forks would load on their way to a container, below `ocirt`. What is missing here is loaded in the fork, which costs time.
PRELOADED = (
    *("cgroups." + name for name in ("apply", "bpf", "control", "devices", "limits", "oom", "unified")),
    *("cli." + name for name in ("kill", "pause", "resume", "run", "spec")),
    *("containers." + name for name in ("attach", "create", "delete", "execute", "failures", "start")),
    *(
        "kernel.steps." + name
        for name in (
            *("barrier", "cgroup", "device", "hooks", "mount", "namespace", "process", "program"),
            *("state", "stdio", "sync", "tree", "user", "waiter"),
        )
    ),
    *("seccomp." + name for name in ("cache", "front")),
    *("spec." + name for name in ("check", "mounts", "process", "resources", "rlimits", "seccomp", "signals", "sysctl")),
)


def main() -> None:
    """Never returns: the process ends with its owner."""
    _, home, python, stage = sys.argv
    if stage == BARE:
        _leave_the_owner()
        from ocirt.zygote import protect  # noqa: PLC0415  (gone after the next exec)

        if protect.needed(python):
            protect.execute(python, [python, *FLAGS, home, python, PROTECTED])
    for fd in (CONTROL, OWNER):
        posix.set_inheritable(fd, False)
    load(home)
    from ocirt.zygote import rehearsal, server, work  # noqa: PLC0415  (with byte code, which `load` may have to look for)

    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    messages.send(CONTROL, READY)
    posix.dup2(null, 2)
    posix.close(null)
    server.serve(CONTROL, OWNER, lambda fd: work.work(fd, OWNER), work.refuse, rehearsal.rehearse)
    posix._exit(0)


def _leave_the_owner() -> None:
    """Nothing of the owner's is kept: its open files, its terminal with the signals that come from there, its directory."""
    syscall("close_range", OWNER + 1, 0xFFFFFFFF, 0)
    posix.setsid()
    posix.chdir("/")
    for number in (_signal.SIGINT, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def load(home: str) -> None:
    """Load what forks need from the package in `home`, and have the collector leave it alone."""
    import gc  # noqa: PLC0415

    try:
        posix.stat(f"{home}/ocirt/__pycache__/__init__.{sys.implementation.cache_tag}.pyc")
    except OSError:
        from ocirt.bytecode import keep  # noqa: PLC0415  (an installation without byte code)

        keep()
    for name in ("fcntl", *("ocirt." + each for each in PRELOADED)):
        __import__(name)
    gc.collect()
    gc.freeze()  # a walk through all objects would copy every page that a fork shares
    gc.disable()
