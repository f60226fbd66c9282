"""Archives for tests, header by header: what no tar program would write is needed too."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ocirt_images.apply.applier import Applier
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.needs import Needs
from ocirt_images.apply.owners import Owners
from ocirt_images.apply.tar import Reader

END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    """A number as most writers have it: padded with zeros, with a zero byte at the end."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """A number as GNU writes it if octal does not hold it."""
    return (value % (1 << 8 * width) | 1 << 8 * width - 1 if value >= 0 else value % (1 << 8 * width)).to_bytes(width, "big")


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    rest: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One block; numbers that are bytes stand in it as they are."""

    def number(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0") if isinstance(value, bytes) else octal(value, width)

    block = b"".join(
        (
            name.ljust(100, b"\0"),
            number(mode, 8),
            number(uid, 8),
            number(gid, 8),
            number(size, 12),
            number(mtime, 12),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            magic,
            bytes(64),
            octal(device[0], 8),
            octal(device[1], 8),
            prefix.ljust(155, b"\0"),
            rest.ljust(12, b"\0"),
        )
    )
    assert len(block) == 512, len(block)
    return summed(block, signed=signed)


def summed(block: bytes, *, signed: bool = False) -> bytes:
    """A block with its checksum."""
    block = block[:148] + b" " * 8 + block[156:]
    total = sum(block) - (256 * sum(one > 127 for one in block) if signed else 0)
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    """Data as whole blocks."""
    return data + bytes(-len(data) % 512)


def records(values: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Records of an extended header; each begins with its own length."""
    out = b""
    for key, value in values:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while length != len(str(length)) + len(rest):
            length = len(str(length)) + len(rest)
        out += str(length).encode() + rest
    return out


def pax(values: dict[bytes, bytes] | Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended header."""
    data = records(values.items() if isinstance(values, dict) else values)
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    """A file with its data."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **fields: object) -> bytes:
    """A directory."""
    return header(name, b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    """A symlink."""
    return header(name, b"2", link=target, mode=0o777)


def link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return header(name, b"1", link=target)


@dataclass
class Plain:
    """What an applier made, without processes around it."""

    applier: Applier
    needs: Needs = field(default_factory=Needs)


def apply(
    archive: bytes,
    target: Path,
    *,
    limits: Limits | None = None,
    squash: bool = True,
    xattrs: str = "trusted",
    step: int = 1 << 20,
) -> Plain:
    """Apply an archive in this process, fed in steps. Raises what the reader and the applier raise."""
    import os  # noqa: PLC0415  (its umask is the whole process's)

    old = os.umask(0)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        limits = limits or Limits()
        applier = Applier(fd, limits=limits, owners=Owners(squash=squash), devices=os.geteuid() == 0, xattrs=xattrs)
        try:
            reader = Reader(limits)
            for at in range(0, len(archive), step):
                applier.take(reader.feed(archive[at : at + step]))
            reader.close()
            return Plain(applier, applier.finish())
        finally:
            applier.close()
    finally:
        os.close(fd)
        os.umask(old)


def listing(top: Path) -> dict[str, str]:
    """Each path below a directory: kind, mode, and content or target."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        text = f"{stat.filemode(status.st_mode)}"
        if path.is_symlink():
            text += f" -> {path.readlink()}"
        elif path.is_file():
            text += f" {path.read_bytes()[:40]!r}"
        elif stat.S_ISCHR(status.st_mode) and not status.st_rdev:
            text = "whiteout"
        found[str(path.relative_to(top))] = text
    return found
