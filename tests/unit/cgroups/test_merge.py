"""What an update makes of a container's resources."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups.limits import writes
from ocirt.cgroups.merge import merge, source

MIB = 1 << 20


@pytest.mark.parametrize(
    ("old", "request_", "expected"),
    [
        ({}, {}, {}),
        ({"pids": {"limit": 3}}, {}, {"pids": {"limit": 3}}),
        ({"pids": {"limit": 3}}, {"pids": {"limit": 0}}, {"pids": {"limit": 0}}),
        ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"limit": 2}}, {"memory": {"limit": 2, "swap": 2}}),
        # Zero is what callers written in Go send for "not given".
        ({"memory": {"limit": 1}}, {"memory": {"limit": 0}}, {"memory": {"limit": 1}}),
        ({"cpu": {"quota": 5, "cpus": "0"}}, {"cpu": {"quota": 0, "cpus": ""}}, {"cpu": {"quota": 5, "cpus": "0"}}),
        ({"cpu": {"burst": 5}}, {"cpu": {"burst": 0}}, {"cpu": {"burst": 0}}),
        # Without a limit there is none of memory and swap together either, unless it is said.
        ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"limit": -1}}, {"memory": {"limit": -1}}),
        ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"limit": -1, "swap": -1}}, {"memory": {"limit": -1, "swap": -1}}),
        ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"limit": 3, "swap": 0}}, {"memory": {"limit": 3}}),
        ({"memory": {"limit": 1, "swap": 2}}, {"memory": {"swap": 0}}, {"memory": {"limit": 1, "swap": 2}}),
        ({"memory": {"limit": 1}}, {"memory": {"checkBeforeUpdate": True, "kernel": 5}}, {"memory": {"limit": 1}}),
        ({"cpu": {"quota": 5, "period": 9}}, {"cpu": {"quota": 7}}, {"cpu": {"quota": 7, "period": 9}}),
        ({"cpu": {"quota": 5}}, {"cpu": {"period": 7}}, {"cpu": {"quota": 5, "period": 7}}),
        # An idle group takes no weight.
        ({"cpu": {"shares": 512}}, {"cpu": {"idle": 1}}, {"cpu": {"idle": 1}}),
        ({"cpu": {"idle": 1}}, {"cpu": {"idle": 0, "shares": 9}}, {"cpu": {"idle": 0, "shares": 9}}),
        ({"blockIO": {"weight": 5}}, {"blockIO": {"weight": 0, "leafWeight": 3}}, {"blockIO": {"weight": 5, "leafWeight": 3}}),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}]}},
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 5}, {"major": 8, "minor": 0, "weight": 11}]}},
            {
                "blockIO": {
                    "weightDevice": [
                        {"major": 8, "minor": 0, "weight": 11, "leafWeight": 20},
                        {"major": 8, "minor": 16, "weight": 5},
                    ],
                },
            },
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 2}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 2}]},
        ),
        ({"rdma": {"a": {"hcaHandles": 1}}}, {"rdma": {"b": {}}}, {"rdma": {"a": {"hcaHandles": 1}, "b": {}}}),
        ({"unified": {"memory.high": "1"}}, {"unified": {"memory.high": "2"}}, {"unified": {"memory.high": "2"}}),
        (
            {"network": {"priorities": [{"name": "eth0", "priority": 1}]}},
            {"network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 2}]}},
            {"network": {"priorities": [{"name": "eth0", "priority": 2}], "classID": 5}},
        ),
        ({}, {"devices": [{"allow": True}]}, {}),
    ],
)
def test_merge(old: dict[str, Any], request_: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy((old, request_))
    assert merge(old, request_)[0] == expected
    assert (old, request_) == before


def test_pointers_into_the_request() -> None:
    """Also where a list's entry has another place there."""
    old = {"blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}]}, "pids": {"limit": 4}}
    new = {"blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 7, "rate": 1}, {"major": 1, "minor": 2, "rate": 9}]}}
    _, places = merge(old, new | {"unified": {"a/b~": "1"}})
    assert source("/blockIO/throttleReadBpsDevice/0", places) == "/blockIO/throttleReadBpsDevice/1"
    assert source("/blockIO/throttleReadBpsDevice/0/rate", places) == "/blockIO/throttleReadBpsDevice/1/rate"
    assert source("/blockIO/throttleReadBpsDevice/1", places) == "/blockIO/throttleReadBpsDevice/0"
    assert source("/unified/a~1b~0", places) == "/unified/a~1b~0"
    assert source("/unified", places) == "/unified"
    assert source("/pids/limit", places) is None


def written(old: dict[str, Any], new: dict[str, Any], mode: str) -> list[tuple[str, str]]:
    merged, places = merge(old, new)
    return [(entry[1], entry[2]) for entry in writes(merged, mode, "") if source(entry[3], places) is not None]


def test_only_what_is_asked_for_is_written() -> None:
    """And what is tied to it: version 2's files hold two of config.json's values."""
    old = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 7},
        "cpu": {"quota": 50000, "period": 200000, "cpus": "0", "shares": 512},
        "pids": {"limit": 5},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
    }
    assert written(old, {"pids": {"limit": -1}}, "v2") == [("pids.max", "max")]
    assert written(old, {"cpu": {"quota": 80000}}, "v2") == [("cpu.max", "80000 200000")]
    assert written(old, {"cpu": {"quota": -1}}, "v2") == [("cpu.max", "max 200000")]
    assert written(old, {"cpu": {"period": 100000}}, "v1") == [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")]
    swap = ("memory.swap.max", str(64 * MIB))
    assert written(old, {"memory": {"limit": 32 * MIB}}, "v2") == [swap, ("memory.max", str(32 * MIB))]
    assert written(old, {"memory": {"limit": -1}}, "v2") == [("memory.swap.max", "max"), ("memory.max", "max")]
    assert written(old, {"memory": {"reservation": 9}}, "v2") == [("memory.low", "9")]
    assert written(old, {"cpu": {"idle": 1}}, "v2") == [("cpu.idle", "1")]
    assert written(old | {"cpu": {"idle": 1}}, {"cpu": {"idle": 0, "shares": 512}}, "v1") == [
        ("cpu.idle", "0"),
        ("cpu.shares", "512"),
    ]


numbers = st.one_of(st.just(0), st.integers(-1, 1 << 40))
resources = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.dictionaries(st.sampled_from(["limit", "swap", "reservation", "swappiness"]), numbers),
        "cpu": st.dictionaries(st.sampled_from(["shares", "quota", "period", "burst", "idle"]), numbers),
        "pids": st.dictionaries(st.just("limit"), numbers),
        "unified": st.dictionaries(st.text(min_size=1), st.text()),
    },
)


@given(old=resources, new=resources)
def test_an_update_done_twice_is_done_once(old: dict[str, Any], new: dict[str, Any]) -> None:
    """And what it names is what the result has."""
    merged, places = merge(old, new)
    assert merge(merged, new) == (merged, places)
    for name, value in new.get("memory", {}).items():
        if value:
            assert merged["memory"][name] == value
            assert source("/memory/" + name, places) == "/memory/" + name
