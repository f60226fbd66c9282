"""Headers that say more than a word, redirects, and a registry's own words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.errors import Error
from ocirt_images.registry.messages import (
    Answer,
    Headers,
    Request,
    content_range,
    next_link,
    origin,
    place,
    redirected,
    retry_after,
    words,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SECRETS = {"Authorization": "Basic eA==", "Cookie": "c", "X-Team": "a", "Accept": "x", "Range": "bytes=1-2", "User-Agent": "o"}


def test_headers() -> None:
    headers = Headers([("A", "1"), ("b", "2"), ("a", "3")])
    assert (headers.all("A"), headers.get("B"), headers.get("c", "x")) == (["1", "3"], "2", "x")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thursday, 01-Jan-26 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("99999999999999999999", 9999999999.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_takes_anything(value: str) -> None:
    found = retry_after(value)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bytes 0-9/100", (0, 10, 100)),
        ("bytes 5-5/*", (5, 6, None)),
        ("bytes */100", (None, None, 100)),
        ("bytes 0-9", (None, None, None)),
        ("items 0-9/100", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_content_range(value: str, found: object) -> None:
    assert content_range(value) == found


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (['</v2/a/tags/list?n=2&last=b>; rel="next"'], "/v2/a/tags/list?n=2&last=b"),
        (["<a>; rel=next"], "a"),
        (['<a,b;c>; title="x, y"; REL="prev next"'], "a,b;c"),
        (['<first>; rel="prev", <second>; type="a/b"; rel="last next"'], "second"),
        (["<a>; rel=prev", "<b>; rel=next"], "b"),
        (["<a>"], ""),
        (["a; rel=next"], ""),
        ([], ""),
    ],
)
def test_next_link(values: list[str], target: str) -> None:
    assert next_link(values) == target


@given(st.lists(st.text()))
def test_next_link_takes_anything(values: list[str]) -> None:
    assert isinstance(next_link(values), str)


@pytest.mark.parametrize(
    ("start", "location", "url", "kept"),
    [
        ("https://r.example/v2/a", "/b?c=d", "https://r.example/b?c=d", True),
        ("https://r.example/v2/a", "https://r.example:443/b", "https://r.example:443/b", True),
        ("https://r.example/v2/a", "b#part", "https://r.example/v2/b", True),
        ("https://r.example/v2/a", "https://s3.example/x?sig=1", "https://s3.example/x?sig=1", False),
        ("https://r.example/v2/a", "https://r.example:444/b", "https://r.example:444/b", False),
        ("https://r.example/v2/a", "https://sub.r.example/b", "https://sub.r.example/b", False),
        ("http://r.example/v2/a", "https://r.example/b", "https://r.example/b", False),
        ("http://r.example/v2/a", "//other.example/b", "http://other.example/b", False),
    ],
)
def test_what_goes_along_on_a_redirect(start: str, location: str, url: str, kept: bool) -> None:
    request = redirected(Request(method="GET", url=start, headers=SECRETS), location)
    assert request.url == url
    assert set(request.headers) == (set(SECRETS) if kept else {"Accept", "Range", "User-Agent"})


@pytest.mark.parametrize(
    ("location", "code", "text"),
    [
        ("http://r.example/b", "unavailable", "plain HTTP"),
        ("file:///etc/shadow", "invalid", "not an http or https URL"),
        ("https://:99/", "invalid", "not an http or https URL"),
        ("https://r.example:99999/", "invalid", "not a URL"),
        ("https://[::1/", "invalid", "no URL"),
    ],
)
def test_redirects_that_are_not_followed(location: str, code: str, text: str) -> None:
    with pytest.raises(Error) as caught:
        redirected(Request(method="GET", url="https://r.example/a"), location)
    assert caught.value.code == code
    assert text in str(caught.value)


def test_origin_and_place() -> None:
    assert origin("https://R.example/a") == ("https", "r.example", 443)
    assert origin("http://[::1]:5000/") == ("http", "::1", 5000)
    assert place("https://user:secret@r.example:5000/a") == "r.example:5000"


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", b'{"errors":[{"code":"DENIED","message":"no\\u0007pe"},{"code":"X"}]}', "DENIED: no pe; X"),
        ("application/json", b'{"details":"incorrect username or password"}', "incorrect username or password"),
        ("application/json", b'{"error":"invalid_grant"}', "invalid_grant"),
        ("application/json", b'{"errors":"many"}', ""),
        ("application/json", b'{"errors":[1, null, {"code": null}]}', ""),
        ("application/json", b"[1]", ""),
        ("application/json", b"[" * 100_000, ""),
        ("text/plain; charset=utf-8", b"404 page\n not found\n", "404 page not found"),
        ("text/html", b"<html>", ""),
        ("text/plain", b"x" * 1000, "x" * 300),
        ("text/plain", b"\x1b[31mred", "[31mred"),
    ],
)
def test_words(kind: str, body: bytes, text: str) -> None:
    assert words(Answer(status=400, url="", headers=Headers([("Content-Type", kind)]), body=body)) == text
