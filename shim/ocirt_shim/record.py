"""What a shim writes down of itself and its container, for who comes when it is gone, and for its own container's `delete`."""

from __future__ import annotations

import posix
from time import time_ns

from ocirt import jsonlite, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = "state.json"
VERSION = 1


class Record:
    """The file `state.json` in the shim's directory: `values` is what it says. It is whole at any moment.

    directory: "" as long as there is none; see `settle`.
    """

    __slots__ = ("_is_there", "_path", "values")

    def __init__(self, directory: str, values: dict[str, Any]) -> None:
        self.settle(directory)
        self._is_there = False
        pid = posix.getpid()
        self.values: dict[str, Any] = {
            "version": VERSION,
            "pid": pid,
            "start_time": state.process_start_time(pid),
            "boot_id": state.boot_id(),
            **values,
        }

    def settle(self, directory: str) -> None:
        """This is the directory."""
        self._path = f"{directory}/{FILE}"

    def save(self, **values: Any) -> None:
        """Write it, with these changed. Raises OSError the first time.

        Later the file stays as it was if the disk takes nothing: the container does not end with that, and the shim can be asked.
        """
        self.values.update(values)
        try:
            state.write_file(self._path + ".new", jsonlite.dumps(self.values).encode())
            posix.rename(self._path + ".new", self._path)
        except OSError:
            if not self._is_there:
                raise
        self._is_there = True


def load(directory: str) -> dict[str, Any]:
    """What a shim has written, for who finds its directory. Raises OSError, ocirt.errors.Error."""
    path = f"{directory}/{FILE}"
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    try:
        data = b""
        while more := posix.read(fd, 1 << 16):
            data += more
    finally:
        posix.close(fd)
    found: dict[str, Any] = jsonlite.loads(data, path)
    return found


def is_alive(values: dict[str, Any]) -> bool:
    """Whether the shim that wrote this still runs."""
    if values.get("boot_id") != state.boot_id():
        return False
    return bool(values.get("start_time")) and state.process_start_time(values.get("pid") or 0) == values["start_time"]


def now() -> int:
    """Nanoseconds since the epoch."""
    return time_ns()
