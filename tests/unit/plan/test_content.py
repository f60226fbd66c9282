"""What steps carry: mounts, devices, cgroups, the process, and what an error leads to."""

from __future__ import annotations

from errno import EACCES, EEXIST, EINVAL, ENOENT, ENOSYS, ENOTDIR, EPERM, EROFS
from typing import Any

import pytest

from ocirt.cgroups import devices as device_rules
from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel.run import Run, function
from ocirt.plan import INIT, PARENT
from ocirt.plan.create import cgroup_paths
from ocirt.plan.rootfs import MOUNTED
from ocirt.spec import mountoptions
from tests.support.bundle import default_config, edited
from tests.unit.plan.plans import (
    CGROUP,
    LIMITS,
    ROOT,
    USER,
    at,
    create,
    everything,
    execution,
    find,
    host,
    made,
    request,
    spaces,
    the,
)


def mount(destination: str, *options: str, kind: str = "tmpfs", source: str = "tmpfs") -> dict[str, Any]:
    """An entry of `mounts`."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def steps_of(plan: Any, slot: str) -> list[tuple[str, tuple[Any, ...]]]:
    """(operation, arguments without the slot) of what is done to one mount."""
    return [(each[1], each[2][1:]) for each in plan if each[2][:1] == (slot,)]


# -- mounts --------------------------------------------------------------------------------------------------------------------


def test_mounts_stand_in_their_order() -> None:
    plan = made(everything())
    places = [int(each[3].split("/")[2]) for each in plan if each[1] in ("mount.attach", "mount.cgroup")]
    assert places == list(range(len(everything()["mounts"])))


def test_a_bind_mount_with_all_kinds_of_options() -> None:
    options = ["rbind", "ro", "nosuid", "exec", "noatime", "rnodev", "rexec", "rslave", "unbindable"]
    plan = create(add_mounts=[mount("/d/../data/", *options, kind="none", source="../x")])
    assert steps_of(plan, "mount/6") == [
        ("mount.clone", ("/bundles/b/../x", True)),
        ("mount.change", (k.MOUNT_ATTR_RDONLY | 2 | 0x10, 8 | k.MOUNT_ATTR_ATIME, False)),
        ("mount.change", (4, 8, True)),
        ("mount.attach", ("/data", False, False)),
        ("mount.propagate", (k.MS_SLAVE, True)),
        ("mount.propagate", (k.MS_UNBINDABLE, False)),
    ]
    assert [each[3] for each in plan if each[2][:1] == ("mount/6",)] == [
        "/mounts/6/source",
        "/mounts/6/options",
        "/mounts/6/options",
        "/mounts/6",
        "/mounts/6/options",
        "/mounts/6/options",
    ]


def test_a_plain_bind_mount_is_not_changed() -> None:
    plan = create(add_mounts=[mount("/d", "bind", kind="", source="/s")])
    assert steps_of(plan, "mount/6") == [("mount.clone", ("/s", False)), ("mount.attach", ("/d", False, False))]


def test_a_file_system_with_all_kinds_of_options() -> None:
    plan = create(
        add_mounts=[mount("/f", "size=1m", "a=b=c", "flag", "sync", "nosuid", "rro", "private", kind="xfs", source="/dev/sda")]
    )
    assert steps_of(plan, "mount/6") == [
        ("mount.new", ("xfs", "/dev/sda", (("size", "1m"), ("a", "b=c"), ("flag", None), ("sync", None)), 2)),
        ("mount.attach", ("/f", False, False)),
        ("mount.change", (1, 0, True)),
        ("mount.propagate", (k.MS_PRIVATE, False)),
    ]


def test_an_option_with_an_empty_value_is_not_a_flag() -> None:
    plan = create(add_mounts=[mount("/f", "x=", "y")])
    assert the(plan, "mount.new", "mount/6")[2][3] == (("x", ""), ("y", None))


def test_the_source_of_a_file_system_defaults_to_its_type() -> None:
    plan = create(add_mounts=[{"destination": "/t", "type": "tmpfs"}])
    assert the(plan, "mount.new", "mount/6")[2] == ("mount/6", "tmpfs", "tmpfs", (), 0)


def test_tmpcopyup_is_for_tmpfs() -> None:
    plan = create(add_mounts=[mount("/t", "tmpcopyup"), mount("/r", "tmpcopyup", kind="ramfs")])
    assert [each[2] for each in plan if each[1] == "mount.copy_up"] == [("mount/6", "/t")]
    assert at(plan, "mount.new", "mount/6") < at(plan, "mount.copy_up") < at(plan, "mount.attach", "mount/6")


@pytest.mark.parametrize(
    ("entry", "exact"),
    [
        (mount("/proc", kind="proc"), True),
        (mount("/other", kind="proc"), True),
        (mount("/sys", kind="sysfs"), True),
        (mount("/proc/", "rbind", kind="none", source="/proc"), True),
        (mount("//proc/../proc/.", "bind", source="/proc"), True),
        (mount("/sys", "rbind", source="/sys"), True),
        (mount("/sys/fs", "rbind", source="/sys"), False),
        (mount("/proc/uptime", "bind", source="/u"), False),
        (mount("/dev"), False),
    ],
)
def test_what_may_lie_behind_no_link(entry: dict[str, Any], exact: bool) -> None:
    plan = made(edited(default_config(), edit=lambda spec: spec.update(mounts=[entry])))
    assert the(plan, "mount.attach")[2][2] is exact


@pytest.mark.parametrize("path", ["/proc/uptime", "/proc/./cpuinfo", "proc//meminfo", "/proc/sys/kernel/ns_last_pid"])
def test_files_of_proc_that_may_be_covered(path: str) -> None:
    plan = create(add_mounts=[mount(path, "bind", source="/u")])
    over = [each[2][1] for each in plan if each[1] == "mount.attach" and each[2][3]]
    assert over == ["/" + path.replace("/./", "/").replace("//", "/").lstrip("/")]


def test_a_remount() -> None:
    plan = create(add_mounts=[mount("/dev/shm", "remount", "ro", "exec", "rprivate", kind="")])
    assert the(plan, "mount.remount")[:4] == (INIT, "mount.remount", ("mount/6", "/dev/shm", 1, 8), "/mounts/6")
    assert steps_of(plan, "mount/6")[1:] == [("mount.propagate", (k.MS_PRIVATE, True))]


@pytest.mark.parametrize("propagation", ["rprivate", "private", "rslave"])
@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
def test_a_cgroup_mount_with_propagation(mode: str, propagation: str) -> None:
    """As podman sends it. What is propagated has to be in a slot by then."""
    plan = create(host(mode), add_mounts=[mount("/sys/fs/cgroup", propagation, "ro", kind="cgroup", source="cgroup")])
    (cgroup,) = find(plan, "mount.cgroup", "mount/6", "/sys/fs/cgroup")
    assert cgroup < at(plan, "mount.propagate", "mount/6")


@pytest.mark.parametrize(
    "entry",
    [
        mount("/dev/shm", "remount", "rro", kind=""),
        mount("/sys/fs/cgroup", "rro", kind="cgroup"),
        mount("/dev/shm", "remount", "rnoexec"),
    ],
)
def test_no_recursive_attribute_is_lost(entry: dict[str, Any]) -> None:
    """What is not done must be refused; it is never ignored."""
    plan = create(add_mounts=[entry])
    wanted = mountoptions.parse(entry["options"], entry["type"])["rec_set"]
    own = [each for each in plan if each[3].startswith("/mounts/6")]
    assert any(wanted in each[2] for each in own)


def test_a_tmpfs_that_is_read_only_all_through_takes_what_is_mounted_in_it() -> None:
    """`rro` is no more than `ro` with what lies below: the targets have to be made first."""
    plan = create(add_mounts=[mount("/t", "rro"), mount("/t/x")])
    (lock,) = [index for index in find(plan, "mount.change", "mount/6") if plan[index][2][1] & k.MOUNT_ATTR_RDONLY]
    assert at(plan, "mount.attach", "mount/7") < lock


@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
@pytest.mark.parametrize("namespace", [True, False])
def test_a_cgroup_mount(mode: str, namespace: bool) -> None:
    kinds = spaces("mount", "uts", *(["cgroup"] if namespace else []))
    on = host(mode)
    plan = create(
        on, namespaces=kinds, cgroupsPath="/pods/c1", add_mounts=[mount("/sys/fs/cgroup", "ro", "nosuid", kind="cgroup")]
    )
    paths = {controller: place + "/pods/c1" for controller, place in on.layout.mounts.items()}
    assert the(plan, "mount.cgroup")[2] == ("mount/6", "/sys/fs/cgroup", mode, on.layout.mounts, paths, {}, namespace, 3)


def test_a_cgroup_mount_shows_where_init_is_if_the_container_has_no_cgroup() -> None:
    """In a hierarchy that a rootless runtime may not write to. What /proc/self/cgroup says may lie outside of what is mounted."""
    on = host("v1")
    on.layout.own |= {"cpu": "/", "pids": "/user/alice", "cpuset": "/../other"}
    entry = mount("/sys/fs/cgroup", "ro", kind="cgroup")
    spec = edited(default_config(), add_mounts=[entry])
    mounts = on.layout.mounts
    paths = {name: f"{place}/c1" for name, place in mounts.items() if name not in ("cpu", "pids", "cpuset")}
    plan = made(spec, on, paths=paths)
    own = {"cpu": mounts["cpu"], "pids": mounts["pids"] + "/user/alice", "cpuset": mounts["cpuset"]}
    assert the(plan, "mount.cgroup")[2][4:6] == (paths, own)


def test_cgroup2_is_a_file_system_where_it_is_the_only_one() -> None:
    """And the container has a cgroup namespace of its own: in the host's it would give its options to all mounts of it."""
    entry = mount("/sys/fs/cgroup", "nsdelegate", kind="cgroup2", source="cgroup")
    kinds = spaces("mount", "uts", "cgroup")
    assert the(create(namespaces=kinds, add_mounts=[entry]), "mount.new", "mount/6")[2][1] == "cgroup2"
    joined = [*spaces("mount", "uts"), {"type": "cgroup", "path": "/proc/7/ns/cgroup"}]
    for on, namespaces in ((host("v1"), kinds), (host("v2"), spaces("mount", "uts")), (host("v2"), joined)):
        assert len(find(create(on, namespaces=namespaces, add_mounts=[entry]), "mount.cgroup")) == 1


