"""What a client may ask for, and what it gets."""

from __future__ import annotations

import pytest

from ocirt_cri.streams.upgrade import Refused, agree
from ocirt_shim.remote import ATTACH, EXEC, PORT_FORWARD, TUNNEL

SPDY = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = [
    *(("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")),
    *(("sec-websocket-version", "13"), ("sec-websocket-key", KEY)),
]


def spdy(*versions: str) -> list[tuple[str, str]]:
    return SPDY + [("x-stream-protocol-version", one) for one in versions]


def websocket(*protocols: str) -> list[tuple[str, str]]:
    return WEBSOCKET + [("sec-websocket-protocol", one) for one in protocols]


@pytest.mark.parametrize(
    ("kind", "headers", "transport", "protocol"),
    [
        (EXEC, spdy("v4.channel.k8s.io", "v3.channel.k8s.io"), "spdy", "v4.channel.k8s.io"),
        (EXEC, spdy("v5.channel.k8s.io", "v2.channel.k8s.io"), "spdy", "v2.channel.k8s.io"),
        (ATTACH, spdy("v9.x, channel.k8s.io"), "spdy", "channel.k8s.io"),
        (PORT_FORWARD, spdy("portforward.k8s.io"), "spdy", "portforward.k8s.io"),
        (EXEC, websocket("v5.channel.k8s.io"), "websocket", "v5.channel.k8s.io"),
        (EXEC, websocket("x", "v4.channel.k8s.io, v5.channel.k8s.io"), "websocket", "v4.channel.k8s.io"),
        (ATTACH, websocket(), "websocket", ""),
        (PORT_FORWARD, websocket(TUNNEL), "websocket", TUNNEL),
        (PORT_FORWARD, websocket("v4.base64.channel.k8s.io"), "websocket", "v4.base64.channel.k8s.io"),
    ],
)
def test_agreed(kind: str, headers: list[tuple[str, str]], transport: str, protocol: str) -> None:
    found = agree(kind, "GET", headers)
    assert (found.transport, found.protocol) == (transport, protocol)
    lines = found.answer.decode().split("\r\n")
    assert lines[:2] == ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
    assert lines[-2:] == ["", ""]
    if transport == "websocket":
        assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines  # the example of RFC 6455
        assert (f"Sec-WebSocket-Protocol: {protocol}" in lines) == bool(protocol)
    else:
        assert {"Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {protocol}"} <= set(lines)


def test_spdy_by_post() -> None:
    assert agree(EXEC, "POST", spdy("v4.channel.k8s.io")).transport == "spdy"


@pytest.mark.parametrize(
    ("kind", "method", "headers", "status"),
    [
        (EXEC, "PUT", spdy("v4.channel.k8s.io"), 405),
        (EXEC, "POST", websocket("v4.channel.k8s.io"), 405),
        (EXEC, "GET", [], 400),
        (EXEC, "GET", [("upgrade", "SPDY/3.1")], 400),
        (EXEC, "GET", [("connection", "close"), ("upgrade", "SPDY/3.1")], 400),
        (EXEC, "GET", [("connection", "upgrade"), ("upgrade", "h2c")], 400),
        (EXEC, "GET", SPDY, 400),
        (EXEC, "GET", spdy("v5.channel.k8s.io"), 403),
        (EXEC, "GET", spdy("portforward.k8s.io"), 403),
        (PORT_FORWARD, "GET", spdy("v4.channel.k8s.io"), 403),
        (EXEC, "GET", websocket("v3.channel.k8s.io"), 403),
        (EXEC, "GET", [*WEBSOCKET[:2], ("sec-websocket-key", KEY)], 426),
        (EXEC, "GET", [*WEBSOCKET[:2], ("sec-websocket-version", "8"), ("sec-websocket-key", KEY)], 426),
        (EXEC, "GET", WEBSOCKET[:3], 400),
        (EXEC, "GET", [*WEBSOCKET[:3], ("sec-websocket-key", "short")], 400),
    ],
)
def test_refused(kind: str, method: str, headers: list[tuple[str, str]], status: int) -> None:
    with pytest.raises(Refused) as said:
        agree(kind, method, headers)
    assert said.value.status == status
    assert said.value.text


def test_who_is_refused_is_told_what_is_spoken() -> None:
    with pytest.raises(Refused) as said:
        agree(EXEC, "GET", spdy("v5.channel.k8s.io"))
    names = [value for _, value in said.value.headers]
    assert names == ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
