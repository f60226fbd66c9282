"""A root that is an overlay: what the parent makes, and where init puts it."""

from __future__ import annotations

from errno import EINVAL
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.steps.overlay import _common
from ocirt.plan import INIT, PARENT
from ocirt.plan.overlay import Overlay
from tests.support.bundle import default_config, edited
from tests.unit.plan import checks
from tests.unit.plan.plans import BIND, HOOK, MAPPING, USER, at, find, host, made, operations, request, spaces, the

LAYERS = Overlay(["/l/2", "/l/1"], "/c/upper", "/c/work")
MAPPED = Overlay(["/l/2", "/l/1"], "/c/upper", "/c/work", uids=[MAPPING], gids=[MAPPING])
OF_HOOKS = ("prestart", "createRuntime", "createContainer")


def plan(overlay: Overlay = LAYERS, asked: Any = None, on: Any = None, **edits: Any) -> Any:
    return made(edited(default_config(), **edits), on, request(overlay=overlay, **(asked or {})))


ALL: list[dict[str, Any]] = [
    {},
    {"overlay": MAPPED, "namespaces": ["mount", "user", "pid"], **USER},
    {"overlay": MAPPED, "namespaces": ["mount", {"type": "user", "path": "/proc/7/ns/user"}]},
    {"overlay": Overlay(["/l/1"])},
    {"overlay": Overlay([], "/c/upper", "/c/work", volatile=True)},
    {"on": host(user_namespace=True), "hooks": {"createContainer": [HOOK]}},
    {"asked": {"pivot": False}},
    {"asked": {"notify": True, "pipes": True, "waits": False}},
]


@pytest.mark.parametrize("given", ALL)
def test_what_holds_for_every_plan(given: dict[str, Any]) -> None:
    words = dict(given)
    overlay, asked, on = words.pop("overlay", LAYERS), words.pop("asked", {}), words.pop("on", None)
    document = edited(default_config(), **words)
    found = made(document, on, request(overlay=overlay, **asked))
    if "uidMappings" not in words:
        document["linux"]["uidMappings"] = []
    checks.everything(found, document)


def test_the_parent_makes_it_and_init_attaches_it() -> None:
    found = plan()
    assert the(found, "overlay.open_lowers")[:3] == (PARENT, "overlay.open_lowers", (("/l/2", "/l/1"), ""))
    assert the(found, "overlay.open_upper")[2] == ("/c/upper", "/c/work", "")
    side, _, arguments, _, errors = the(found, "overlay.new")
    assert (side, arguments[:2]) == (PARENT, ("root", ()))
    assert errors
    apart = errors[EINVAL]
    assert apart
    assert apart[0] == "overlay.new_apart"
    assert apart[1][:6] == ("root", ("/l/2", "/l/1"), "/c/upper", "/c/work", "", ())
    assert at(found, "overlay.new") < at(found, "process.clone") < at(found, "tree.attach_root")
    assert the(found, "tree.attach_root")[:3] == (INIT, "tree.attach_root", ("/",))
    # What /root/path names is of no interest.
    assert not {"tree.check_root", "tree.check_mounted"} & set(operations(found))
    assert not find(found, "mount.clone", "root")


@pytest.mark.parametrize("kinds", [("mount", "pid"), ("mount", "pid", "user")])
def test_no_path_of_a_bind_source_is_looked_up_below_the_overlay(kinds: tuple[str, ...]) -> None:
    """`/..` leads into it."""
    edits: dict[str, Any] = {"uidMappings": [MAPPING], "gidMappings": [MAPPING]} if "user" in kinds else {}
    found = plan(asked={"notify": True}, add_mounts=[BIND], namespaces=spaces(*kinds), **edits)
    assert find(found, "mount.clone")
    assert not find(found, "mount.clone", side=INIT)


@pytest.mark.parametrize("propagation", [None, "rprivate", "rshared"])
def test_binds_have_the_propagation_that_init_gives_them_else(propagation: str | None) -> None:
    """As if they were cloned from init's copy of the host's tree."""
    found = plan(add_mounts=[BIND], rootfsPropagation=propagation)
    flag = {None: k.MS_SLAVE, "rprivate": k.MS_PRIVATE, "rshared": k.MS_SHARED}[propagation]
    step = the(found, "mount.propagate", side=PARENT)
    assert step[2][1:] == (flag, True)
    assert step[2][0] == the(found, "mount.clone")[2][0]


