"""The order of what is done: each rule on every plan that has the steps it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, SIDES, STAGE, START
from ocirt.spec.rlimits import NUMBERS
from tests.support.bundle import edited
from tests.unit.plan.plans import (
    HOOKS,
    NOTIFYING,
    RLIMITS,
    SECCOMP,
    USER,
    WAITER,
    at,
    cases,
    create,
    everything,
    execution,
    executions,
    find,
    host,
    in_order,
    made,
    operations,
    request,
    rootless_executions,
    spaces,
    staged_cases,
    the,
)

CREATED = {name: made(build(), on, asked) for name, (build, on, asked) in (cases() | staged_cases()).items()}
EXECUTED = executions() | rootless_executions()
ALL = CREATED | {"exec, " + name: plan for name, plan in EXECUTED.items()}

if TYPE_CHECKING:
    from ocirt.plan import Plan

# What touches the container's tree, or what only init may do in it.
TREE = (
    "tree.attach_root",
    "mount.attach",
    "mount.copy_up",
    "mount.remount",
    "mount.cgroup",
    "device.open_directory",
    "tree.pivot",
    "process.change_root",
)
# What makes a name in the container's tree.
MAKES = (
    "mount.attach",
    "mount.cgroup",
    "device.open_directory",
    "device.make",
    "device.bind",
    "device.link",
    "device.link_core",
    "device.link_ptmx",
    "tree.make_directory",
    "console.bind",
)


def change_of_root(plan: Plan) -> int:
    """Where the container's tree becomes the root."""
    (found,) = find(plan, "tree.pivot") + find(plan, "tree.move_root") + find(plan, "process.change_root")
    return found


@pytest.mark.parametrize("name", ALL)
def test_sides_are_known_and_the_tail_is_the_end(name: str) -> None:
    plan = ALL[name]
    sides = [each[0] for each in plan]
    assert set(sides) <= set(SIDES)
    first = sides.index(START)
    assert set(sides[first:]) == {START}
    assert plan[-1][1] in ("program.execve", "waiter.hand_over")
    assert sides[0] == PARENT


@pytest.mark.parametrize("name", ALL)
def test_what_belongs_to_the_tail_is_in_the_tail(name: str) -> None:
    for side, operation, *_ in ALL[name]:
        tail = operation.startswith("program.") and operation not in ("program.load_filter", "program.find")
        if tail or operation in ("barrier.wait", "listener.offer", "waiter.hand_over"):
            assert side == START, operation
        elif operation != "hooks.run":
            assert side != START, operation


@pytest.mark.parametrize("name", CREATED)
def test_hooks_have_their_sides(name: str) -> None:
    where = {"prestart": PARENT, "createRuntime": PARENT, "createContainer": INIT, "startContainer": START}
    for side, operation, arguments, pointer, _ in CREATED[name]:
        if operation == "hooks.run":
            kind, index, hook, status = arguments
            assert side == where[kind]
            assert status == ("created" if kind == "startContainer" else "creating")
            assert pointer == f"/hooks/{kind}/{index}"
            assert hook["path"]


@pytest.mark.parametrize("name", ALL)
def test_the_cgroup_is_entered_before_its_namespace(name: str) -> None:
    """The namespace's root is the cgroup that the process is in."""
    plan = ALL[name]
    for index in find(plan, "namespace.unshare", k.CLONE_NEWCGROUP):
        joins = find(plan, "cgroup.join", side=INIT)
        assert all(join < index for join in joins)
        assert not joins or find(plan, "cgroup.open")
    if find(plan, "systemd.start"):
        in_order(plan, "cgroup.check", "process.clone", "systemd.start", "cgroup.make", "cgroup.attach")
    else:
        in_order(plan, "cgroup.check", "cgroup.make", "cgroup.open", "process.clone", "cgroup.join")


