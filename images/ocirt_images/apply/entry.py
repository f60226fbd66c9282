"""What stands in an archive: one entry."""

from __future__ import annotations

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


class Entry:
    """A header, with what its extended headers say about it.

    `kind` is one of the constants above; `mtime` counts nanoseconds since 1970; `size` is the file's, `stored` that of its data
    in the archive (they differ for sparse files only); `sparse` lists (offset, length) of each piece of data, in order; `link` is
    the target of a link.
    """

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime", "name", "size", "sparse", "stored", "uid", "xattrs")

    def __init__(
        self,
        kind: bytes,
        name: bytes,
        *,
        link: bytes = b"",
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self.kind = kind
        self.name = name
        self.link = link
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.stored = size
        self.mtime = mtime
        self.device = device
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"Entry({fields})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it changes while it is being read
