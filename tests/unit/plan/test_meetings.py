"""Parent, stage and init meet: every message finds who waits for it, and nobody waits for ever, in whichever order they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ocirt.plan import INIT, PARENT, STAGE, step
from tests.unit.plan.plans import HOOKS, at, cases, create, executions, find, made, rootless_executions, staged_cases
from tests.unit.plan.world import World

if TYPE_CHECKING:
    from ocirt.plan import Plan

PLANS = {name: made(build(), on, asked) for name, (build, on, asked) in cases().items()} | {
    "exec, " + name: plan for name, plan in executions().items()
}
# Those in which a stage makes init, and init has nothing to wait for.
STAGED = {name: made(build(), on, asked) for name, (build, on, asked) in staged_cases().items()} | {
    "exec, " + name: plan for name, plan in rootless_executions().items()
}
ALL = PLANS | STAGED
WORLDS: dict[str, World] = {}


def world(name: str) -> World:
    """The world of a plan, explored once."""
    if name not in WORLDS:
        WORLDS[name] = World(ALL[name])
    return WORLDS[name]


@pytest.mark.parametrize("name", PLANS)
def test_nobody_waits_for_ever(name: str) -> None:
    assert world(name).problems == set()


@pytest.mark.parametrize("name", STAGED)
def test_nobody_waits_for_ever_where_a_stage_makes_init(name: str) -> None:
    """Init may be quicker than the stage, which has still to tell its pid: nothing of init's may come before that."""
    assert world(name).problems == set()


@pytest.mark.parametrize("name", ALL)
def test_every_point_is_told_once_and_expected_once_by_the_other_side(name: str) -> None:
    plan = ALL[name]
    told = {(each[0], each[2][0]) for each in plan if each[1] == "sync.tell"}
    # Where there is a stage, it stands for the child until init is there.
    child = {STAGE: INIT}
    heard = {(child.get(each[0], each[0]), each[2][0]) for each in plan if each[1] in ("sync.expect", "sync.leave_parent")}
    assert len([each for each in plan if each[1] == "sync.tell"]) == len(told)
    other = {PARENT: INIT, INIT: PARENT}
    assert {(other[side], point) for side, point in told} == heard
    assert all(each[0] == INIT for each in plan if each[1] == "sync.leave_parent")


@pytest.mark.parametrize("name", ALL)
def test_the_socket_is_there_before_the_first_child(name: str) -> None:
    plan = ALL[name]
    assert at(plan, "sync.open") < min(find(plan, "process.clone"))
    assert the_sides_that_are_made(plan) == [side for side in (STAGE, INIT) if find_side(plan, side)]


def the_sides_that_are_made(plan: Plan) -> list[str]:
    """Which children come to be, in order."""
    return [each[2][0] for each in plan if each[1] in ("process.clone", "process.clone_sibling")]


def find_side(plan: Plan, side: str) -> bool:
    """Whether a side has steps."""
    return any(each[0] == side for each in plan)


@pytest.mark.parametrize("name", ALL)
def test_a_container_is_committed_when_nothing_can_fail_but_the_tail(name: str) -> None:
    """The last of init's steps before `committed` that may fail are behind it when the parent writes the record."""
    plan, all_ways = ALL[name], world(name)
    commit = at(plan, "state.commit")
    assert all_ways.always_before(at(plan, "program.find"), commit)
    assert all_ways.always_before(commit, at(plan, "program.prepare"))
    for index in find(plan, "process.raise_limit"):
        assert all_ways.always_before(index, at(plan, "program.prepare"))
    assert plan[max(index for index, each in enumerate(plan) if each[0] == PARENT)][1:3] == ("sync.tell", ("committed",))


@pytest.mark.parametrize("name", ALL)
def test_init_dies_with_the_parent_until_it_waits_for_it(name: str) -> None:
    plan = ALL[name]
    assert at(plan, "process.die_with_parent") < at(plan, "process.outlive_parent")
    assert at(plan, "process.outlive_parent") < at(plan, "sync.tell", "ready") < at(plan, "sync.leave_parent")
    between = [each for each in plan[at(plan, "process.outlive_parent") : at(plan, "sync.leave_parent")] if each[0] == INIT]
    assert [each[1] for each in between] == ["process.outlive_parent", "sync.tell"]