@pytest.mark.parametrize("name", ALL)
def test_limits_are_set_before_anything_runs_below_them_and_the_processor_s_when_all_is_set_up(name: str) -> None:
    plan = ALL[name]
    for index in find(plan, "cgroup.limit"):
        controllers = {entry[0] for entry in plan[index][2][1]}
        if find(plan, "systemd.start") and index < at(plan, "sync.tell", "grouped"):
            assert at(plan, "cgroup.make") < index
            assert "cpu" not in controllers
        elif index < at(plan, "sync.open"):
            assert find(plan, "cgroup.make")[0] < index < find(plan, "cgroup.open")[0]
            assert "cpu" not in controllers
        else:
            assert index > at(plan, "sync.expect", "ready")
            assert index < at(plan, "state.commit")
            assert controllers == {"cpu"}
            assert plan[index][3] == "/linux/resources/cpu"


@pytest.mark.parametrize("name", ALL)
def test_nobody_looks_into_a_process_that_joins(name: str) -> None:
    """Not dumpable before the first setns(2) of each process, and before anything of the container's is touched."""
    plan = ALL[name]
    for side in (STAGE, INIT):
        protects = find(plan, "process.protect", side=side)
        reached = [
            index
            for index, each in enumerate(plan)
            if each[0] == side
            and (
                each[1] in TREE
                or each[1] in ("namespace.join", "namespace.join_target")
                # In namespaces that a stage makes there is nobody else yet who could look.
                or (each[1] == "namespace.unshare" and side == INIT)
            )
        ]
        if reached:
            assert protects, side
            assert protects[0] < reached[0]
    if find(plan, "process.clone", STAGE):
        first = ("process.protect", "process.set_own_oom_score", "cgroup.join", "namespace.open_offsets", "sync.expect")
        assert operations(plan, STAGE)[0] in first


@pytest.mark.parametrize("name", ALL)
def test_init_is_protected_after_it_has_become_root(name: str) -> None:
    """A change of ids could make it dumpable again."""
    plan = ALL[name]
    for index in find(plan, "user.become_root", side=INIT):
        assert index < find(plan, "process.protect", side=INIT)[-1]


@pytest.mark.parametrize("name", CREATED)
def test_the_tree(name: str) -> None:
    plan = CREATED[name]
    in_order(
        plan, "mount.propagate_host", "tree.make_parent_private", "tree.attach_root", "mount.attach", "device.open_directory"
    )
    in_order(plan, "mount.propagate_host", "tree.attach_root", "mount.cgroup", "device.open_directory")
    in_order(plan, "device.open_directory", "device.make", "device.link", "device.link_core", "device.link_ptmx")
    in_order(plan, "device.open_directory", "device.bind", "device.link")
    for change in ("tree.pivot", "process.change_root"):
        in_order(plan, "tree.sysctl", "mount.read_only", "mount.mask", change)
        in_order(plan, "tree.make_directory", change, "process.close_descriptors")
        in_order(plan, "device.link_ptmx", "console.open", "console.bind", "console.send", change)
    in_order(plan, "device.link_ptmx", "process.set_host_name")
    in_order(plan, "mount.propagate_host", "console.open")


@pytest.mark.parametrize("name", CREATED)
def test_the_root_is_changed_after_everything_is_attached(name: str) -> None:
    plan = CREATED[name]
    pivot = change_of_root(plan)
    after = [each for each in plan[pivot:] if each[0] == INIT]
    for each in after:
        assert not each[1].startswith("device.")
        assert each[1].startswith("mount.") <= (each[1] == "mount.propagate_root")
        assert each[1] not in ("tree.sysctl", "tree.make_directory", "tree.attach_root")
    assert at(plan, "process.close_descriptors") > pivot
    for index in find(plan, "mount.propagate_root"):
        assert index == pivot + 1


