"""What `spec` asks of the host and of a container's image: `Lookups` of spec/inputs.py, by looking.

The image is looked at in its layers, so that nothing has to be mounted; what is not a plain file of a sane size is refused.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from typing import TYPE_CHECKING

from ocirt import apparmor
from ocirt_cri.spec.inputs import CdiDocument, DeviceNode
from ocirt_cri.spec.seccomp import LIMIT as PROFILE_LIMIT
from ocirt_images.apply.merged import Merged
from ocirt_images.apply.names import Malformed
from ocirt_images.bundle.users import LIMIT
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, Self

    from ocirt_images.apply.merged import Found

CDI = ("/etc/cdi", "/var/run/cdi")  # the last one counts
MOUNTS = "/proc/self/mountinfo"
_MOST_DEVICES = 10000
_log = logging.getLogger(__name__)
_ESCAPES = ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\"))


class HostLookups:
    """One container's lookups. To be closed, or used as a context manager: the layers are held open."""

    def __init__(
        self,
        lowers: Sequence[Path],
        pid_namespace: Callable[[str], str] = lambda _: "",
        *,
        cdi: Sequence[str] = CDI,
        xattrs: str = "trusted",
    ) -> None:
        """lowers: the image's layers, the topmost first; pid_namespace: as `Lookups` has it; cdi: where specifications lie."""
        self._lowers = lowers
        self._pid_namespace = pid_namespace
        self._cdi = cdi
        self._xattrs = xattrs
        self._roots: list[int] = []
        self._merged: Merged | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the layers."""
        self._merged = None
        while self._roots:
            os.close(self._roots.pop())

    def resolve(self, path: str) -> str:
        """The absolute path without symlinks. Raises FileNotFoundError, OSError."""
        return os.path.realpath(path, strict=True)

    def propagation(self, path: str) -> str:
        """How the mount that `path` is on takes part: `shared` (a slave may be, too), `slave` or `private`. Raises OSError."""
        with open(MOUNTS, "rb") as file:
            return propagation_of(file.read(), os.fsencode(path))

    def devices(self, path: str) -> list[DeviceNode]:
        """The device at a path, or those below a directory. Raises FileNotFoundError, OSError, ValueError for another file."""
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return _devices_below(path)
        node = _node(path, found)
        if node is None:
            raise ValueError(path)
        return [node]

    def read(self, path: str) -> bytes:
        """A profile; one that is too long is cut, and then still too long. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return file.read(PROFILE_LIMIT + 1)

    def read_image(self, path: str) -> bytes | None:
        """A file of the image; None if there is none. Raises Error("invalid") for what is no plain file, or too long; OSError."""
        found = self._walk(path)
        if found is None:
            return None
        subject = f"{path} of the image"
        if not stat.S_ISREG(found.status.st_mode):
            raise Error("invalid", "not a plain file", subject=subject)
        if found.status.st_size > LIMIT:
            raise Error("invalid", f"{found.status.st_size} bytes", subject=subject, hint=f"{LIMIT} at most")
        parent, _, name = found.path.rpartition(b"/")
        with self._tree().opened(found.layer, parent) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            with open(os.open(name, flags, dir_fd=directory), "rb") as file:
                return file.read(LIMIT)

    def in_image(self, path: str) -> bool:
        """Whether the image has something there. Raises OSError."""
        return self._walk(path) is not None

    def pid_namespace(self, container: str) -> str:
        """The pid namespace of a running container of the same pod, "" if there is none."""
        return self._pid_namespace(container)

    def has_apparmor_profile(self, name: str) -> bool:
        """Whether the kernel has a profile. Raises OSError."""
        return apparmor.is_loaded(name)

    def load_apparmor_profile(self, name: str) -> None:
        """Load the runtime's own profile under this name. Raises Error."""
        if apparmor.load(name):
            _log.info("AppArmor: the profile %s was loaded", name)

    def warn(self, text: str) -> None:
        """Tell whoever looks after the node what a container has to do without."""
        _log.warning("%s", text)

    def cdi(self) -> list[CdiDocument]:
        """The specifications of the host; the document of one that cannot be read is None."""
        found = []
        for rank, directory in enumerate(self._cdi):
            for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
                if name.endswith((".json", ".yaml", ".yml")):
                    path = os.path.join(directory, name)
                    found.append(CdiDocument(directory=rank, path=path, document=_parsed(path)))
        return found

    def _walk(self, path: str) -> Found | None:
        try:
            return self._tree().walk(os.fsencode(path), follow=True) if self._lowers else None
        except Malformed as err:
            raise Error("invalid", str(err), subject=f"{path} of the image") from None

    def _tree(self) -> Merged:
        if self._merged is None:
            for path in self._lowers:
                self._roots.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            self._merged = Merged(self._roots, self._xattrs)
        return self._merged


def propagation_of(table: bytes, path: bytes) -> str:
    """The same of the contents of /proc/PID/mountinfo. `path` is absolute, and need not be there."""
    best, found = -1, "private"
    for line in table.split(b"\n"):
        fields = line.split(b" ")
        if len(fields) < 7:
            continue
        point = fields[4]
        for code, character in _ESCAPES:
            point = point.replace(code, character)
        point = point.rstrip(b"/")
        # Of mounts at one place the last is on top.
        if len(point) >= best and (path == point or path.startswith(point + b"/")):
            tags = fields[6 : fields.index(b"-", 6)]
            shared = any(tag.startswith(b"shared:") for tag in tags)
            slave = any(tag.startswith(b"master:") for tag in tags)
            best, found = len(point), "shared" if shared else "slave" if slave else "private"
    return found


def _devices_below(path: str) -> list[DeviceNode]:
    found: list[DeviceNode] = []
    for directory, directories, names in os.walk(path):
        directories.sort()
        for name in sorted(names):
            place = os.path.join(directory, name)
            try:
                node = _node(place, os.lstat(place))
            except FileNotFoundError:
                continue  # devices come and go
            if node is not None:
                found.append(node)
            if len(found) > _MOST_DEVICES:
                raise OSError(0, f"more than {_MOST_DEVICES} devices", path)
    return found


def _node(path: str, found: os.stat_result) -> DeviceNode | None:
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    return DeviceNode(
        path=path,
        kind=kind,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        mode=found.st_mode & 0o777,
        uid=found.st_uid,
        gid=found.st_gid,
    )


def _parsed(path: str) -> Any:
    """None for what cannot be read, or is YAML where nothing is installed that reads it."""
    try:
        with open(path, "rb") as file:
            data = file.read(PROFILE_LIMIT)
        if path.endswith(".json"):
            return json.loads(data)
        import yaml  # type: ignore[import-untyped]  # noqa: PLC0415  (only some vendors write YAML)

        return yaml.safe_load(data)
    except (OSError, ValueError, RecursionError, ImportError):
        return None
    except Exception as err:
        if type(err).__module__.partition(".")[0] != "yaml":
            raise
        return None
