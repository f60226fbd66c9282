"""What systemd is told: names of units and slices, properties from resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import dbus, devices, systemd, units
from ocirt.cgroups.layout import Layout
from ocirt.errors import Error

CGROUP = "/sys/fs/cgroup"
INFINITY = (1 << 64) - 1


@pytest.mark.parametrize(
    ("path", "user", "expected"),
    [
        ("system.slice:docker:1234", False, ("docker-1234.scope", "system.slice")),
        ("a-b.slice:pre:x_y.z", False, ("pre-x_y.z.scope", "a-b.slice")),
        ("-.slice:p:n", False, ("p-n.scope", "-.slice")),
        (":p:n", False, ("p-n.scope", "system.slice")),
        (":p:n", True, ("p-n.scope", "user.slice")),
        (None, False, ("runc-c1.scope", "system.slice")),
        ("", True, ("runc-c1.scope", "user.slice")),
    ],
)
def test_units(path: str | None, user: bool, expected: tuple[str, str]) -> None:  # noqa: FBT001
    found = systemd.unit_of(path, "c1", user=user)
    assert (found.name, found.slice) == expected


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/b", 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead'),
        ("a.slice:b", "expected cgroupsPath"),
        ("a.slice:b:c:d", "expected cgroupsPath"),
        ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
        ("a/b.slice:x:y", "invalid slice name: a/b.slice"),
        ("foo:x:y", "invalid slice name: foo"),
        (".slice:x:y", "invalid slice name: .slice"),
        ("-a.slice:x:y", "invalid slice name: -a.slice"),
        ("..slice/../x.slice:x:y", "invalid slice name"),
        ("a.slice:x:y+z", "x-y.z.scope is no name of a unit"),
        ("a.slice:x:../../y", "is no name of a unit"),
        ("a.slice:x:" + "y" * 250, "is no name of a unit"),
        ("a.slice:x:b.slice", "a container cannot run in the slice b.slice"),
    ],
)
def test_no_units(path: str, words: str) -> None:
    with pytest.raises(Error, match=words) as caught:
        systemd.unit_of(path, "c1", user=False)
    assert caught.value.subject == "/linux/cgroupsPath"


def test_an_id_that_systemd_cannot_have() -> None:
    with pytest.raises(Error, match=r"runc-a\+b.scope is no name of a unit"):
        systemd.unit_of(None, "a+b", user=False)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("-.slice", ""),
        ("system.slice", "/system.slice"),
        ("a-b.slice", "/a.slice/a-b.slice"),
        ("test-a-b.slice", "/test.slice/test-a.slice/test-a-b.slice"),
    ],
)
def test_slices(name: str, path: str) -> None:
    assert systemd.expand(name) == path


@given(st.text(max_size=12).map(lambda text: text + ".slice"))
def test_a_slice_never_leads_elsewhere(name: str) -> None:
    try:
        path = systemd.expand(name)
    except Error:
        return
    assert ".." not in path.split("/")
    assert path == "" or path.startswith("/")
    assert all(part.endswith(".slice") for part in path.split("/")[1:])


def test_directories() -> None:
    mounts = {name: f"{CGROUP}/{name.removeprefix('name=')}" for name in ("cpu", "freezer", "name=systemd")}
    unit = systemd.unit_of("a-b.slice:p:n", "c1", user=False)
    inner = "/a.slice/a-b.slice/p-n.scope"
    found = systemd.directories(unit, Layout("v1", mounts, {}), "/")
    assert found == {name: mount + inner for name, mount in mounts.items()}
    found = systemd.directories(unit, Layout("v2", {"": CGROUP}, {}), "/user.slice/user@1.service")
    assert found == {"": CGROUP + "/user.slice/user@1.service" + inner}


def test_slices_are_systemd_s_to_remove() -> None:
    """But for the hierarchies that it does nothing in."""
    paths = {"": "/u/a.slice/x.scope", "memory": "/m/a.slice/x.scope", "freezer": "/f/a.slice/x.scope"}
    missing = ["/u/a.slice", "/u/a.slice/x.scope", "/m/a.slice", "/m/a.slice/x.scope", "/f/a.slice", "/f/a.slice/x.scope"]
    assert systemd.to_remove(paths, missing) == [
        "/u/a.slice/x.scope",
        "/m/a.slice/x.scope",
        "/f/a.slice",
        "/f/a.slice/x.scope",
    ]


# -- resources -----------------------------------------------------------------------------------------------------------------


def told(section: dict[str, Any], mode: str = "v2", version: int = 252) -> tuple[dict[str, Any], dict[str, Any]]:
    """The properties at the start and later, by name; each has to fit its type, and to come once."""
    found = []
    for properties in systemd.resources(section, mode, version):
        for _, signature, value in properties:
            dbus.encode("v", [(signature, value)])
        assert len({name for name, _, _ in properties}) == len(properties)
        found.append({name: value for name, _, value in properties})
    return found[0], found[1]


@pytest.mark.parametrize(
    ("section", "v2", "v1"),
    [
        ({"memory": {"limit": 5}}, {"MemoryMax": 5}, {"MemoryLimit": 5}),
        ({"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}, {"MemoryLimit": INFINITY}),
        ({"memory": {"limit": 5, "swap": 8}}, {"MemoryMax": 5, "MemorySwapMax": 3}, {"MemoryLimit": 5}),
        ({"memory": {"limit": 5, "swap": 5}}, {"MemoryMax": 5, "MemorySwapMax": 0}, {"MemoryLimit": 5}),
        ({"memory": {"limit": 5, "swap": -1}}, {"MemoryMax": 5, "MemorySwapMax": INFINITY}, {"MemoryLimit": 5}),
        ({"memory": {"reservation": 4}}, {"MemoryLow": 4}, {}),
        ({"pids": {"limit": 7}}, {"TasksMax": 7}, {"TasksMax": 7}),
        ({"pids": {"limit": 0}}, {"TasksMax": 1}, {"TasksMax": 1}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}, {"TasksMax": INFINITY}),
        ({"cpu": {"cpus": "0-2,8"}}, {"AllowedCPUs": b"\x07\x01"}, {"AllowedCPUs": b"\x07\x01"}),
        ({"cpu": {"mems": " 1, "}}, {"AllowedMemoryNodes": b"\x02"}, {"AllowedMemoryNodes": b"\x02"}),
        ({"blockIO": {"weight": 500}}, {"IOWeight": 4950}, {"BlockIOWeight": 500}),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 99}, {"major": 8, "minor": 1, "rate": 0}]}},
            {"IOReadBandwidthMax": [("/dev/block/8:0", 99)]},
            {},
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, {}, {}),
        ({}, {}, {}),
    ],
)
def test_what_counts_from_the_start(section: dict[str, Any], v2: dict[str, Any], v1: dict[str, Any]) -> None:
    assert told(section) == (v2, {})
    assert told(section, "v1") == (v1, {})


@pytest.mark.parametrize(
    ("cpu", "v2", "v1"),
    [
        ({"shares": 1024}, {"CPUWeight": 100}, {"CPUShares": 1024}),
        ({"quota": 50000}, {"CPUQuotaPerSecUSec": 500000}, None),
        ({"quota": 50000, "period": 200000}, {"CPUQuotaPeriodUSec": 200000, "CPUQuotaPerSecUSec": 250000}, None),
        ({"quota": 12345}, {"CPUQuotaPerSecUSec": 130000}, None),
        ({"period": 50000}, {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": INFINITY}, None),
        ({"quota": -1}, {"CPUQuotaPerSecUSec": INFINITY}, None),
        ({"idle": 1}, {"CPUWeight": 0}, {}),
        ({"idle": 1, "shares": 1024}, {"CPUWeight": 0}, {"CPUShares": 1024}),
        ({"idle": 0, "shares": 1024}, {"CPUWeight": 100}, {"CPUShares": 1024}),
    ],
)
def test_the_processor_s(cpu: dict[str, Any], v2: dict[str, Any], v1: dict[str, Any] | None) -> None:
    assert told({"cpu": cpu}) == ({}, v2)
    assert told({"cpu": cpu}, "hybrid") == ({}, v2 if v1 is None else v1)


def test_idle_needs_a_systemd_that_knows_it() -> None:
    assert told({"cpu": {"idle": 1, "shares": 1024}}, version=251) == ({}, {"CPUWeight": 100})


@pytest.mark.parametrize(
    ("unified", "now", "later"),
    [
        ({"memory.max": "max", "memory.high": " 7\n"}, {"MemoryMax": INFINITY, "MemoryHigh": 7}, {}),
        (
            {"memory.min": "1", "memory.low": "2", "memory.swap.max": "0"},
            {"MemoryMin": 1, "MemoryLow": 2, "MemorySwapMax": 0},
            {},
        ),
        ({"pids.max": "0"}, {"TasksMax": 1}, {}),
        ({"cpuset.cpus": "1", "cpuset.mems": "0"}, {"AllowedCPUs": b"\2", "AllowedMemoryNodes": b"\1"}, {}),
        ({"cpu.max": "max 50000"}, {}, {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": INFINITY}),
        ({"cpu.max": "25000"}, {}, {"CPUQuotaPeriodUSec": 100000, "CPUQuotaPerSecUSec": 250000}),
        ({"cpu.weight": "7", "cpu.idle": "1"}, {}, {"CPUWeight": 0}),
        ({"cpu.weight": "7", "cpu.idle": "0"}, {}, {"CPUWeight": 7}),
        ({"io.weight": "default 50"}, {"IOWeight": 50}, {}),
        ({"io.weight": "8:0 50", "hugetlb.2MB.max": "0", "memory.oom.group": "1"}, {}, {}),
    ],
)
def test_unified(unified: dict[str, str], now: dict[str, Any], later: dict[str, Any]) -> None:
    assert told({"unified": unified}) == (now, later)


def test_an_oom_policy_needs_a_systemd_that_knows_it() -> None:
    assert told({"unified": {"memory.oom.group": "1"}}, version=253) == ({"OOMPolicy": "kill"}, {})
    assert told({"unified": {"memory.oom.group": "0"}}, version=253) == ({"OOMPolicy": "continue"}, {})


@pytest.mark.parametrize(
    ("section", "pointer"),
    [
        ({"unified": {"memory.max": "lots"}}, "/linux/resources/unified/memory.max"),
        ({"unified": {"cpu.max": "1 2 3"}}, "/linux/resources/unified/cpu.max"),
        ({"unified": {"cpuset.cpus": "a"}}, "/linux/resources/unified/cpuset.cpus"),
        ({"cpu": {"cpus": "3-1"}}, "/linux/resources/cpu/cpus"),
        ({"cpu": {"cpus": "1-"}}, "/linux/resources/cpu/cpus"),
        ({"cpu": {"mems": ","}}, "/linux/resources/cpu/mems"),
        ({"memory": {"limit": 5, "swap": 4}}, "/linux/resources/memory/swap"),
    ],
)
def test_what_cannot_be_told(section: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Error) as caught:
        systemd.resources(section, "v2", 252)
    assert caught.value.subject == pointer


@given(st.sets(st.integers(0, 300), min_size=1))
def test_masks(numbers: set[int]) -> None:
    mask = int.from_bytes(systemd._bits(",".join(map(str, numbers)), ""), "little")
    assert {number for number in range(mask.bit_length()) if mask >> number & 1} == numbers


@given(st.integers(1000, 10**9), st.integers(1000, 10**6))
def test_a_quota_is_never_rounded_down(quota: int, period: int) -> None:
    per_second, rounded = systemd.rounded_quota(quota, period)
    assert per_second % 10000 == 0
    assert rounded + 1 >= quota
    assert per_second - 10000 <= quota * 1000000 // period <= per_second
    changed = systemd.rounded({"cpu": {"quota": quota, "period": period}, "pids": {"limit": 1}})
    assert changed == {"cpu": {"quota": rounded, "period": period}, "pids": {"limit": 1}}


# -- devices -------------------------------------------------------------------------------------------------------------------

DENY_ALL = {"allow": False, "access": "rwm"}


def allowed(*section: dict[str, Any]) -> tuple[str, set[tuple[str, str]]]:
    """DevicePolicy, and the last DeviceAllow."""
    found = systemd.device_rules(devices.rules(list(section)))
    assert found[0] == ("DeviceAllow", "a(ss)", [])
    return {name: value for name, _, value in found}["DevicePolicy"], set(found[-1][2] if found[-1][0] == "DeviceAllow" else ())


def test_the_devices_of_every_container() -> None:
    """As `runc --systemd-cgroup` shows them."""
    policy, found = allowed(DENY_ALL)
    assert policy == "strict"
    places = {"char-136", *(f"/dev/char/{pair}" for pair in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "10:200"))}
    assert found == {(place, "rwm") for place in places} | {("char-*", "m"), ("block-*", "m")}


def test_a_device_of_config_json() -> None:
    more = {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "r"}
    _, found = allowed(DENY_ALL, more, {"allow": True, "type": "b", "major": 9, "access": "rw"})
    assert {("/dev/block/8:1", "r"), ("block-9", "rw")} <= found


def test_a_rule_that_systemd_has_no_words_for() -> None:
    _, found = allowed(DENY_ALL, {"allow": True, "type": "c", "minor": 7, "access": "r"})
    assert len(found) == 11


def test_everything_allowed() -> None:
    assert allowed({"allow": True, "access": "rwm"}) == ("auto", set())


def test_all_but_some_is_none_for_systemd() -> None:
    all_but = [{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    assert allowed(*all_but) == ("strict", set())


# -- annotations ---------------------------------------------------------------------------------------------------------------

NOTE = "org.systemd.property."


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5000000)),
        ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", "t", 5000000)),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1500000)),
        ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", "t", 5)),
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", "s", "inactive-or-failed")),
        ("After", "['a.service']", ("After", "as", ["a.service"])),
        ("SEC", "5", ("SEC", "i", 5)),
    ],
)
def test_annotations(name: str, text: str, expected: tuple[str, str, Any]) -> None:
    assert systemd.annotated({"other": "x", NOTE + name: text}) == [expected]


@pytest.mark.parametrize(
    ("name", "text"), [("No", "5"), ("A1B", "5"), ("TimeoutSec", "'x'"), ("TimeoutSec", "-1"), ("Foo", "inactive"), ("Foo", "")]
)
def test_annotations_that_cannot_be_read(name: str, text: str) -> None:
    with pytest.raises(Error) as caught:
        systemd.annotated({NOTE + name: text})
    assert caught.value.subject == "/annotations/" + NOTE + name


# -- finding systemd -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("252.38-1~deb12u1", 252), ("v245.4-1.fc32", 245), ('"v256~rc1"', 256), ("239", 239), ("", 0), ("x", 0)]
)
def test_versions(text: str, number: int) -> None:
    assert units.version_of(text) == number


def sockets(monkeypatch: pytest.MonkeyPatch, *, user: bool, **environment: str) -> list[tuple[str | bytes, bool]]:
    """Where systemd is looked for with these variables alone."""
    monkeypatch.setattr("posix.environ", {name.encode(): value.encode() for name, value in environment.items()})
    return units.sockets(user=user)


def test_sockets_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    private, bus = ("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)
    assert sockets(monkeypatch, user=False, XDG_RUNTIME_DIR="/run/user/0") == [private, bus]
    assert sockets(monkeypatch, user=False, DBUS_SYSTEM_BUS_ADDRESS="unix:path=/x") == [("/x", True), private, bus]


def test_sockets_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    private, bus = ("/run/user/7/systemd/private", False), ("/run/user/7/bus", True)
    assert sockets(monkeypatch, user=True, XDG_RUNTIME_DIR="/run/user/7/") == [private, bus]
    session = {"DBUS_SESSION_BUS_ADDRESS": "unix:abstract=/y,guid=1"}
    assert sockets(monkeypatch, user=True, **session) == [(b"\0/y", True)]
    assert sockets(monkeypatch, user=True, XDG_RUNTIME_DIR="/run/user/7", **session) == [private, (b"\0/y", True), bus]
    with pytest.raises(Error, match="could not detect DBUS_SESSION_BUS_ADDRESS"):
        sockets(monkeypatch, user=True)


def test_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> list[str]:
        raise FileNotFoundError(2, path)

    monkeypatch.setattr("posix.listdir", missing)
    with pytest.raises(Error, match="systemd not running on this host, cannot use systemd cgroups manager"):
        units.look("v2", user=False)


def test_rootless_on_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.listdir", lambda _: [])
    with pytest.raises(Error, match="cannot use rootless systemd cgroups manager on cgroup v1"):
        units.look("hybrid", user=True)


def test_a_systemd_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("posix.listdir", lambda _: [])
    monkeypatch.setattr("posix.environ", {b"XDG_RUNTIME_DIR": str(tmp_path).encode()})
    with pytest.raises(Error, match="failed to connect to dbus: .*/systemd/private: no such file") as caught:
        units.look("v2", user=True)
    assert "systemd --user" in caught.value.hint
