"""What `os` has beyond `posix`, as far as all plugins need it: to load `os` costs an executable more than a millisecond."""

from __future__ import annotations

from posix import environ, mkdir, stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_KIND, _DIRECTORY, _FILE = 0o170000, 0o040000, 0o100000  # S_IFMT, S_IFDIR, S_IFREG


def is_directory(path: str) -> bool:
    """Whether it is a directory, or leads to one."""
    return _kind(path) == _DIRECTORY


def is_file(path: str) -> bool:
    """Whether it is a regular file, or leads to one."""
    return _kind(path) == _FILE


def exists(path: str) -> bool:
    """Whether there is anything of that name. No, for a symlink to nowhere."""
    return bool(_kind(path))


def make_directories(path: str, mode: int = 0o777) -> None:
    """Make a directory, unless it is there, and those above it; `mode`: its own. Raises OSError."""
    try:
        mkdir(path, mode)
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        if not above:
            raise
        make_directories(above)
        make_directories(path, mode)
    except OSError:
        if not is_directory(path):
            raise


def environment() -> Mapping[str, str]:
    """The environment that this process was started with."""
    return {name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for name, value in environ.items()}


def _kind(path: str) -> int:
    try:
        return stat(path).st_mode & _KIND
    except (OSError, ValueError):  # ValueError: a null byte
        return 0
