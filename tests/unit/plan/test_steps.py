"""Every step of every plan can be done by its function, comes from somewhere, and has what it needs by then."""

from __future__ import annotations

import copy
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ocirt.kernel.steps
from ocirt.errors import Error
from ocirt.kernel.run import function
from ocirt.plan import Host, Request
from ocirt.plan.podinit import plan_podinit
from ocirt.plan.restore import plan_restore
from ocirt.plan.rootfs import MOUNTED
from ocirt.spec.check import check
from tests.support.bundle import MASKED, NAMESPACES, default_config, default_mounts, edited
from tests.unit.plan import checks
from tests.unit.plan.plans import (
    BIND,
    CGROUP_MOUNT,
    DEVICES,
    HOOK,
    ID_MAPPED,
    LABELS,
    LIMITS,
    MAPPING,
    NOTIFYING,
    READ_ONLY_TMPFS,
    RLIMITS,
    SCHEDULING,
    SECCOMP,
    Spec,
    calls,
    cases,
    execution,
    executions,
    host,
    layout,
    made,
    request,
    rootless_executions,
    staged_cases,
)
from tests.unit.plan.world import World
from tests.unit.spec.documents import GONE, put
from tests.unit.spec.test_properties import JSON, PLACES

CASES = cases() | staged_cases()
EXECUTED = executions() | rootless_executions()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rule", [checks.binds, checks.is_plain, checks.slots, checks.paths_are_clean])
def test_plans(name: str, rule: Callable[[Any], None]) -> None:
    build, on, asked = CASES[name]
    rule(made(build(), on, asked))


@pytest.mark.parametrize("name", CASES)
def test_pointers(name: str) -> None:
    build, on, asked = CASES[name]
    document = build()
    checks.points(made(document, on, asked), document)


@pytest.mark.parametrize("name", EXECUTED)
@pytest.mark.parametrize("rule", [checks.binds, checks.is_plain, checks.slots, checks.paths_are_clean])
def test_plans_of_exec(name: str, rule: Callable[[Any], None]) -> None:
    rule(EXECUTED[name])


@pytest.mark.parametrize("name", EXECUTED)
def test_pointers_of_exec(name: str) -> None:
    process = default_config()["process"] | {"oomScoreAdj": 1, "rlimits": RLIMITS} | SCHEDULING | LABELS
    checks.points(EXECUTED[name], {"process": process, "linux": {"seccomp": SECCOMP | NOTIFYING, "intelRdt": {}}})


def test_no_operation_is_unused() -> None:
    """What no plan of these calls is either dead, or lacks a case here."""
    used = {operation for build, on, asked in CASES.values() for *_, operation, _ in calls(made(build(), on, asked))}
    used |= {operation for plan in EXECUTED.values() for *_, operation, _ in calls(plan)}
    remount = edited(default_config(), add_mounts=[{"destination": "/dev/shm", "options": ["remount", "ro"]}])
    used |= {each[1] for each in made(remount)}
    used |= {each[1] for each in made(default_config() | {"annotations": {MOUNTED: "1"}})}
    used |= {each[1] for each in plan_restore(default_config(), host(), request(), {})}
    used |= {each[1] for each in plan_podinit({}, {}, "/podinit", 0, host())}
    there = set()
    for module in pkgutil.iter_modules(ocirt.kernel.steps.__path__):
        found = __import__(f"ocirt.kernel.steps.{module.name}", fromlist=["x"])
        for name, value in vars(found).items():
            public = inspect.isfunction(value) and not name.startswith("_") and value.__module__ == found.__name__
            if public and next(iter(inspect.signature(value).parameters), "") == "run":
                there.add(f"{module.name}.{name}")
    # Not steps: what other steps call.
    assert there - used == {"sync.explained", "sync.receive_pid", "program.queue_execve"}


# -- any configuration ---------------------------------------------------------------------------------------------------------


def subsets(items: list[Any]) -> st.SearchStrategy[list[Any]]:
    """Some of them, in any order."""
    return st.lists(st.sampled_from(items), unique_by=repr, max_size=len(items)) if items else st.just([])