# -- the root ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on_host", "again"),
    [
        (None, (k.MS_SLAVE, True), None),
        ("", (k.MS_SLAVE, True), None),
        ("slave", (k.MS_SLAVE, False), None),
        ("rslave", (k.MS_SLAVE, True), None),
        ("private", (k.MS_PRIVATE, False), None),
        ("rprivate", (k.MS_PRIVATE, True), None),
        ("shared", (k.MS_SHARED, False), (k.MS_SHARED, False)),
        ("rshared", (k.MS_SHARED, True), (k.MS_SHARED, True)),
        ("unbindable", (k.MS_PRIVATE, False), (k.MS_UNBINDABLE, False)),
        ("runbindable", (k.MS_PRIVATE, True), (k.MS_UNBINDABLE, True)),
    ],
)
def test_propagation(name: str | None, on_host: tuple[int, bool], again: tuple[int, bool] | None) -> None:
    plan = create(rootfsPropagation=name)
    assert the(plan, "mount.propagate_host")[2] == on_host
    # Where the host's mounts stay as they are, the one that the root lies on must not carry anything back.
    keeps = bool(on_host[0] & k.MS_SHARED or not on_host[1])
    assert [each[2] for each in plan if each[1] == "tree.make_parent_private"] == [("/bundles/b/rootfs",)] * keeps
    assert [each[2] for each in plan if each[1] == "mount.propagate_root"] == ([again] if again else [])


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("rootfs", "/bundles/b/rootfs"), ("/abs/./x/", "/abs/x"), ("../other", "/bundles/other"), (".", "/bundles/b")],
)
def test_the_root_s_path(path: str, wanted: str) -> None:
    plan = create(root={"path": path})
    assert the(plan, "tree.check_root")[2] == (wanted,)
    assert the(plan, "mount.clone", "root")[2] == ("root", wanted, True)
    assert the(plan, "tree.attach_root")[2] == (wanted,)


