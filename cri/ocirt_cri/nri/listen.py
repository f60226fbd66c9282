"""The socket at which plugins connect that somebody else has started."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import struct
from collections.abc import Callable

from ocirt_cri.nri.connection import Connection

_MODE = 0o600
_DIRECTORY = 0o700
_CREDENTIALS = struct.Struct("iII")  # of struct ucred
_log = logging.getLogger(__name__)


class Listener:
    """Between `start` and `close`. `connected` makes the connection of one more plugin, of which the pid is given."""

    def __init__(self, path: str, connected: Callable[[int], Connection]) -> None:
        self._path = path
        self._connected = connected
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen, unless another runtime does so there: its plugins are not taken away from it. Raises OSError."""
        if await asyncio.to_thread(_is_served, self._path):
            _log.error("another runtime listens at %s: plugins cannot connect to this one (key nri.socket)", self._path)
            return
        directory = os.path.dirname(self._path)
        os.makedirs(directory, _DIRECTORY, exist_ok=True)
        scratch = os.path.join(directory, f".{secrets.token_hex(4)}")
        os.mkdir(scratch, 0o700)
        listener = socket.socket(socket.AF_UNIX)
        try:
            bound = os.path.join(scratch, "s")
            listener.bind(bound)
            os.chmod(bound, _MODE)
            found = os.stat(bound)
            self._identity = found.st_dev, found.st_ino
            listener.setblocking(False)
            self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Accepted(self._connected), sock=listener)
            os.rename(bound, self._path)
        except BaseException:
            listener.close()
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _log.info("NRI plugins may connect at %s", self._path)

    def close(self) -> None:
        """Listen no more."""
        if self._server is None:
            return
        self._server.close()
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)
        except FileNotFoundError:
            pass


class _Accepted(asyncio.Protocol):
    """What has connected, until it is known who that is."""

    def __init__(self, connected: Callable[[int], Connection]) -> None:
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It becomes a plugin's."""
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("socket")
        pid, _, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        connection = self._connected(pid)
        transport.set_protocol(connection)
        connection.connection_made(transport)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
