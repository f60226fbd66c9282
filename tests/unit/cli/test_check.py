"""`ocirt check`: its two forms, and that it calls an error what `run` would refuse before it makes anything."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt.cgroups import resctrl, units
from ocirt.containers import examine, host, looks
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.plan import Request
from ocirt.plan.create import cgroup_paths, plan_create
from ocirt.spec.check import check
from ocirt.spec.whole import check_whole
from tests.support.bundle import default_config, edited
from tests.unit.cli.conftest import Cli
from tests.unit.spec.documents import CALLERS, GONE, changed, put, user_namespace
from tests.unit.spec.test_broken import MEANING, SHAPE, WARNINGS
from tests.unit.spec.test_properties import JSON, PLACES


def write(path: Path, document: Any) -> str:
    """A bundle with this config.json, and an empty root file system."""
    (path / "rootfs").mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(document))
    return str(path)


def quiet(**edits: Any) -> dict[str, Any]:
    """A configuration that this machine has nothing to say of; without root only a rootless one is that."""
    config = edited(default_config(), **edits)
    if os.geteuid():
        own = {"uidMappings": os.geteuid(), "gidMappings": os.getegid()}
        config["linux"] |= {name: [{"containerID": 0, "hostID": number, "size": 1}] for name, number in own.items()}
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["resources"] = {}
        config["mounts"] = [mount for mount in config["mounts"] if "gid=5" not in mount.get("options", ())]
        config["process"]["rlimits"] = []
    return config


def test_nothing_to_say(cli: Cli, tmp_path: Path) -> None:
    where = write(tmp_path, quiet())
    (tmp_path / "rootfs/bin").mkdir()
    (tmp_path / "rootfs/bin/true").touch()
    assert cli("check", where) == (0, "no findings\n", "")
    assert cli("check", "--json", "-b", where) == (0, "[]\n", "")
    assert not (tmp_path / "root").exists()  # the state root


def test_two_forms(cli: Cli, tmp_path: Path) -> None:
    document = quiet()
    document["process"]["cwd"] = "x\n"
    document["linux"] |= {"intelRdtt": {}, "maskedPaths": ["/ok"] * 2 + ["b"] + ["/ok"] * 8 + ["c"]}
    where = write(tmp_path, document)
    status, out, err = cli("check", where)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        'error /linux/maskedPaths/2: "b" is not an absolute path',
        'error /linux/maskedPaths/11: "c" is not an absolute path',
        'error /process/cwd: "x\ufffd" is not an absolute path',
        "warning /linux/intelRdtt: is not a property of the specification and is ignored",
    ]
    assert lines[1] == '    seen from the container: "/b"'
    status, out, err = cli("check", where, "--json")
    assert (status, err) == (1, "")
    shown = json.loads(out)
    assert [list(each) for each in shown] == [["severity", "pointer", "message", "hint"]] * 4
    assert shown[0] == {
        "severity": "error",
        "pointer": "/linux/maskedPaths/2",
        "message": '"b" is not an absolute path',
        "hint": 'seen from the container: "/b"',
    }


def test_warnings_alone_are_no_failure(cli: Cli, tmp_path: Path) -> None:
    status, out, _ = cli("check", write(tmp_path, quiet(hostnmae="x")))
    assert status == 0
    assert out.startswith("warning /hostnmae: is not a property")
    assert "warning /process/args/0:" in out  # there is no program in the empty root


def test_another_file(cli: Cli, tmp_path: Path) -> None:
    where = write(tmp_path, quiet())
    (tmp_path / "other.json").write_text("{}")
    status, out, _ = cli("check", "--config", "other.json", where)
    assert status == 1
    assert out.startswith('error (document): lacks "ociVersion"\n    add "ociVersion": "1.3.0"\n')


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "line 1, column 1"), (b"\xff{}", "byte 0 is not UTF-8"), (b"[" * 9999, "nested too deeply"), (b"{,}", "line 1")],
)
def test_no_json(cli: Cli, tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    status, out, err = cli("check", "--json", str(tmp_path))
    assert (status, err) == (1, "")
    [finding] = json.loads(out)
    assert (finding["severity"], finding["pointer"]) == ("error", "")
    assert message in finding["message"]


def test_no_file(cli: Cli, tmp_path: Path) -> None:
    status, out, err = cli("check", str(tmp_path))
    assert (status, out) == (1, "")
    assert "JSON specification file config.json not found" in err


def test_sections_of_the_right_shape_are_judged_beside_broken_ones() -> None:
    document = changed(
        {
            "/process/rlimits": [{"type": 1, "hard": 1, "soft": 1}],
            "/process/cwd": "x",
            "/linux/resources/memory": {"limit": "1"},
            "/linux/resources/pids": {"limit": -2},
            "/linux/namespaces/-": {"type": "pid"},
            "/mounts/0/options": "ro",
        }
    )
    assert [finding[0] for finding in check_whole(document)] == [
        "/process/rlimits/0/type",
        "/mounts/0/options",
        "/linux/resources/memory/limit",
        "/process/cwd",
        "/linux/namespaces/5",
        "/linux/resources/pids/limit",
    ]


@pytest.mark.parametrize("pointer", ["/process/args", "/process", "/linux/namespaces", "/linux", "/root", "/ociVersion"])
def test_without_what_all_else_depends_on_the_rest_is_not_guessed_at(pointer: str) -> None:
    document = changed({pointer: 1, "/process/oomScoreAdj" if pointer != "/process" else "/hostname": 5000})
    assert [finding[0] for finding in check_whole(document)] == [pointer, *(["/hostname"] if pointer == "/process" else [])]


CASES: list[dict[str, Any]] = [case[0] for case in (*SHAPE, *MEANING, *WARNINGS)]


@pytest.mark.parametrize("changes", CASES, ids=range(len(CASES)))
def test_two_broken_parts_are_both_found(changes: dict[str, Any]) -> None:
    """Beside any known mistake another one, at a place of its own, is found; and nothing is found twice."""
    alone = check_whole(changed(changes))
    both = changed(changes)
    both["annotations"] = {"a": 1}
    findings = check_whole(both)
    assert "/annotations/a" in [finding[0] for finding in findings]
    assert len(set(findings)) == len(findings)
    if not any(pointer.startswith("/annotations") for pointer in changes):
        needed = ("", "/process/args", "/process/cwd", "/process", "/linux", "/root", "/linux/namespaces")
        if not any(finding[0] in needed or finding[0].startswith("/linux/namespaces/") for finding in alone):
            assert set(alone) <= set(findings)


class Nothing:
    """Stands for the looks at the machine."""

    def __init__(self, *_: Any) -> None:
        self.findings: list[Any] = []


# What is only looked up for some documents: (who makes the cgroups, systemd's version, security modules, resources of resctrl).
MACHINES: list[tuple[str, int, tuple[str, ...], tuple[str, ...]]] = [
    ("cgroupfs", 0, (), ()),
    ("cgroupfs", 0, ("AppArmor", "SELinux"), ("L3", "MB", "L3_MON")),
    ("disabled", 0, ("SELinux",), ("MB",)),
    ("systemd", 0, (), ()),
    ("systemd", 247, ("AppArmor",), ("L3",)),
    ("systemd", 257, (), ()),
]


def use(machine: tuple[str, int, tuple[str, ...], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this machine be like that."""
    _, version, modules, resources = machine

    def manager(mode: str, *, user: bool) -> units.Manager:
        del mode
        if not version:
            raise Error("unsupported", "systemd not running on this host", hint="leave it out")
        return units.Manager(version, "", user=user)

    monkeypatch.setattr(units, "look", manager)
    monkeypatch.setattr(host, "security_modules", lambda: modules)
    monkeypatch.setattr(resctrl, "find", lambda: resctrl.Resctrl("/nothing", frozenset(resources)) if resources else None)


