"""ocirt as people install it: the wheels, virtual environments to put them in, and the hostile conditions to ask them in.

The fixtures last for the tests of one file: each that imports them has a place and wheels of its own.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocirt import __version__
from tests.support.build import ROOT

TOOLS = Path(sys.executable).parent  # pip, uv and pipx of the tests
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
USER_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "--"]
SOURCES = (
    *("ocirt", "api", "images", "cni", "shim", "csi", "cri", "launcher"),
    *("Makefile", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"),
)
ASK = "import os, sys; print(os.path.realpath(sys.executable), '%d.%d.%d' % sys.version_info[:3])"


@dataclass(frozen=True)
class Python:
    """An interpreter: its real path and its version."""

    path: str
    version: str


def interpreters() -> list[Python]:
    """What this machine has from 3.11 on: Debian's first, the newest of the others second."""
    found: dict[str, Python] = {}
    places = [Path("/usr/bin"), Path("/usr/local/bin"), *Path("/opt").glob("*/bin")]
    places += [*Path.home().glob(".pyenv/versions/*/bin"), *Path.home().glob(".local/share/uv/python/*/bin")]
    for place in places:
        for candidate in sorted(place.glob("python3")) + sorted(place.glob("python3.1[0-9]")):
            done = subprocess.run([candidate, "-I", "-S", "-c", ASK], capture_output=True, text=True, check=False)
            path, _, version = done.stdout.strip().partition(" ")
            if version and tuple(map(int, version.split("."))) >= (3, 11):
                found.setdefault(path, Python(path, version))
    debian = [python for python in found.values() if python.path.startswith("/usr/bin/")]
    others = [python for python in found.values() if not python.path.startswith("/usr/bin/")]
    others.sort(key=lambda python: tuple(map(int, python.version.split("."))))
    return debian[:1] + others[-1:]


