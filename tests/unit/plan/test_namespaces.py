"""Who makes and who joins which namespace, from where, and with whose rights."""

from __future__ import annotations

import itertools
from errno import EPERM
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, STAGE
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import CLOCKS, MAPPING, USER, at, create, find, host, in_order, made, operations, request, spaces, the

FLAGS = {
    "pid": k.CLONE_NEWPID,
    "network": k.CLONE_NEWNET,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "mount": k.CLONE_NEWNS,
    "user": k.CLONE_NEWUSER,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
}
# What becomes of each of these: left out, new, or joined.
CHOICES = dict.fromkeys(("user", "pid", "network", "cgroup"), ("", "new", "path"))
COMBINATIONS = [
    (dict(zip(CHOICES, choice, strict=True)), root) for choice in itertools.product(*CHOICES.values()) for root in (True, False)
]


def plan_of(chosen: dict[str, str], *, root: bool, **edits: Any) -> Any:
    """The plan for these namespaces beside new mount and uts ones."""
    new = [kind for kind, how in chosen.items() if how == "new"]
    joined = {kind: f"/proc/7/ns/{kind}" for kind, how in chosen.items() if how == "path"}
    linux = USER if chosen["user"] == "new" else {}
    spec = edited(default_config(), namespaces=spaces("mount", "uts", *new, **joined), linux=linux, resources={}, **edits)
    return made(spec, host(root=root), request(cgroups="disabled"))


@pytest.mark.parametrize(("chosen", "root"), COMBINATIONS)
def test_who_clones_whom(chosen: dict[str, str], root: bool) -> None:
    plan = plan_of(chosen, root=root)
    joined = {kind for kind, how in chosen.items() if how == "path"}
    new = {kind for kind, how in chosen.items() if how == "new"} | {"mount", "uts"}
    staged = chosen["user"] == "path" or (chosen["user"] == "new" and bool(joined - {"pid"}) and root)

    # What is joined is opened first, by the parent.
    opened = [(each[2][0], each[2][2]) for each in plan if each[1] == "namespace.open"]
    assert opened == [(f"namespace/{kind}", FLAGS[kind]) for kind in chosen if kind in joined]
    assert operations(plan)[: len(opened)] == ["namespace.open"] * len(opened)

    # One clone with all that is new, but for the cgroup namespace.
    flags = sum(FLAGS[kind] for kind in new - {"cgroup"})
    if staged:
        assert the(plan, "process.clone")[:3] == (PARENT, "process.clone", (STAGE, 0))
        assert the(plan, "process.clone_sibling")[:3] == (STAGE, "process.clone_sibling", (INIT, flags))
        assert at(plan, "process.clone_sibling") < at(plan, "process.meet")
        assert not find(plan, "namespace.return_pid")
    else:
        assert the(plan, "process.clone")[:3] == (PARENT, "process.clone", (INIT, flags))
        assert operations(plan, STAGE) == []
        assert not find(plan, "process.meet")

    # Each of the joined ones is joined once, by whom it has to be.
    joins = {each[2][0].removeprefix("namespace/"): each for each in plan if each[1] == "namespace.join"}
    assert joins.keys() == joined
    assert len(find(plan, "namespace.join")) == len(joined)
    for kind, each in joins.items():
        assert each[0] == (STAGE if staged else PARENT if kind == "pid" else INIT)
        assert each[2] == (f"namespace/{kind}", FLAGS[kind])
    if "pid" in joined and not staged:
        # The parent's own children are to be of its own pid namespace again.
        join, clone = at(plan, "namespace.join", "namespace/pid"), at(plan, "process.clone")
        assert plan[join + 1] == plan[clone]
        assert plan[clone + 1][:2] == (PARENT, "namespace.return_pid")

    # Init is root in its user namespace before it does anything there.
    assert len(find(plan, "user.become_root", side=INIT)) == (chosen["user"] != "")
    assert len(find(plan, "user.map")) == (chosen["user"] == "new")
    unshares = [each[2] for each in plan if each[1] == "namespace.unshare"]
    assert unshares == ([(k.CLONE_NEWCGROUP,)] if "cgroup" in new else [])
    # By who has the rights: the parent, while init goes on, or init itself in its user namespace.
    ups = [each[:2] for each in plan if each[1].startswith("namespace.loopback_up")]
    up = (PARENT, "namespace.loopback_up_of_init") if root else (INIT, "namespace.loopback_up")
    assert ups == [up] * (chosen["network"] == "new")


