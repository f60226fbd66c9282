"""Which proxy is used for which host."""

from __future__ import annotations

import pytest

from ocirt_images.errors import Error
from ocirt_images.registry import proxies

BOTH = {"HTTP_PROXY": "http://p1:1", "HTTPS_PROXY": "http://p2:2"}


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://r.example/a", {}, ""),
        ("https://r.example/a", BOTH, "http://p2:2"),
        ("http://r.example/a", BOTH, "http://p1:1"),
        ("https://r.example/a", {"https_proxy": "p3:3"}, "http://p3:3"),
        ("https://r.example/a", {**BOTH, "https_proxy": "p3:3"}, "http://p2:2"),
        ("https://r.example/a", {"HTTPS_PROXY": "https://u:p@p4:4"}, "https://u:p@p4:4"),
        ("http://localhost:5000/", BOTH, ""),
        ("http://127.9.9.9:5000/", BOTH, ""),
        ("http://[::1]:5000/", BOTH, ""),
    ],
)
def test_proxies(url: str, environ: dict[str, str], proxy: str) -> None:
    assert proxies.find(url, environ) == proxy


@pytest.mark.parametrize(
    ("excluded", "url", "direct"),
    [
        ("*", "https://r.example", True),
        ("r.example", "https://r.example", True),
        ("R.EXAMPLE", "https://r.example", True),
        ("example", "https://r.example", True),
        ("example", "https://rexample", False),
        (".example", "https://r.example", True),
        (".r.example", "https://r.example", False),
        ("*.example", "https://r.example", True),
        ("a, r.example ,b", "https://r.example", True),
        ("r.example:443", "https://r.example", True),
        ("r.example:80", "https://r.example", False),
        ("10.0.0.0/8", "https://10.1.2.3:5000", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://r.example", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.1.2.3:5000", "https://10.1.2.3:5000", True),
        ("10.1.2.3:5001", "https://10.1.2.3:5000", False),
        ("fd00::/8", "https://[fd00::1]:5000", True),
        ("[fd00::1]:5000", "https://[fd00::1]:5000", True),
        (",,", "https://r.example", False),
    ],
)
def test_exclusions(excluded: str, url: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert proxies.find(url, {**BOTH, name: excluded}) == ("" if direct else "http://p2:2")


@pytest.mark.parametrize(("value", "code"), [("socks5://p:1", "unsupported"), ("http://", "invalid"), ("http://p:x", "invalid")])
def test_proxies_that_cannot_be_used(value: str, code: str) -> None:
    with pytest.raises(Error) as caught:
        proxies.find("https://r.example", {"https_proxy": value})
    assert (caught.value.code, caught.value.subject) == (code, "https_proxy")


def test_a_proxys_password() -> None:
    assert proxies.bare("http://us%3Aer:p%40ss@p:1/x") == "http://p:1"
    assert proxies.headers("http://us%3Aer:p%40ss@p:1") == {"proxy-authorization": "Basic dXM6ZXI6cEBzcw=="}
    assert proxies.headers("http://p:1") == {}
