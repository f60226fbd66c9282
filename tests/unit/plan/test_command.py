"""`ocirt plan`: what would be done, for a person and as JSON, and nothing of it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt.containers import create
from tests.support.bundle import default_config, edited
from tests.unit.cli.conftest import Cli
from tests.unit.plan.plans import HOOKS, SECCOMP, everything, host, made, request

Bundle = Callable[..., str]


@pytest.fixture
def cli(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command, on a machine that is the same for all."""
    monkeypatch.setattr(create, "look", host)
    return Cli(tmp_path / "root", capfd)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Writes config.json of the default configuration with edits; the bundle has nothing else."""

    def write(name: str = "config.json", **edits: Any) -> str:
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / name).write_text(json.dumps(edited(default_config(), **edits)))
        return str(tmp_path / "b")

    return write


def test_text(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    status, out, err = cli("plan", "-b", bundle())
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f'parent  tree.check_root(path="{tmp_path}/b/rootfs")    /root/path'
    assert lines[-1].rstrip() == "start   program.execve()    /process/args"
    assert 'parent  process.clone(side="init", flags=0x6c020000)    /linux/namespaces' in lines
    place = lines.index(
        'init    device.make(path="/dev/null", kind="c", major=1, minor=3, mode=0o666, uid=0, gid=0)    /linux/devices'
    )
    assert lines[place + 1 : place + 3] == ["          EEXIST: go on", '          EPERM: device.bind(path="/dev/null")']
    assert all(len(line) < 1000 for line in lines)


def test_json(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    status, out, err = cli("plan", "--json", "-b", bundle())
    assert (status, err) == (0, "")
    steps = json.loads(out)
    assert steps[0] == {
        "side": "parent",
        "operation": "tree.check_root",
        "arguments": {"path": f"{tmp_path}/b/rootfs"},
        "pointer": "/root/path",
    }
    (null,) = [each for each in steps if each["operation"] == "device.make" and each["arguments"]["path"] == "/dev/null"]
    assert null["errors"] == {"EEXIST": None, "EPERM": {"operation": "device.bind", "arguments": {"path": "/dev/null"}}}
    (expect,) = [each for each in steps if each["operation"] == "sync.expect"]
    assert expect == {"side": "parent", "operation": "sync.expect", "arguments": {"point": "ready"}}
    program = [each for each in steps if each["operation"] == "cgroup.device_program"]
    assert bytes.fromhex(program[0]["arguments"]["program"])


def test_both_say_the_same(cli: Cli, bundle: Bundle) -> None:
    where = bundle(hooks=HOOKS, seccomp=SECCOMP, linux={"sysctl": {"net.ipv4.ip_forward": "1"}}, cwd="/w")
    steps = json.loads(cli("plan", "--json", "-b", where)[1])
    lines = [line for line in cli("plan", "-b", where)[1].splitlines() if not line.startswith(" ")]
    assert [line.split("(")[0].split() for line in lines] == [[each["side"], each["operation"]] for each in steps]
    for line, each in zip(lines, steps, strict=True):
        assert line.endswith(each.get("pointer", ")"))


def test_it_is_the_plan_that_create_walks(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    where = bundle()
    spec = json.loads(Path(where, "config.json").read_text())
    asked = request()
    asked.bundle, asked.container_id, asked.state_root = where, "plan", str(tmp_path / "root")
    asked.directory = str(tmp_path / "root/plan")
    wanted = [each[1] for each in made(spec, host(), asked)]
    assert [each["operation"] for each in json.loads(cli("plan", "--json", "-b", where)[1])] == wanted
    assert f'barrier.make(directory="{tmp_path}/root/plan")' in cli("plan", "-b", where)[1]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_nothing_is_done(cli: Cli, bundle: Bundle, tmp_path: Path, flags: list[str]) -> None:
    where = bundle(hooks=HOOKS)
    before = sorted(tmp_path.rglob("*"))
    descriptors = os.listdir("/proc/self/fd")
    assert cli("plan", *flags, "-b", where)[0] == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path / "root").exists()
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_bundle_by_argument_or_by_directory(cli: Cli, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    where = bundle()
    monkeypatch.chdir(where)
    shown = cli("plan")[1]
    for args in ([where], ["."], ["-b", "."]):
        status, out, _ = cli("plan", *args)
        assert status == 0
        assert len(out.splitlines()) == len(shown.splitlines())


def test_another_name_of_config_json(cli: Cli, bundle: Bundle) -> None:
    where = bundle("other.json", args=["something-else"])
    status, out, _ = cli("plan", "--config", "other.json", "-b", where)
    assert status == 0
    assert 'program.find(name="something-else"' in out


def test_a_terminal_is_planned_for_a_socket(cli: Cli, bundle: Bundle) -> None:
    out = cli("plan", "-b", bundle(terminal=True))[1]
    assert "console.open(rows=0, columns=0)    /process/terminal" in out
    assert "console." not in cli("plan", "-b", bundle(terminal=False))[1]


def test_everything(cli: Cli, bundle: Bundle) -> None:
    where = bundle()
    Path(where, "config.json").write_text(json.dumps(everything()))
    for flags in ([], ["--json"]):
        status, out, err = cli("plan", *flags, "-b", where)
        assert (status, err) == (0, "")
        assert out.isascii() or "…" in out
    assert "…" in cli("plan", "-b", where)[1]  # the profile is too long for a person
    (filtered,) = [each for each in json.loads(out) if each["operation"] == "program.load_filter"]
    assert filtered["arguments"]["section"] == SECCOMP


def test_text_that_is_not_ascii(cli: Cli, bundle: Bundle) -> None:
    out = cli("plan", "-b", bundle(args=["é\n\u2028", "\x1b[2J"]))[1]
    assert "\x1b" not in out
    assert '"é\\n' in out
    assert all(line.startswith(("parent", "stage", "init", "start", "   ")) for line in out.rstrip("\n").split("\n"))


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"args": []}, ("/process/args", "args must not be empty")),
        ({"resources": {"rdma": {"x": {}}}}, ("/linux/resources/rdma/x", "limits nothing")),
        ({"cgroupsPath": "/.."}, ("/linux/cgroupsPath", "names no cgroup")),
    ],
)
def test_what_cannot_be_done_is_said(cli: Cli, bundle: Bundle, edits: dict[str, Any], words: tuple[str, ...]) -> None:
    status, out, err = cli("plan", "-b", bundle(**edits))
    assert (status, out) == (1, "")
    assert all(word in err for word in words)
    assert len(err.splitlines()) == 1


def test_no_bundle(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli("plan", "-b", str(tmp_path / "nothing"))
    assert status == 1
    assert "config.json not found" in err
