"""The command's dispatch: usage, help, versions and exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Cli

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "args",
    [["state"], ["state", "a", "b"], ["start"], ["pause"], ["resume"], ["delete"], ["run"], ["create"]],
)
def test_verbs_with_one_argument(cli: Cli, args: list[str]) -> None:
    status, out, err = cli(*args)
    assert status == 1
    assert out.startswith(f"Incorrect Usage.\n\nNAME:\n   ocirt {args[0]} - ")
    assert f'msg="ocirt: \\"{args[0]}\\" requires exactly 1 argument(s)"' in err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["kill"], "a minimum of 1"),
        (["kill", "a", "b", "c"], "a maximum of 2"),
        (["exec"], "a minimum of 1"),
        (["ps"], "a minimum of 1"),
        (["list", "a"], "exactly 0"),
        (["features", "a"], "exactly 0"),
        (["spec", "a"], "exactly 0"),
    ],
)
def test_other_numbers_of_arguments(cli: Cli, args: list[str], text: str) -> None:
    status, out, err = cli(*args)
    assert (status, out.partition("\n")[0]) == (1, "Incorrect Usage.")
    assert f'\\"{args[0]}\\" requires {text} argument(s)' in err


def test_a_wrong_flag(cli: Cli) -> None:
    status, out, err = cli("exec", "--bogus", "c1", "ls")
    assert status == 1
    assert out.startswith("Incorrect Usage: flag provided but not defined: -bogus\n\nNAME:\n   ocirt exec - ")
    assert 'msg="flag provided but not defined: -bogus"' in err
    status, out, err = cli.bare("--bogus", "state")
    assert status == 1
    assert out.startswith("Incorrect Usage. flag provided but not defined: -bogus\n\nNAME:\n   ocirt - ")


@pytest.mark.parametrize("args", [["kill", "-h"], ["kill", "--help"], ["help", "kill"], ["h", "kill"], ["kill", "c1", "-h"]])
def test_help_of_a_verb(cli: Cli, args: list[str]) -> None:
    status, out, err = cli(*args, name="runc")
    assert (status, err) == (0, "")
    assert out.startswith("NAME:\n   runc kill - ")


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"], ["help"], ["h"]])
def test_help_of_the_command(cli: Cli, args: list[str]) -> None:
    status, out, err = cli.bare(*args)
    assert (status, err) == (0, "")
    assert out.startswith("NAME:\n   ocirt - ")


@pytest.mark.parametrize("args", [["nope"], ["help", "nope"]])
def test_an_unknown_verb(cli: Cli, args: list[str]) -> None:
    status, out, err = cli(*args)
    assert (status, out) == (3, "")
    assert "No help topic for 'nope'" in err


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_the_version(cli: Cli, flag: str) -> None:
    status, out, err = cli.bare(flag, name="ocirt")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].startswith("ocirt version ")
    assert lines[1].startswith("commit: ")
    assert lines[2] == "spec: 1.3.0"
    assert cli.bare(flag, name="runc")[1].startswith("runc version ")


@pytest.mark.parametrize("verb", ["state", "kill", "pause", "resume", "ps", "start", "delete"])
def test_an_unknown_container(cli: Cli, verb: str) -> None:
    status, out, err = cli(verb, "nope")
    assert (status, out) == (1, "")
    assert err.endswith('level=error msg="container does not exist"\n')


def test_exec_fails_with_255(cli: Cli) -> None:
    status, out, err = cli("exec", "nope", "ls")
    assert (status, out) == (255, "")
    assert 'msg="exec failed: container does not exist' in err


def test_a_bad_id(cli: Cli) -> None:
    status, _, err = cli("state", "../x")
    assert status == 1
    assert "invalid container ID format" in err


def test_a_bug_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise KeyError("x")

    monkeypatch.setattr("ocirt.cli.state.run", broken)
    status, out, err = cli("state", "c1")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "internal error: KeyError: 'x'" in err


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in an interpreter of its own, as the launcher starts it; what it loaded goes to stderr at the end."""
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
import posix
from ocirt.cli import main
leave = posix._exit
main.posix = type(sys)("posix")
main.posix._exit = lambda status: (posix.write(2, ("LOADED " + " ".join(sys.modules)).encode()), leave(status))
main.main("ocirt", sys.argv[1:])
"""
    command = [sys.executable, "-I", "-S", "-B", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=30, check=False)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["state", "--help"], ["features"], ["state"]])
def test_a_full_disk_is_one_line(args: list[str]) -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); from ocirt.cli import main; main.main('ocirt', sys.argv[1:])"
    command = [sys.executable, "-I", "-S", "-B", "-c", code, *args]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert 'level=error msg="no space left on device"' in done.stderr


def test_a_reader_that_left_ends_the_command_silently() -> None:
    code = f"import sys; sys.path.append({str(ROOT)!r}); from ocirt.cli import main; main.main('ocirt', ['--help'])"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


HEAVY = {
    "os",
    "re",
    "typing",
    "argparse",
    "logging",
    "dataclasses",
    "enum",
    "json",
    "pathlib",
    "subprocess",
    "ctypes",
    "signal",
    "socket",
}


@pytest.mark.parametrize(
    ("args", "never"),
    [
        (["state", "nope"], {"ocirt.cli.help", "ocirt.kernel.ffi", "_ctypes", "ocirt.paths", "ocirt.spec"}),
        (["kill", "nope", "KILL"], {"ocirt.cli.help", "ocirt.kernel.ffi", "_ctypes", "ocirt.paths", "ocirt.spec"}),
        (["nope"], {"ocirt.state"}),
    ],
)
def test_a_verb_loads_what_it_needs(args: list[str], never: set[str], tmp_path: Path) -> None:
    done = run("--root", str(tmp_path), *args)
    loaded = set(done.stderr.partition("LOADED ")[2].split())
    assert "ocirt.cli.main" in loaded
    assert not loaded & (HEAVY | never)


def test_an_interrupt_ends_the_command_silently() -> None:
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
import _signal
from ocirt.cli import main
main.command = lambda *_: _signal.raise_signal(_signal.SIGINT) or 0
main.main("ocirt", [])
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (-2, b"")
