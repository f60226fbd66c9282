"""When resctrl groups are made and joined, and what a host must have for that."""

from __future__ import annotations

from errno import ENOENT
from typing import Any

import pytest

from ocirt.cgroups.resctrl import Resctrl
from ocirt.errors import Error
from ocirt.plan import PARENT
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import at, create, execution, find, host, made, spaces, the
from tests.unit.plan.world import World

ROOT = "/sys/fs/resctrl"


def of(rdt: dict[str, Any], **edits: Any) -> Any:
    return create(host(rdt=True), linux={"intelRdt": rdt}, **edits)


@pytest.mark.parametrize(
    ("rdt", "group", "monitor", "text", "shared"),
    [
        ({}, "/c1", "", "", False),
        ({"closID": "", "enableMonitoring": True}, "/c1", "/c1/mon_groups/c1", "", False),
        ({"closID": "gold", "enableMonitoring": True}, "/gold", "/gold/mon_groups/c1", "", True),
        ({"closID": "/", "enableMonitoring": True}, "", "/mon_groups/c1", "", True),
        (
            {"schemata": ["L2:0=1", "", "L3:1=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"},
            "/c1",
            "",
            "L3:0=f\nMB:0=20\nL2:0=1\nL3:1=f\n",
            False,
        ),
    ],
)
def test_which_groups(rdt: dict[str, Any], group: str, monitor: str, text: str, shared: bool) -> None:
    plan = of(rdt)
    monitor = monitor and ROOT + monitor
    assert the(plan, "resctrl.make")[0] == the(plan, "resctrl.join")[0] == PARENT
    assert the(plan, "resctrl.make")[2:4] == ((ROOT, ROOT + group, monitor, text, shared), "/linux/intelRdt")
    assert the(plan, "resctrl.join")[2:4] == ((ROOT, ROOT + group, monitor), "/linux/intelRdt")


@pytest.mark.parametrize("namespaces", [spaces("mount", "uts"), spaces("mount", "uts", user="/u", network="/n")])
def test_init_is_in_them_before_any_program_runs(namespaces: list[Any]) -> None:
    plan = of({}, namespaces=namespaces, hooks={"createRuntime": [{"path": "/h"}]})
    world = World(plan)
    assert world.problems == set()
    assert at(plan, "resctrl.make") < find(plan, "process.clone")[0]
    for other in [at(plan, "hooks.run"), at(plan, "state.commit"), len(plan) - 1]:
        assert world.always_before(at(plan, "resctrl.join"), other)


def test_exec_is_where_the_container_is() -> None:
    plan = execution(kept={"resctrl": {"root": "/r", "group": "/r/x", "monitor": "/r/x/mon_groups/c1", "created": []}})
    assert the(plan, "resctrl.join")[2:] == (("/r", "/r/x", "/r/x/mon_groups/c1"), "/linux/intelRdt", {ENOENT: None})
    assert find(plan, "process.clone")[0] < at(plan, "resctrl.join") < at(plan, "state.commit")
    assert not find(execution(), "resctrl.join")


@pytest.mark.parametrize(
    ("rdt", "resources", "pointer", "words"),
    [
        ({}, None, "", "intelRdt is specified in config, but Intel RDT is not enabled"),
        ({"l3CacheSchema": "L3:0=1"}, ["MB"], "/l3CacheSchema", "but Intel RDT/CAT is not enabled"),
        ({"memBwSchema": "MB:0=1"}, ["L3"], "/memBwSchema", "but Intel RDT/MBA is not enabled"),
        ({"enableMonitoring": True}, ["L3"], "/enableMonitoring", "cannot monitor"),
    ],
)
def test_what_the_host_lacks_is_named(rdt: dict[str, Any], resources: list[str] | None, pointer: str, words: str) -> None:
    on = host()
    if resources is not None:
        on.resctrl = Resctrl(ROOT, frozenset(resources))
    with pytest.raises(Error, match=words) as caught:
        made(edited(default_config(), linux={"intelRdt": rdt}), on)
    assert (caught.value.code, caught.value.subject) == ("unsupported", "/linux/intelRdt" + pointer)
    assert caught.value.hint
