"""The command as people install it: each way, with each Python, in each circumstance.

The wheel is built once; each installation is made once and then asked for its version under hostile conditions.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import setuptools
import zstandard

from ocirt import __version__
from tests.support import layouts
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


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that other users can enter."""
    path = Path("/var/tmp") / f"ocirt-test-{os.getpid()}-installs"
    path.mkdir(mode=0o755)
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


@pytest.fixture(scope="session")
def tree(place: Path) -> Path:
    return copy_of_tree(place / "tree")


def build_wheel(tree: Path, target: Path, **environment: str) -> Path:
    run(TOOLS / "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", target, tree, **environment)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="session")
def wheel(place: Path, tree: Path) -> Path:
    return build_wheel(tree, place / "wheel")


@pytest.fixture(scope="session")
def pure_wheel(place: Path, tree: Path) -> Path:
    """What a machine without a compiler makes."""
    return build_wheel(tree, place / "pure-wheel", CC="/nonexistent/cc")


# Each way of installing: (Python, an empty place, wheel) -> the command.


def pip(python: str | Path, *args: str | Path, **environment: str) -> None:
    run(TOOLS / "pip", "--python", python, "install", "-q", "--root-user-action=ignore", *args, **environment)


def into_venv(python: Python, place: Path, wheel: Path) -> Path:
    run(python.path, "-m", "venv", "--without-pip", place)
    pip(place / "bin/python", "--no-index", "--no-deps", wheel)
    return place / "bin/ocirt"


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


def by_uv(python: Python, place: Path, wheel: Path) -> Path:
    venv = place / "with a space"
    run(TOOLS / "uv", "venv", "-q", "--offline", "--python", python.path, venv)
    run(TOOLS / "uv", "pip", "install", "-q", "--offline", "--no-cache", "--no-deps", "--python", venv / "bin/python", wheel)
    return venv / "bin/ocirt"


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


def made(install: Install, python: Python, place: Path, wheel: Path) -> Installed:
    target = place / f"{install.__name__}-{python.version}"
    target.mkdir()
    return Installed(install(python, target, wheel), python, install.__name__)


@pytest.fixture(scope="session", params=PYTHONS, ids=lambda python: python.version)
def python(request: pytest.FixtureRequest) -> Python:
    found: Python = request.param
    return found


@pytest.fixture(scope="session", params=INSTALLERS, ids=lambda install: install.__name__)
def installed(request: pytest.FixtureRequest, python: Python, place: Path, wheel: Path) -> Installed:
    return made(request.param, python, place, wheel)


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


@pytest.fixture(scope="session")
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


def test_wheel_is_for_this_platform(wheel: Path) -> None:
    machine = os.uname().machine
    assert wheel.name == f"ocirt-{__version__}-py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}.whl"


def test_wheel_brings_completion_and_manual_pages(wheel: Path) -> None:
    """For the environment's share/, as the clone's own command prints them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if "/data/share/" in name]
        shared = {name.partition("/data/share/")[2]: archive.read(name).decode() for name in names}
    for place, shell in (
        ("bash-completion/completions/{}", "bash"),
        ("zsh/site-functions/_{}", "zsh"),
        ("fish/vendor_completions.d/{}.fish", "fish"),
    ):
        for name in ("ocirt", "ocirt-cni"):
            assert shared[place.format(name)] == run(ROOT / "build" / name, "completion", shell)
    assert shared["man/man8/ocirt-run.8"] == run(ROOT / "build" / "ocirt", "manual", "run")
    assert shared["man/man8/ocirt-cni.8"] == run(ROOT / "build" / "ocirt-cni", "manual")
    assert shared["man/man8/ocirt-csi.8"].startswith(".TH OCIRT\\-CSI")
    assert shared["man/man8/ocirt.8"] == run(ROOT / "build" / "ocirt", "manual")


def test_wheel_brings_a_unit_and_an_example(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist() if ".data/data/" in name}
    for name, place in (("ocirtd.service", "lib/systemd/system"), ("crictl.yaml", "share/ocirt")):
        assert found[f"{place}/{name}"] == (ROOT / "cri/install" / name).read_bytes()


def test_pure_wheel(python: Python, place: Path, pure_wheel: Path, hostile: Hostile, tmp_path: Path) -> None:
    """Without a compiler: slower, but as isolated."""
    assert pure_wheel.name == f"ocirt-{__version__}-py3-none-any.whl"
    target = place / f"pure-{python.version}"
    installed = Installed(into_venv(python, target, pure_wheel), python, "pure")
    assert installed.command.read_bytes().startswith(b"#!/bin/sh\n")
    version(installed, hostile, [])
    version(installed, hostile, [*enterable(python.path), *NOBODY])
    link = tmp_path / "runc"
    link.symlink_to(installed.command)
    version(installed, hostile, [], link)


def test_pure_wheel_by_uv(python: Python, place: Path, pure_wheel: Path, hostile: Hostile) -> None:
    """With a space in the interpreter's path, which uv quotes in a line of shell."""
    target = place / f"pure-uv-{python.version}"
    version(Installed(by_uv(python, target, pure_wheel), python, "pure"), hostile, [])