@pytest.mark.parametrize("name", ALL)
def test_what_the_parent_does_to_its_child_comes_before_the_child_hides(name: str) -> None:
    """A process that is not dumpable has files in /proc that belong to root: a runtime that is not root could not write them."""
    plan, all_ways = ALL[name], world(name)
    hides = min(find(plan, "process.protect"))
    writes = [index for operation in ("process.set_oom_score", "user.map") for index in find(plan, operation)]
    if "rootless" not in name:
        return
    for index in writes:
        assert all_ways.always_before(index, hides), plan[index]


@pytest.mark.parametrize("name", ALL)
def test_the_score_is_the_program_s(name: str) -> None:
    """It is written to init, or to whom init gets it from, before the container counts as made."""
    plan, all_ways = ALL[name], world(name)
    for index in find(plan, "process.set_oom_score"):
        staged = find(plan, "process.clone_sibling")
        before_init = not staged or all_ways.always_before(index, staged[0])
        to_init = not staged or all_ways.always_before(at(plan, "process.meet"), index)
        assert before_init or to_init
        assert all_ways.always_before(index, len(plan) - 1)


@pytest.mark.parametrize("name", ALL)
def test_a_mapping_is_there_before_somebody_becomes_its_root(name: str) -> None:
    plan, all_ways = ALL[name], world(name)
    for mapping in find(plan, "user.map"):
        assert all_ways.always_before(mapping, at(plan, "user.become_root"))
        for idmap in find(plan, "idmap.map"):
            if not plan[idmap][2][2]:  # as init's own namespace does
                assert all_ways.always_before(mapping, idmap)
    for idmap in find(plan, "idmap.map"):
        assert all_ways.always_before(idmap, at(plan, "mount.attach", plan[idmap][2][0]))


def test_hooks_of_the_parent_run_when_all_is_mounted_and_before_init_goes_on() -> None:
    plan, all_ways = ALL["everything"], world("everything")
    hooks = [index for index in find(plan, "hooks.run") if plan[index][0] == PARENT]
    assert [plan[index][2][0] for index in hooks] == ["prestart", "prestart", "createRuntime", "createRuntime"]
    for index in hooks:
        assert all_ways.always_before(at(plan, "device.link_ptmx"), index)
        assert all_ways.always_before(index, find(plan, "hooks.run", "createContainer")[0])
        assert all_ways.always_before(index, at(plan, "tree.pivot"))


@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer"])
@pytest.mark.parametrize("operation", ["namespace.loopback_up_of_init", "cgroup.device_program"])
def test_what_the_parent_does_meanwhile_is_done_before_anybody_else_s_program_runs(operation: str, kind: str) -> None:
    """The loopback device, and which devices may be used: hooks and the container's program find them as they are to be."""
    plan = create(hooks={kind: HOOKS[kind]})
    if kind == "createContainer" and operation == "namespace.loopback_up_of_init":
        operation = "namespace.loopback_up"  # init's own, as nothing would make it wait for the parent
    all_ways = World(plan)
    for other in [*find(plan, "hooks.run"), len(plan) - 1]:
        assert all_ways.always_before(at(plan, operation), other)


# -- the model itself ----------------------------------------------------------------------------------------------------------


def small(*steps: tuple[str, str, str]) -> World:
    """The world of a plan of three-word steps."""
    head = [step(PARENT, "process.clone", INIT, 0)]
    return World(head + [step(side, operation, word) for side, operation, word in steps])


def test_the_model_finds_a_deadlock() -> None:
    found = small((PARENT, "sync.expect", "a"), (PARENT, "sync.tell", "b"), (INIT, "sync.expect", "b"), (INIT, "sync.tell", "a"))
    assert found.problems == {"parent stands still at step 1", "init stands still at step 3"}


def test_the_model_finds_a_wrong_order() -> None:
    found = small((INIT, "sync.tell", "a"), (INIT, "sync.tell", "b"), (PARENT, "sync.expect", "b"), (PARENT, "sync.expect", "a"))
    assert "parent waits for 'b' (step 3) and may get 'a'" in found.problems


def test_the_model_finds_what_nobody_reads() -> None:
    assert small((INIT, "sync.tell", "a")).problems == {"nobody reads ('a',)"}


def test_the_model_knows_what_is_not_ordered() -> None:
    found = small((INIT, "x", ""), (INIT, "sync.tell", "a"), (PARENT, "y", ""), (PARENT, "sync.expect", "a"), (PARENT, "z", ""))
    assert found.problems == set()
    assert found.always_before(1, 5)
    assert found.always_before(2, 4)
    assert not found.always_before(1, 3)
    assert not found.always_before(3, 1)