KINDS = ("pid", "network", "ipc", "uts", "cgroup", "time")
MOUNT_OPTIONS = [
    "ro",
    "rw",
    "nosuid",
    "noexec",
    "exec",
    "nodev",
    "relatime",
    "noatime",
    "rro",
    "rnosuid",
    "rprivate",
    "slave",
    "shared",
]
SYSCTLS = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096", "net/ipv4/conf/eth0.1/rp_filter": "0"}


@st.composite
def mounts(draw: st.DrawFn) -> list[Spec]:
    """Mounts of all kinds."""
    found = [copy.deepcopy(mount) for mount in draw(subsets(default_mounts()))]
    for number in range(draw(st.integers(0, 4))):
        target = draw(st.sampled_from(["/a", "b", "/dev/../x", "/a/b/c", "/dev", "/dev/shm", "/var//run"])) + str(number)
        kind = draw(st.sampled_from(["bind", "rbind", "tmpfs", "xfs", "remount"]))
        options = draw(subsets(MOUNT_OPTIONS))
        if kind in ("bind", "rbind"):
            found.append(
                {"destination": target, "source": draw(st.sampled_from(["s", "/s", "../s"])), "options": [kind, *options]}
            )
        elif kind == "remount":
            found.append({"destination": target, "options": [kind, *options]})
        else:
            options += draw(subsets(["size=1m", "mode=755", "sync", "tmpcopyup"]))
            found.append({"destination": target, "type": kind, "source": kind, "options": options})
    return found + draw(subsets([BIND, READ_ONLY_TMPFS, CGROUP_MOUNT]))


@st.composite
def configurations(draw: st.DrawFn) -> tuple[Spec, Host, Request]:
    """A valid config.json, with a host and a request that it can be planned for."""
    root = draw(st.booleans())
    spec = default_config()
    process, linux = spec["process"], spec["linux"]
    user = draw(st.sampled_from(["new", "path"] if not root else ["", "", "new", "path"]))
    entries: list[Spec] = [{"type": "mount"}] if user or draw(st.booleans()) else []
    for kind in draw(subsets(list(KINDS))):
        entries.append({"type": kind, "path": f"/proc/7/ns/{kind}"} if draw(st.booleans()) else {"type": kind})
    if user == "new":
        linux["uidMappings"], linux["gidMappings"] = [dict(MAPPING)], [dict(MAPPING)]
    if user:
        entries.insert(draw(st.integers(0, len(entries))), {"type": "user"} | ({"path": "/n"} if user == "path" else {}))
    linux["namespaces"] = entries
    types = {entry["type"] for entry in entries}
    spec["mounts"] = draw(mounts())
    if user and root and draw(st.booleans()):
        spec["mounts"].append(ID_MAPPED)
    if "uts" not in types:
        del spec["hostname"]
    linux["resources"] = {name: LIMITS[name] for name in draw(subsets(list(LIMITS)))}
    linux["devices"] = draw(subsets(DEVICES))
    linux["maskedPaths"] = draw(subsets(MASKED))
    sysctls = [name for name in SYSCTLS if ("network" if name.startswith("net") else "ipc") in types]
    linux["sysctl"] = {name: SYSCTLS[name] for name in draw(subsets(sysctls))}
    propagations = ["", "slave", "rslave", "private", "rprivate", "shared", "rshared", "unbindable", "runbindable"]
    linux["rootfsPropagation"] = draw(st.sampled_from(propagations))
    if draw(st.booleans()):
        linux["seccomp"] = SECCOMP
    if draw(st.booleans()):
        del linux["readonlyPaths"]
    if draw(st.booleans()):
        spec["hooks"] = {
            kind: [HOOK] for kind in draw(subsets(["prestart", "createRuntime", "createContainer", "startContainer"]))
        }
    spec["root"]["readonly"] = draw(st.booleans())
    process["rlimits"] = draw(subsets(RLIMITS))
    process["noNewPrivileges"] = draw(st.booleans())
    process["terminal"] = draw(st.booleans())
    process["cwd"] = draw(st.sampled_from(["/", "/home", "/a/../b", "//"]))
    process["user"] = draw(st.sampled_from([{"uid": 0, "gid": 0}, {"uid": 7, "gid": 8, "umask": 63}]))
    sets = ["bounding", "effective", "permitted", "inheritable", "ambient"]
    process["capabilities"] = {name: ["CAP_KILL"] for name in sets} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        process["oomScoreAdj"] = draw(st.integers(-1000, 1000))
    if draw(st.booleans()):
        del process["env"]
    on = Host(layout(draw(st.sampled_from(["v1", "hybrid", "v2", "none"]))), root, draw(st.booleans()))
    asked = request(
        waits=draw(st.booleans()),
        console=draw(st.sampled_from(["socket", "attached"])) if process["terminal"] else "",
        fds=draw(st.integers(0, 5)),
        pipes=draw(st.booleans()) and not process["terminal"],
        keyring=draw(st.booleans()),
        pivot=draw(st.booleans()) or "private" in linux["rootfsPropagation"],
        cgroups=draw(st.sampled_from(["cgroupfs", "disabled"])) if on.layout.mode != "none" else "disabled",
    )
    if asked.cgroups == "disabled":
        linux.pop("resources", None)  # limits without cgroups are refused
    return spec, on, asked


