"""The one line of an error, and its JSON."""

from __future__ import annotations

import pytest

from ocirt_cni.errors import Error


@pytest.mark.parametrize(
    ("error", "line", "document"),
    [
        (Error(7, "bad"), "bad", {"msg": "bad"}),
        (Error(7, "bad", subject="/ipam"), "/ipam: bad", {"msg": "/ipam: bad"}),
        (Error(7, "bad", cause="EPERM"), "bad: EPERM", {"msg": "bad: EPERM"}),
        (
            Error(7, "bad", subject="eth0", cause="EPERM", hint="be root"),
            "eth0: bad: EPERM (be root)",
            {"msg": "eth0: bad: EPERM", "details": "be root"},
        ),
    ],
)
def test_an_error(error: Error, line: str, document: dict[str, str]) -> None:
    assert str(error) == line
    assert error.document("0.4.0") == {"cniVersion": "0.4.0", "code": 7, **document}