@pytest.mark.parametrize("name", CREATED)
def test_what_leads_to_the_host_is_closed_before_the_program_s_identity(name: str) -> None:
    plan = CREATED[name]
    in_order(plan, "process.close_descriptors", "stdio.reopen_null", "user.become", "program.find", "program.keep_descriptors")
    fds = the(plan, "process.close_descriptors")[2]
    assert fds == the(plan, "program.keep_descriptors")[2]
    # What is closed cannot be used any more.
    for side, operation, *_ in plan[at(plan, "process.close_descriptors") :]:
        if side in (INIT, START) and operation != "listener.offer":
            modules = ("stdio", "user", "process", "program", "sync", "barrier", "hooks", "waiter", "scheduling")
            assert operation.partition(".")[0] in modules


@pytest.mark.parametrize("name", CREATED)
def test_hooks_of_the_container_see_a_tree_that_is_not_locked_yet(name: str) -> None:
    """createContainer hooks may mount; what is hidden and read-only is so for what they mounted, too."""
    plan = CREATED[name]
    hooks = find(plan, "hooks.run", "createContainer")
    locks = [index for operation in ("mount.mask", "mount.read_only") for index in find(plan, operation)]
    locks += [index for index in find(plan, "mount.change") if plan[index][3] == "/root/readonly"]
    assert not hooks or not locks or max(hooks) < min(locks)
    for hook in hooks:
        assert max(find(plan, "mount.attach")) < hook < change_of_root(plan)


def test_a_read_only_root_is_so_when_everything_in_it_is_made() -> None:
    for terminal in (False, True):
        plan = create(
            asked=request(console="socket" if terminal else ""),
            root={"path": "rootfs", "readonly": True},
            terminal=terminal,
            cwd="/w",
        )
        (lock,) = [index for index, each in enumerate(plan) if each[3] == "/root/readonly"]
        assert plan[lock][:3] == (INIT, "mount.change", ("root", k.MOUNT_ATTR_RDONLY, 0, False))
        made_in_it = [index for index, each in enumerate(plan) if each[1] in MAKES and each[1] != "console.bind"]
        assert max(made_in_it) < lock < at(plan, "tree.pivot")


@pytest.mark.parametrize("read_only", ["root", "/dev"])
def test_the_console_s_file_is_made_before_its_directory_is_read_only(read_only: str) -> None:
    """/dev/console is made when it is missing: not possible below a /dev that is read-only by then."""
    spec = edited(everything(), root={"path": "rootfs", "readonly": read_only == "root"})
    mounts = [mount for mount in spec["mounts"] if not (read_only == "root" and mount["destination"].startswith("/dev"))]
    for mount in mounts:
        if mount["destination"] == "/dev":
            mount["options"] = [*mount["options"], "ro"]
    plan = made(spec | {"mounts": mounts}, asked=request(console="socket"))
    slot = "root" if read_only == "root" else plan[at(plan, "mount.attach", "mount/1", "/dev")][2][0]
    (lock,) = [index for index in find(plan, "mount.change", slot) if plan[index][2][1] & k.MOUNT_ATTR_RDONLY]
    assert at(plan, "console.bind") < lock


