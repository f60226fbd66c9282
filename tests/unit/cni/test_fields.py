"""Fields that the configurations of several plugins have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.call import Call
from ocirt_cni.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, UNSUPPORTED_FIELD, Error
from ocirt_cni.plugins import fields


def call(conf: dict[str, Any], args: dict[str, str] | None = None) -> Call:
    """A DEL of the plugin x."""
    return Call("DEL", {"name": "net", "type": "x", **conf}, container="c1", ifname="eth0", args=args)


@given(st.binary(min_size=6, max_size=6), st.sampled_from(":-"))
def test_hardware_addresses(data: bytes, separator: str) -> None:
    text = data.hex(separator)
    if data[0] & 1 or not any(data):
        with pytest.raises(Error, match="is not the hardware address of one link"):
            fields.parse_mac(text, "/mac")
    else:
        assert fields.parse_mac(text, "/mac") == fields.parse_mac(text.upper(), "/mac") == data


@given(st.text())
def test_anything_else(text: str) -> None:
    try:
        assert len(fields.parse_mac(text, "/mac")) == 6
    except Error as err:
        assert (err.code, err.subject) == (INVALID_CONFIG, "/mac")


def test_the_order_of_hardware_addresses() -> None:
    one, two, three, four = (f"02:00:00:00:00:0{number}" for number in range(1, 5))
    layers: list[dict[str, Any]] = [
        {"mac": one},
        {"args": {"cni": {"mac": three}}},
        {"runtimeConfig": {"mac": four}},
    ]
    assert fields.mac(call({})) == b""
    assert fields.mac(call(layers[0])).hex(":") == one
    assert fields.mac(call(layers[0], {"MAC": two})).hex(":") == two
    assert fields.mac(call(layers[0] | layers[1], {"MAC": two})).hex(":") == three
    assert fields.mac(call(layers[0] | layers[1] | layers[2], {"MAC": two})).hex(":") == four


@pytest.mark.parametrize(
    ("args", "conf", "code", "subject"),
    [
        ({"MAC": "x"}, {}, INVALID_ENVIRONMENT, "CNI_ARGS"),
        ({}, {"mac": "x"}, INVALID_CONFIG, "/mac"),
        ({}, {"mac": 1}, INVALID_CONFIG, "/mac"),
        ({}, {"args": {"cni": {"mac": "x"}}}, INVALID_CONFIG, "/args/cni/mac"),
        ({}, {"runtimeConfig": {"mac": "x"}}, INVALID_CONFIG, "/runtimeConfig/mac"),
    ],
)
def test_which_hardware_address_is_wrong(args: dict[str, str], conf: dict[str, Any], code: int, subject: str) -> None:
    with pytest.raises(Error) as caught:
        fields.mac(call(conf, args))
    assert (caught.value.code, caught.value.subject) == (code, subject)


def test_unknown_fields() -> None:
    whole: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "ipam": {},
        "dns": {},
        "prevResult": {},
        "runtimeConfig": {},
        "args": {},
        "capabilities": {},
    }
    fields.refuse_unknown(call({**whole, "cni.dev/valid-attachments": [], "known": 1}), "known", "other")
    with pytest.raises(Error) as caught:
        fields.refuse_unknown(call({"know": 1}), "known", "other")
    assert caught.value.document("1.0.0") == {
        "cniVersion": "1.0.0",
        "code": UNSUPPORTED_FIELD,
        "msg": "/know: x has no such field",
        "details": "it has known, other",
    }


@pytest.mark.parametrize(
    ("value", "message"), [(-1, "-1 is not between 0 and 9"), (10, "10 is"), ("5", "this is"), (True, "this")]
)
def test_numbers(value: Any, message: str) -> None:
    with pytest.raises(Error) as caught:
        fields.number({"n": value}, "n", 0, 0, 9, "/here")
    assert caught.value.message.startswith(message)
    assert caught.value.subject == "/here/n"
    assert fields.number({"n": None}, "n", 7, 0, 9) == 7
    assert fields.number({"n": 9}, "n", 7, 0, 9) == 9
