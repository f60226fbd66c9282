"""AppArmor's profile for containers that name none: as text for apparmor_parser(8), whether it is loaded, and loading it.

The profile lets a container do what capabilities, seccomp, namespaces and the modes of files let it do, but for what stays
forbidden to one that got more of these than it should have: to change what /proc and /sys show of the whole machine, to read
the machine's memory and firmware there, to change mounts (a mask over a file in /proc is one), and to trace or signal processes
that are not confined by the same profile. The host's processes may signal and trace it.

Nothing here is loaded on the way to a container.
"""

from __future__ import annotations

import posix

from ocirt.errors import Error
from ocirt.paths import read_bytes

NAME = "ocirt-default"
PROFILES = "/sys/kernel/security/apparmor/profiles"
PARSER = "apparmor_parser"
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # where a user's PATH may not lead
_ABI = "abi/3.0"  # the rules that are meant, as far as a newer kernel knows more kinds (AppArmor 3.0 and later)
_FOLDER = "/etc/apparmor.d/"
_PATIENCE = 60  # seconds to load a profile, which takes some 50 ms
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
# Whose signals reach a container. Some distributions name a profile after a runtime, which it does not confine.
_HOST = ("unconfined", "ocirt", "ocirtd", "runc", "crun")


def text(name: str = NAME) -> str:
    """The profile with that name. Raises Error("usage") for what is no name."""
    if not name or not _LETTERS.issuperset(name):
        raise Error("usage", f"{name[:80]!r} cannot be the name of a profile", hint="letters, digits, `.`, `_` and `-`")
    rules = [
        "# What others restrict.",
        "capability,",
        "network,",
        "unix,",
        "file,",
        "",
        "# Processes: those of the same profile, and the host's way in.",
        f"ptrace peer={name},",
        f"signal peer={name},",
        *[f"signal receive peer={peer}," for peer in _HOST],
        "",
        "# Mounts stay as the runtime made them.",
        "deny mount,",
        "deny remount,",
        "deny umount,",
        "deny pivot_root,",
        "",
        "# The machine in /proc: all that is not a process.",
        "deny /proc/* wl,",
        "deny /proc/[^0-9/]*/** wl,",
        "deny /proc/{kcore,kmem,kpage*,mem,sysrq-trigger} rwl,",
        "",
        "# The machine in /sys: all but cgroups, whose mount decides.",
        "deny /sys/* wl,",
        f"deny /sys/{_other_than('fs')}/** wl,",
        f"deny /sys/fs/{_other_than('cgroup')}/** wl,",
        "deny /sys/{devices/virtual/powercap,firmware,kernel/security}/** rwl,",
    ]
    head = [f"abi <{_ABI}>,", ""] if posix.access(_FOLDER + _ABI, posix.R_OK) else []
    head.append(f"profile {name} flags=(attach_disconnected,mediate_deleted) {{")
    return "\n".join([*head, *[f"  {rule}".rstrip() for rule in rules], "}", ""])


def _other_than(word: str) -> str:
    """A pattern for each name of a file but one (apparmor.d(5), "Globbing": there is no "not")."""
    shorter = [word[:end] for end in range(1, len(word))]
    different = [f"{word[:at]}[^{char}/]*" for at, char in enumerate(word)]
    return "{" + ",".join([*shorter, *different, word + "?*"]) + "}"


def is_loaded(name: str) -> bool:
    """Whether the kernel has a profile. Raises OSError: AppArmor is not enabled, or we are not root."""
    return bool(name) and any(line.rpartition(b" (")[0] == name.encode() for line in read_bytes(PROFILES).split(b"\n"))


def parser() -> str:
    """The path of the program that loads profiles, "" if there is none."""
    for place in [*posix.environ.get(b"PATH", b"").decode(errors="replace").split(":"), *_PLACES]:
        path = f"{place}/{PARSER}"
        if place.startswith("/") and posix.access(path, posix.X_OK):
            return path
    return ""


def load(name: str = NAME) -> bool:
    """Load the profile, unless the kernel has one of this name; whether it had none. Raises Error.

    Safe where it may be done twice at once. It runs a program, so it is for a process (or a thread of one) that may wait.
    """
    import subprocess  # noqa: PLC0415  (only here)

    rules = text(name)
    try:
        if is_loaded(name):
            return False
    except OSError as err:
        hint = "AppArmor is to be enabled, /sys/kernel/security mounted, and the caller root"
        raise Error("unsupported", "the kernel's profiles cannot be read", subject=PROFILES, cause=str(err), hint=hint) from None
    program = parser()
    if not program:
        hint = f"install {PARSER} (Debian: apparmor)"
        raise Error("unsupported", "not loaded, and there is nothing to load it with", subject=_subject(name), hint=hint)
    # Not kept in the parser's cache: this text is the only source.
    command = [program, "--replace", "--skip-cache"]
    try:
        done = subprocess.run(command, input=rules.encode(), capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Error("kernel", "cannot be loaded", subject=_subject(name), cause=str(err)) from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[:400]
        raise Error("kernel", "cannot be loaded", subject=_subject(name), cause=said or f"{PARSER} failed")
    return True


def _subject(name: str) -> str:
    return f"AppArmor profile {name}"
