"""A configuration folder that is watched (inotify(7)), for processes that go on while networks come and go."""

from __future__ import annotations

import os
from ctypes import CDLL, get_errno
from errno import EMFILE, ENOMEM, ENOSPC

from ocirt_cni.errors import IO_FAILURE, Error
from ocirt_cni.runner import lists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt_cni.runner.lists import Network

# linux/inotify.h
_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_IN_ATTRIB, _IN_DELETE_SELF, _IN_MOVE_SELF, _IN_ONLYDIR = 0x4, 0x400, 0x800, 0x01000000
_WANTED = (
    _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
    | _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
)  # fmt: skip
_SCARCE = (EMFILE, ENOMEM, ENOSPC)  # of instances, memory, watches
_BLOCK = 1 << 16
_libc = CDLL(None, use_errno=True)


class Folder:
    """The networks of a folder, as they are now. Not for several threads.

    networks: in the order in which names are looked up; errors: of files that cannot be used
    The folder need not exist yet. A descriptor is ready for reading when something may have changed: `fileno`.
    """

    def __init__(self, folder: str = lists.FOLDER) -> None:
        """Raises Error(IO_FAILURE) if nothing more can be watched on this machine."""
        self.folder = folder
        self.networks: list[Network] = []
        self.errors: list[Error] = []
        self._fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        try:
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """For poll(2)."""
        return self._fd

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refresh(self) -> bool:
        """Read the folder again if something has changed since; whether it was read. Raises Error(IO_FAILURE)."""
        if not self._drain():
            return False
        self._read()
        return True

    def find(self, name: str) -> Network | None:
        """The network of a name, as it is now. Raises Error(IO_FAILURE)."""
        self.refresh()
        return next((network for network in self.networks if network.name == name), None)

    def default(self) -> Network | None:
        """The one that a runtime takes which has to choose: whose file's name is the first. Raises Error(IO_FAILURE)."""
        self.refresh()
        return min(self.networks, key=lambda network: os.path.basename(network.path), default=None)

    def _read(self) -> None:
        # What changes while it is read is seen as well, as the watches are there before; and so are folders that come meanwhile.
        watched: set[str] = set()
        while missing := set(self._places()) - watched:
            for place in missing:
                self._watch(place)
            watched |= missing
        try:
            self.networks, self.errors = lists.scan(self.folder)
        except Error as err:
            self.networks, self.errors = [], [err]

    def _places(self) -> Iterator[str]:
        """The folder, or while it is not there the nearest one above; those of drop-in plugins; those that links lead to."""
        place = os.path.abspath(self.folder)
        while not os.path.isdir(place) and place != "/":
            place = os.path.dirname(place)
        yield place
        if place != os.path.abspath(self.folder):
            return
        yield os.path.dirname(place)  # where the folder itself may be put in another's place
        try:
            folders = [place, *lists.drop_in_folders(place)]
        except Error:
            return
        for folder in folders:
            yield folder
            for name in _names(folder):
                if os.path.islink(f"{folder}/{name}"):
                    yield os.path.dirname(os.path.realpath(f"{folder}/{name}"))

    def _watch(self, place: str) -> None:
        """Watch a folder, again if it is; one that is gone by now is left to the one above it."""
        if _libc.inotify_add_watch(self._fd, os.fsencode(place), _WANTED) < 0 and get_errno() in _SCARCE:
            _check(-1, "inotify_add_watch")

    def _drain(self) -> bool:
        found = False
        while True:
            try:
                os.read(self._fd, _BLOCK)
            except BlockingIOError:
                return found
            found = True


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _check(result: int, call: str) -> int:
    if result < 0:
        hint = "raise fs.inotify.max_user_instances or max_user_watches" if get_errno() in _SCARCE else ""
        raise Error(
            IO_FAILURE, "the folder of networks cannot be watched", subject=call, cause=os.strerror(get_errno()), hint=hint
        )
    return result