@pytest.mark.parametrize(("chosen", "root"), [each for each in COMBINATIONS if each[0]["user"] == "path"])
def test_into_a_user_namespace_with_the_rights_of_the_host_where_there_are_any(chosen: dict[str, str], root: bool) -> None:
    """What may not be joined before the user namespace is joined after it."""
    plan = plan_of(chosen, root=root)
    user = at(plan, "namespace.join", "namespace/user")
    for index in find(plan, "namespace.join"):
        if index != user:
            assert index < user
            assert plan[index][4] == {EPERM: ("namespace.postpone", plan[index][2])}
    assert plan[user][4] is None
    assert [each[1] for each in plan[user : user + 4]] == [
        "namespace.join",
        "user.become_root",
        "namespace.join_postponed",
        "process.clone_sibling",
    ]


def test_root_of_a_user_namespace_leaves_nothing_that_it_cannot_come_back_to() -> None:
    """The runtime's own network and pid namespace may belong to the host's user namespace: children leave theirs instead."""
    nested = host(user_namespace=True)
    plan = create(nested, namespaces=spaces("network", "mount", "uts"), resources={})
    assert the(plan, "namespace.loopback_up")[0] == INIT
    assert not find(plan, "namespace.loopback_up_of_init")
    plan = create(nested, namespaces=spaces("mount", "uts", pid="/proc/7/ns/pid"), resources={})
    assert the(plan, "namespace.join", "namespace/pid")[0] == STAGE
    assert not find(plan, "namespace.return_pid")


@pytest.mark.parametrize(("chosen", "root"), COMBINATIONS)
def test_clocks_are_set_before_a_process_is_in_their_namespace(chosen: dict[str, str], root: bool) -> None:
    """By a stage, which opens the file as long as it may; the rest is joined and made as without."""
    chosen = chosen | {"time": "new"}
    plan = plan_of(chosen, root=root, edit=lambda spec: spec["linux"].update(CLOCKS))
    assert the(plan, "process.clone")[2] == (STAGE, 0)
    in_order(plan, "process.clone", "namespace.open_offsets", "namespace.set_offsets", "process.clone_sibling", "process.meet")
    assert the(plan, "namespace.set_offsets", side=STAGE)[2] == ("monotonic 5 0\nboottime -7 8\n",)
    new = {kind for kind, how in chosen.items() if how == "new"} | {"mount", "uts"}
    made_by_stage = k.CLONE_NEWTIME | (k.CLONE_NEWUSER if chosen["user"] == "new" else 0)
    assert plan[at(plan, "namespace.set_offsets") - 1][1:3] == ("namespace.unshare", (made_by_stage,))
    assert the(plan, "process.clone_sibling")[2] == (INIT, sum(FLAGS[kind] for kind in new - {"cgroup"}) & ~made_by_stage)
    joins = {each[2][0].removeprefix("namespace/"): each[0] for each in plan if each[1] == "namespace.join"}
    inside = chosen["user"] == "new" and not root
    assert joins == {kind: INIT if inside and kind != "pid" else STAGE for kind, how in chosen.items() if how == "path"}
    # Whoever joins hides before; a stage that only makes does not, or its init's maps could not be written without root.
    protect = find(plan, "process.protect", side=STAGE)
    assert bool(protect) == (STAGE in joins.values())
    if protect:
        assert at(plan, "namespace.open_offsets") < protect[0] < min(find(plan, "namespace.join", side=STAGE))


def test_clocks_as_they_are_take_no_stage() -> None:
    for offsets in (None, {}, {"monotonic": {"secs": 0, "nanosecs": 0}}):
        plan = create(namespaces=spaces("pid", "mount", "uts", "time"), linux={"timeOffsets": offsets})
        assert the(plan, "process.clone")[2][1] & k.CLONE_NEWTIME
        assert operations(plan, STAGE) == []


def test_the_mount_namespace_is_joined_last() -> None:
    kinds = {kind: f"/proc/7/ns/{kind}" for kind in ("mount", "ipc", "pid", "cgroup", "uts", "network", "time")}
    plan = create(namespaces=spaces(**kinds), resources={})
    joins = [(each[0], each[2][0]) for each in plan if each[1] == "namespace.join"]
    assert joins[0] == (PARENT, "namespace/pid")
    assert joins[-1] == (INIT, "namespace/mount")
    assert joins[-1] > joins[-2]
    plan = create(namespaces=spaces(user="/proc/7/ns/user", **kinds), resources={})
    joins = [(each[0], each[2][0]) for each in plan if each[1] == "namespace.join"]
    assert joins[-2:] == [(STAGE, "namespace/mount"), (STAGE, "namespace/user")]


def test_an_empty_path_is_a_new_namespace() -> None:
    plan = create(namespaces=[{"type": "mount", "path": ""}, {"type": "uts"}, {"type": "cgroup", "path": ""}])
    assert not find(plan, "namespace.open")
    assert the(plan, "process.clone")[2] == (INIT, k.CLONE_NEWNS | k.CLONE_NEWUTS)


