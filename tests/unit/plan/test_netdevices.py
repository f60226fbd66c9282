"""When network devices are looked for, and when they are moved."""

from __future__ import annotations

import pytest

from ocirt.plan import INIT, PARENT
from tests.unit.plan.plans import HOOKS, NET_DEVICES, at, create, find, spaces
from tests.unit.plan.world import World


def test_they_are_looked_for_before_anything_is_made() -> None:
    plan = create(linux={"netDevices": NET_DEVICES})
    assert [each for each in plan if each[1] == "netdevice.check"] == [
        (PARENT, "netdevice.check", ("eth1", "eth0", ""), "/linux/netDevices/eth1", None),
        (PARENT, "netdevice.check", ("a~b", "", ""), "/linux/netDevices/a~0b", None),
    ]
    assert max(find(plan, "netdevice.check")) < at(plan, "cgroup.make")


def test_in_a_namespace_that_is_joined_their_names_are_too() -> None:
    plan = create(linux={"netDevices": NET_DEVICES}, namespaces=spaces("mount", "uts", network="/n"))
    assert [plan[index][2][2] for index in find(plan, "netdevice.check")] == ["namespace/network"] * 2


@pytest.mark.parametrize("hooks", [{}, {"createRuntime": HOOKS["createRuntime"]}, HOOKS], ids=["none", "createRuntime", "all"])
def test_they_are_there_for_hooks_and_sysctls_but_after_the_mounts(hooks: dict[str, object]) -> None:
    plan = create(linux={"netDevices": NET_DEVICES}, hooks=hooks, sysctl={"net.ipv4.conf.eth0.forwarding": "1"})
    moves = [each for each in plan if each[1] == "netdevice.move"]
    assert [each[:4] for each in moves] == [
        (PARENT, "netdevice.move", ("eth1", "eth0"), "/linux/netDevices/eth1"),
        (PARENT, "netdevice.move", ("a~b", ""), "/linux/netDevices/a~0b"),
    ]
    world = World(plan)
    assert world.problems == set()
    for move in find(plan, "netdevice.move"):
        assert world.always_before(find(plan, "mount.attach", side=INIT)[-1], move)
        assert world.always_before(move, at(plan, "tree.sysctl"))
        for hook in find(plan, "hooks.run"):
            assert world.always_before(move, hook)


def test_without_them_nobody_waits() -> None:
    assert not find(create(), "sync.tell", "mounted")