def test_a_root_that_is_a_mount() -> None:
    """Of a bundle of `ocirt bundle --mount`: it is looked at before anything is made in it."""
    plan = create(annotations={MOUNTED: "7", "other": "x"})
    assert [each[1] for each in plan[:2]] == ["tree.check_root", "tree.check_mounted"]
    assert the(plan, "tree.check_mounted")[2] == ("/bundles/b/rootfs",)
    for none in ({}, {"other": "x"}, None):
        assert "tree.check_mounted" not in [each[1] for each in create(annotations=none)]


# -- devices -------------------------------------------------------------------------------------------------------------------


def test_devices() -> None:
    devices = [
        {"path": "/dev/./null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20600, "uid": 5, "gid": 6},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 1},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 9, "fileMode": 0},
        {"path": "/run/pipe", "type": "p", "fileMode": 0o640, "uid": 3},
    ]
    plan = create(devices=devices)
    nodes = {each[2][0]: each for each in plan if each[1] == "device.make"}
    assert nodes["/dev/null"][2] == ("/dev/null", "c", 1, 3, 0o600, 5, 6)
    assert nodes["/dev/null"][3] == "/linux/devices/0"
    assert nodes["/dev/b"][2] == ("/dev/b", "b", 7, 1, 0o666, 0, 0)
    assert nodes["/dev/u"][2] == ("/dev/u", "u", 1, 9, 0, 0, 0)
    assert nodes["/run/pipe"][2] == ("/run/pipe", "p", 0, 0, 0o640, 3, 0)
    assert nodes["/dev/zero"][2:4] == (("/dev/zero", "c", 1, 5, 0o666, 0, 0), "/linux/devices")
    assert len(nodes) == 9


def test_what_stands_in_the_way_of_a_device() -> None:
    plan = create(devices=[{"path": "/dev/p", "type": "p"}])
    assert the(plan, "device.make", "/dev/null")[4] == {EEXIST: None, EPERM: ("device.bind", ("/dev/null",))}
    assert the(plan, "device.make", "/dev/p")[4] == {EEXIST: None}
    links = {each[2][0]: each for each in plan if each[1] == "device.link"}
    assert {name: each[2][1] for name, each in links.items()} == {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }
    assert all(each[4] == {EEXIST: None} for each in links.values())
    assert the(plan, "device.link_core")[4] == {EEXIST: None, ENOENT: None}
    assert the(plan, "device.link_ptmx")[4] is None


@pytest.mark.parametrize("options", [["bind"], ["rbind", "ro"]])
def test_a_dev_of_the_host_s_is_left_alone(options: list[str]) -> None:
    plan = create(add_mounts=[mount("/dev/.", *options, kind="none", source="/dev")])
    assert not [each for each in plan if each[1].startswith("device.")]


# -- what is hidden ------------------------------------------------------------------------------------------------------------


def test_masks_and_read_only_paths() -> None:
    plan = create(maskedPaths=["/proc/kcore", "/sys/firmware"], readonlyPaths=["/proc/sys"])
    missing = {ENOENT: None, ENOTDIR: None}
    steps = [each for each in plan if each[1] in ("mount.mask", "mount.read_only")]
    assert steps == [
        (INIT, "mount.read_only", ("/proc/sys",), "/linux/readonlyPaths/0", missing),
        (INIT, "mount.mask", ("/proc/kcore",), "/linux/maskedPaths/0", missing),
        (INIT, "mount.mask", ("/sys/firmware",), "/linux/maskedPaths/1", missing),
    ]


def test_sysctls_have_escaped_pointers() -> None:
    plan = create(sysctl={"net/ipv4/conf/eth0.100/rp_filter": "1", "net.a~b": "x"}, namespaces=["mount", "uts", "network"])
    assert [each[2:4] for each in plan if each[1] == "tree.sysctl"] == [
        (("net/ipv4/conf/eth0.100/rp_filter", "1"), "/linux/sysctl/net~1ipv4~1conf~1eth0.100~1rp_filter"),
        (("net/a~b", "x"), "/linux/sysctl/net.a~0b"),
    ]


# -- cgroups -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
def test_cgroups(mode: str) -> None:
    on = host(mode)
    plan = create(on, resources=LIMITS, cgroupsPath="/pods/c1")
    paths = {controller: place + "/pods/c1" for controller, place in on.layout.mounts.items()}
    for operation in ("cgroup.check", "cgroup.make", "cgroup.open"):
        assert the(plan, operation)[:4] == (PARENT, operation, (paths,), "/linux/cgroupsPath")
        assert the(plan, operation)[4] is None
    early, late = (plan[index] for index in find(plan, "cgroup.limit"))
    assert {entry[0] for entry in early[2][1]} == {"memory", "pids", "cpuset"}
    assert {entry[0] for entry in late[2][1]} == {"cpu"}
    section: Any = LIMITS["devices"]
    rules = device_rules.rules(section)
    if mode == "v2":
        assert the(plan, "cgroup.device_program")[2:] == ((paths, device_rules.program(rules)), device_rules.POINTER, None)
    else:
        assert the(plan, "cgroup.device_rules")[2:] == ((paths, tuple(device_rules.writes(rules))), device_rules.POINTER, None)


def test_devices_of_the_container_are_allowed_by_no_rule_of_ours() -> None:
    """A node at the place of a default device takes the default's rule away."""
    node = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}
    with_node, without = (create(devices=devices) for devices in ([node], []))
    assert the(with_node, "cgroup.device_program")[2][1] != the(without, "cgroup.device_program")[2][1]