def test_source_archive_builds(place: Path, tree: Path, hostile: Hostile) -> None:
    """What goes to an index as source is complete."""
    target = place / "sdist"
    program = f"import sys; sys.path.insert(0, 'launcher'); import backend; backend.build_sdist({str(target)!r})"
    target.mkdir()
    subprocess.run([sys.executable, "-c", program], cwd=tree, check=True, capture_output=True)
    archive = next(target.glob("*.tar.gz"))
    run("tar", "-C", target, "-xf", archive)
    unpacked = next(path for path in target.iterdir() if path.is_dir())
    made = build_wheel(unpacked, target / "wheel")
    version(Installed(into_venv(PYTHONS[0], target / "venv", made), PYTHONS[0], "sdist"), hostile, [])


# The verbs that the floor of images has, with the wheel's extra and without.


def packages_of(command: Path) -> Path:
    """Where a virtual environment keeps packages."""
    return next(command.resolve().parents[1].glob("lib/python3*/site-packages"))


def with_extra(wheel: Path, target: Path) -> None:
    """Put there what the wheel's extra asks for, out of the tests' own environment: there is no network to install from."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    wanted = re.findall(r'^Requires-Dist: ([\w-]+).*; extra == "images"$', metadata, re.MULTILINE)
    assert {"cryptography", "isal", "urllib3", "zstandard"} <= set(wanted)
    for distribution in [*wanted, "cffi"]:  # which cryptography asks for
        for file in importlib.metadata.files(distribution) or ():
            if ".." not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target / file)


def images(command: Path, hostile: Hostile, root: Path, *args: str | Path, words: str = "") -> subprocess.CompletedProcess[str]:
    """A verb for images in the hostile directory, of a store of its own."""
    line = [command, "--image-root", root, *args]
    done = subprocess.run(
        line, env=hostile.environment, cwd=hostile.directory, capture_output=True, text=True, check=False, timeout=60, input=words
    )
    hostile.assert_quiet()
    return done


def test_images_from_a_wheel_with_the_extra(place: Path, wheel: Path, hostile: Hostile, tmp_path: Path) -> None:
    """Load, list, save, log out: all that needs no registry. The libraries come from the environment, and from nowhere else."""
    command = into_venv(PYTHONS[0], place / "extra", wheel)
    with_extra(wheel, packages_of(command))
    archive, root = tmp_path / "archive.tar.zst", tmp_path / "root"
    archive.write_bytes(zstandard.compress(layouts.tar(layouts.named(layouts.image(), "localhost/one:1"))))
    assert images(command, hostile, root, "load", archive).stdout == "Loaded image: localhost/one:1\n"
    assert "localhost/one" in images(command, hostile, root, "images").stdout
    saved = images(command, hostile, root, "save", "-o", tmp_path / "saved.tar", "one", "localhost/one:1")
    assert (saved.returncode, saved.stderr.count("\n")) == (1, 1), saved.stderr  # `one` is docker.io's
    saved = images(command, hostile, root, "save", "-o", tmp_path / "saved.tar", "localhost/one:1")
    assert (saved.returncode, saved.stderr) == (0, "")
    assert (tmp_path / "saved.tar").stat().st_size > 2048
    assert images(command, hostile, root, "logout", "localhost:5000").stdout == "Not logged in: localhost:5000\n"
    assert list(packages_of(command).glob("ocirt_images/__pycache__/*.pyc"))


def test_images_without_the_extra(place: Path, wheel: Path, hostile: Hostile, tmp_path: Path) -> None:
    """One line says what to install; and a runtime alone says that it is alone."""
    command = into_venv(PYTHONS[0], place / "no-extra", wheel)
    login = ("login", "--username", "me", "--password-stdin", "localhost:1")
    done = images(command, hostile, tmp_path / "root", *login, words="secret")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.fullmatch(r"ocirt: the library \w+ is not installed \(pip install 'ocirt\[images\]'.*\)\n", done.stderr), (
        done.stderr
    )
    shutil.rmtree(packages_of(command) / "ocirt_images")
    done = images(command, hostile, tmp_path / "root", "images")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "the part of ocirt that deals with images is not installed (pip install 'ocirt[images]'" in done.stderr
    assert "list images" in images(command, hostile, tmp_path / "root", "--help").stdout
    assert images(command, hostile, tmp_path / "root", "completion", "bash").returncode == 0


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


# The library, as an installed package: the zygote starts from there, with another user, and protects the interpreter its own way.

_REQUEST = """
import ocirt
from ocirt.zygote import client
try:
    client.tell({"do": "start", "root": "/nowhere", "id": "nobody"})
