"""The addresses of a network that were freed, the oldest first.

A file of lines of one length each, so that one is taken off by writing spaces over it, and a person can read it:

    10.1.0.7 12 veth1234abcd

The number and name are those of the link in the host's namespace that the address was reached by, if it was still there: until it
is gone, so may be neighbour entries, connections and rules. Losing the file costs the order of reuse, no address.
"""

from __future__ import annotations

import posix
from _socket import if_indextoname, if_nametoindex
from errno import EDQUOT, ENOSPC

from ocirt_cni.addresses import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = 80  # bytes: an IPv6 address, a number of 32 bits and a name of 15 bytes take 66
_BLANK = b" " * (_LINE - 1)
_SLACK = 4096  # bytes that may be blank before the file is written anew


class Record:
    """A line: `offset` where it begins; `index` 0: no link was there any more."""

    __slots__ = ("address", "index", "link", "offset")

    def __init__(self, address: Address, index: int, link: str, offset: int) -> None:
        self.address = address
        self.index = index
        self.link = link
        self.offset = offset

    @property
    def waits(self) -> bool:
        """Whether the link is there still. A number is not given to another link before 2,147,483,647 others were made."""
        if not self.index:
            return False
        try:
            return if_indextoname(self.index) == self.link
        except OSError:
            return False


class Freed:
    """The file. Whoever changes it holds the network's lock."""

    __slots__ = ("_path", "_text")

    def __init__(self, path: str) -> None:
        self._path = path
        self._text: bytes | None = None  # read when it is looked into

    @property
    def _data(self) -> bytes:
        if self._text is None:
            try:
                with open(self._path, "rb", buffering=0) as file:
                    self._text = file.read()
            except FileNotFoundError:
                self._text = b""
        return self._text

    def __contains__(self, address: Address) -> bool:
        text = f"{address} ".encode()
        return self._data.startswith(text) or b"\n" + text in self._data

    def __iter__(self) -> Iterator[Record]:
        """From the one that was freed first. Raises OSError."""
        data = self._data
        blank = len(data) - len(data.lstrip(b" \n"))  # in front, where the next ones were taken from
        for start in range(blank // _LINE * _LINE, len(data) - _LINE + 1, _LINE):
            record = _parse(data[start : start + _LINE], start)
            if record is not None:
                yield record

    def append(self, address: Address, link: str) -> None:
        """Note that an address is freed; `link`: that by which it was reached, or "". Raises OSError.

        Except for a disk that is full: it must not keep an address from being freed.
        """
        index = 0
        if link:
            try:
                index = if_nametoindex(link)
            except OSError:
                pass  # it is gone already
        line = f"{address} {index} {link if index else '-'}".encode().ljust(_LINE - 1) + b"\n"
        self._text = None
        try:
            fd = posix.open(self._path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o600)
            try:
                posix.write(fd, line)
            finally:
                posix.close(fd)
        except OSError as err:
            if err.errno not in (ENOSPC, EDQUOT):
                raise

    def remove(self, address: Address) -> None:
        """Take an address off, wherever it stands. Raises OSError."""
        if address not in self:
            return
        with open(self._path, "r+b", buffering=0) as file:
            for record in self:
                if record.address == address:
                    posix.pwrite(file.fileno(), _BLANK, record.offset)
        self._text = None

    def shrink(self) -> None:
        """Write the file anew without what is blank, if that is much, and if the disk has room for it."""
        blank = self._data.count(_BLANK) * _LINE
        if blank < _SLACK or blank < len(self._data) // 2:
            return
        kept = [self._data[one.offset : one.offset + _LINE] for one in self]
        new = self._path + ".new"
        try:
            with open(new, "wb", buffering=0) as file:
                file.write(b"".join(kept))
            posix.rename(new, self._path)
        except OSError:
            return
        self._text = None


def _parse(line: bytes, offset: int) -> Record | None:
    fields = line.split()
    if len(fields) != 3:
        return None
    try:
        return Record(Address.parse(fields[0].decode()), int(fields[1]), fields[2].decode(errors="surrogateescape"), offset)
    except ValueError:
        return None