@pytest.mark.parametrize(
    ("on", "section", "may_fail"),
    [
        (host(), [{"allow": False, "access": "rwm"}], False),
        (host(user_namespace=True), [{"allow": False, "access": "rwm"}], True),
        (host(user_namespace=True), None, True),
        (host(user_namespace=True), [{"allow": True, "access": "rwm"}], True),
        (host(user_namespace=True), [{"allow": False, "type": "c", "access": "rwm"}], False),
        (host("v1", user_namespace=True), [{"allow": True, "type": "c", "access": "r"}], False),
    ],
)
def test_device_rules_may_fail_only_where_nothing_is_lost(on: Any, section: Any, may_fail: bool) -> None:
    plan = create(on, resources={"devices": section} if section is not None else {})
    (step,) = [each for each in plan if each[1] in ("cgroup.device_rules", "cgroup.device_program")]
    assert step[4] == (dict.fromkeys((EACCES, EPERM, EROFS)) if may_fail else None)


def test_no_cgroup_but_limits() -> None:
    with pytest.raises(Error, match="no cgroup could be used") as caught:
        create(host("none"), resources={"memory": {"limit": 1 << 26}})
    assert caught.value.subject == "/linux/resources"
    assert caught.value.code == "unsupported"
    harmless: list[Any] = [{}, {"devices": [{"allow": False, "access": "rwm"}]}, {"memory": {}}, None]
    for resources in harmless:
        plan = create(host("none"), resources=resources)
        assert not [each for each in plan if each[1].startswith("cgroup.")]


