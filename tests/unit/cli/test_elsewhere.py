"""Verbs of other floors: how they are found, and what becomes of their failures."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ocirt.cli import elsewhere, options
from tests.unit.cli.conftest import Cli

ROOT = Path(__file__).resolve().parents[3]


class Floor:
    """A floor whose `main` does what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def does(self, what: Any) -> None:
        """Let `main` raise `what`, or call it."""

        def main(given: Any, args: list[str]) -> int:
            if isinstance(what, BaseException):
                raise what
            result: int = what(given, args)
            return result

        module = ModuleType("ocirt_images.cli.main")
        module.main = main  # type: ignore[attr-defined]
        self.monkeypatch.setitem(sys.modules, "ocirt_images.cli.main", module)


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Floor:
    return Floor(monkeypatch)


def test_what_it_gets(cli: Cli, floor: Floor) -> None:
    """The flags, by the floor's own table, and the rest."""
    seen: dict[str, Any] = {}

    def main(given: Any, args: list[str]) -> int:
        seen.update(verb=given.verb, root=given.image_root, force=given.get("force"), args=args, gc=gc.isenabled())
        return 7

    floor.does(main)
    assert cli.bare("--image-root", "store", "rmi", "a", "-f", "b") == (7, "", "")
    assert seen == {"verb": "rmi", "root": f"{os.getcwd()}/store", "force": True, "args": ["a", "b"], "gc": True}


def test_usage(cli: Cli) -> None:
    """As for the runtime's own verbs."""
    status, out, err = cli("rmi", "--bogus")
    assert status == 1
    assert out.startswith("Incorrect Usage: flag provided but not defined: -bogus\n\nNAME:\n   ocirt rmi - remove images")
    assert 'msg="flag provided but not defined: -bogus"' in err
    status, out, err = cli("tag", "a")
    assert (status, out.partition("\n")[0]) == (1, "Incorrect Usage.")
    assert cli("help", "tag")[1] == cli("tag", "--help")[1]


def test_its_errors(cli: Cli, floor: Floor) -> None:
    """One line for a person, or what a log has been asked for."""
    from ocirt_images.errors import Error  # noqa: PLC0415

    floor.does(Error("not-found", "no such image", subject="x", cause="it never was", hint="pull it"))
    assert cli("rmi", "x") == (1, "", "ocirt: x: no such image: it never was (pull it)\n")
    status, _, err = cli("--log-format", "json", "rmi", "x")
    assert status == 1
    assert json.loads(err)["msg"] == "x: no such image: it never was (pull it)"


def test_what_would_move_the_cursor(cli: Cli, floor: Floor) -> None:
    """A registry's words are a stranger's."""
    from ocirt_images.errors import Error  # noqa: PLC0415

    floor.does(Error("unavailable", "it said", cause="\x1b[2J\nocirt: all is well"))
    assert cli("rmi", "x")[2] == "ocirt: it said: \\x1b[2J\\nocirt: all is well\n"


@pytest.mark.parametrize(
    ("err", "text"),
    [
        (FileNotFoundError(2, "x", "/a/b"), "/a/b: no such file or directory"),
        (PermissionError(13, "x", b"/a"), "/a: permission denied"),
        (OSError(28, "x"), "no space left on device"),
        (ModuleNotFoundError("no", name="urllib3"), "the library urllib3 is not installed (make images)"),
        (ModuleNotFoundError("no", name="isal.igzip"), "the library isal is not installed (make images)"),
    ],
)
def test_other_errors(cli: Cli, floor: Floor, err: Exception, text: str) -> None:
    floor.does(err)
    assert cli("rmi", "x") == (1, "", f"ocirt: {text}\n")


def test_a_bug(cli: Cli, floor: Floor) -> None:
    floor.does(KeyError("x"))
    status, out, err = cli("rmi", "x")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "internal error: KeyError: 'x' at" in err


def test_ctrl_c(cli: Cli, floor: Floor) -> None:
    floor.does(KeyboardInterrupt())
    assert cli("rmi", "x") == (130, "", "ocirt: cancelled; run it again to go on\n")


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.append({str(folder)!r}); from ocirt.cli import main; main.main('ocirt', sys.argv[1:])"
    command = [sys.executable, "-I", "-S", "-B", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_runtime_alone(tmp_path: Path) -> None:
    """Its own help, completion and manual go on, and each verb that is missing says so."""
    shutil.copytree(ROOT / "ocirt", tmp_path / "ocirt", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(tmp_path, "images")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "the part of ocirt that deals with images is not installed" in done.stderr
    assert "list images" in run(tmp_path, "--help").stdout
    for shell in ("bash", "zsh", "fish"):
        done = run(tmp_path, "completion", shell)
        assert done.returncode == 0
        assert "checkpoint" in done.stdout
        assert "history" not in done.stdout
    assert "unknown verb: images" in run(tmp_path, "manual", "images").stderr
    assert "is not installed" in run(tmp_path, "help", "images").stderr


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a floor is looked for: beside the runtime, in a clone's folder, and its libraries in the command's environment."""
    home = tmp_path / "clone"
    (home / "ocirt").mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir(parents=True)
    packages = tmp_path / "venv/lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    monkeypatch.setattr("ocirt.__path__", [str(home / "ocirt")])
    monkeypatch.setattr(sys, "argv", ["-c", f"{tmp_path}/venv/bin/", str(home), "ocirt", "images"])

    def places() -> list[str]:
        monkeypatch.setattr(sys, "path", ["/first"])
        elsewhere._reach("images")
        return sys.path

    assert places() == ["/first", str(home)]
    (home / "images/ocirt_images").mkdir(parents=True)
    assert places() == ["/first", str(home), f"{home}/images", f"{home}/build/libraries"]
    packages.mkdir(parents=True)
    assert places() == ["/first", str(home), f"{home}/images", f"{home}/build/libraries", str(packages)]
    monkeypatch.setattr(sys, "argv", ["-c", "bin/"])
    assert len(places()) == 4


def test_the_runtime_loads_no_floor() -> None:
    """For any verb of its own, and not for the list of all verbs."""
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
from ocirt.cli import main, options
for args in (["--help"], ["state", "nobody"], ["nope"], ["run", "--help"], ["list"]):
    main.command(options.Options(), ["--root", "/nonexistent", *args])
print("LOADED", *(name for name in sys.modules if name.startswith("ocirt_")))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    floors = {floor for floor, _ in elsewhere.VERBS.values()}
    assert loaded <= {f"ocirt_{floor}{below}" for floor in floors for below in ("", ".cli", ".cli.tables")}
    assert set(elsewhere.VERBS).isdisjoint(options.VERBS)
