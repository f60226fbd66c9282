"""The verbs that need no kernel but signals: state, list, kill, spec, bundle, features, ps's filter."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocirt import state
from ocirt.cli import bundle, ps, target
from ocirt.cli import list as list_verb
from ocirt.cli import options as flags
from ocirt.errors import Error

from .conftest import Cli, MakeRecord, set_phase

RUNC = shutil.which("runc-new") or shutil.which("runc")
USER = pwd.getpwuid(os.geteuid()).pw_name


def test_state(cli: Cli, make: MakeRecord) -> None:
    record = make("c1", created="2026-11-23T23:53:18.123456789Z")
    status, out, err = cli("state", "c1")
    assert (status, err) == (0, "")
    assert out == (
        '{\n  "ociVersion": "1.3.0",\n  "id": "c1",\n'
        f'  "pid": {record["pid"]},\n  "status": "running",\n'
        '  "bundle": "/b",\n  "rootfs": "/b/rootfs",\n  "created": "2026-11-23T23:53:18.123456789Z",\n  "owner": ""\n}'
    )


def test_state_with_annotations(cli: Cli, make: MakeRecord, root: Path) -> None:
    make("c1", annotations={"a": "b"})
    set_phase(root, "c1", 0)
    shown = json.loads(cli("state", "c1")[1])
    assert list(shown) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert (shown["annotations"], shown["status"]) == ({"a": "b"}, "created")


def test_list(cli: Cli, make: MakeRecord, root: Path) -> None:
    record = make("c1", created="2026-11-24T04:27:51.373609197Z", bundle="/tmp/cliw/b")
    make("stopped", pid=0, start_time=0)
    (root / "@seccomp").mkdir()
    status, out, err = cli("list")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "ID          PID         STATUS      BUNDLE        CREATED                          OWNER"
    assert lines[1] == f"c1          {record['pid']:<12}running     /tmp/cliw/b   2026-11-24T04:27:51.373609197Z   {USER}"
    assert lines[2].split()[:3] == ["stopped", "0", "stopped"]
    assert len(lines) == 3
    shown = json.loads(cli("list", "--format=json")[1])
    assert [(each["id"], each["status"], each["owner"]) for each in shown] == [
        ("c1", "running", USER),
        ("stopped", "stopped", USER),
    ]
    assert cli("list", "-q") == (0, "c1\nstopped\n", "")


def test_a_list_of_nothing(cli: Cli, root: Path) -> None:
    status, out, err = cli("list")
    assert (status, out) == (1, "")
    assert f"open {root}: no such file or directory" in err
    root.mkdir()
    assert cli("list") == (0, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n", "")
    assert cli("list", "-f", "json") == (0, "null\n", "")
    assert cli("list", "-f", "foo")[0] == 1


def test_a_list_beside_a_broken_container(cli: Cli, make: MakeRecord, root: Path) -> None:
    make("c1")
    (root / "broken").mkdir()
    (root / "torn").mkdir()
    (root / "torn/state.json").write_text("{")
    status, out, err = cli("list", "-q")
    assert (status, out) == (0, "c1\n")
    assert err.splitlines()[0] == "load container broken: container does not exist"
    assert err.splitlines()[1].startswith(f"load container torn: {root}/torn/state.json: ")


def test_the_columns_of_a_table() -> None:
    assert list_verb.table([("A", "B"), ("a" * 12, "b")]) == "A" + " " * 14 + "B\n" + "a" * 12 + "   b\n"


@pytest.mark.parametrize("signal", ["KILL", "SIGKILL", "9", "sigkill", "kill"])
def test_kill(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes], signal: str) -> None:
    make("c1")
    assert cli("kill", "c1", signal) == (0, "", "")
    assert sleeper.wait(10) == -9


@pytest.mark.parametrize("args", [[], [""], ["15"], ["TERM"]])
def test_kill_sends_term(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes], args: list[str]) -> None:
    make("c1")
    assert cli("kill", "c1", *args) == (0, "", "")
    assert sleeper.wait(10) == -15


def test_kill_by_the_name_of_a_realtime_signal(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes]) -> None:
    make("c1")
    assert cli("kill", "c1", "RTMIN+3") == (0, "", "")
    assert sleeper.wait(10) == -37


def test_kill_with_signal_0_only_looks(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes]) -> None:
    make("c1")
    assert cli("kill", "-a", "c1", "0") == (0, "", "")
    assert sleeper.poll() is None


@pytest.mark.parametrize(
    ("signal", "text"),
    [
        ("BOGUS", 'unknown signal \\"BOGUS\\"'),
        ("_DFL", 'unknown signal \\"_DFL\\"'),
        ("SIG", 'unknown signal \\"SIG\\"'),
        ("99", "unable to signal init: invalid argument"),
        ("-5", "unable to signal init: invalid argument"),
        ("99999999999", "unable to signal init: invalid argument"),
        ("+-1", "unknown signal"),
        ("9" * 5000, "unknown signal"),
    ],
)
def test_what_is_no_signal(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes], signal: str, text: str) -> None:
    make("c1")
    status, out, err = cli("kill", "c1", signal)
    assert (status, out) == (1, "")
    assert text in err
    assert sleeper.poll() is None


def test_kill_of_what_does_not_run(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes]) -> None:
    make("none", pid=0, start_time=0)
    make("other", start_time=1)
    make("boot", boot_id="another")
    for each in ("none", "other", "boot"):
        status, _, err = cli("kill", each, "KILL")
        assert status == 1
        assert 'msg="container not running"' in err
        assert cli("kill", "--all", each, "KILL") == (0, "", "")
    assert sleeper.poll() is None  # the process with that number was left alone


def test_kill_of_a_zombie(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes]) -> None:
    make("c1")
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert 'msg="container not running"' in cli("kill", "c1")[2]
    assert json.loads(cli("state", "c1")[1])["status"] == "stopped"


def test_kill_of_a_container_in_the_hosts_pid_namespace(cli: Cli, make: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    monkeypatch.setattr("ocirt.cgroups.control.kill", lambda cgroup, signal: killed.append((cgroup["mode"], signal)))
    cgroup = {"mode": "v2", "paths": {"": "/sys/fs/cgroup/that/is/not/there"}, "created": []}
    make("c1", namespaces={}, cgroup=cgroup)
    make("joined", namespaces={"pid": "/proc/1/ns/pid"}, cgroup=cgroup)
    make("gone", namespaces={}, cgroup=cgroup, start_time=1)
    for each in ("c1", "joined"):
        assert cli("kill", each, "KILL") == (0, "", "")
    assert killed == [("v2", 9)] * 2  # all that is in the cgroup: the kernel does not do it when init dies
    assert "container not running" in cli("kill", "gone", "KILL")[2]
    assert cli("kill", "c1", "0") == (0, "", "")
    assert len(killed) == 2


def test_kill_of_what_the_v1_freezer_holds(
    cli: Cli,
    make: MakeRecord,
    sleeper: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thawed: list[object] = []
    monkeypatch.setattr("ocirt.cgroups.control.thaw", thawed.append)
    (tmp_path / "freezer.state").write_text("FROZEN\n")
    (tmp_path / "freezer.self_freezing").write_text("1\n")
    record = make("c1", cgroup={"mode": "v1", "paths": {"freezer": str(tmp_path)}, "created": []})
    assert cli("kill", "c1", "0") == (0, "", "")
    assert not thawed
    assert cli("kill", "c1", "KILL") == (0, "", "")
    assert sleeper.wait(10) == -9
    assert thawed == [record["cgroup"]]


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume_of_what_does_not_run(cli: Cli, make: MakeRecord, verb: str) -> None:
    make("c1", pid=0, start_time=0)
    status, _, err = cli(verb, "c1")
    assert status == 1
    assert f'msg="container not {"running" if verb == "pause" else "paused"}"' in err


def test_ps_keeps_the_lines_of_the_container() -> None:
    output = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sh -c 13\n\nroot   13    12 cat\n"
    assert ps.select(output, [12, 99]) == "UID   PID  PPID CMD\nroot   12     1 sh -c 13\n"
    with pytest.raises(Error, match="couldn't find PID field in ps output"):
        ps.select("COMMAND\nsh\n", [1])


def test_ps(
    cli: Cli, make: MakeRecord, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    monkeypatch.setattr("ocirt.cgroups.control.processes", lambda _: [sleeper.pid])
    make("c1")
    status, out, err = cli("ps", "c1", "-o", "pid,args")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [["PID", "COMMAND"], [str(sleeper.pid), "sleep", "60"]]
    assert cli("ps", "--format", "json", "c1") == (0, f"[{sleeper.pid}]\n", "")
    status, out, err = cli("ps", "c1", "--bogus")
    assert (status, out) == (1, "")
    assert 'msg="exit status 1: ' in err
    assert "invalid format option" in cli("ps", "-f", "yaml", "c1")[2]
    monkeypatch.setattr("ocirt.cgroups.control.processes", lambda _: [])
    assert cli("ps", "-f", "json", "c1") == (0, "null\n", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no such file or directory (--format json needs no ps)" in cli("ps", "c1")[2]


def spec(cli: Cli, directory: Path, *args: str) -> Any:
    assert cli.bare("spec", "-b", str(directory), *args) == (0, "", "")
    return json.loads((directory / "config.json").read_text())


@pytest.fixture(autouse=True)
def _stay_here() -> Any:
    here = os.getcwd()
    yield
    os.chdir(here)


@pytest.mark.skipif(RUNC is None, reason="there is no runc to compare with")
@pytest.mark.parametrize("args", [[], ["--rootless"]])
def test_spec_is_what_runc_writes(cli: Cli, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    subprocess.run([str(RUNC), "spec", "-b", str(tmp_path / "b"), *args], check=True)
    theirs = json.loads((tmp_path / "b/config.json").read_text())
    ours = spec(cli, tmp_path / "a", *args)
    if theirs["ociVersion"] != ours["ociVersion"]:
        pytest.skip(f"this runc writes version {theirs['ociVersion']}")
    assert ours == theirs


def test_spec_does_not_overwrite(cli: Cli, tmp_path: Path) -> None:
    assert spec(cli, tmp_path)["process"]["args"] == ["sh"]
    (tmp_path / "config.json").write_text("{}")
    status, _, err = cli.bare("spec", "-b", str(tmp_path))
    assert status == 1
    assert 'msg="File config.json exists. Remove it first"' in err
    assert (tmp_path / "config.json").read_text() == "{}"


def test_spec_without_a_directory(cli: Cli, tmp_path: Path) -> None:
    status, _, err = cli.bare("spec", "-b", f"{tmp_path}/no")
    assert status == 1
    assert f"chdir {tmp_path}/no: no such file or directory" in err


def test_bundle(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.bare("bundle", "--rootless=false", "fs", "new/b", "--", "ls", "-l", "--tty") == (0, "", "")
    config = json.loads((tmp_path / "new/b/config.json").read_text())
    assert config["root"] == {"path": f"{tmp_path}/fs", "readonly": True}
    assert config["process"]["args"] == ["ls", "-l", "--tty"]
    assert config["process"]["terminal"] is False
    assert {"type": "user"} not in config["linux"]["namespaces"]
    assert cli.bare("bundle", "--rootless", "--tty", "--writable", "fs", "c") == (0, "", "")
    config = json.loads((tmp_path / "c/config.json").read_text())
    assert config["root"]["readonly"] is False
    assert (config["process"]["args"], config["process"]["terminal"]) == (["sh"], True)
    assert {"type": "user"} in config["linux"]["namespaces"]


def test_bundle_refuses(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = cli.bare("bundle", f"{tmp_path}/file", f"{tmp_path}/b")
    assert status == 1
    assert f"{tmp_path}/file: not a directory" in err
    assert not (tmp_path / "b").exists()
    (tmp_path / "config.json").touch()
    assert "File config.json exists" in cli.bare("bundle", str(tmp_path), str(tmp_path))[2]


@pytest.mark.parametrize(("tty", "command", "terminal"), [(True, [], True), (False, [], False), (True, ["ls"], False)])
def test_the_terminal_of_a_bundle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tty: bool,
    command: list[str],
    terminal: bool,
) -> None:
    monkeypatch.setattr("posix.isatty", lambda _: tty)
    given = flags.Options()
    given.set_verb("bundle", flags.VERBS["bundle"][2], {})
    assert bundle.run(given, [str(tmp_path), str(tmp_path / "b"), *command]) == 0
    assert json.loads((tmp_path / "b/config.json").read_text())["process"]["terminal"] is terminal


def chosen(verb: str, *args: str) -> tuple[str, str]:
    given = flags.Options()
    values, rest = flags.parse(flags.VERBS[verb][2], list(args), reorder=True)
    given.set_verb(verb, flags.VERBS[verb][2], values)
    return target.target(given, rest)


def test_which_bundle_and_which_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert chosen("run", "c1") == (str(tmp_path), "c1")
    assert chosen("run", "-b", "x", "c1") == (f"{tmp_path}/x", "c1")
    assert chosen("create", "--bundle=/x/", "a/b") == ("/x", "a/b")  # refused later, as runc does
    assert chosen("plan") == (str(tmp_path), "plan")
    assert chosen("plan", "x")[0] == f"{tmp_path}/x"
    for argument in ("./x/", "/y/x", "."):
        where, made = chosen("run", argument)
        assert where == {"./x/": f"{tmp_path}/x", "/y/x": "/y/x", ".": str(tmp_path)}[argument]
        assert made.startswith(Path(where).name + "-")
    assert chosen("run", "/x")[1] != chosen("run", "/x")[1]


@pytest.mark.parametrize(
    ("path", "head"),
    [("/", "container-"), ("/a b", "a-b-"), ("/é", "container-"), ("/" + "x" * 99, "x" * 40 + "-")],
)
def test_a_made_up_id_is_an_id(path: str, head: str) -> None:
    made = target.made_up_id(path)
    state.validate_id(made)
    assert made.startswith(head)
    assert len(made) == len(head) + 8


def test_features_are_what_the_callers_read(cli: Cli) -> None:
    status, out, err = cli.bare("features")
    assert (status, err) == (0, "")
    shown = json.loads(out)
    assert out == json.dumps(shown, indent=4) + "\n"
    assert (shown["ociVersionMin"], shown["ociVersionMax"]) == ("1.0.0", "1.3.0")
    assert {"rro", "ro", "bind", "tmpcopyup"} <= set(shown["mountOptions"])
    assert shown["mountOptions"] == sorted(shown["mountOptions"])
    assert "user" in shown["linux"]["namespaces"]
    assert shown["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert set(shown["linux"]["seccomp"]) >= {"enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"}
    assert all(isinstance(value, str) for value in shown["annotations"].values())


@pytest.mark.skipif(RUNC is None, reason="there is no runc to compare with")
def test_features_have_the_shape_of_runcs(cli: Cli) -> None:
    theirs = json.loads(subprocess.run([str(RUNC), "features"], capture_output=True, check=True).stdout)
    ours = json.loads(cli.bare("features")[1])
    assert set(theirs) <= set(ours)
    for key, value in theirs["linux"].items():
        assert type(ours["linux"].get(key, value)) is type(value)
    assert ours["linux"]["memoryPolicy"] == theirs["linux"].get("memoryPolicy", ours["linux"]["memoryPolicy"])
