"""Whatever a configuration says: an error of CNI's that names a place, or a result. (OCIRT_TEST_FUZZ: how long)"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Call
from ocirt_cni.errors import Error
from ocirt_cni.ipam import dhcp_options
from ocirt_cni.plugins import invoke
from ocirt_cni.results import Result

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from(
        ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.7", "fd00::/64", "::1", "0.0.0.0/0", "/", "1.1.0", "0.2.0", "routers", "12"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["subnet", "gateway", "address", "dst", "option", "value", "containerID", "x"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)
SOUND: dict[str, dict[str, Any]] = {
    "host-local": {
        "ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.1"}]],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400}],
    },
    "static": {
        "addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.1.0.1"]},
    },
    "dhcp": {
        "provide": [{"option": "host-name", "value": "v", "fromArg": "A"}],
        "request": [{"option": "6", "skipDefault": True}],
    },
}
MORE: dict[str, Any] = {
    "runtimeConfig": {"ips": ["10.1.0.9/24"], "ipRanges": [[{"subnet": "10.2.0.0/24"}]]},
    "args": {"cni": {"ips": ["10.1.0.9/24"]}},
    "cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}],
    "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/24"}]},
    "cniVersion": "1.1.0",
    "name": "net",
}


def places(value: Any) -> list[tuple[Any, ...]]:
    """The paths to all values within a document."""
    found: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(key,), *((key, *rest) for rest in places(inner))]
    return found


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A sound configuration with one to three values that are something else."""
    kind = draw(st.sampled_from(sorted(SOUND)))
    more = draw(st.sets(st.sampled_from(sorted(MORE)))) | {"cniVersion", "name"}
    document = copy.deepcopy({**{key: MORE[key] for key in more}, "type": "bridge", "ipam": {"type": kind, **SOUND[kind]}})
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places(document) if place != ("ipam", "type")]))
        where: Any = document
        for key in path[:-1]:
            where = where[key]
        where[path[-1]] = draw(ANYTHING)
        if not isinstance(document["ipam"], dict):
            break
    return kind, json.loads(json.dumps(document))


@given(
    documents(), st.sampled_from([ADD, DEL, CHECK, GC, STATUS]), st.sampled_from([{}, {"IP": "10.1.0.9"}, {"IP": "x", "A": "b"}])
)
def test_an_error_or_a_result(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, dict[str, Any]], command: str, args: dict[str, str]
) -> None:
    kind, document = pair
    folder = tmp_path_factory.getbasetemp() / "any"
    if isinstance(document["ipam"], dict) and kind == "host-local":
        document["ipam"]["dataDir"] = str(folder)
    options: dict[str, Any] = {"container": "c1", "ifname": "eth0", "netns": "/n"} if command in (ADD, DEL, CHECK) else {}
    try:
        call = Call(command, document, args=args, **options)
        if kind == "dhcp":
            dhcp_options.parse(call)
            return
        result = invoke(kind, call)
    except Error as err:
        assert err.subject, err
        assert 0 < err.code < 1000
    else:
        assert (result is not None) == (command == ADD)
        if result is not None:
            assert Result.parse(result.document(call.version)).ips
    finally:
        if kind == "host-local":
            clean_up(folder)


def clean_up(folder: Path) -> None:
    """Free what was leased."""
    for path in folder.rglob("10.*"):
        path.unlink()
