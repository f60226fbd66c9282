"""OCI runtimes of others, which handlers name: whether they are there, and what they can do.

Containers are made by the shim (`ocirt_shim.foreign`). Here a runtime is only asked for its features, as the kernel's alone do
not say what it will do with a mount.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ocirt.errors import Error

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host

_PATIENCE = 10.0  # seconds for `features`
_RECURSIVE = "rro"  # the mount option


@dataclass(frozen=True, slots=True)
class Features:
    """What a runtime says that it can do; nothing of one that does not say it."""

    recursive_read_only: bool = False

    def host(self, host: Host) -> Host:
        """The machine, as containers of this runtime see it.

        Their roots are mounted in directories that are for root alone, and the root of a user namespace would not get there.
        """
        return replace(host, recursive_read_only=host.recursive_read_only and self.recursive_read_only, user_namespaces=False)


class Runtimes:
    """Each is asked once, and again when its file is another."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], Features]] = {}

    async def features(self, path: str) -> Features:
        """Of the runtime at a path. Raises Error if it cannot be executed."""
        return await asyncio.to_thread(self._features, path)

    def _features(self, path: str) -> Features:
        try:
            found = os.stat(path)
            if not os.access(path, os.X_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as err:
            hint = "install it, or change `runtime.path` of the handler in ocirtd.toml"
            raise Error(
                "state", "the handler's runtime cannot be executed", subject=path, cause=err.strerror or "", hint=hint
            ) from None
        stamp = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = stamp, ask(path)
        return known[1]


def ask(path: str) -> Features:
    """What `features` of a runtime says. For a thread."""
    try:
        done = subprocess.run([path, "features"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False)
        return read(json.loads(done.stdout)) if done.returncode == 0 else Features()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return Features()


def read(said: Any) -> Features:
    """The document of `features` (runtime-spec, features.md)."""
    options = said.get("mountOptions") if isinstance(said, dict) else None
    return Features(recursive_read_only=isinstance(options, list) and _RECURSIVE in options)
