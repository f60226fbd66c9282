"""The command as people install it: each way, with each Python, in each circumstance.

The wheel is built once; each installation is made once and then asked for its version under hostile conditions.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools

from ocirt import __version__
from tests.support.installs import (
    PYTHONS,
    TOOLS,
    Hostile,
    Installed,
    Python,
    by_uv,
    circumstances,
    copy_of_tree,
    enterable,
    hostile,
    into_venv,
    pip,
    place,
    python,
    run,
    tree,
    version,
    wheel,
)

# Fixtures of others.
__all__ = ["hostile", "place", "python", "tree", "wheel"]

# Each way of installing: (Python, an empty place, wheel) -> the command.


def into_venv_of_copies(python: Python, place: Path, wheel: Path) -> Path:
    run(python.path, "-m", "venv", "--without-pip", "--copies", place)
    pip(place / "bin/python", "--no-index", "--no-deps", wheel)
    return place / "bin/ocirt"


def with_prefix(python: Python, place: Path, wheel: Path) -> Path:
    pip(python.path, "--no-index", "--no-deps", "--prefix", place, wheel)
    return next(path for path in (place / "local/bin/ocirt", place / "bin/ocirt") if path.exists())


def for_user(python: Python, place: Path, wheel: Path) -> Path:
    pip(python.path, "--no-index", "--no-deps", "--user", "--break-system-packages", wheel, HOME=str(place))
    return place / ".local/bin/ocirt"


def to_target(python: Python, place: Path, wheel: Path) -> Path:
    pip(python.path, "--no-index", "--no-deps", "--target", place, wheel)
    return place / "bin/ocirt"


def by_uv_tool(python: Python, place: Path, wheel: Path) -> Path:
    directories = {"UV_TOOL_DIR": str(place / "tools"), "UV_TOOL_BIN_DIR": str(place / "bin")}
    run(TOOLS / "uv", "tool", "install", "-q", "--offline", "--no-cache", "--python", python.path, wheel, **directories)
    return place / "bin/ocirt"


def by_pipx(python: Python, place: Path, wheel: Path) -> Path:
    names = {"PIPX_HOME": str(place / "pipx"), "PIPX_BIN_DIR": str(place / "bin"), "PIPX_MAN_DIR": str(place / "man")}
    names["PIPX_SHARED_LIBS"] = str(wheel.parent / "pipx-shared")
    run(TOOLS / "pipx", "install", "--python", python.path, "--pip-args=--no-deps --no-index", wheel, **names)
    return place / "bin/ocirt"


def editable(python: Python, place: Path, wheel: Path) -> Path:
    run(python.path, "-m", "venv", "--without-pip", place / "venv")
    # The tests have no network: what builds comes from their own environment.
    builder = {"PYTHONPATH": str(Path(setuptools.__file__).parents[1])}
    pip(place / "venv/bin/python", "--no-build-isolation", "--no-deps", "-e", copy_of_tree(place / "clone"), **builder)
    return place / "venv/bin/ocirt"


def clone(python: Python, place: Path, wheel: Path) -> Path:
    run("make", "-s", "-C", copy_of_tree(place / "clone"), f"PYTHON={python.path}", "build")
    return place / "clone/build/ocirt"


Install = Callable[[Python, Path, Path], Path]
INSTALLERS: list[Install] = [
    into_venv,
    into_venv_of_copies,
    with_prefix,
    for_user,
    to_target,
    by_uv,
    by_uv_tool,
    by_pipx,
    editable,
    clone,
]


def made(install: Install, python: Python, place: Path, wheel: Path) -> Installed:
    target = place / f"{install.__name__}-{python.version}"
    target.mkdir()
    return Installed(install(python, target, wheel), python, install.__name__)


@pytest.fixture(scope="module", params=INSTALLERS, ids=lambda install: install.__name__)
def installed(request: pytest.FixtureRequest, python: Python, place: Path, wheel: Path) -> Installed:
    return made(request.param, python, place, wheel)


@pytest.mark.parametrize("circumstance", circumstances())
def test_starts(installed: Installed, hostile: Hostile, circumstance: str) -> None:
    before, as_user = circumstances()[circumstance]
    opened = enterable(installed.python.path) if as_user else []
    version(installed, hostile, [*opened, *before])


def test_link_named_runc(installed: Installed, hostile: Hostile, tmp_path: Path) -> None:
    link = tmp_path / "runc"
    link.symlink_to(installed.command)
    version(installed, hostile, [], link)


def test_pth_file_is_not_read(installed: Installed, hostile: Hostile) -> None:
    """Beside the package, where site would run it with every Python of that environment."""
    path = installed.packages / "hostile.pth"
    path.write_text(f"import sys; {hostile.tell('pth')}\n")
    try:
        version(installed, hostile, [])
        own = installed.command.resolve().with_name("python")
        if installed.way.startswith("into_venv"):  # and this is what it would do
            subprocess.run([own, "-c", "pass"], check=True)
            with pytest.raises(AssertionError):
                hostile.assert_quiet()
    finally:
        path.unlink()


def test_no_second_entry(installed: Installed) -> None:
    """Beside the launcher is no script of the same name that would start Python with site."""
    names = {path.name for path in installed.command.resolve().parent.glob("ocirt*")}
    assert names == {"ocirt", "ocirt-cni", "ocirt-csi", "ocirt-python", "ocirtd"}
    assert installed.command.resolve().read_bytes().startswith(b"\x7fELF")


def test_nothing_is_compiled_at_the_second_start(installed: Installed, hostile: Hostile, tmp_path: Path) -> None:
    """Byte code came with the installation, or the first start kept it."""
    kept = Path(f"/var/cache/ocirt/bytecode{installed.packages}")
    try:
        version(installed, hostile, [])
        log = tmp_path / "log"
        version(installed, hostile, ["strace", "-f", "-e", "trace=openat,open", "-o", str(log)])
        text = log.read_text()
        assert ".pyc" in text
        compiled = set(re.findall(r'/(\w+)\.py"', text))
        if installed.way.startswith("by_") and installed.python.version != platform.python_version():
            # These installers compile nothing, and another Python built the wheel: what finds the kept byte code is compiled.
            assert compiled <= {"__init__", "bytecode"}
        else:
            assert not compiled
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        for parent in kept.parents[: len(kept.parents) - 3]:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


# Container networks: a second name of the command, and plugins that others find.


def test_a_node_from_an_installation(installed: Installed, hostile: Hostile) -> None:
    """`ocirtd` and `ocirt-csi` are there, and say what they would do; to serve they need the extras `cri` and `csi`."""
    for name, words, said in (
        ("ocirtd", ["--version"], "ocirtd "),
        ("ocirtd", ["config"], 'listen = "unix:///run/ocirt/ocirt.sock"'),
        ("ocirt-csi", ["--version"], f"ocirt-csi {__version__}\n"),
        ("ocirt-csi", ["--help"], "--registration-dir DIR"),
    ):
        command = installed.command.with_name(name)
        done = subprocess.run([command, *words], env=hostile.environment, capture_output=True, text=True, check=False, timeout=60)
        hostile.assert_quiet()
        assert (done.returncode, done.stderr) == (0, ""), done
        assert said in done.stdout


def test_a_shim_from_an_installation(installed: Installed, hostile: Hostile) -> None:
    """containerd finds its shim, which needs nothing else."""
    command = installed.command.with_name("containerd-shim-ocirt-v2")
    for word, said in (("-v", b"containerd-shim-ocirt-v2:\n"), ("-info", b"io.containerd.ocirt.v2")):
        done = subprocess.run(
            [command, word], env=hostile.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
        )
        hostile.assert_quiet()
        assert (done.returncode, done.stderr) == (0, b""), done
        assert said in done.stdout


def test_networks_from_an_installation(installed: Installed, hostile: Hostile, tmp_path: Path) -> None:
    """`ocirt-cni` installs plugins, by links or copies; they start this installation's code, and count as ours."""
    command = installed.command.with_name("ocirt-cni")

    def ask(*line: str | Path, words: str = "", **environment: str) -> str:
        done = subprocess.run(
            line, env=hostile.environment | environment, capture_output=True, text=True, check=False, timeout=60, input=words
        )
        hostile.assert_quiet()
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    assert f"python: {installed.python.version}" in ask(command, "--version")
    for kind in ("links", "copies"):
        folder = tmp_path / kind
        folder.mkdir()
        ask(command, "plugins", "install", *(["--copy"] if kind == "copies" else []), folder)
        answer = ask(folder / "bridge", words='{"cniVersion": "1.1.0"}', CNI_COMMAND="VERSION")
        assert '"supportedVersions":["0.1.0",' in answer
        listed = ask(command, "plugins", "list", folder).splitlines()[1:]
        assert {line.split()[1] for line in listed} == {"ours"}


def test_there_are_two_pythons() -> None:
    """Debian's and one that is not: with one alone the matrix would promise more than it tests."""
    if len(PYTHONS) < 2:
        pytest.skip(f"this machine has one Python from 3.11 on: {PYTHONS}")
    assert PYTHONS[0].path != PYTHONS[1].path
