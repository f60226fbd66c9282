"""A pod's own /etc/hosts, /etc/resolv.conf and /etc/hostname, in its directory below the state directory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_api.cri import api_pb2 as cri

HOSTS, RESOLV_CONF, HOSTNAME = "hosts", "resolv.conf", "hostname"
_ETC = "/etc"
_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def make(
    directory: str, config: cri.PodSandboxConfig, hostname: str, owner: tuple[int, int], *, etc: str = _ETC
) -> dict[str, str]:
    """Write them; their paths by name. owner: of the host's ids, root of the pod's user namespace. Raises OSError."""
    os.makedirs(directory, 0o711, exist_ok=True)
    texts = {
        HOSTS: _read(os.path.join(etc, "hosts")) or _LOOPBACK.encode(),
        RESOLV_CONF: resolv_conf(config.dns_config, _read(os.path.join(etc, "resolv.conf")), given=config.HasField("dns_config")),
        HOSTNAME: f"{hostname}\n".encode(),
    }
    found = {}
    for name, data in texts.items():
        path = os.path.join(directory, name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with open(fd, "wb") as file:
            file.write(data)
            os.fchmod(fd, 0o644)  # whatever the umask
            if owner != (0, 0):
                os.fchown(fd, *owner)
        found[name] = path
    return found


def remove(directory: str) -> None:
    """Remove them. It is no error if they are gone. Raises OSError."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        pass


def resolv_conf(wanted: cri.DNSConfig, host: bytes, *, given: bool) -> bytes:
    """The file for what a pod wants; the host's where it says nothing."""
    if not given or not (wanted.servers or wanted.searches or wanted.options):
        return host
    lines = []
    if wanted.searches:
        lines.append(_line("search", wanted.searches))
    lines += [f"nameserver {server}" for server in wanted.servers]
    if wanted.options:
        lines.append(_line("options", wanted.options))
    return "".join(line + "\n" for line in lines).encode()


def _line(word: str, values: Iterable[str]) -> str:
    return " ".join((word, *values))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
