"""A container without a mount namespace: its mounts hang on one in the runtime's tree, of which nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import mountinfo
from ocirt.paths import anchor
from ocirt.plan import INIT, PARENT
from ocirt.plan.restore import plan_restore
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import (
    BIND,
    OWN_MAPPINGS,
    at,
    create,
    execution,
    find,
    host,
    operations,
    request,
    spaces,
    the,
)

KINDS = spaces("pid", "network", "ipc", "uts")
# What is said of the host's own mounts, or makes them out of reach.
OF_THE_HOST = ("mount.propagate_host", "tree.make_parent_private", "tree.attach_root", "tree.pivot", "tree.move_root")
SOURCE = "ocirt:/run/state/c1"


def plan(**edits: Any) -> Any:
    return create(namespaces=KINDS, **edits)


@pytest.mark.parametrize("pivot", [True, False])
@pytest.mark.parametrize("propagation", [None, "private", "rslave", "rshared", "runbindable"])
def test_nothing_is_done_to_the_host_s_mounts(pivot: bool, propagation: str | None) -> None:
    found = create(None, request(pivot=pivot), namespaces=KINDS, rootfsPropagation=propagation)
    assert not set(OF_THE_HOST) & set(operations(found))
    assert not the(found, "process.clone")[2][1] & k.CLONE_NEWNS
    assert the(found, "process.change_root")[:4] == (INIT, "process.change_root", ("root",), "/root")


def test_the_runtime_attaches_the_root_before_there_is_an_init() -> None:
    """Once it has ended, nobody attaches an anchor: what then looks for one finds it, or there is none."""
    found = plan(add_mounts=[OWN_MAPPINGS])
    steps = ["anchor.check", "mount.new", "anchor.attach", "anchor.attach_root", "process.clone"]
    places = [find(found, operation, *(["anchor"] if operation == "mount.new" else []), side=PARENT)[0] for operation in steps]
    assert places == sorted(places)
    assert at(found, "anchor.check") < at(found, "mount.clone", "root") < at(found, "anchor.attach")
    # A bind mount may come from the root file system, which is out of sight between the two.
    assert places[3] == places[2] + 1
    assert the(found, "mount.new", "anchor")[2][1:3] == ("tmpfs", SOURCE)
    assert the(found, "anchor.attach")[2:4] == (("/bundles/b/rootfs", SOURCE), "/root/path")
    assert the(found, "mount.clone", "root")[2] == ("root", "/bundles/b/rootfs", True)


@pytest.mark.parametrize(
    ("propagation", "flags"),
    [
        (None, [k.MS_SLAVE]),
        ("slave", [k.MS_SLAVE]),
        ("rprivate", [k.MS_PRIVATE]),
        ("unbindable", [k.MS_PRIVATE]),
        ("rshared", [k.MS_SLAVE, k.MS_SHARED]),
    ],
)
def test_no_clone_is_a_peer_of_the_host_s(propagation: str | None, flags: list[int]) -> None:
    """Whoever makes it, and before it is attached: what is unmounted below a peer is unmounted on the host."""
    asked = request(notify=True)
    mounts = [BIND, OWN_MAPPINGS, {"destination": "/a", "source": "a", "options": ["bind", "rshared"]}]
    found = create(None, asked, namespaces=KINDS, add_mounts=mounts, rootfsPropagation=propagation)
    clones = find(found, "mount.clone")
    assert [found[index][2][0] for index in clones] == ["root", "mount/7", "mount/6", "mount/8", "notify"]
    for index in clones:
        side, slot = found[index][0], found[index][2][0]
        after = [each[2] for each in found[index + 1 : index + 1 + len(flags)]]
        assert after == [(slot, flag, True) for flag in flags]
        assert {each[:2] for each in found[index + 1 : index + 1 + len(flags)]} == {(side, "mount.propagate")}


@pytest.mark.parametrize(
    ("propagation", "options", "kept_back"),
    [
        (None, [], False),
        ("rshared", ["rshared"], False),
        ("rslave", [], True),
        ("private", [], True),
        ("runbindable", [], True),
        (None, ["rprivate"], True),
        ("shared", ["slave"], True),
    ],
)
def test_what_is_not_to_be_shared_does_not_spread(propagation: str | None, options: list[str], kept_back: bool) -> None:
    mount = {"destination": "/a", "source": "/a", "options": ["rbind", *options]}
    found = plan(rootfsPropagation=propagation, add_mounts=[mount])
    assert find(found, "mount.propagate", "anchor", k.MS_PRIVATE, False) == [at(found, "anchor.attach") + 1] * kept_back


def test_exec_changes_to_the_root_of_init() -> None:
    found = execution(kinds=("pid", "uts"))
    assert the(found, "process.open_target_root")[:3] == (PARENT, "process.open_target_root", (4242, 7))
    assert at(found, "process.open_target") < at(found, "process.open_target_root") < at(found, "process.clone")
    change = at(found, "process.change_root", "target/root", side=INIT)
    # Labels and namespaces are the host's /proc's matter, users and the program the container's.
    assert max(find(found, "namespace.join_target", side=INIT)) < change
    assert found[change + 1][1] == "process.open_root"
    assert not the(found, "namespace.join_target", side=INIT)[2][0] & k.CLONE_NEWNS
    assert not find(execution(), "process.change_root")


def test_a_restore_needs_a_mount_namespace() -> None:
    spec = edited(default_config(), namespaces=KINDS)
    with pytest.raises(Error, match="without a mount namespace cannot be restored") as caught:
        plan_restore(spec, host(), request(), {})
    assert (caught.value.code, caught.value.subject) == ("unsupported", "/linux/namespaces")


def test_the_name_of_an_anchor() -> None:
    """The kernel takes 255 bytes for it; what is cut off is the beginning, as the end has the container's id."""
    assert anchor("/run/state/c1") == SOURCE
    long = anchor("/" + "ä" * 200 + "/c1")
    assert long.startswith("ocirt:")
    assert long.endswith("ä/c1")
    assert 240 < len(long.encode("utf-8", "surrogateescape")) < 255


def test_mountinfo() -> None:
    """With and without optional fields, and with the kernel's escapes."""
    lines = (
        rb"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 shared:7 - ext3 /dev/root rw",
        b"37 36 0:44 / /a ro - tmpfs ocirt:/run/\xc3\xa4 rw",
        b"38 36 0:45 / / rw - tmpfs  rw",
    )
    found = [mountinfo.Mount(line) for line in lines]
    assert [(each.id, each.parent, each.point, each.kind, each.source) for each in found] == [
        (36, 35, "/a b\\c", "ext3", "/dev/root"),
        (37, 36, "/a", "tmpfs", "ocirt:/run/ä"),
        (38, 36, "/", "tmpfs", ""),
    ]


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b", "/a", True),
        ("/a/bc", "/a/b", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("/", "/", True),
        ("/", "/a", False),
    ],
)
def test_what_is_below(path: str, directory: str, expected: bool) -> None:
    assert mountinfo.is_below(path, directory) is expected
