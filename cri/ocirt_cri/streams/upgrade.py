"""What a client may ask for in the head of its request, and what it gets (no I/O).

A request names one transport and a list of protocols; of these the first that is spoken here is taken, as the kubelet's own
server (k8s.io/streaming) does it. With SPDY/3.1 it is told by X-Stream-Protocol-Version, with WebSocket by
Sec-WebSocket-Protocol.
"""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import sha1
from typing import TYPE_CHECKING

from ocirt_shim.remote import PORT_FORWARD, SPDY, TUNNEL, WEBSOCKET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SPDY_WORD = "SPDY/3.1"
_COMMANDS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_COMMANDS_BY_WEBSOCKET = (
    *("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"),
    "",
)
_FORWARDS = ("portforward.k8s.io",)
_FORWARDS_BY_WEBSOCKET = (TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_KEY = 24  # characters of Sec-WebSocket-Key


class Refused(Exception):
    """The request gets a status of HTTP, a sentence, and some headers."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class Upgrade:
    """What was agreed on. `answer`: the head that the client waits for."""

    __slots__ = ("answer", "protocol", "transport")

    def __init__(self, transport: str, protocol: str, answer: bytes) -> None:
        self.transport = transport
        self.protocol = protocol
        self.answer = answer


def agree(kind: str, method: str, headers: Iterable[tuple[str, str]]) -> Upgrade:
    """The upgrade that a request for `kind` gets; names of headers are in lower case. Raises Refused."""
    if method not in ("GET", "POST"):
        raise Refused(405, f"{method} is not served here: GET or POST", [("Allow", "GET, POST")])
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).extend(filter(None, (word.strip() for word in value.split(","))))
    wanted = [word.lower() for word in values.get("upgrade", ())]
    if "upgrade" not in [word.lower() for word in values.get("connection", ())]:
        wanted = []
    if "websocket" in wanted:
        return _websocket(kind, method, values)
    if _SPDY_WORD.lower() in wanted:
        return _spdy(kind, values)
    raise Refused(400, f"unable to upgrade: the request asks for neither {_SPDY_WORD} nor websocket by Connection and Upgrade")


def _spdy(kind: str, values: dict[str, list[str]]) -> Upgrade:
    name = "X-Stream-Protocol-Version"
    offered = values.get(name.lower(), [])
    if not offered:
        raise Refused(400, f"unable to upgrade: {name} is required")
    known = _FORWARDS if kind == PORT_FORWARD else _COMMANDS
    found = _first(offered, known)
    if found is None:
        accepted = [("X-Accepted-Stream-Protocol-Versions", one) for one in known]
        raise Refused(403, f"unable to upgrade: no protocol of {', '.join(offered)} is spoken here", accepted)
    return Upgrade(SPDY, found, _switch([("Upgrade", _SPDY_WORD), (name, found)]))


def _websocket(kind: str, method: str, values: dict[str, list[str]]) -> Upgrade:
    if method != "GET":
        raise Refused(405, "a WebSocket is asked for by GET", [("Allow", "GET")])
    if values.get("sec-websocket-version") != ["13"]:
        raise Refused(426, "Sec-WebSocket-Version has to be 13", [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")])
    key = values.get("sec-websocket-key", [])
    if len(key) != 1 or len(key[0]) != _KEY:
        raise Refused(400, "Sec-WebSocket-Key has to be 16 bytes in base64")
    known = _FORWARDS_BY_WEBSOCKET if kind == PORT_FORWARD else _COMMANDS_BY_WEBSOCKET
    offered = values.get("sec-websocket-protocol", [])
    found = _first(offered or [""], known)
    if found is None:
        raise Refused(403, f"no protocol of {', '.join(offered)} is spoken here: {', '.join(filter(None, known))}")
    accept = b2a_base64(sha1((key[0] + _GUID).encode(), usedforsecurity=False).digest(), newline=False).decode()
    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)]
    return Upgrade(WEBSOCKET, found, _switch(headers + ([("Sec-WebSocket-Protocol", found)] if found else [])))


def _first(offered: Iterable[str], known: Sequence[str]) -> str | None:
    for one in offered:
        if one in known:
            return one
    return None


def _switch(headers: Sequence[tuple[str, str]]) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", *(f"{name}: {value}" for name, value in headers)]
    return "".join(line + "\r\n" for line in (*lines, "")).encode()