except ocirt.Error as err:
    print(err, ocirt.__path__[0])
"""
_CONTAINER = """
import ocirt, os, sys
source = "import os, socket; print(os.getuid(), open('/proc/self/uid_map').read().split()); print(socket.if_nameindex())"
mounts = ocirt.host_python()
done = ocirt.run([sys.executable, "-c", source], mounts=mounts, capture_output=True, text=True)
print(done.stdout + done.stderr, end="")
with ocirt.Container.create(["sleep", "1000"], mounts=mounts) as box:
    box.start()
    print(box.exec(["echo", "x"], capture_output=True).stdout, box.root)
try:
    ocirt.run(["true"], memory="64MiB", mounts=mounts)
except ocirt.Error as err:
    print(err)
"""


@pytest.fixture(scope="session", params=["wheel", "pure"])
def library(request: pytest.FixtureRequest, python: Python, place: Path) -> Path:
    """The Python of a virtual environment with ocirt in it."""
    kind: str = request.param
    target = place / f"library-{kind}-{python.version}"
    target.mkdir()
    wheel: Path = request.getfixturevalue("wheel" if kind == "wheel" else "pure_wheel")
    command = into_venv(python, target, wheel)
    assert list(target.glob("lib/*/site-packages/ocirt/py.typed"))
    return command.parent / "python"


@pytest.mark.parametrize("circumstance", circumstances())
def test_the_librarys_zygote_starts(library: Path, circumstance: str) -> None:
    prefix, closed = circumstances()[circumstance]
    reach = enterable(os.path.realpath(library)) if closed else []
    assert (
        run(*reach, *prefix, library, "-c", _REQUEST)
        == f"container does not exist {next(library.parents[1].glob('lib/*/*/ocirt'))}\n"
    )


def test_the_library_without_root(library: Path, no_leaks: list[Path]) -> None:
    """A user namespace, this Python bound into an empty root, no network, and no cgroup, which is said."""
    user = Path(tempfile.mkdtemp(prefix="ocirt-test-user-"))
    no_leaks.append(user)
    os.chown(user, 65534, 65534)
    reach = enterable(os.path.realpath(library))
    lines = run(*reach, *NOBODY, library, "-c", _CONTAINER, XDG_RUNTIME_DIR=str(user), HOME=str(user)).splitlines()
    assert lines[:3] == ["0 ['0', '65534', '1']", "[(1, 'lo')]", f"b'x\\n' {user}/ocirt/runtime"]
    assert re.search(r"/linux/resources.*cgroup", lines[3])
