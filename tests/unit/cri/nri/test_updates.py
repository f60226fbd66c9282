"""Limits of containers that exist: many plugins' updates as one, and three tongues for the same."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import resources
from ocirt_cri.nri.owners import Owners
from ocirt_cri.nri.updates import Updates, lay_over
from tests.unit.cri.nri.messages import limits
from tests.unit.cri.spec.requests import HOST


def update(identifier: str, shares: int, **more: Any) -> nri.ContainerUpdate:
    document = {"containerId": identifier, "linux": {"resources": {"cpu": {"shares": {"value": shares}}}}, **more}
    return json_format.ParseDict(document, nri.ContainerUpdate())


def test_updates_of_many_plugins() -> None:
    updates = Updates(Owners())
    updates.apply([update("a", 1), update("b", 2, ignoreFailure=True)], "10-one")
    more = nri.ContainerUpdate(container_id="a", ignore_failure=True)
    more.linux.resources.cpu.quota.value = 5
    updates.apply([more], "20-two")
    first, second = updates.others
    assert (first.container_id, first.linux.resources.cpu.shares.value, first.linux.resources.cpu.quota.value) == ("a", 1, 5)
    assert (first.ignore_failure, second.ignore_failure) == (False, True)
    with pytest.raises(Error, match="'30-three' and '10-one' both tried to set CPUShares"):
        updates.apply([update("a", 3)], "30-three")
    updates.apply([update("a", 4, ignoreFailure=True)], "40-four")
    assert updates.others[0].linux.resources.cpu.shares.value == 1


def test_the_container_whose_limits_change() -> None:
    wanted = nri.LinuxResources()
    wanted.cpu.shares.value, wanted.cpu.quota.value = 1, 2
    updates = Updates(Owners(), updating="a", wanted=wanted)
    updates.apply([update("a", 0), update("b", 4)], "10-one")
    assert [one.container_id for one in updates.others] == ["b"]
    assert updates.own.cpu.HasField("shares")
    assert (updates.own.cpu.shares.value, updates.own.cpu.quota.value) == (0, 2)
    assert wanted.cpu.shares.value == 1


@given(there=limits(), wanted=limits())
def test_laying_over(there: nri.LinuxResources, wanted: nri.LinuxResources) -> None:
    """What is set is as wanted, and all else as it was; once more changes nothing."""
    found = nri.LinuxResources()
    found.CopyFrom(there)
    lay_over(found, wanted)
    document, before, asked = (resources.to_document(one) for one in (found, there, wanted))
    for section in ("memory", "cpu", "unified", "pids"):
        assert document.get(section, {}) == before.get(section, {}) | asked.get(section, {})
    assert {one["pageSize"]: one["limit"] for one in document.get("hugepageLimits", [])} == {
        one["pageSize"]: one["limit"] for one in [*before.get("hugepageLimits", []), *asked.get("hugepageLimits", [])]
    }
    again = nri.LinuxResources()
    again.CopyFrom(found)
    lay_over(again, wanted)
    assert resources.to_document(again) | {"hugepageLimits": []} == document | {"hugepageLimits": []}


@given(there=limits())
def test_a_document_and_back(there: nri.LinuxResources) -> None:
    assert resources.of_document(resources.to_document(there)) == there


@given(there=limits(), wanted=limits())
def test_over_a_document(there: nri.LinuxResources, wanted: nri.LinuxResources) -> None:
    """As over a message, on a host that has everything."""
    found = resources.laid_over(resources.to_document(there), wanted, HOST)
    expected = nri.LinuxResources()
    expected.CopyFrom(there)
    lay_over(expected, wanted)
    if wanted.memory.HasField("limit") and not wanted.memory.HasField("swap"):
        expected.memory.swap.value = wanted.memory.limit.value
    assert {one["pageSize"] for one in found.pop("hugepageLimits", [])} == {one.page_size for one in expected.hugepage_limits}
    del expected.hugepage_limits[:]
    assert found == resources.to_document(expected)


_NUMBERS = st.integers(0, 1 << 40)


@given(numbers=st.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS), cpus=st.sampled_from(["", "0-3"]))
def test_limits_of_a_request_and_back(numbers: tuple[int, ...], cpus: str) -> None:
    given = cri.LinuxContainerResources(
        memory_limit_in_bytes=numbers[0],
        memory_swap_limit_in_bytes=numbers[1],
        cpu_shares=numbers[2],
        cpu_quota=numbers[3],
        cpu_period=numbers[4],
        cpuset_cpus=cpus,
        hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=5)],
        unified={"memory.high": "1"},
    )
    found = cri.LinuxContainerResources()
    resources.into_cri(resources.of_cri(given), found)
    assert found == given
    resources.into_cri(resources.of_cri(given), found)
    assert found == given
