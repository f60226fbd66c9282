"""The plan of `exec`: into what is the container's, and nothing else."""

from __future__ import annotations

from errno import EBUSY

import pytest

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, STAGE
from tests.unit.plan.plans import (
    ALL_KINDS,
    CGROUP,
    CONTROLLERS,
    RLIMITS,
    SECCOMP,
    at,
    execution,
    find,
    host,
    in_order,
    operations,
    request,
    the,
)

FLAGS = {
    "network": k.CLONE_NEWNET,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "mount": k.CLONE_NEWNS,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
    "user": k.CLONE_NEWUSER,
}
SHARED = [
    ("mount",),
    ("mount", "pid"),
    ("mount", "pid", "uts", "ipc"),
    ALL_KINDS,
    (*ALL_KINDS, "time"),
    (*ALL_KINDS, "user"),
    ("mount", "user", "pid", "uts", "ipc"),
]


@pytest.mark.parametrize("kinds", SHARED)
def test_root_joins_by_its_own_rights(kinds: tuple[str, ...]) -> None:
    plan = execution(kinds=kinds)
    joins = [each[:3] for each in plan if each[1] == "namespace.join_target"]
    if "pid" in kinds:
        # It counts for the next child: so the parent does it, right before the clone.
        assert joins[0] == (PARENT, "namespace.join_target", (k.CLONE_NEWPID,))
        assert at(plan, "namespace.join_target", k.CLONE_NEWPID) + 1 == at(plan, "process.clone")
        assert at(plan, "process.protect", side=PARENT) < at(plan, "namespace.join_target", k.CLONE_NEWPID)
    (own,) = [each for each in joins if each[0] == INIT]
    wanted = sum(flag for kind, flag in FLAGS.items() if kind in kinds)
    assert own[2][0] & wanted == wanted
    assert not own[2][0] & k.CLONE_NEWPID
    assert bool(own[2][0] & k.CLONE_NEWUSER) == ("user" in kinds)
    assert bool(own[2][0] & k.CLONE_NEWTIME) == ("time" in kinds)
    assert len(find(plan, "user.become_root")) == ("user" in kinds)
    assert operations(plan, STAGE) == []


@pytest.mark.parametrize("kinds", [kinds for kinds in SHARED if "user" in kinds])
def test_nobody_in_particular_goes_by_way_of_a_stage(kinds: tuple[str, ...]) -> None:
    plan = execution(host(root=False), kinds=kinds, paths={})
    assert operations(plan, STAGE) == [
        "process.protect",
        "process.reset_affinity",
        "namespace.join_target",
        "process.clone_sibling",
    ]
    assert the(plan, "process.clone")[2] == (STAGE, 0)
    assert the(plan, "process.clone_sibling")[2] == (INIT, 0)
    joined = the(plan, "namespace.join_target")[2][0]
    assert joined & k.CLONE_NEWUSER
    assert bool(joined & k.CLONE_NEWPID) == ("pid" in kinds)
    in_order(plan, "process.clone", "namespace.join_target", "process.clone_sibling", "process.meet", "user.become_root")
    assert the(plan, "user.become")[2][3] is True


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("kinds", [kinds for kinds in SHARED if "user" in kinds])
def test_nothing_is_joined_that_is_the_host_s(kinds: tuple[str, ...], root: bool) -> None:
    """A namespace that init shares with the host belongs to a user namespace in which the joiner has no rights (EPERM)."""
    plan = execution(host(root=root), kinds=kinds, paths={})
    allowed = sum(flag for kind, flag in FLAGS.items() if kind in kinds) | (k.CLONE_NEWPID if "pid" in kinds else 0)
    for each in plan:
        if each[1] == "namespace.join_target":
            assert each[2][0] & ~allowed == 0


@pytest.mark.parametrize("plan", [execution(), execution(host(root=False), kinds=(*ALL_KINDS, "user"))])
def test_a_process_is_in_the_cgroup_and_protected_before_it_joins(plan: object) -> None:
    assert isinstance(plan, list)
    in_order(plan, "process.open_target", "cgroup.open", "sync.open", "process.clone", "cgroup.join")
    join = max(index for index in find(plan, "namespace.join_target") if plan[index][0] != PARENT)
    side = plan[join][0]
    assert at(plan, "cgroup.join", side=side) < join
    assert find(plan, "process.protect", side=side)[0] < join


def test_a_busy_cgroup() -> None:
    """Where the container has handed on its controllers, the process goes to where init is."""
    assert the(execution(), "process.clone")[4] == {EBUSY: ("process.clone_beside", (INIT, 4242))}
    user = execution(host(root=False), kinds=(*ALL_KINDS, "user"))
    assert the(user, "process.clone")[4] == {EBUSY: ("process.clone_beside", (STAGE, 4242))}
    for paths in ({}, {name: f"{CGROUP}/{name}/x" for name in CONTROLLERS}):
        plan = execution(host("v1"), paths=paths)
        assert the(plan, "process.clone")[4] is None
        assert len(find(plan, "cgroup.open")) == len(find(plan, "cgroup.join")) == bool(paths)


def test_a_terminal_is_not_the_container_s_console() -> None:
    plan = execution(asked=request(console="socket"))
    assert [each[1] for each in plan if each[1].startswith("console.")] == ["console.open", "console.send", "console.receive"]
    in_order(plan, "namespace.join_target", "process.open_root", "console.open", "process.close_descriptors", "user.become")


def test_the_tree_is_left_as_it_is() -> None:
    plan = execution(asked=request(pipes=True, console="attached"), seccomp=SECCOMP, rlimits=RLIMITS, cwd="/gone")
    for operation in operations(plan):
        assert not operation.startswith(("mount.", "device.", "hooks.", "barrier."))
        assert operation not in ("tree.pivot", "tree.make_directory", "tree.sysctl", "process.set_host_name", "cgroup.limit")


def test_the_container_is_the_recorded_one() -> None:
    assert the(execution(), "process.open_target")[2] == (4242, 7)


def test_the_filter_is_the_container_s() -> None:
    plan = execution(seccomp=SECCOMP)
    assert the(plan, "program.load_filter")[2] == ("/run/state", SECCOMP)
    assert at(plan, "program.load_filter") < at(plan, "process.clone") < at(plan, "program.filter")
    assert not find(execution(), "program.filter")
