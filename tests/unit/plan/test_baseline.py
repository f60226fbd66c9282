"""What comes from a baseline and not from the caller."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.plan import INIT, PARENT
from ocirt.plan.baseline import LIMITS
from ocirt.spec.rlimits import NUMBERS
from tests.unit.plan.plans import RLIMITS, USER, at, create, execution, find, operations, request, spaces, the

ASKED = request(baseline=True)


def test_all_limits_are_there() -> None:
    assert LIMITS.keys() == NUMBERS.keys()
    assert all(soft <= hard for soft, hard in LIMITS.values())


@pytest.mark.parametrize("asked", [True, False])
def test_only_who_asks_gets_one(asked: bool) -> None:
    for plan in (create(None, request(baseline=asked)), execution(None, request(baseline=asked))):
        assert ("baseline.limit" in operations(plan)) == asked
        assert ("baseline.reset" in operations(plan)) == asked


@pytest.mark.parametrize("build", [create, execution])
def test_who_does_what(build: Any) -> None:
    """The parent may raise limits, which init may not; all of it before init says that it is ready."""
    plan = build(None, ASKED)
    ready = at(plan, "sync.expect", "ready")
    for operation, side in (
        ("baseline.schedule", PARENT),
        ("baseline.limit", INIT),
        ("baseline.reset", INIT),
    ):
        assert the(plan, operation)[0] == side
        assert at(plan, "process.clone") < at(plan, operation) < ready
    # Then the parent may not look at init any more, without a right of its own.
    assert at(plan, "baseline.limit") < at(plan, "user.become")


@pytest.mark.parametrize("build", [create, execution])
def test_limits_of_a_user_namespace(build: Any) -> None:
    """Init may not raise them; the parent does, once init has done what it can."""
    if build is create:
        plan = create(None, ASKED, namespaces=spaces("mount", "pid", "user", "uts"), linux=USER)
    else:
        plan = execution(None, ASKED, kinds=("mount", "user"))
    assert at(plan, "sync.expect", "ready") < at(plan, "baseline.raise_limits") < at(plan, "state.commit")
    assert the(plan, "baseline.raise_limits")[2] == the(plan, "baseline.limit")[2]
    assert "baseline.raise_limits" not in operations(build(None, ASKED))


@pytest.mark.parametrize("build", [create, execution])
def test_config_json_comes_first(build: Any) -> None:
    section = {"policy": "SCHED_IDLE"}
    edits: dict[str, Any] = {
        "rlimits": RLIMITS,
        "oomScoreAdj": 5,
        "scheduler": section,
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
    }
    plan = create(None, ASKED, process=edits) if build is create else execution(None, ASKED, **edits)
    numbers = {number for number, _, _ in the(plan, "baseline.limit")[2][0]}
    assert numbers == set(NUMBERS.values()) - {NUMBERS[str(limit["type"])] for limit in RLIMITS}
    assert the(plan, "baseline.schedule")[2] == (False, False)
    assert [plan[index][2] for index in find(plan, "process.set_oom_score")] == [(5,)]


def test_the_score_of_who_joins_is_the_containers() -> None:
    plan = execution(None, ASKED, kept={"process": {"args": ["x"], "oomScoreAdj": 300}})
    assert the(plan, "process.set_oom_score")[2] == (300,)
    assert the(create(None, ASKED, oomScoreAdj=None), "process.set_oom_score")[2] == (0,)


def test_pipes_are_given_where_init_cannot() -> None:
    plan = create(namespaces=spaces("mount", "pid", "user", "uts"), linux=USER, user={"uid": 7, "gid": 8})
    assert the(plan, "stdio.give")[:3] == (PARENT, "stdio.give", (7,))
    assert at(plan, "sync.expect", "ready") < at(plan, "stdio.give") < at(plan, "state.commit")
    assert not find(create(), "stdio.give")