@pytest.mark.parametrize("kind", [*OF_HOOKS, "startContainer", "poststart", "poststop"])
def test_hooks_find_it_at_its_path(kind: str) -> None:
    found = plan(hooks={kind: [HOOK]})
    looked_for = kind in OF_HOOKS
    assert the(found, "tree.attach_root")[2] == ("/bundles/b/rootfs" if looked_for else "/",)
    assert bool(find(found, "tree.check_root")) == looked_for


def test_ids() -> None:
    """One user namespace for all layers, and for a mount with the same mappings."""
    mount = {"destination": "/m", "source": "/srv", "options": ["bind"], "uidMappings": [MAPPING], "gidMappings": [MAPPING]}
    found = plan(MAPPED, add_mounts=[mount], namespaces=spaces("mount", "user"), **USER)
    assert the(found, "idmap.make_namespace")[2] == ("namespace/idmap/0", ((0, 100000, 65536),), ((0, 100000, 65536),))
    assert the(found, "overlay.open_lowers")[2][1] == "namespace/idmap/0"
    assert the(found, "overlay.open_upper")[2][2] == "namespace/idmap/0"
    assert the(found, "idmap.map")[2][2] == "namespace/idmap/0"
    assert the(found, "overlay.new")[2][1] == (100000, 100000)


@pytest.mark.parametrize(
    ("overlay", "empty"),
    [
        (LAYERS, False),
        (Overlay(["/l"], "/u", "/w"), False),
        (Overlay([], "/u", "/w"), True),
        (Overlay(["/l"]), True),
        (Overlay(["/l", "/m"]), False),
    ],
)
def test_an_empty_layer_where_one_is_missing(overlay: Overlay, empty: bool) -> None:
    assert bool(find(plan(overlay), "mount.new", "lower/empty")) == empty


@pytest.mark.parametrize(
    ("overlay", "on", "word", "there"),
    [
        (LAYERS, host(), "volatile", False),
        (Overlay(["/l"], "/u", "/w", volatile=True), host(), "volatile", True),
        (LAYERS, host(), "userxattr", False),
        (LAYERS, host(user_namespace=True), "userxattr", True),
    ],
)
def test_options(overlay: Overlay, on: Any, word: str, there: bool) -> None:
    data = dict(the(plan(overlay, on=on), "overlay.new")[2][2])
    assert (word in data) == there
    assert {"index": "off", "metacopy": "off", "redirect_dir": "nofollow", "xino": "off"}.items() <= data.items()


@pytest.mark.parametrize("config", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_read_only_comes_last(config: bool, asked: bool) -> None:
    found = plan(Overlay(["/l"], "/u", "/w", read_only=asked), root={"readonly": config})
    places = find(found, "mount.change", "root")
    assert bool(places) == (config or asked)
    assert all(place > at(found, "device.link_ptmx") for place in places)


def test_without_pivot_root_it_covers_the_root_already() -> None:
    found = plan(asked={"pivot": False})
    assert "tree.move_root" not in operations(found)
    assert the(found, "process.change_root")[2] == ("root",)
    assert "tree.move_root" in operations(plan(asked={"pivot": False}, hooks={"prestart": [HOOK]}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on": host(root=False)}, "needs root"),
        ({"namespaces": spaces("pid")}, "mount namespace of its own"),
        ({"namespaces": [{"type": "mount", "path": "/proc/7/ns/mnt"}]}, "mount namespace of its own"),
        ({"overlay": Overlay(["/l"] * 500, "/u", "/w")}, "500 layers"),
        ({"overlay": Overlay(["/l"], "/u")}, "both an upper and a work directory"),
        ({"overlay": Overlay(["/l"], volatile=True)}, "both an upper and a work directory"),
        ({"overlay": Overlay(["/l"], uids=[MAPPING])}, "both uids and gids"),
        ({"overlay": Overlay(["l"], "/u", "/w")}, "not an absolute path"),
    ],
)
def test_what_cannot_be_had(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Error, match=words):
        plan(**given)


@pytest.mark.parametrize(
    ("upper", "work", "common"),
    [
        ("/c/1/upper", "/c/1/work", ("/c/1", ("upper", "work"))),
        ("/u", "/w", ("/", ("u", "w"))),
        ("/c/1/upper", "/c/2/work", ("/c", ("1/upper", "2/work"))),
        ("/c/a", "/c/a/b", ("/c", ("a", "a/b"))),
        ("/c/same", "/c/same", ("/c", ("same", "same"))),
    ],
)
def test_what_directories_are_both_in(upper: str, work: str, common: Any) -> None:
    assert _common(upper, work) == common
