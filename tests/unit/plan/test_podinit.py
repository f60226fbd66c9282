"""The plan of a pod's init."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.kernel import constants as k
from ocirt.plan.podinit import JOINED, plan_podinit
from tests.unit.plan import checks
from tests.unit.plan.plans import at, find, host, operations, the
from tests.unit.plan.world import World

PATHS = {kind: f"/proc/7/fd/{number}" for number, kind in enumerate(JOINED)}
ALL: list[dict[str, str]] = [{}, {"ipc": "/x"}, {kind: path for kind, path in PATHS.items() if kind != "user"}, PATHS]


def plan(joined: dict[str, str], cgroups: dict[str, str] | None = None, on: Any = None) -> Any:
    return plan_podinit(joined, {"": "/sys/fs/cgroup/p"} if cgroups is None else cgroups, "/podinit", -998, on or host())


@pytest.mark.parametrize("joined", ALL)
@pytest.mark.parametrize("nested", [False, True])
def test_what_holds_for_every_plan(joined: dict[str, str], nested: bool) -> None:
    found = plan(joined, on=host(user_namespace=nested))
    for rule in (checks.binds, checks.is_plain, checks.slots, checks.paths_are_clean):
        rule(found)
    assert World(found).problems == set()


@pytest.mark.parametrize("joined", ALL)
def test_its_namespaces(joined: dict[str, str]) -> None:
    found = plan(joined)
    assert {found[index][2][0] for index in find(found, "namespace.join")} == {"namespace/" + kind for kind in joined}
    clone = the(found, "process.clone_sibling" if "user" in joined else "process.clone", "init")
    assert clone[2][1] == k.CLONE_NEWPID | k.CLONE_NEWNS


def test_rights_go_one_after_the_other() -> None:
    """And nothing of the host is in sight when the last step comes."""
    found = plan(PATHS)
    order = ["podinit.load", "process.clone", "process.protect", "tree.pivot", "process.close_descriptors"]
    order += ["process.limit_bounding_set", "user.become", "process.set_capabilities", "process.no_new_privileges"]
    order += ["process.outlive_parent", "state.commit", "podinit.execute"]
    places = [at(found, name) if name != "process.protect" else find(found, name)[0] for name in order]
    assert places == sorted(places)
    assert the(found, "process.set_capabilities")[2] == (0, 0, 0)
    assert found[-1][1] == "podinit.execute"


def test_without_cgroups_it_stays_in_the_callers() -> None:
    assert not {"cgroup.open", "cgroup.join"} & set(operations(plan({}, {})))
