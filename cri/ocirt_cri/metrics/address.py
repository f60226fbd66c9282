"""Where metrics may be asked for. On its own, as the configuration checks it, and the server is built with that."""

from __future__ import annotations

import ipaddress

from ocirt.errors import Error

_UNIX = "unix://"


def address(text: str, subject: str = "metrics.listen") -> tuple[str, int]:
    """A unix socket's path and 0, or an address of the loopback and its port. Raises Error("usage")."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if path.startswith("/") and not path.endswith("/"):
            return path, 0
    else:
        host, _, port = text.rpartition(":")
        try:
            if ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback and 0 < int(port) < 1 << 16:
                return host.strip("[]"), int(port)
        except ValueError:
            pass
    hint = "unix:///run/ocirt/metrics.sock, or 127.0.0.1:PORT: nobody outside of the machine is to reach it"
    raise Error("usage", f"{text!r} is no address for metrics", subject=subject, hint=hint)