def run(*command: str | Path, **environment: str) -> str:
    """Run a tool. Raises AssertionError with its output if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PIP_"))}
    kept = {name: value for name, value in os.environ.items() if name in ("PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")}
    done = subprocess.run(
        command, env=clean | kept | environment, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that other users can enter."""
    path = Path(tempfile.mkdtemp(prefix="ocirt-test-installs-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def copy_of_tree(target: Path) -> Path:
    """The sources, so that no test builds in the clone that is tested."""
    target.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def tree(place: Path) -> Path:
    return copy_of_tree(place / "tree")


def build_wheel(tree: Path, target: Path, **environment: str) -> Path:
    run(TOOLS / "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", target, tree, **environment)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(place: Path, tree: Path) -> Path:
    return build_wheel(tree, place / "wheel")


@pytest.fixture(scope="module")
def pure_wheel(place: Path, tree: Path) -> Path:
    """What a machine without a compiler makes."""
    return build_wheel(tree, place / "pure-wheel", CC="/nonexistent/cc")


def pip(python: str | Path, *args: str | Path, **environment: str) -> None:
    run(TOOLS / "pip", "--python", python, "install", "-q", "--root-user-action=ignore", *args, **environment)


def into_venv(python: Python, place: Path, wheel: Path) -> Path:
    run(python.path, "-m", "venv", "--without-pip", place)
    pip(place / "bin/python", "--no-index", "--no-deps", wheel)
    return place / "bin/ocirt"


def by_uv(python: Python, place: Path, wheel: Path) -> Path:
    venv = place / "with a space"
    run(TOOLS / "uv", "venv", "-q", "--offline", "--python", python.path, venv)
    run(TOOLS / "uv", "pip", "install", "-q", "--offline", "--no-cache", "--no-deps", "--python", venv / "bin/python", wheel)
    return venv / "bin/ocirt"


PYTHONS = interpreters()


@dataclass(frozen=True)
class Installed:
    """An installation."""

    command: Path
    python: Python
    way: str

    @property
    def packages(self) -> Path:
        """The folder that holds the package."""
        base = self.command.resolve().parents[1]
        found = [*base.glob("lib/python3*/*-packages/ocirt"), *base.glob("ocirt")]
        return found[0].parent if found else base.parent / "clone"


@pytest.fixture(scope="module", params=PYTHONS, ids=lambda python: python.version)
def python(request: pytest.FixtureRequest) -> Python:
    found: Python = request.param
    return found


# Circumstances


def enterable(path: str) -> list[str]:
    """Wraps a command so that every user can reach `path`: where a home is closed, an open one hides it in a mount namespace."""
    closed = next((one for one in reversed(Path(path).parents) if not one.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return []
    prefix = Path(path).parents[1]
    script = (
        f"set -e; mount -t tmpfs none /mnt; mkdir /mnt/kept; mount --bind {prefix} /mnt/kept; "
        f"mount -t tmpfs -o mode=755 none {closed}; "
        f'mkdir -p {prefix}; mount --bind /mnt/kept {prefix}; exec "$@"'
    )
    return ["unshare", "--mount", "--", "sh", "-c", script, "sh"]


def memfd_noexec(value: int) -> list[str]:
    """Wraps a command in a pid namespace with that vm.memfd_noexec."""
    script = f'echo {value} >/proc/sys/vm/memfd_noexec && exec "$@"'
    return ["unshare", "--pid", "--fork", "--mount-proc", "--", "sh", "-c", script, "sh"]


def circumstances() -> dict[str, tuple[list[str], bool]]:
    """What stands before the command, and whether it runs as a user who cannot enter root's home."""
    found = {
        "root": ([], False),
        "rootless": (NOBODY, True),
        "user namespace": (USER_NAMESPACE, False),
        "user namespace in user namespace": ([*USER_NAMESPACE, *USER_NAMESPACE], False),
        "rootless, user namespace in user namespace": ([*NOBODY, *USER_NAMESPACE, *USER_NAMESPACE], True),
    }
    if Path("/proc/sys/vm/memfd_noexec").exists():
        for value in (1, 2):
            found[f"vm.memfd_noexec={value}"] = (memfd_noexec(value), False)
            found[f"rootless, vm.memfd_noexec={value}"] = ([*memfd_noexec(value), *NOBODY], True)
    return found


@dataclass(frozen=True)
class Hostile:
    """A directory full of modules that tell if they ran, and an environment that leads to them."""

    directory: Path
    environment: dict[str, str]

    def assert_quiet(self) -> None:
        ran = list((self.directory / "ran").iterdir())
        for path in ran:
            path.unlink()
        assert not ran

    def tell(self, name: str) -> str:
        """Code that leaves a mark."""
        return f"open({str(self.directory / 'ran' / name)!r}, 'a').close()"


@pytest.fixture(scope="module")
def hostile(place: Path) -> Hostile:
    directory = place / "hostile"
    (directory / "ran").mkdir(parents=True)
    (directory / "ran").chmod(0o777)
    found = Hostile(
        directory,
        {
            "PATH": f"{directory}:/usr/bin:/bin",
            "HOME": str(directory),
            "PYTHONPATH": str(directory),
            "PYTHONHOME": str(directory),
            "PYTHONUSERBASE": str(directory),
            "PYTHONPLATLIBDIR": str(directory),
            "PYTHONSTARTUP": str(directory / "json.py"),
            "PYTHONINSPECT": "1",
            "PYTHONVERBOSE": "1",
        },
    )
    for name in ("sitecustomize", "usercustomize", "json", "_json", "posix", "os", "io", "encodings", "ocirt"):
        (directory / f"{name}.py").write_text(found.tell(name) + "\n")
    python = directory / "python3"
    python.write_text(f"#!/bin/sh\n: >{directory}/ran/python3\n")
    python.chmod(0o755)
    return found


def version(installed: Installed, hostile: Hostile, before: list[str], command: Path | None = None) -> str:
    """Ask for the version from the hostile directory, check the answer and that nothing hostile ran. Returns its first line."""
    line = [*before, str(command or installed.command), "--version"]
    done = subprocess.run(
        line, env=hostile.environment, cwd=hostile.directory, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stdout, done.stderr)
    assert f"version {__version__}" in done.stdout
    assert f"python: {installed.python.version}" in done.stdout
    hostile.assert_quiet()
    return done.stdout.splitlines()[0]
