"""The head of a request, cut at every byte; and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cri.streams.heads import LARGEST, Head, refusal
from ocirt_cri.streams.upgrade import Refused

HEAD = (
    b"POST /exec/abc?x=1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
)
REST = b"\x80\x03\x00\x01\r\n\r\n"


def check(head: Head) -> None:
    assert (head.method, head.route(), head.rest) == ("POST", ("exec", "abc"), REST)
    versions = [value for name, value in head.headers if name == "x-stream-protocol-version"]
    assert versions == ["v4.channel.k8s.io", "v3.channel.k8s.io"]


@pytest.mark.parametrize("at", range(1, len(HEAD)))
def test_cut_in_two(at: int) -> None:
    head = Head()
    assert not head.feed(HEAD[:at])
    assert head.feed(HEAD[at:] + REST)
    check(head)


def test_byte_by_byte() -> None:
    head = Head()
    for at in range(len(HEAD) - 1):
        assert not head.feed(HEAD[at : at + 1])
    assert head.feed(HEAD[-1:] + REST)
    check(head)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),  # TLS
        (b"GET /exec/a HTTP/1.1\r\n\r\n", 400),  # no host
        (b"POST /exec/a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /exec/a HTTP/1.1\r\nHost: h\r\nX: " + bytes(LARGEST), 431),
    ],
)
def test_what_is_no_head(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as said:
        Head().feed(data)
    assert said.value.status == status


def test_an_end_too_early() -> None:
    head = Head()
    head.feed(HEAD[:20])
    with pytest.raises(Refused):
        head.feed(b"")
    with pytest.raises(Refused, match="not whole"):
        Head().feed(b"")


@pytest.mark.parametrize("path", ["/", "/exec", "/exec/", "/exec/a/b", "/run/a", "exec/a", "//exec/a", "/exec//a"])
def test_paths_that_lead_nowhere(path: str) -> None:
    head = Head()
    assert head.feed(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    with pytest.raises(Refused) as said:
        head.route()
    assert said.value.status == 404


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    head = Head()
    try:
        head.feed(data)
    except Refused:
        pass


def test_a_refusal() -> None:
    answer = refusal(Refused(405, "no PUT", [("Allow", "GET")]))
    assert answer == (
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 7\r\n"
        b"Connection: close\r\nAllow: GET\r\n\r\nno PUT\n"
    )