@settings(max_examples=300)
@given(configurations())
def test_any_configuration(drawn: tuple[Spec, Host, Request]) -> None:
    spec, on, asked = drawn
    assert [finding for finding in check(copy.deepcopy(spec), not on.root) if finding[3] == "error"] == []
    before = copy.deepcopy(spec)
    plan = made(spec, on, asked)
    checks.everything(plan, spec)
    assert spec == before
    assert plan == made(spec, on, asked), "a plan is a function of what it is given"


@settings(max_examples=60)
@given(configurations())
def test_nobody_waits_for_ever_in_any_configuration(drawn: tuple[Spec, Host, Request]) -> None:
    spec, on, asked = drawn
    assume({"type": "user", "path": "/n"} not in spec["linux"]["namespaces"])  # see test_meetings
    assert World(made(spec, on, asked)).problems == set()


@settings(max_examples=100)
@given(
    kinds=subsets(list(KINDS)),
    user=st.booleans(),
    root=st.booleans(),
    rlimits=subsets(RLIMITS),
    console=st.sampled_from(["", "socket", "attached"]),
    seccomp=st.sampled_from([None, SECCOMP]),
    paths=st.sampled_from([{}, {"": "/c"}, {"": "/c", "pids": "/p"}, {"pids": "/p"}]),
    private=st.booleans(),
    mount=st.booleans(),
)
def test_any_execution(
    kinds: list[str],
    user: bool,
    root: bool,
    rlimits: list[Spec],
    console: str,
    seccomp: Spec | None,
    paths: dict[str, str],
    private: bool,
    mount: bool,
) -> None:
    assume(root or user)
    plan = execution(
        host(root=root),
        request(console=console, pipes=not console),
        kinds=(*(["mount"] if mount or user else []), *kinds, *(["user"] if user else [])),
        paths=paths,
        seccomp=seccomp,
        rlimits=rlimits,
        noNewPrivileges=private,
    )
    process = default_config()["process"] | {"rlimits": rlimits}
    checks.everything(plan, {"process": process, "linux": {"seccomp": seccomp}})
    if root:
        assert World(plan).problems == set()


@settings(max_examples=400)
@given(st.sampled_from(PLACES), st.one_of(JSON, st.just(GONE)), st.booleans(), st.sampled_from(["v1", "v2", "none"]))
def test_what_is_valid_can_be_planned(place: tuple[Any, str], value: Any, root: bool, mode: str) -> None:
    """One value of a caller's spec is changed: unless the checker refuses it, there is a plan, or an Error with a subject."""
    build, pointer = place
    document = build()
    put(document, pointer, value)
    if any(finding[3] == "error" for finding in check(document, not root)):
        return
    before = copy.deepcopy(document)
    try:
        plan = made(document, host(mode, root=root), request(cgroups="cgroupfs" if mode != "none" else "disabled"))
    except Error as err:
        assert err.subject.startswith("/")
        return
    checks.binds(plan)
    checks.points(plan, document)
    checks.is_plain(plan)
    assert document == before


def test_the_usual_namespaces_are_what_they_are_here() -> None:
    assert set(NAMESPACES) <= {"mount", *KINDS}


def test_a_name_leads_to_one_function() -> None:
    assert function("mount.attach").__module__ == "ocirt.kernel.steps.mount"
    with pytest.raises(AttributeError):
        function("mount.nothing")
    with pytest.raises(ModuleNotFoundError):
        function("nothing.attach")