def test_a_missing_right_to_make_cgroups() -> None:
    lenient = request(lenient_cgroups=True)
    paths = {"": CGROUP + "/c1"}
    denied = dict.fromkeys((EACCES, EPERM, EROFS), ("cgroup.do_without", (paths,)))
    assert the(create(asked=lenient, paths=paths), "cgroup.make")[4] == denied
    assert the(create(asked=lenient, paths=paths, resources={"pids": {"limit": 1}}), "cgroup.make")[4] is None
    assert the(create(paths=paths), "cgroup.make")[4] is None


def test_what_fails_with_the_cgroup_is_forgiven_with_it() -> None:
    """A cgroup that could not be made cannot be opened either: the steps that follow, and the record, must find no paths."""
    paths = {"": CGROUP + "/c1"}
    plan = create(host(user_namespace=True), request(lenient_cgroups=True), paths)
    run = Run(plan)
    operation, arguments = (the(plan, "cgroup.make")[4] or {})[EACCES] or ("", ())
    function(operation)(run, *arguments)
    for name in ("cgroup.device_program", "cgroup.open"):
        function(name)(run, *the(plan, name)[2])
    assert (run.cgroup_fd, run.join_fds) == (-1, [])
    assert paths == {}


def test_cgroup_paths() -> None:
    spec = default_config()
    assert cgroup_paths(spec, host(), request()) == {"": CGROUP + "/ocirt-c1"}
    assert cgroup_paths(spec, host("none"), request()) == {}
    assert cgroup_paths(spec, host("v1"), request(cgroups="disabled")) == {}
    assert cgroup_paths(edited(spec, cgroupsPath="/a/../b"), host(), request()) == {"": CGROUP + "/b"}
    with pytest.raises(Error, match="names no cgroup"):
        cgroup_paths(edited(spec, cgroupsPath="/.."), host(), request())


