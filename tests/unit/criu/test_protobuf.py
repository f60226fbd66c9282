"""The codec: against the encoding's own documentation, against itself, and against Google's where that is installed."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.criu import rpc
from ocirt.criu.protobuf import decode, encode
from ocirt.errors import Error

if TYPE_CHECKING:
    from ocirt.criu.protobuf import Table

TABLE: Table = {
    "a": (1, int, False),
    "b": (2, str, False),
    "c": (3, {"a": (1, int, False)}, False),
    "list": (4, int, True),
    "flag": (16, bool, False),
    "names": (2047, str, True),
    "many": (5, {"a": (1, int, False), "b": (2, str, False)}, True),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
INT = st.integers(-(1 << 63), (1 << 63) - 1)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "a": INT,
        "b": TEXT,
        "c": st.fixed_dictionaries({}, optional={"a": INT}),
        "list": st.lists(INT, min_size=1),
        "flag": st.booleans(),
        "names": st.lists(TEXT, min_size=1),
        "many": st.lists(st.fixed_dictionaries({}, optional={"a": INT, "b": TEXT}), min_size=1),
    },
)


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ({"a": 150}, "08 96 01"),
        ({"b": "testing"}, "12 07 74 65 73 74 69 6e 67"),
        ({"c": {"a": 150}}, "1a 03 08 96 01"),
        ({"a": -1}, "08 ff ff ff ff ff ff ff ff ff 01"),
        ({"a": -2}, "08 fe ff ff ff ff ff ff ff ff 01"),
        ({"list": [1, 2, 3]}, "20 01 20 02 20 03"),
        ({"flag": True, "a": 0}, "80 01 01 08 00"),
        ({}, ""),
    ],
)
def test_the_encoding(message: dict[str, Any], data: str) -> None:
    assert encode(message, TABLE) == bytes.fromhex(data)
    assert decode(bytes.fromhex(data), TABLE) == message


def test_what_is_left_out_and_what_is_not_known() -> None:
    assert encode({"a": None, "list": []}, TABLE) == b""
    with pytest.raises(KeyError):
        encode({"nothing": 1}, TABLE)
    # fields 9 of all wire types, and then one that is known
    other = bytes.fromhex("48 01 49 0102030405060708 4a 02 6869 4d 01020304")
    assert decode(other + b"\x08\x05", TABLE) == {"a": 5}
    assert decode(b"\x08\x05\x08\x06", TABLE) == {"a": 6}, "the last one counts"


@given(MESSAGES)
def test_back_and_forth(message: dict[str, Any]) -> None:
    assert decode(encode(message, TABLE), TABLE) == message


@given(st.binary(max_size=60))
def test_what_comes_is_read_or_refused(data: bytes) -> None:
    try:
        decode(data, TABLE)
    except Error as err:
        assert err.code == "kernel"


@pytest.mark.parametrize("data", ["08", "08 80", "12 05 61", "0b", "0c", "0e", "0a 01 61", "10 01", "80" * 11, "11 01"])
def test_what_is_no_message(data: str) -> None:
    with pytest.raises(Error, match="cannot be read"):
        decode(bytes.fromhex(data), TABLE)


def everything(table: Table) -> dict[str, Any]:
    """A message with every field of a table."""
    values: dict[Any, Any] = {bool: True, int: 7, str: "x"}
    found = {}
    for name, (_, kind, repeated) in table.items():
        value = everything(kind) if isinstance(kind, dict) else values[kind]
        found[name] = [value, value] if repeated else value
    return found


GOOGLE = """
import json, sys
from pycriu import rpc_pb2
from google.protobuf.json_format import MessageToDict
request = rpc_pb2.criu_req()
request.ParseFromString(bytes.fromhex(sys.argv[1]))
assert not list(request.UnknownFields()) and not list(request.opts.UnknownFields())
print(json.dumps(MessageToDict(request, preserving_proto_field_name=True, use_integers_for_enums=True)))
"""


def test_the_numbers_are_those_of_criu() -> None:
    """Debian's criu comes with its messages for Google's library: it reads what we write, and knows every field."""
    there = subprocess.run(["/usr/bin/python3", "-c", "from pycriu import rpc_pb2"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip("no pycriu beside the system's Python")
    message = everything(rpc.REQUEST)
    message["type"] = message["opts"]["manage_cgroups_mode"] = 1
    data = encode(message, rpc.REQUEST).hex()
    done = subprocess.run(["/usr/bin/python3", "-c", GOOGLE, data], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == message
