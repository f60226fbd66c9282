"""The plan before a restore: targets of mounts and cgroups, and no process of the container's."""

from __future__ import annotations

from typing import Any

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT
from ocirt.plan.create import cgroup_paths
from ocirt.plan.restore import plan_restore
from tests.support.bundle import cgroup_mount, default_config, edited
from tests.unit.plan.plans import CGROUP, SYSTEMD, find, host, operations, request, spaces, the
from tests.unit.plan.world import World

BIND = {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro"]}


def plan(**edits: Any) -> Any:
    return plan_restore(edited(default_config(), **edits), host(), request(), {"": CGROUP + "/c"})


def test_targets_are_made_in_a_namespace_that_goes() -> None:
    found = plan(add_mounts=[BIND, cgroup_mount()])
    assert the(found, "process.clone")[2] == (INIT, k.CLONE_NEWNS)
    made = [found[index][2][1] for index in find(found, "mount.attach")]
    assert made == ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/data"]
    assert not {"mount.cgroup", "mount.change", "mount.mask", "tree.pivot", "program.find", "process.set_capabilities"} & set(
        operations(found)
    )
    assert World(found).problems == set()


def test_nothing_is_mounted_by_the_parent_and_no_cgroup_is_made_before() -> None:
    found = plan(resources={"cpu": {"shares": 100}, "pids": {"limit": 7}})
    names = operations(found)
    assert not [each for each in found if each[0] == PARENT and each[1] in ("mount.attach", "tree.attach_root")]
    assert names.index("cgroup.make") > names.index("sync.expect")
    limited = [entry for index in find(found, "cgroup.limit") for entry in found[index][2][1]]
    assert {entry[0] for entry in limited} == {"cpu", "pids"}
    assert "cgroup.join" not in names  # CRIU is started in them
    assert names.index("cgroup.open") < names.index("criu.start")


def test_namespaces_that_are_joined_are_opened_first() -> None:
    found = plan(namespaces=spaces("mount", "pid", network="/run/netns/a"))
    assert operations(found)[0] == "namespace.open"
    assert found[0][2][:2] == ("namespace/network", "/run/netns/a")


def test_a_scope_is_made_around_criu() -> None:
    """It waits all the while, so nobody has to be told; what it restores stays in the scope, which has its limits by then."""
    config = edited(default_config(), resources={"cpu": {"shares": 100, "quota": 50000}, "pids": {"limit": 7}})
    on, asked = host(systemd=SYSTEMD), request(cgroups="systemd")
    found = plan_restore(config, on, asked, cgroup_paths(config, on, asked))
    names = operations(found)
    assert names.index("cgroup.check") < names.index("criu.start") < names.index("systemd.start")
    assert names.index("systemd.start") < min(find(found, "cgroup.limit"))
    assert "cgroup.open" not in names
    assert ("grouped",) not in [each[2] for each in found]
    assert {each[0] for each in found[names.index("criu.start") :]} == {PARENT}
    assert World(found).problems == set()