# -- the process ---------------------------------------------------------------------------------------------------------------


def test_a_socket_for_a_word_of_the_program() -> None:
    """Cloned by who can reach its directory, and mounted read-only after all of config.json, some of which hides /run."""
    user: dict[str, Any] = {"namespaces": spaces("pid", "mount", "user", "uts"), "linux": USER}
    for edits, side in (({}, INIT), (user, PARENT)):
        plan = create(asked=request(notify=True), env=["A=1", "NOTIFY_SOCKET=/else"], **edits)
        assert the(plan, "mount.clone", "notify", side=side)[2] == ("notify", ROOT + "/c1/notify", False)
        assert the(plan, "mount.change", "notify")[2] == ("notify", 0xF, 0, False)
        attached = at(plan, "mount.attach", "notify")
        assert plan[attached][2] == ("notify", "/run/notify", False, False)
        assert attached == max(find(plan, "mount.attach"))
        assert the(plan, "program.prepare")[2][1] == ("A=1", "NOTIFY_SOCKET=/run/notify/notify.sock")
    assert not find(create(), "mount.clone", "notify")


def test_the_environment_has_each_name_once() -> None:
    plan = create(env=["A=1", "PATH=/a:/b", "B=", "A=2", "C=x=y", "PATH=/c"])
    (_, env, listen_fds) = the(plan, "program.prepare")[2]
    assert sorted(env) == ["A=2", "B=", "C=x=y", "PATH=/c"]
    assert listen_fds == 0
    assert the(plan, "program.find")[2] == ("true", "/c")


def test_an_empty_home_is_looked_up_as_for_a_missing_one() -> None:
    """runc 1.2 and later: HOME is added "if not found in the list, or the value is empty"."""
    plan = create(env=["PATH=/bin", "HOME="])
    assert not [entry for entry in the(plan, "user.find_home")[2][1] if entry == "HOME="]
    assert not [entry for entry in the(plan, "program.prepare")[2][1] if entry == "HOME="]


@pytest.mark.parametrize("env", [[], None, ["A=b"], ["PATH="]])
def test_without_a_path(env: list[str] | None) -> None:
    assert the(create(env=env), "program.find")[2] == ("true", "")


def test_arguments() -> None:
    plan = create(asked=request(fds=4, listen_fds=1), args=["sh", "-c", "", "ä"])
    assert the(plan, "program.prepare")[2][0] == ("sh", "-c", "", "ä")
    assert the(plan, "program.prepare")[2][2] == 1
    assert the(plan, "program.keep_descriptors")[2] == (4,)
    assert the(plan, "process.close_descriptors")[2] == (4,)