def test_time_comes_with_the_clone() -> None:
    plan = create(namespaces=["mount", "uts", "time"])
    assert the(plan, "process.clone")[2][1] & k.CLONE_NEWTIME


def test_pointers_lead_to_the_entries() -> None:
    plan = create(namespaces=spaces("mount", "uts", "network", "cgroup", ipc="/proc/7/ns/ipc", pid="/proc/7/ns/pid"))
    assert the(plan, "namespace.open", "namespace/ipc")[3] == "/linux/namespaces/4/path"
    assert the(plan, "namespace.join", "namespace/pid")[3] == "/linux/namespaces/5/path"
    assert the(plan, "namespace.unshare")[3] == "/linux/namespaces/3"
    assert the(plan, "namespace.loopback_up_of_init")[3] == "/linux/namespaces/2"


# -- mappings ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [True, False])
def test_mappings(root: bool) -> None:
    more = {"containerID": 1, "hostID": 200000, "size": 5}
    linux = {"uidMappings": [MAPPING | {"size": 1}, more], "gidMappings": [MAPPING | {"size": 6}]}
    plan = create(host(root=root), linux=linux, namespaces=["mount", "user", "uts"])
    assert the(plan, "user.map")[:4] == (
        PARENT,
        "user.map",
        (((0, 100000, 1), (1, 200000, 5)), ((0, 100000, 6),), root),
        "/linux/uidMappings",
    )


def test_groups_may_be_denied_in_a_user_namespace_only() -> None:
    for root in (True, False):
        plan = create(host(root=root), linux=USER, namespaces=["mount", "user", "uts"])
        assert the(plan, "user.become")[2] == (0, 0, (), True)
    assert the(create(namespaces=spaces("mount", "uts", user="/n")), "user.become")[2][3] is True
    assert the(create(), "user.become")[2] == (0, 0, (), False)


# -- mounts and devices in a user namespace ------------------------------------------------------------------------------------