def test_a_read_only_tmpfs_is_so_when_everything_in_it_is_made() -> None:
    below = [
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid", "mode=700"]},
        {"destination": "/t/a", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/t/b", "source": "/srv", "options": ["bind"]},
    ]
    plan = create(add_mounts=below, cwd="/t/c")
    new = the(plan, "mount.new", "mount/6")
    assert new[2] == ("mount/6", "tmpfs", "tmpfs", (("mode", "700"),), 2)
    lock = at(plan, "mount.change", "mount/6")
    assert plan[lock][2:4] == (("mount/6", k.MOUNT_ATTR_RDONLY, 0, False), "/mounts/6/options")
    for target in ("/t/a", "/t/b"):
        (attach,) = [index for index in find(plan, "mount.attach") if plan[index][2][1] == target]
        assert attach < lock
    assert at(plan, "tree.make_directory", "/t/c") < lock < at(plan, "tree.pivot")


def test_other_file_systems_are_read_only_at_once() -> None:
    plan = create()
    (sysfs,) = [each for each in plan if each[1] == "mount.new" and each[2][1] == "sysfs"]
    assert sysfs[2][4] & k.MOUNT_ATTR_RDONLY
    assert not find(plan, "mount.change", sysfs[2][0])


# -- privileges and the tail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_privileges_go_in_order(name: str) -> None:
    plan = ALL[name]
    in_order(
        plan,
        "user.find_home",
        "process.umask",
        "process.limit_bounding_set",
        "stdio.own",
        "user.become",
        "process.check_directory",
        "process.set_capabilities",
        "process.raise_ambient",
        "process.no_new_privileges",
        "program.find",
        "process.outlive_parent",
    )
    first, second = find(plan, "process.chdir")
    assert first < at(plan, "user.become") < second < at(plan, "process.check_directory")
    assert plan[first][2] == plan[second][2]
    assert plan[first][4] == {1: None, 13: None}
    assert plan[second][4] is None


@pytest.mark.parametrize("name", ALL)
def test_the_tail(name: str) -> None:
    plan = ALL[name]
    tail = operations(plan, START)
    queued = [operation for operation in tail if operation in ("program.limit", "program.filter", "program.set_capabilities")]
    assert tail[len(tail) - 1 - len(queued) : -1] == queued, "nothing but what is queued stands before execve"
    limits = queued.count("program.limit")
    assert queued[:limits] == ["program.limit"] * limits
    if "program.load_filter" not in operations(plan, PARENT):
        assert queued[limits:] == []
        return
    private = find(plan, "process.no_new_privileges")
    assert queued[limits:] == ["program.filter"] + ([] if private else ["program.set_capabilities"])
    in_order(plan, "program.prepare", "program.keep_descriptors", "program.limit", "program.filter")


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_filter_and_capabilities(no_new_privileges: bool) -> None:
    """Without no_new_privs it takes CAP_SYS_ADMIN to load a filter: it is kept until then, and dropped right after."""
    plan = create(seccomp=SECCOMP, noNewPrivileges=no_new_privileges)
    early = the(plan, "process.set_capabilities")[2]
    wanted = 1 << 29 | 1 << 5 | 1 << 10
    spare = 0 if no_new_privileges else 1 << 21
    assert early == (wanted | spare, wanted | spare, 0)
    tail = [each for each in plan if each[0] == START]
    if no_new_privileges:
        assert tail[-2][1] == "program.filter"
        assert at(plan, "process.no_new_privileges") < at(plan, "program.filter")
    else:
        assert [each[1] for each in tail[-3:]] == ["program.filter", "program.set_capabilities", "program.execve"]
        assert tail[-2][2] == (wanted, wanted, 0)
        assert not find(plan, "process.no_new_privileges")


def test_without_a_filter_no_capability_is_kept() -> None:
    plan = create(noNewPrivileges=False)
    assert not the(plan, "process.set_capabilities")[2][0] & 1 << 21
    assert not find(plan, "program.set_capabilities")


def test_tight_limits_come_last() -> None:
    plan = create(rlimits=RLIMITS)
    names = [each[2][1] for each in plan if each[1] == "program.limit"]
    assert names[:3] == ["RLIMIT_NPROC", "RLIMIT_CORE", "RLIMIT_STACK"]
    assert names[3:] == ["RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_DATA", "RLIMIT_AS"]
    for each in plan:
        if each[1] == "program.limit":
            number, name, soft, hard = each[2]
            index = int(each[3].rpartition("/")[2])
            assert each[3] == f"/process/rlimits/{index}"
            assert RLIMITS[index] == {"type": name, "soft": soft, "hard": hard}
            assert number == NUMBERS[name]
    raised = [each for each in plan if each[1] == "process.raise_limit"]
    assert {each[0] for each in raised} == {PARENT}
    assert {each[2][1]: each[2][2] for each in raised} == {limit["type"]: limit["hard"] for limit in RLIMITS}


# -- waiting or not ------------------------------------------------------------------------------------------------------------


def test_create_waits_and_run_does_not() -> None:
    waits, runs = create(hooks=HOOKS), create(asked=request(waits=False), hooks=HOOKS)
    assert at(waits, "barrier.make", "/run/state/c1") < at(waits, "process.clone")
    assert operations(waits, START)[0] == "barrier.wait"
    assert not find(runs, "barrier.make")
    assert not find(runs, "barrier.wait")
    assert [each for each in waits if not each[1].startswith("barrier.")] == runs


@pytest.mark.parametrize(
    ("outside", "edits", "asked"),
    [
        (True, {}, {}),
        (True, {"seccomp": SECCOMP}, {}),
        (True, {"rlimits": RLIMITS, "user": {"uid": 7, "gid": 7}, "capabilities": None}, {"fds": 2}),
        (True, {"hooks": {"prestart": HOOKS["prestart"], "poststart": HOOKS["poststart"]}}, {}),
        # What only init itself can do after `start`.
        (False, {"hooks": {"startContainer": HOOKS["startContainer"]}}, {}),
        (False, {"seccomp": SECCOMP, "noNewPrivileges": False}, {}),
        # A user's capabilities would be gone with the waiter's execve.
        (False, {"user": {"uid": 7, "gid": 7}}, {}),
        (False, {}, {"waits": False}),
    ],
)
def test_who_waits_for_start(outside: bool, edits: dict[str, Any], asked: dict[str, Any]) -> None:
    plan = create(host(waiter=WAITER), request(**asked), **edits)
    assert bool(find(plan, "waiter.load", WAITER)) is outside
    assert bool(find(plan, "waiter.hand_over")) is outside
    assert bool(find(plan, "program.execve")) is not outside
    assert bool(find(plan, "barrier.wait")) is (not outside and asked.get("waits", True))
    if outside:
        assert at(plan, "barrier.make") < at(plan, "waiter.load") < at(plan, "process.clone")
        fds, sets = plan[-1][2]
        assert fds == asked.get("fds", 0)
        assert sets == the(plan, "process.set_capabilities")[2]
        # But for who waits it is the same plan.
        plain = create(asked=request(**asked), **edits)
        assert [each for each in plan if not each[1].startswith("waiter.")] == [
            each for each in plain if each[1] not in ("barrier.wait", "program.execve")
        ]


def test_nothing_is_loaded_to_wait_where_there_is_nothing() -> None:
    assert not [each for each in create(host(waiter="")) if each[1].startswith("waiter.")]


@pytest.mark.parametrize("waits", [True, False])
def test_a_listener_is_handed_over(waits: bool) -> None:
    """Its agent is looked for before anything is made; what sends the listener is made before the first limit."""
    plan = create(host(waiter=WAITER), request(waits=waits), seccomp=NOTIFYING, rlimits=RLIMITS)
    in_order(plan, "program.load_filter", "listener.check", "cgroup.make", "process.clone")
    assert the(plan, "listener.check")[2] == ("/bundles/b/agent.sock",)
    in_order(plan, "program.prepare", "listener.offer", "program.keep_descriptors", "program.limit", "program.filter")
    assert bool(find(plan, "listener.listen", "/run/state/c1")) is waits
    # By who waits for `start`, and after that.
    assert bool(find(plan, "waiter.hand_over")) is waits
    assert the(plan, "listener.offer")[2] == (waits,)
    assert the(create(asked=request(waits=waits), seccomp=NOTIFYING), "listener.offer")[2] == (False,)
    inside = execution(seccomp=NOTIFYING)
    in_order(inside, "listener.check", "process.clone", "listener.offer", "program.filter")
    assert the(inside, "listener.offer")[2] == (False,)


def test_a_listener_that_nobody_notifies_is_not_needed() -> None:
    unused = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": []}
    plan = create(host(waiter=WAITER), seccomp=unused)
    assert not [each for each in plan if each[1].startswith("listener.")]
    assert find(plan, "waiter.hand_over")
    whole = create(seccomp={**unused, "defaultAction": "SCMP_ACT_NOTIFY"})
    assert the(whole, "listener.check")[2] == ("/agent",)


def test_hooks_of_a_start_come_after_the_barrier() -> None:
    plan = create(hooks=HOOKS)
    hooks = find(plan, "hooks.run", "startContainer")
    assert [plan[index][2][1] for index in hooks] == [0, 1]
    assert at(plan, "barrier.wait") < hooks[0] < hooks[1] < at(plan, "program.prepare")


def test_without_hooks_of_the_parent_nobody_meets_for_them() -> None:
    chosen: list[dict[str, Any]] = [
        {},
        {"createContainer": HOOKS["createContainer"]},
        {"prestart": []},
        {"poststart": HOOKS["poststart"]},
    ]
    for hooks in chosen:
        plan = create(hooks=hooks)
        assert not find(plan, "sync.tell", "mounted")
        assert not find(plan, "sync.tell", "hooked")


def test_hooks_stand_between_mounted_and_hooked() -> None:
    for hooks in ({"prestart": HOOKS["prestart"]}, {"createRuntime": HOOKS["createRuntime"]}, HOOKS):
        plan = create(hooks=hooks)
        runs = [index for index in find(plan, "hooks.run") if plan[index][0] == PARENT]
        assert at(plan, "sync.expect", "mounted") < min(runs)
        assert max(runs) < at(plan, "sync.tell", "hooked") < at(plan, "sync.expect", "hooked")
        kinds = [plan[index][2][0] for index in runs]
        assert kinds == sorted(kinds, reverse=True)  # prestart, then createRuntime
    poststop = [each for each in create(hooks=HOOKS) if each[1] == "hooks.run" and each[2][0].startswith("poststart")]
    assert poststop == []


def test_sysctls_are_written_before_proc_sys_is_read_only_and_after_their_namespaces_are_there() -> None:
    plan = create(sysctl={"net.ipv4.ip_forward": "1"}, namespaces=spaces("pid", "mount", "uts", network="/proc/7/ns/net"))
    in_order(plan, "namespace.join", "tree.sysctl", "mount.read_only")
    assert the(plan, "tree.sysctl")[2:4] == (("net/ipv4/ip_forward", "1"), "/linux/sysctl/net.ipv4.ip_forward")


def test_names_are_set_in_their_namespace() -> None:
    plan = create(namespaces=spaces("pid", "mount", uts="/proc/7/ns/uts"), domainname="d")
    in_order(plan, "namespace.join", "process.set_host_name", "process.set_domain_name")
    assert the(plan, "process.set_host_name")[2:4] == (("ocirt-test",), "/hostname")
    assert the(plan, "process.set_domain_name")[2:4] == (("d",), "/domainname")
    assert not find(create(hostname=""), "process.set_host_name")


def test_a_session_comes_before_a_terminal_and_the_keyring_once() -> None:
    plan = made(everything(), asked=request(console="socket"))
    in_order(plan, "process.new_session", "console.open")
    assert the(plan, "process.join_keyring")[2] == ("_ses.c1",)
    assert not find(create(asked=request(keyring=False)), "process.join_keyring")


def test_user_namespace_order() -> None:
    plan = create(linux=USER, namespaces=["pid", "mount", "user", "uts", "cgroup", "network"], on=host("hybrid"))
    assert at(plan, "user.map") < at(plan, "sync.tell", "mapped") < at(plan, "sync.expect", "mapped")
    assert at(plan, "sync.expect", "mapped") < at(plan, "user.become_root") < at(plan, "namespace.unshare")
    assert at(plan, "cgroup.join") < at(plan, "namespace.unshare") < at(plan, "process.new_session")
