"""Who tells the kernel how to treat a process, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.plan import INIT, PARENT, STAGE
from ocirt.plan.scheduling import words
from tests.unit.plan.plans import SCHEDULING, USER, create, execution, find, host, in_order, operations, spaces, the

BATCH = {"scheduler": SCHEDULING["scheduler"], "ioPriority": SCHEDULING["ioPriority"]}


def test_nothing_is_said_without_a_word_of_it() -> None:
    for plan in (create(), execution()):
        assert not [each for each in plan if each[1].startswith("scheduling.")]


@pytest.mark.parametrize("plan", [create(process=BATCH, resources={"cpu": {"shares": 2}}), execution(**BATCH)])
def test_the_parent_has_the_rights_of_the_host(plan: Any) -> None:
    """After the limits of the cgroup, which give a share of real-time; and while it can still fail."""
    assert the(plan, "scheduling.set_scheduler", side=PARENT)[2] == (3, 1, 5, 0, 0, 0, 0)
    assert the(plan, "scheduling.set_io_priority", side=PARENT)[2] == (2 << 13 | 3,)
    in_order(plan, "sync.expect", "scheduling.set_scheduler", "scheduling.set_io_priority", "state.commit")


@pytest.mark.parametrize("on", [host(root=False), host(user_namespace=True)])
def test_where_it_has_none_init_does_it_as_root(on: Any) -> None:
    for plan in (
        create(on, process=BATCH, namespaces=spaces("pid", "mount", "user", "uts"), linux=USER, resources={}),
        execution(on, kinds=("mount", "user"), paths={}, **BATCH),
    ):
        assert the(plan, "scheduling.set_scheduler")[0] == the(plan, "scheduling.set_io_priority")[0] == INIT
        in_order(plan, "user.become_root", "scheduling.set_scheduler", "process.limit_bounding_set", "user.become")


def test_of_the_container() -> None:
    linux = {"personality": {"domain": "LINUX32"}, "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,65"}}
    plan = create(linux=linux)
    assert the(plan, "scheduling.set_personality", side=INIT)[2] == (8,)
    assert the(plan, "scheduling.set_memory_policy", side=INIT)[2] == (2, (1).to_bytes(8, "little") + (2).to_bytes(8, "little"))
    assert the(create(linux={"memoryPolicy": {"mode": "MPOL_LOCAL"}}), "scheduling.set_memory_policy")[2] == (4, b"")


@pytest.mark.parametrize(("root", "side"), [(True, INIT), (False, STAGE)])
def test_affinity(root: bool, side: str) -> None:
    """`initial` is lent for the clone, `final` comes in the cgroup; without a word of both, or for init, it is all CPUs."""
    on, paths = host(root=root), {"": "/c"}
    for section in (None, {}, {"initial": ""}):
        assert the(execution(on, kinds=("mount", "user"), execCPUAffinity=section), "process.reset_affinity", side=side)[4]
    both = execution(on, kinds=("mount", "user"), paths=paths, execCPUAffinity={"initial": "1", "final": "2"})
    lend = find(both, "scheduling.lend_affinity", words(2), side=PARENT)[0]
    assert [each[1] for each in both[lend : lend + 3]] == [
        "scheduling.lend_affinity",
        "process.clone",
        "scheduling.return_affinity",
    ]
    assert the(both, "scheduling.set_affinity", side=side)[2] == (words(4),)
    in_order(both, "cgroup.join", "scheduling.set_affinity", "namespace.join_target")
    initial = operations(execution(on, kinds=("mount", "user"), execCPUAffinity={"initial": "1"}))
    assert "scheduling.lend_affinity" in initial
    assert not {"scheduling.set_affinity", "process.reset_affinity"} & set(initial)
    final = operations(execution(on, kinds=("mount", "user"), execCPUAffinity={"final": "1"}))
    assert "scheduling.set_affinity" in final
    assert not {"scheduling.lend_affinity", "process.reset_affinity"} & set(final)
    assert the(create(process={"execCPUAffinity": {"final": "1"}}), "process.reset_affinity", side=INIT)


@given(st.integers(0, 1 << 300))
def test_words(mask: int) -> None:
    assert int.from_bytes(words(mask), "little") == mask
    assert len(words(mask)) % 8 == 0