@pytest.mark.parametrize(("user", "mask"), [({}, 0o022), ({"umask": 0}, 0), ({"umask": 0o77}, 0o77), ({"umask": 0o1027}, 0o27)])
def test_the_umask(user: dict[str, int], mask: int) -> None:
    assert the(create(user={"uid": 0, "gid": 0, **user}), "process.umask")[2] == (mask,)


def test_the_user() -> None:
    plan = create(user={"uid": 7, "gid": 8, "additionalGids": [9, 10]})
    assert the(plan, "user.become")[2] == (7, 8, (9, 10), False)
    assert the(plan, "stdio.own")[2] == (7,)
    assert the(plan, "user.find_home")[2][0] == 7
    assert the(create(user=None), "user.become")[2] == (0, 0, (), False)


@pytest.mark.parametrize(("cwd", "made_path"), [("/", None), ("/a/./b/", "/a/b"), ("//", None), ("/a/..", None)])
def test_the_working_directory(cwd: str, made_path: str | None) -> None:
    plan = create(cwd=cwd)
    assert [each[2] for each in plan if each[1] == "tree.make_directory"] == ([(made_path,)] if made_path else [])
    assert {each[2] for each in plan if each[1] == "process.chdir"} == {(made_path or "/",)}


def test_capabilities() -> None:
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL", "CAP_CHOWN"],
    }
    plan = create(capabilities=sets)
    kill, chown = 1 << 5, 1 << 0
    assert the(plan, "process.limit_bounding_set")[2] == (kill | chown,)
    assert the(plan, "process.set_capabilities")[2] == (kill, kill | chown, kill)
    assert the(plan, "process.raise_ambient")[2:] == ((kill,), "/process/capabilities/ambient", {EPERM: None, EINVAL: None})


@pytest.mark.parametrize("sets", [None, {}, {"bounding": ["CAP_NEW_ONE"]}])
def test_no_capabilities(sets: dict[str, list[str]] | None) -> None:
    plan = create(capabilities=sets)
    assert the(plan, "process.limit_bounding_set")[2] == (0,)
    assert the(plan, "process.set_capabilities")[2] == (0, 0, 0)
    assert not find(plan, "process.raise_ambient")


@pytest.mark.parametrize("plan", [create, execution])
def test_keyrings_and_what_fails_without_harm(plan: Any) -> None:
    assert the(plan(), "process.join_keyring")[4] == {ENOSYS: None}


@pytest.mark.parametrize(
    ("size", "wanted"), [(None, (0, 0)), ({"height": 25, "width": 80}, (25, 80)), ({"height": 0, "width": 1}, (0, 0))]
)
def test_a_terminal(size: Any, wanted: tuple[int, int]) -> None:
    plan = create(asked=request(console="socket"), terminal=True, consoleSize=size)
    assert the(plan, "console.open")[2] == wanted
    assert [each[:2] for each in plan if each[1].startswith("console.")] == [
        (INIT, "console.open"),
        (INIT, "console.bind"),
        (INIT, "console.send"),
        (PARENT, "console.receive"),
    ]
    assert not [each for each in create(terminal=True, consoleSize=size) if each[1].startswith("console.")]


def test_pipes_take_the_place_of_the_streams_before_the_tree_changes() -> None:
    plan = create(asked=request(pipes=True))
    assert at(plan, "stdio.take") < at(plan, "tree.pivot") < at(plan, "process.close_descriptors")
    assert not find(create(), "stdio.take")


def test_an_adjustment_of_the_oom_score() -> None:
    for score in (-1000, 0, 1000):
        plan = create(oomScoreAdj=score)
        assert the(plan, "process.set_oom_score")[:4] == (PARENT, "process.set_oom_score", (score,), "/process/oomScoreAdj")
    assert not find(create(), "process.set_oom_score")
