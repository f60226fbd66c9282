"""The wheel: what is in it, without a compiler, from the source archive, with the extra and without, and as a library."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from ocirt import __version__
from tests.support import layouts
from tests.support.build import ROOT
from tests.support.installs import (
    NOBODY,
    PYTHONS,
    Hostile,
    Installed,
    Python,
    build_wheel,
    by_uv,
    circumstances,
    enterable,
    hostile,
    into_venv,
    place,
    pure_wheel,
    python,
    run,
    tree,
    version,
    wheel,
)

# Fixtures of others.
__all__ = ["hostile", "place", "pure_wheel", "python", "tree", "wheel"]


def test_wheel_is_for_this_platform(wheel: Path) -> None:
    machine = os.uname().machine
    assert wheel.name == f"ocirt-{__version__}-py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}.whl"


def test_wheel_brings_completion_and_manual_pages(wheel: Path) -> None:
    """For the environment's share/, as the clone's own command prints them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if "/data/share/" in name]
        shared = {name.partition("/data/share/")[2]: archive.read(name).decode() for name in names}
    for folder, shell in (
        ("bash-completion/completions/{}", "bash"),
        ("zsh/site-functions/_{}", "zsh"),
        ("fish/vendor_completions.d/{}.fish", "fish"),
    ):
        for name in ("ocirt", "ocirt-cni"):
            assert shared[folder.format(name)] == run(ROOT / "build" / name, "completion", shell)
    assert shared["man/man8/ocirt-run.8"] == run(ROOT / "build" / "ocirt", "manual", "run")
    assert shared["man/man8/ocirt-cni.8"] == run(ROOT / "build" / "ocirt-cni", "manual")
    assert shared["man/man8/ocirt-csi.8"].startswith(".TH OCIRT\\-CSI")
    assert shared["man/man8/ocirt.8"] == run(ROOT / "build" / "ocirt", "manual")


def test_wheel_brings_a_unit_and_an_example(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist() if ".data/data/" in name}
    for name, folder in (("ocirtd.service", "lib/systemd/system"), ("crictl.yaml", "share/ocirt")):
        assert found[f"{folder}/{name}"] == (ROOT / "cri/install" / name).read_bytes()


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


@pytest.fixture(scope="module", params=["wheel", "pure"])
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