@settings(max_examples=600)
@given(
    st.sampled_from(PLACES),
    st.one_of(JSON, st.just(GONE)),
    st.booleans(),
    st.lists(st.sampled_from(CASES), max_size=2),
    st.sampled_from(MACHINES),
)
def test_errors_are_what_run_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[Any, str],
    value: Any,
    whole: bool,
    more: list[Any],
    machine: tuple[str, int, tuple[str, ...], tuple[str, ...]],
) -> None:
    """For mutated documents: `run` would stop before its first step, exactly if there is an error, and for one of the errors."""
    monkeypatch.setattr(looks, "Looks", Nothing)
    use(machine, monkeypatch)
    build, pointer = place
    document = build()
    for changes in [*more, *([] if whole else [{pointer: value}])]:
        for at, item in changes.items():
            try:
                put(document, at, GONE if item is GONE else copy.deepcopy(item))
            except (LookupError, TypeError, AttributeError, ValueError):
                pass  # another change has taken its place
    bundle = write(tmp_path, document)

    def asked() -> Request:
        return Request("c1", bundle, f"{tmp_path}/root/c1", state_root=f"{tmp_path}/root", cgroups=machine[0])

    try:
        creation = Creation(f"{tmp_path}/root", asked())
        creation.request.console = "socket" if creation.spec["process"].get("terminal") else ""
        plan_create(creation.spec, creation.host, creation.request, cgroup_paths(creation.spec, creation.host, creation.request))
        refused = None
    except Error as err:
        refused = err
    findings = examine.examine(asked(), "config.json")
    errors = [finding for finding in findings if finding[3] == "error"]
    assert bool(errors) == (refused is not None), (refused, findings)
    for finding in findings:
        assert finding[1]
        assert finding[2]
    if refused is not None:
        assert refused.hint or refused.subject in ("", "config.json"), refused
        where = "" if refused.subject == "config.json" else refused.subject
        assert any(finding[0] == where and finding[1].startswith(refused.message) for finding in errors), (refused, errors)


