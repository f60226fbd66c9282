"""Scheduling, affinity, memory policy and personality: what is refused, and lists of numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.spec.check import check
from ocirt.spec.process import check_process_document
from ocirt.spec.scheduling import members
from tests.unit.spec.documents import changed

DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2048, "period": 4096}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("/process/scheduler", {"policy": "SCHED_OTHER", "nice": -20}),
        ("/process/scheduler", {"policy": "SCHED_BATCH", "nice": 19, "flags": []}),
        ("/process/scheduler", {"policy": "SCHED_FIFO", "priority": 99}),
        ("/process/scheduler", {"policy": "SCHED_RR", "priority": 1, "nice": 100}),
        ("/process/scheduler", {"policy": "SCHED_IDLE", "priority": 0}),
        ("/process/scheduler", {"policy": "SCHED_ISO"}),
        ("/process/scheduler", DEADLINE),
        ("/process/scheduler", DEADLINE | {"period": 0, "nice": 19, "priority": 0}),
        ("/process/ioPriority", {"class": "IOPRIO_CLASS_IDLE"}),
        ("/process/ioPriority", {"class": "IOPRIO_CLASS_RT", "priority": 7}),
        ("/process/execCPUAffinity", {}),
        ("/process/execCPUAffinity", {"initial": "", "final": " 0-3 , 7,"}),
        ("/linux/memoryPolicy", {"mode": "MPOL_DEFAULT"}),
        ("/linux/memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": ""}),
        ("/linux/memoryPolicy", {"mode": "MPOL_PREFERRED"}),
        ("/linux/memoryPolicy", {"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0-65536", "flags": ["MPOL_F_NUMA_BALANCING"]}),
        ("/linux/personality", {"domain": "LINUX32", "flags": []}),
    ],
)
def test_accepted(place: str, value: Any) -> None:
    assert check(changed({place: value})) == []


@pytest.mark.parametrize(
    ("place", "value", "pointer", "message"),
    [
        ("/process/scheduler", {}, "", 'lacks "policy"'),
        ("/process/scheduler", {"policy": "SCHED_BATHC"}, "/policy", "not known"),
        ("/process/scheduler", {"policy": "SCHED_OTHER", "flags": ["RESET"]}, "/flags/0", "not known"),
        ("/process/scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "/nice", "out of range"),
        ("/process/scheduler", {"policy": "SCHED_BATCH", "nice": -21}, "/nice", "out of range"),
        ("/process/scheduler", {"policy": "SCHED_BATCH", "priority": 1}, "/priority", "no priorities"),
        ("/process/scheduler", {"policy": "SCHED_FIFO"}, "", "needs a priority"),
        ("/process/scheduler", {"policy": "SCHED_RR", "priority": 100}, "/priority", "needs a priority"),
        ("/process/scheduler", {"policy": "SCHED_IDLE", "period": 1}, "/period", "has no period"),
        ("/process/scheduler", {"policy": "SCHED_DEADLINE"}, "", "needs a runtime"),
        ("/process/scheduler", DEADLINE | {"runtime": 4096}, "", "within a deadline"),
        ("/process/scheduler", DEADLINE | {"runtime": 10}, "", "needs a runtime"),
        ("/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "/priority", "out of range"),
        ("/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": -1}, "/priority", "out of range"),
        ("/process/ioPriority", {"priority": 1}, "", 'lacks "class"'),
        ("/process/execCPUAffinity", {"initial": "0-"}, "/initial", "is not a number"),
        ("/process/execCPUAffinity", {"final": "3-1"}, "/final", "ends before it begins"),
        ("/process/execCPUAffinity", {"final": ","}, "/final", "has no members"),
        ("/linux/memoryPolicy", {}, "", 'lacks "mode"'),
        ("/linux/memoryPolicy", {"mode": "INTERLEAVE", "nodes": "0"}, "/mode", "not known"),
        ("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": ["x"]}, "/flags/0", "not known"),
        ("/linux/memoryPolicy", {"mode": "MPOL_DEFAULT", "nodes": "0-7"}, "/nodes", "requires 0 nodes but got 8"),
        ("/linux/memoryPolicy", {"mode": "MPOL_BIND"}, "", "at least one node but got 0"),
        ("/linux/memoryPolicy", {"mode": "MPOL_INTERLEAVE", "nodes": ""}, "/nodes", "at least one node but got 0"),
        ("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0-9876543210"}, "/nodes", "above 65536"),
        ("/linux/personality", {}, "", 'lacks "domain"'),
        ("/linux/personality", {"domain": "LINUX64"}, "/domain", "not known"),
    ],
)
def test_refused(place: str, value: Any, pointer: str, message: str) -> None:
    findings = check(changed({place: value}))
    assert [(found[0], found[3]) for found in findings] == [(place + pointer, "error")]
    assert message in findings[0][1]
    assert findings[0][2]


def test_flags_of_a_personality_are_ignored() -> None:
    (finding,) = check(changed({"/linux/personality": {"domain": "LINUX", "flags": ["x"]}}))
    assert (finding[0], finding[3]) == ("/linux/personality/flags", "warning")


def test_a_process_json_is_held_to_the_same() -> None:
    document = {"args": ["sh"], "cwd": "/", "scheduler": {"policy": "SCHED_BATCH", "nice": 20}}
    assert [found[0] for found in check_process_document(document)] == ["/scheduler/nice"]


@given(st.sets(st.integers(0, 300), min_size=1), st.randoms())
def test_lists(numbers: set[int], random: Any) -> None:
    """Any way to write a set down means that set."""
    parts, rest = [], sorted(numbers)
    while rest:
        first = last = rest.pop(0)
        while rest and rest[0] == last + 1 and random.random() < 0.8:
            last = rest.pop(0)
        parts.append(f"{first}-{last}" if last > first or random.random() < 0.2 else str(first))
    random.shuffle(parts)
    parts += random.sample(["", " "], random.randint(0, 2))
    text = ",".join(random.choice(["", " "]) + part for part in parts)
    assert members(text) == sum(1 << number for number in numbers)


@given(st.text(alphabet="0123456789-, x٣", max_size=12))
def test_what_is_no_list_is_said_so(text: str) -> None:
    try:
        found = members(text)
    except ValueError as err:
        assert str(err)
    else:
        assert (found > 0) == bool(text)
