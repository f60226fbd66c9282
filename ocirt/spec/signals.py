"""Signals by name (include/uapi/asm-generic/signal.h, signal(7); the numbers that all but MIPS, Alpha, SPARC and PA-RISC use)."""

from __future__ import annotations

from ocirt.errors import Error

# Where two names share a number, the usual one stands last, so that `name` finds it.
NUMBERS: dict[str, int] = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGILL": 4,
    "SIGTRAP": 5,
    "SIGIOT": 6,
    "SIGABRT": 6,
    "SIGBUS": 7,
    "SIGFPE": 8,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGSEGV": 11,
    "SIGUSR2": 12,
    "SIGPIPE": 13,
    "SIGALRM": 14,
    "SIGTERM": 15,
    "SIGSTKFLT": 16,
    "SIGCLD": 17,
    "SIGCHLD": 17,
    "SIGCONT": 18,
    "SIGSTOP": 19,
    "SIGTSTP": 20,
    "SIGTTIN": 21,
    "SIGTTOU": 22,
    "SIGURG": 23,
    "SIGXCPU": 24,
    "SIGXFSZ": 25,
    "SIGVTALRM": 26,
    "SIGPROF": 27,
    "SIGWINCH": 28,
    "SIGPOLL": 29,
    "SIGIO": 29,
    "SIGPWR": 30,
    "SIGSYS": 31,
}
RTMIN = 34  # glibc's and musl's: the kernel begins at 32, but the C libraries keep the first two (musl three) for themselves
RTMAX = 64


def number(text: str) -> int:
    """The number of a signal given as a number (0 to 64), a name with or without SIG in any case, RTMIN+n or RTMAX-n.

    Raises Error("invalid").
    """
    if text.isascii() and text.isdecimal():
        value = int(text) if len(text) < 4 else 999
        if value <= RTMAX:
            return value
        raise Error("invalid", f'unknown signal "{text}"', hint=f"signals have the numbers 1 to {RTMAX}")
    name = text.upper()
    if not name.startswith("SIG"):
        name = "SIG" + name
    if name in NUMBERS:
        return NUMBERS[name]
    base, sign, offset = name[:8], name[8:9], name[9:]
    if not sign:
        offset = "0"
    if offset.isascii() and offset.isdecimal() and len(offset) < 3:
        value = RTMIN + int(offset) if base == "SIGRTMIN" and sign in ("", "+") else 0
        value = RTMAX - int(offset) if base == "SIGRTMAX" and sign in ("", "-") else value
        if RTMIN <= value <= RTMAX:
            return value
    raise Error("invalid", f'unknown signal "{text}"', hint="a number, or a name such as TERM, SIGKILL or RTMIN+3")


def name(value: int) -> str:
    """The name of a signal, `SIGRTMIN+n` for a real-time one, its number in digits where it has none."""
    if RTMIN <= value <= RTMAX:
        return f"SIGRTMIN+{value - RTMIN}" if value > RTMIN else "SIGRTMIN"
    found = str(value)
    for key, item in NUMBERS.items():
        if item == value:
            found = key
    return found
