"""Extended headers (POSIX.1-2017, pax "Extended Header"): records of text that correct the entry after them."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from ocirt_images.apply.entry import Entry
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed, shown

Records = dict[bytes, bytes]

_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?|(-?)\.([0-9]+)")
_FARTHEST = 1 << 53  # seconds: more than any file system keeps, and no overflow on the way there
_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
# GNU's format 0.0 repeats these two, in turn; everything else has one value.
_OFFSET, _LENGTH, MAP = b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.map"


def parse(data: bytes) -> Records:
    """The records of an extended header. GNU's repeated pairs become one `GNU.sparse.map`. Raises Malformed."""
    records: Records = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = position + length
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise Malformed(f"an extended header with a broken record at byte {position}")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise Malformed(f"an extended header with a broken record at byte {position}")
        if key in (_OFFSET, _LENGTH):
            if (key == _OFFSET) != (len(pairs) % 2 == 0):
                raise Malformed("GNU.sparse.offset and GNU.sparse.numbytes do not alternate")
            pairs.append(value)
        else:
            records[key] = value
        position = end
    if pairs:
        records[MAP] = b",".join(pairs)
    return records


def decimal(value: bytes, what: str) -> int:
    """A number that is not negative. Raises Malformed."""
    if not value.isdigit() or len(value) > 20:
        raise Malformed(f"{what}: {shown(value)!r} is no number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """A time in seconds with a fraction, as nanoseconds. Raises Malformed."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise Malformed(f"mtime: {shown(value)!r} is no time")
    sign, whole, fraction = (match[1], match[2], match[3] or b"") if match[2] is not None else (match[4], b"0", match[5])
    seconds = min(int(whole), _FARTHEST)
    result = seconds * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -result if sign else result


def bounded(seconds: int) -> int:
    """Seconds that every later step can handle."""
    return max(-_FARTHEST, min(_FARTHEST, seconds))


def correct(entry: Entry, records: Records, limits: Limits) -> None:
    """Put what `records` say into `entry`, but for sizes and sparse files, which are the reader's. Raises Malformed."""
    for key, value in records.items():
        if not value:
            continue  # an empty value takes an earlier one back
        if key == b"path":
            entry.name = text(value, "path")
        elif key == b"linkpath":
            entry.link = text(value, "linkpath")
        elif key == b"uid":
            entry.uid = decimal(value, "uid")
        elif key == b"gid":
            entry.gid = decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime = nanoseconds(value)
    entry.xattrs = xattrs(records, limits)


def xattrs(records: Records, limits: Limits) -> dict[bytes, bytes] | None:
    """Extended attributes by name: star's, which everybody writes, before libarchive's. Raises Malformed, LimitExceeded."""
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(_SCHILY):
            found[key.removeprefix(_SCHILY)] = value
        elif key.startswith(_LIBARCHIVE):
            try:
                raw = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error:
                raise Malformed(f"{shown(key)}: not base64") from None
            found.setdefault(unquote_to_bytes(key.removeprefix(_LIBARCHIVE)), raw)
    total = 0
    for name, value in found.items():
        if not name or b"\0" in name:
            raise Malformed("an extended attribute without a proper name")
        limits.check("xattr", len(value), f"extended attribute {shown(name)}")
        total += len(name) + len(value)
    limits.check("xattrs", total, "extended attributes of one file")
    return found or None


def text(value: bytes, what: str) -> bytes:
    """A name. Raises Malformed."""
    if b"\0" in value:
        raise Malformed(f"{what}: a zero byte in a name")
    return value
