"""dhcp: an address from the network's own DHCP server. A daemon asks for it, keeps it and gives it back (`dhcp_daemon`).

The executable ends with ADD, and somebody has to renew the lease. So all it does is ask: a line of JSON there, one back.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from ocirt_cni import jsonio
from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, INTERNAL, NOT_AVAILABLE, TRY_AGAIN_LATER, Error
from ocirt_cni.ipam import config
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/run/cni/dhcp.sock"
_BLOCK = 1 << 16


def add(call: Call) -> Result:
    """Get a lease for the interface, which has to be there. It takes as long as the server does. Raises Error."""
    return Result.parse(_ask(call)["result"], "")


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    from ocirt_cni.ipam import dhcp_options  # noqa: PLC0415  (the daemon reads it with other commands)

    config.section(call)
    dhcp_options.parse(call)


def delete(call: Call) -> None:
    """Give the lease back. Without a daemon nobody holds one."""
    try:
        _ask(call)
    except _NoDaemonError:
        return


def check(call: Call) -> None:
    """That the daemon holds the lease, and for the address that the previous result has."""
    held = Result.parse(_ask(call)["result"], "")
    had = {ip.address.address for ip in call.previous.ips} if call.previous is not None else set()
    for ip in held.ips:
        if had and ip.address.address not in had:
            raise Error(CHECK_FAILED, f"the lease is for {ip.address.address}", subject=str(call.attachment))


def gc(call: Call) -> None:
    """Give back the leases of attachments of this network that are not valid."""
    _ = call.valid
    try:
        _ask(call)
    except _NoDaemonError:
        return


def status(call: Call) -> None:
    """That the daemon is there. Raises Error(NOT_AVAILABLE)."""
    _ask(call)


class _NoDaemonError(Error):
    """Nobody listens."""


def _ask(call: Call) -> dict[str, Any]:
    path = field(config.section(call), "daemonSocketPath", str, "", config.WHERE) or SOCKET
    request = {
        "command": call.command,
        "container": call.container,
        "netns": os.path.abspath(call.netns) if call.netns else "",
        "ifname": call.ifname,
        "args": call.args,
        "conf": call.conf,
    }
    answer = jsonio.load_object(_exchange(path, jsonio.dumps(request).encode() + b"\n"), "the answer of the DHCP daemon")
    error = answer.get("error")
    if error is not None:
        raise Error(error["code"], error["message"], subject=error["subject"], cause=error["cause"], hint=error["hint"])
    return answer


def _exchange(path: str, line: bytes) -> bytes:
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        try:
            connection.connect(path)
        except OSError as err:
            hint = "start it by `ocirt-cni dhcp daemon`"
            cause = err.strerror or ""
            raise _NoDaemonError(NOT_AVAILABLE, "the DHCP daemon is not there", subject=path, cause=cause, hint=hint) from None
        parts = []
        try:
            connection.sendall(line)
            while part := connection.recv(_BLOCK):
                parts.append(part)
        except OSError as err:
            raise Error(INTERNAL, "the DHCP daemon does not answer", subject=path, cause=err.strerror or "") from None
    finally:
        connection.close()
    if not parts:
        raise Error(TRY_AGAIN_LATER, "the DHCP daemon ended before it answered", subject=path)
    if not parts[0].startswith(b"{"):
        hint = "the reference's daemon speaks another language; stop it, and start ours"
        raise Error(INTERNAL, "this is not our DHCP daemon", subject=path, hint=hint)
    return b"".join(parts)