@pytest.mark.parametrize("caller", CALLERS)
def test_callers(caller: Any) -> None:
    document = caller()
    assert check_whole(copy.deepcopy(document)) == check(document)


def test_a_plan_that_cannot_be_is_judged_to_its_end(tmp_path: Path, cli: Cli) -> None:
    """Each error of the plan is found, not the first alone."""
    config = quiet()
    config["linux"]["resources"] = {"unified": {"cgroup.procs": "1"}, "cpu": {"shares": 1}}
    config["linux"]["cgroupsPath"] = "/.."
    shown = json.loads(cli("check", "--json", write(tmp_path, config))[1])
    found = {each["pointer"] for each in shown if each["severity"] == "error"}
    assert "/linux/cgroupsPath" in found
    assert any(pointer.startswith("/linux/resources/unified") for pointer in found)


EXTRA: list[dict[str, Any]] = [
    {"/linux/intelRdt": {"l3CacheSchema": "L3:0=1", "memBwSchema": "MB:0=20", "enableMonitoring": True}},
    {"/process/apparmorProfile": "x"},
    {"/process/selinuxLabel": "x"},
    {"/linux/mountLabel": "x"},
    {"/annotations": {"org.systemd.property.TimeoutStopSec": "'x'", "org.systemd.property.a/b~c": "5"}},
    {"/linux/cgroupsPath": "a--b.slice:x:y"},
    {"/linux/cgroupsPath": "/x"},
]


@pytest.mark.parametrize("machine", MACHINES)
def test_all_errors_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Any) -> None:
    """All that `run` would refuse one after the other: each is found alone, and together with the others."""
    monkeypatch.setattr(looks, "Looks", Nothing)
    use(machine, monkeypatch)

    def found(*changes: dict[str, Any]) -> set[tuple[str, str]]:
        document = changed({pointer: value for each in changes for pointer, value in each.items()})
        request = Request("c1", write(tmp_path, document), f"{tmp_path}/root/c1", cgroups=machine[0])
        return {finding[:2] for finding in examine.examine(request, "config.json") if finding[3] == "error"}

    alone = [found(each) for each in EXTRA]
    assert found(*EXTRA[:-1]) == set().union(*alone[:-1])
    by_systemd = machine[0] == "systemd"
    assert bool(alone[-1] - alone[-2] - found()) == by_systemd
    assert bool({finding for finding in alone[4] if finding[0].startswith("/annotations/")}) == by_systemd


def test_rootless(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: 1000)
    monkeypatch.setattr("posix.getegid", lambda: 1000)
    monkeypatch.setattr("posix.environ", {b"PATH": b"/nowhere"})
    document = changed(user_namespace() | {"/linux/resources": GONE})
    found = json.loads(cli("check", "--json", write(tmp_path, document))[1])
    assert [each["pointer"] for each in found if each["message"].startswith("user map")] == ["/linux/uidMappings"]
    assert "install uidmap" in str(found)
