"""What CRIU is asked for, by config.json and flags."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.cgroups.layout import Layout
from ocirt.criu import protobuf, request, rpc
from ocirt.errors import Error
from tests.support.bundle import cgroup_mount, default_config, edited
from tests.unit.plan.plans import BUNDLE, CGROUP, layout, spaces

BIND = {"destination": "/data", "type": "none", "source": "data", "options": ["rbind", "ro"]}
OTHER = {"destination": "/etc/hosts", "source": "/run/hosts", "options": ["bind"]}


def spec(**edits: Any) -> dict[str, Any]:
    return edited(default_config(), **edits)


def dump(given: dict[str, Any], flags: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "pid": 42,
        "root": "/bundles/b/rootfs",
        "external": [],
        "freezer": "",
        "mounts": [("/data", "/bundles/b/data")],
        "masked": [],
    }
    options = request.dump(given, flags or {}, **(values | changes))
    protobuf.encode({"opts": options}, rpc.REQUEST)  # every name is a field
    return options


def restore(given: dict[str, Any], flags: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"root": "/run/root", "groups": {}, "mounts": [], "streams": [], "inherited": {}}
    options = request.restore(given, flags or {}, **(values | changes))
    protobuf.encode({"opts": options}, rpc.REQUEST)
    return options


def test_a_dump() -> None:
    options = dump(spec(), masked=["/proc/kcore"], freezer="/sys/fs/cgroup/c", external=["net[7]:extRootNetNS"])
    assert options["pid"] == 42
    assert options["ext_mnt"] == [{"key": "/data", "val": "/data"}, {"key": "/proc/kcore", "val": "/dev/null"}]
    assert options["freeze_cgroup"] == "/sys/fs/cgroup/c"
    assert options["external"] == ["net[7]:extRootNetNS"]
    assert options["empty_ns"] == 0x40000000
    assert options["manage_cgroups_mode"] == 6
    assert options["config_file"] == "/etc/criu/runc.conf"
    assert not options["leave_running"]
    assert "parent_img" not in options
    assert "ps" not in options


FLAGS = [
    ("auto-dedup", "auto_dedup"),
    ("ext-unix-sk", "ext_unix_sk"),
    ("file-locks", "file_locks"),
    ("lazy-pages", "lazy_pages"),
    ("leave-running", "leave_running"),
    ("link-remap", "link_remap"),
    ("shell-job", "shell_job"),
    ("tcp-established", "tcp_established"),
    ("tcp-skip-in-flight", "tcp_skip_in_flight"),
]


@pytest.mark.parametrize(("flag", "field"), FLAGS)
def test_the_switches(flag: str, field: str) -> None:
    assert (dump(spec())[field], dump(spec(), {flag: True})[field]) == (False, True)
    if flag not in ("leave-running", "link-remap", "tcp-skip-in-flight"):
        assert (restore(spec())[field], restore(spec(), {flag: True})[field]) == (False, True)
    else:
        assert field not in restore(spec(), {flag: True})


def test_a_pre_dump_needs_no_mounts() -> None:
    options = dump(spec(), {"pre-dump": True, "parent-path": "../before"})
    assert "ext_mnt" not in options
    assert (options["parent_img"], options["track_mem"]) == ("../before", True)


def test_the_other_flags() -> None:
    assert dump(spec(), {"page-server": ("::1", 80)})["ps"] == {"address": "::1", "port": 80}
    options = restore(spec(), {"lsm-profile": "apparmor:x", "lsm-mount-context": "y"})
    assert (options["lsm_profile"], options["lsm_mount_context"]) == ("apparmor:x", "y")
    modes = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
    assert {mode: dump(spec(), {"manage-cgroups-mode": mode})["manage_cgroups_mode"] for mode in modes} == modes
    with pytest.raises(Error, match="invalid manage-cgroups-mode value"):
        restore(spec(), {"manage-cgroups-mode": "hard"})


def test_the_configuration_of_criu() -> None:
    assert dump(spec(annotations={"org.criu.config": "/x"}))["config_file"] == "/x"
    assert restore(spec(annotations={"org.criu.config": ""}))["config_file"] is None


def test_a_restore() -> None:
    options = restore(
        spec(),
        groups={"": "/c", "cpu": "/d"},
        mounts=[("/data", "/bundles/b/data")],
        streams=["/dev/null", "pipe:[12]", "pipe:[13]"],
        inherited={"network": 4},
    )
    assert options["rst_sibling"]
    assert options["cg_root"] == [{"ctrl": "", "path": "/c"}, {"ctrl": "cpu", "path": "/d"}]
    assert options["ext_mnt"] == [{"key": "/data", "val": "/bundles/b/data"}, {"key": "/dev/null", "val": "/dev/null"}]
    assert options["inherit_fd"] == [
        {"key": "extRootNetNS", "fd": 4},
        {"key": "pipe:[12]", "fd": 1},
        {"key": "pipe:[13]", "fd": 2},
    ]
    assert options["join_ns"] == []
    assert restore(spec(maskedPaths=[]))["ext_mnt"] == []


def test_namespaces_that_are_joined() -> None:
    given = spec(namespaces=spaces("mount", "uts", network="/n", pid="/p", ipc="/i", user="/u", time="/t"))
    joined = {entry["ns"]: entry["ns_file"] for entry in restore(given)["join_ns"]}
    assert joined == {"ipc": "/i", "user": "/u", "time": "/t"}
    with pytest.raises(Error) as caught:
        restore(spec(namespaces=spaces("mount", cgroup="/c")))
    assert caught.value.subject == "/linux/namespaces/1"


def test_namespaces_from_outside() -> None:
    """The keys of dump and restore are the same, and those that runc gives them: one restores what the other dumped."""
    assert request.outside("network", 7) == "net[7]:extRootNetNS"
    assert request.outside("pid", 8) == "pid[8]:extRootPidNS"


def mounts(given: dict[str, Any], on: Layout | None = None, groups: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """Those from outside, without the devices, which are always named."""
    found = request.mounts_from_outside(given, BUNDLE, on or layout(), groups or {}, lambda path: "/at" + path)
    assert ("/at/dev/null", "/dev/null") in found
    return [pair for pair in found if not pair[0].startswith("/at/dev/")]


def test_binds_come_from_outside() -> None:
    found = mounts(spec(add_mounts=[BIND, OTHER]))
    assert found == [("/at/data", BUNDLE + "/data"), ("/at/etc/hosts", "/run/hosts")]


def test_devices_may_come_from_outside() -> None:
    device = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    found = request.mounts_from_outside(spec(devices=[device]), BUNDLE, layout(), {}, lambda path: path)
    assert ("/dev/fuse", "/dev/fuse") in found


def test_cgroups_are_bound_without_a_namespace_of_theirs() -> None:
    given = spec(add_mounts=[cgroup_mount()])
    place = "/at/sys/fs/cgroup"
    assert mounts(given, groups={"": CGROUP + "/c"}) == [(place, CGROUP + "/c")]
    assert mounts(given) == [(place, CGROUP)]
    on = Layout("hybrid", {"cpu": f"{CGROUP}/cpu,cpuacct", "cpuacct": f"{CGROUP}/cpu,cpuacct", "": f"{CGROUP}/unified"}, {})
    found = mounts(given, on, {"cpu": "/c/cpu", "cpuacct": "/c/cpu"})
    assert found == [(place + "/cpu,cpuacct", "/c/cpu"), (place + "/unified", f"{CGROUP}/unified")]
    own = spec(add_mounts=[cgroup_mount()], namespaces=spaces("mount", "cgroup"))
    assert mounts(own, groups={"": CGROUP + "/c"}) == []
    joined = [*spaces("mount"), {"type": "cgroup", "path": "/proc/7/ns/cgroup"}]
    given = spec(add_mounts=[cgroup_mount() | {"type": "cgroup2"}], namespaces=joined)
    assert mounts(given, groups={"": CGROUP + "/c"}) == [(place, CGROUP + "/c")]