MOUNTS: list[dict[str, Any]] = [
    {"destination": "/a", "source": "a", "options": ["bind"]},
    {"destination": "/b", "source": "/b", "options": ["rbind", "ro"]},
    {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
]


@pytest.mark.parametrize("kind", ["none", "new", "path"])
@pytest.mark.parametrize("root", [True, False])
def test_who_clones_mounts(kind: str, root: bool) -> None:
    """With a user namespace, root's init may not reach what root can; without, init sees the parent's tree."""
    extra = {"none": [], "new": spaces("user"), "path": spaces(user="/proc/7/ns/user")}[kind]
    spec = edited(default_config(), namespaces=[*spaces("mount", "uts"), *extra], linux=USER, add_mounts=MOUNTS, resources={})
    plan = made(spec, host(root=root), request(cgroups="disabled"))
    owner = PARENT if kind != "none" and root else INIT
    clones = {each[2][0]: each for each in plan if each[1] == "mount.clone"}
    assert {slot: (each[0], each[2][1], each[2][2]) for slot, each in clones.items()} == {
        "root": (owner, "/bundles/b/rootfs", True),
        "mount/6": (owner, "/bundles/b/a", False),
        "mount/7": (owner, "/b", True),
    }
    if owner == PARENT:
        assert max(find(plan, "mount.clone")) < find(plan, "process.clone")[0]
    for slot in ("mount/6", "mount/7"):
        assert at(plan, "mount.clone", slot) < at(plan, "mount.attach", slot)


def test_id_mapped_mounts() -> None:
    mount = {"destination": "/a", "source": "a", "options": ["bind", "idmap"]}
    plan = create(linux=USER, namespaces=["mount", "user", "uts"], add_mounts=[mount])
    assert the(plan, "idmap.map")[:4] == (PARENT, "idmap.map", ("mount/6", "/bundles/b/a", "", False), "/mounts/6/options")
    assert at(plan, "sync.tell", "mapped") < at(plan, "idmap.map") < at(plan, "sync.tell", "id-mapped")
    assert at(plan, "sync.expect", "id-mapped") < at(plan, "mount.propagate_host")
    joined = create(namespaces=spaces("mount", "uts", user="/proc/7/ns/user"), add_mounts=[mount])
    assert the(joined, "idmap.map")[2] == ("mount/6", "/bundles/b/a", "namespace/user", False)
    assert at(joined, "idmap.map") < find(joined, "process.clone")[0]
    assert not find(create(linux=USER, namespaces=["mount", "user", "uts"]), "sync.tell", "id-mapped")


@pytest.mark.parametrize("user", [False, True])
def test_mounts_with_mappings_of_their_own(user: bool) -> None:
    """One namespace for each pair of maps, made and used before init is there; whether or not the container has one."""
    other = [{"containerID": 7, "hostID": 8, "size": 9}]
    mounts = [
        {"destination": "/a", "source": "a", "options": ["rbind", "ridmap"], **USER},
        {"destination": "/b", "source": "/b", "options": ["rbind", "idmap"], **USER},
        {"destination": "/c", "source": "/c", "options": ["bind"], "uidMappings": USER["uidMappings"], "gidMappings": other},
        {"destination": "/d", "source": "/d", "options": ["bind"]},
    ]
    namespaces = ["mount", "uts", *(["user"] if user else [])]
    plan = create(linux=USER if user else {}, namespaces=namespaces, add_mounts=mounts)
    ids = (0, 100000, 65536)
    assert [each[2] for each in plan if each[1] == "idmap.make_namespace"] == [
        ("namespace/idmap/0", (ids,), (ids,)),
        ("namespace/idmap/1", (ids,), ((7, 8, 9),)),
    ]
    assert [each[2:4] for each in plan if each[1] == "idmap.map"] == [
        (("mount/6", "/bundles/b/a", "namespace/idmap/0", True), "/mounts/6/uidMappings"),
        (("mount/7", "/b", "namespace/idmap/0", False), "/mounts/7/uidMappings"),
        (("mount/8", "/c", "namespace/idmap/1", False), "/mounts/8/uidMappings"),
    ]
    assert max(find(plan, "idmap.map")) < find(plan, "process.clone")[0]
    assert not find(plan, "sync.tell", "id-mapped")
    clones = {each[2][0]: each[0] for each in plan if each[1] == "mount.clone"}
    assert clones["mount/9"] == clones["root"] == (PARENT if user else INIT)
    assert {clones[f"mount/{index}"] for index in (6, 7, 8)} == {PARENT}


@pytest.mark.parametrize(
    ("propagation", "user", "flags"),
    [
        (None, True, [k.MS_SLAVE]),
        ("slave", True, [k.MS_SLAVE]),
        ("rprivate", True, [k.MS_PRIVATE]),
        ("runbindable", True, [k.MS_PRIVATE]),
        ("rshared", True, [k.MS_SLAVE, k.MS_SHARED]),
        (None, False, [k.MS_SLAVE]),
        ("rprivate", False, [k.MS_PRIVATE]),
        ("rshared", False, [k.MS_SHARED]),
    ],
)
def test_what_the_parent_clones_is_no_peer_of_the_host_s(propagation: str | None, user: bool, flags: list[int]) -> None:
    """As init's own copy of the host's tree: with a user namespace a slave at the most."""
    mount = {"destination": "/a", "source": "a", "options": ["rbind", "ridmap"], **USER}
    namespaces = ["mount", "uts", *(["user"] if user else [])]
    plan = create(linux=USER if user else {}, namespaces=namespaces, add_mounts=[mount], rootfsPropagation=propagation)
    for slot in ["mount/6", "root"] if user else ["mount/6"]:
        found = [each[2][1:] for each in plan if each[0] == PARENT and each[1] == "mount.propagate" and each[2][0] == slot]
        assert found == [(flag, True) for flag in flags]


@pytest.mark.parametrize(
    ("user", "on", "bound"),
    [
        (False, host(), False),
        (False, host(user_namespace=True), True),
        (True, host(), True),
        (True, host(user_namespace=True), True),
        (True, host(root=False), True),
    ],
)
def test_devices_are_bound_where_none_can_be_made(user: bool, on: Any, bound: bool) -> None:
    devices = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, {"path": "/dev/p", "type": "p", "fileMode": 0o600}]
    plan = create(on, namespaces=["mount", "uts", *(["user"] if user else [])], linux=USER if user else {}, devices=devices)
    made_ones = [each[2][0] for each in plan if each[1] == "device.make"]
    bound_ones = [each[2][0] for each in plan if each[1] == "device.bind"]
    usual = [f"/dev/{name}" for name in ("null", "random", "full", "tty", "zero", "urandom")]
    if bound:
        assert bound_ones == [*usual, "/dev/fuse"]
        assert made_ones == ["/dev/p"]  # a pipe is no device: anybody may make one
    else:
        assert bound_ones == []
        assert made_ones == [*usual, "/dev/fuse", "/dev/p"]


# -- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["private", "rprivate"])
def test_a_private_root_needs_pivot_root(name: str) -> None:
    with pytest.raises(Error, match="pivot_root") as caught:
        create(asked=request(pivot=False), rootfsPropagation=name)
    assert caught.value.subject == "/linux/rootfsPropagation"
    assert caught.value.code == "invalid"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"])
def test_other_roots_do_not(name: str) -> None:
    plan = create(asked=request(pivot=False), rootfsPropagation=name)
    assert len(find(plan, "tree.move_root")) == 1
    assert not find(plan, "tree.pivot")
