"""Where systemd makes the cgroup: init is handed over after its clone, and does nothing before that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ocirt.cgroups.units import Manager
from ocirt.errors import Error
from ocirt.plan import INIT, PARENT, STAGE
from ocirt.plan.create import cgroup_paths
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import (
    CGROUP,
    LIMITS,
    SYSTEMD,
    USERS_SYSTEMD,
    at,
    cases,
    create,
    execution,
    find,
    host,
    made,
    operations,
    request,
    staged_cases,
    the,
)

if TYPE_CHECKING:
    from ocirt.plan import Plan

PLANS = {
    name: made(build(), on, asked)
    for name, (build, on, asked) in (cases() | staged_cases()).items()
    if asked.cgroups == "systemd"
}
ASKED = request(cgroups="systemd")


def systemd(mode: str = "v2", manager: Manager = SYSTEMD, **edits: Any) -> Plan:
    """The plan of a container in a unit."""
    return create(host(mode, systemd=manager), request(cgroups="systemd"), **edits)


def properties(plan: Plan, operation: str = "systemd.start") -> dict[str, Any]:
    """The properties that systemd is given, without their types. A later one counts."""
    index = 2
    return {name: value for name, _, value in the(plan, operation)[2][index]}


@pytest.mark.parametrize("name", PLANS)
def test_init_waits_before_its_first_step(name: str) -> None:
    plan = PLANS[name]
    first = next(each[1:3] for each in plan if each[0] == INIT and each[2] != ("met",))
    assert first == ("sync.expect", ("grouped",))
    assert at(plan, "systemd.start", side=PARENT) < at(plan, "sync.tell", "grouped") < at(plan, "sync.expect", "grouped")
    # What clone3(2) and init do with cgroups that are there before.
    assert not find(plan, "cgroup.open")
    assert not find(plan, "cgroup.join")


@pytest.mark.parametrize("name", PLANS)
def test_nothing_is_made_before_the_clone(name: str) -> None:
    """systemd makes a scope around a process. What is in the way is seen before."""
    plan = PLANS[name]
    clone = find(plan, "process.clone")[-1]
    assert at(plan, "cgroup.check") < clone
    made_after = ("systemd.start", "cgroup.make", "cgroup.limit", "cgroup.device_program", "cgroup.device_rules", "cgroup.attach")
    assert all(min(found) > clone for operation in made_after if (found := find(plan, operation)))


@pytest.mark.parametrize("name", PLANS)
def test_with_each_change_the_device_rules_are_set_again(name: str) -> None:
    """systemd puts its own in their place."""
    plan = PLANS[name]
    for index in (*find(plan, "systemd.start"), *find(plan, "systemd.set_properties")):
        following = [each[1] for each in plan[index:] if each[0] == PARENT and each[1] not in ("cgroup.make", "cgroup.attach")]
        following = [operation for operation in following if operation != "cgroup.limit"]
        assert following[1] in ("cgroup.device_program", "cgroup.device_rules")


def test_the_steps_on_version_2() -> None:
    plan = systemd(cgroupsPath="a-b.slice:pod:c1", resources=LIMITS)
    paths = {"": CGROUP + "/a.slice/a-b.slice/pod-c1.scope"}
    assert the(plan, "systemd.start")[2][:2] == ("pod-c1.scope", False)
    assert the(plan, "systemd.start")[2][3] == paths
    given = properties(plan)
    assert given["Slice"] == "a-b.slice"
    assert given["MemoryMax"] == 1 << 26
    assert given["TasksMax"] == 7
    assert given["AllowedCPUs"] == b"\1"
    assert given["DevicePolicy"] == "strict"
    assert ("/dev/char/10:229", "rw") in given["DeviceAllow"]
    # The processor's are told when init is set up, and written then.
    assert not {name for name in given if name.startswith("CPU")} - {"CPUAccounting"}
    late = properties(plan, "systemd.set_properties")
    assert late == {"CPUWeight": 59, "CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 100000}
    assert at(plan, "sync.expect", "ready") < at(plan, "systemd.set_properties") < at(plan, "state.commit")
    limits = [entry[1:3] for index in find(plan, "cgroup.limit") for entry in plan[index][2][1]]
    assert ("memory.max", str(1 << 26)) in limits
    assert ("cpu.max", "50000 100000") in limits


@pytest.mark.parametrize("mode", ["v1", "hybrid"])
def test_the_steps_on_version_1(mode: str) -> None:
    plan = systemd(mode, resources=LIMITS)
    paths = the(plan, "systemd.start")[2][3]
    assert paths["freezer"] == CGROUP + "/freezer/system.slice/runc-c1.scope"
    assert ("" in paths) == (mode == "hybrid")
    # Also into the hierarchies that systemd knows nothing of.
    assert the(plan, "cgroup.attach")[2] == (paths,)
    assert properties(plan)["MemoryLimit"] == 1 << 26
    assert properties(plan, "systemd.set_properties")["CPUShares"] == 512
    assert len(find(plan, "cgroup.device_rules")) == 2


def test_without_limits_systemd_is_asked_once() -> None:
    plan = systemd()
    assert operations(plan).count("systemd.start") == 1
    assert not find(plan, "systemd.set_properties")
    assert not find(plan, "cgroup.limit")


def test_files_and_properties_have_the_same_quota() -> None:
    """systemd counts in whole percent: 12.345 % of a processor are 13 %."""
    plan = systemd(resources={"cpu": {"quota": 12345, "period": 100000}})
    assert properties(plan, "systemd.set_properties")["CPUQuotaPerSecUSec"] == 130000
    (entry,) = the(plan, "cgroup.limit")[2][1]
    assert entry[2] == "13000 100000"


def test_a_user_s_systemd() -> None:
    on = host(root=False, systemd=USERS_SYSTEMD)
    spec = edited(default_config(), cgroupsPath=":libpod:c1")
    paths = cgroup_paths(spec, on, ASKED)
    manager = "/user.slice/user-1000.slice/user@1000.service"
    assert paths == {"": CGROUP + manager + "/user.slice/libpod-c1.scope"}
    plan = made(spec, on, ASKED, paths)
    assert the(plan, "systemd.start")[2][:2] == ("libpod-c1.scope", True)
    assert properties(plan)["Slice"] == "user.slice"


def test_annotations_have_the_last_word() -> None:
    note = "org.systemd.property."
    plan = systemd(annotations={note + "Description": "'mine'", note + "TimeoutStopSec": "uint64 3", "other": "x"})
    given = properties(plan)
    assert given["Description"] == "mine"
    assert given["TimeoutStopUSec"] == 3000000


def test_a_hole_in_an_allowed_range_is_left_to_the_program() -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 7, "access": "rwm"},
        {"allow": False, "type": "c", "major": 7, "minor": 1, "access": "rwm"},
    ]
    assert properties(systemd(resources={"devices": rules}))["DevicePolicy"] == "auto"
    with pytest.raises(Error, match="punch hole"):
        systemd("v1", resources={"devices": rules})


def test_exec_of_root_goes_straight_into_the_cgroup() -> None:
    assert not find(execution(), "systemd.attach")


def test_exec_of_a_user_is_moved_by_systemd() -> None:
    """Out of a login session nobody but root may move a process."""
    nobody = host(root=False)
    kinds = ("pid", "mount", "user")
    plan = execution(nobody, kinds=kinds, unit="x-c1.scope", paths={"": CGROUP + "/c1/sub"})
    assert the(plan, "systemd.attach")[2] == ("x-c1.scope", CGROUP + "/c1", "/sub", 4242)
    assert at(plan, "process.clone", STAGE) < at(plan, "systemd.attach") < at(plan, "sync.tell", "grouped")
    assert next(each for each in plan if each[0] == STAGE)[1] == "sync.expect"
    assert not find(plan, "cgroup.open")
    assert the(plan, "process.clone")[4] is None
