"""`ocirt update`: other limits for a container, by flags or as config.json's `linux.resources`."""

from __future__ import annotations

import posix

from ocirt import paths, state
from ocirt.containers.update import update
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options

# (flag, what it sets, how its value is read; "read": as a number, by the flag's kind)
_FLAGS = (
    ("blkio-weight", "/blockIO/weight", "read"),
    ("cpu-period", "/cpu/period", "unsigned"),
    ("cpu-quota", "/cpu/quota", "signed"),
    ("cpu-burst", "/cpu/burst", "unsigned"),
    ("cpu-share", "/cpu/shares", "unsigned"),
    ("cpu-rt-period", "/cpu/realtimePeriod", "unsigned"),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime", "signed"),
    ("cpu-idle", "/cpu/idle", "signed"),
    ("cpuset-cpus", "/cpu/cpus", "text"),
    ("cpuset-mems", "/cpu/mems", "text"),
    ("kernel-memory", "/memory/kernel", "bytes"),
    ("kernel-memory-tcp", "/memory/kernelTCP", "bytes"),
    ("memory", "/memory/limit", "bytes"),
    ("memory-reservation", "/memory/reservation", "bytes"),
    ("memory-swap", "/memory/swap", "bytes"),
    ("pids-limit", "/pids/limit", "read"),
)
_NAMES = {pointer: "--" + flag for flag, pointer, _ in _FLAGS}
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def run(options: Options, args: list[str]) -> int:
    """Update container args[0]. With --resources the other flags are ignored, but those of Intel RDT, as runc has it."""
    record = state.load(options.root, args[0])  # first of all, as runc has it: is there such a container?
    file: str = options.get("resources")
    if file:
        from ocirt.spec.load import read_resources  # noqa: PLC0415

        request = read_resources(_contents(file))
    else:
        request = from_flags(options)
    schemata = (options.get("l3-cache-schema"), options.get("mem-bw-schema"))
    if any(schemata):
        from ocirt.cgroups.resctrl import check_update  # noqa: PLC0415  (few hosts have it)

        check_update(record.get("resctrl"), *schemata)
    names = {} if file else _NAMES
    update(options.root, args[0], request, names, schemata)
    if options.debug:
        from ocirt.cgroups.notes import ignored  # noqa: PLC0415  (only for who asks)
        from ocirt.cli import log  # noqa: PLC0415

        if request.get("devices"):
            log.debug(options, "/devices: device rules are left as they are")
        for pointer, reason in ignored(request, record["cgroup"]["mode"], ""):
            log.debug(options, f"{names.get(pointer, pointer)}: {reason}")
    return 0


def from_flags(options: Options) -> dict[str, Any]:
    """The resources that the flags name. Raises Error("usage") for a value that is none, in runc's words."""
    request: dict[str, Any] = {}
    for flag, pointer, kind in _FLAGS:
        value: Any = options.get(flag)
        if not options.given(flag) or value == "":
            continue
        try:
            if kind == "bytes":
                value = size(value)
            elif kind in ("signed", "unsigned"):
                value = _number(value, kind == "signed")
        except ValueError as err:
            raise Error("usage", f"invalid value for {flag}: {err}") from None
        _, section, name = pointer.split("/")
        request.setdefault(section, {})[name] = value
    return request


def _number(text: str, signed: bool) -> int:
    """A decimal number of 64 bits, as Go's strconv reads it. Raises ValueError with Go's words."""
    function = "ParseInt" if signed else "ParseUint"
    digits = text[1:] if signed and text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax')
    number = int(text) if len(text) < 30 else 1 << 70
    if not (-(1 << 63) <= number < 1 << 63 if signed else number < 1 << 64):
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return number


def size(text: str) -> int:
    """A number of bytes: `64m`, `1.5 GiB`, `4096`, -1 for no limit. Raises ValueError."""
    if text == "-1":
        return -1
    end = max((index for index, character in enumerate(text) if character in "0123456789. "), default=-1)
    number, suffix = text[: end + 1].removesuffix(" "), text[end + 1 :].lower()
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 40:
        raise ValueError(f"invalid size: '{text}'")
    if suffix not in ("", "b") and (suffix[0] not in _UNITS or suffix[1:] not in ("", "b", "ib")):
        raise ValueError(f"invalid suffix: '{suffix}'")
    # In whole numbers: a float would lose bytes.
    value: int = (int(digits) << _UNITS.get(suffix[:1], 0)) // 10 ** len(fraction)
    if value >= 1 << 63:
        raise ValueError(f"invalid size: '{text}'")
    return value


def _contents(file: str) -> bytes:
    """All of a file, or of standard input. Raises Error."""
    from ocirt.spec.load import LIMIT  # noqa: PLC0415

    try:
        data = _all_of(0, LIMIT + 1) if file == "-" else paths.read_bytes(file, LIMIT + 1)
    except OSError as err:
        raise Error(
            "invalid", f"open {file}: {posix.strerror(err.errno or 0).lower()}", hint="--resources names a file"
        ) from None
    if len(data) > LIMIT:
        raise Error("invalid", f"{file} is larger than {LIMIT >> 20} MiB")
    return data


def _all_of(fd: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (more := posix.read(fd, 1 << 16)):
        data += more
    return data
