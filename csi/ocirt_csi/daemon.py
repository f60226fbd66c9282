"""How the driver comes up, and how it ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from ocirt_api.csi import api_pb2 as csi
from ocirt_api.kubelet import registration_pb2 as registration
from ocirt_csi.config import Config, keep
from ocirt_csi.errors import Error
from ocirt_csi.parts import Parts
from ocirt_csi.server import Server
from ocirt_csi.services.identity import RegistrationService

_log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until a signal says to end. Raises Error, OSError."""
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(message)s", force=True)
    os.umask(0o077)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    parts = Parts(config.settings(), serves=True)
    servers: list[Server] = []
    try:
        keep(parts.driver.store, config)
        _warn_of_strangers(parts)
        servers.append(_started(Server(csi.DESCRIPTOR, parts.services), config.socket))
        if config.registration_dir:
            service = RegistrationService(parts.driver, config.socket)
            path = os.path.join(config.registration_dir, f"{config.name}-reg.sock")
            servers.append(_started(Server(registration.DESCRIPTOR, [service]), path))
        _log.info("ocirt-csi %s listens at %s", config.version, config.socket)
        ending.wait()
    finally:
        for server in reversed(servers):
            server.stop()
        parts.close()
    return 0


def _started(server: Server, path: str) -> Server:
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
    except OSError as err:
        raise Error("usage", "cannot be made", subject=folder, cause=err.strerror or "") from None
    server.start(path)
    return server


def _warn_of_strangers(parts: Parts) -> None:
    """Say that pools hold what the state does not know: it may have been lost."""
    store = parts.driver.store
    known = {one.place for one in store.things()}
    for pool in parts.driver.pools.values():
        strangers = [one.place for one in pool.notes() if os.path.basename(one.place) not in known]
        if strangers:
            text = "the pool %s holds %d volumes or snapshots that the state does not know, such as %s: see `ocirt-csi fsck`"
            _log.warning(text, pool.name, len(strangers), strangers[0])
