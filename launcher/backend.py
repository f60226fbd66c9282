"""The packaging backend (PEP 517, 660): setuptools makes the wheel, and this puts the launcher and byte code into it.

setuptools knows no executables among a wheel's scripts, and no .proto files. What is added:
- `ocirt`, the launcher, and with it the tag of the platform; where nothing compiles it, a shell script that does the same
  without the protection of the interpreter's file, in a wheel for any platform;
- `ocirt-cni`, `ocirt-csi`, `ocirtd`, `containerd-shim-ocirt-v2`, the same once more: what a wheel installs are files, not links;
- `ocirt-python`, in whose first line the installer names its interpreter, so that the launcher need not guess;
- completions for shells and manual pages, below the environment's share/, made from the package's own tables;
- a unit of systemd for ocirtd, where systemd looks if the environment is /usr or /usr/local, and an example of a crictl.yaml;
- the stubs of api/, made beside their .proto files before setuptools looks for modules (see api/stubs.py);
- byte code for the interpreter that builds, for installers that compile nothing, module by module and once more in one file (see
  loader.py). It is never checked against its source (the time that an installer gives the source is not known here), and an
  installer that compiles replaces it.
"""

from __future__ import annotations

import base64
import compileall
import hashlib
import importlib.util
import os
import py_compile
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "api")]

from setuptools import build_meta  # noqa: E402

import build as launcher  # noqa: E402
import stubs  # noqa: E402

Settings = dict[str, Any] | None

_INSTALLED = {"ocirtd.service": "lib/systemd/system", "crictl.yaml": "share/ocirt"}  # of cri/install/
SCRATCH = HERE.parent / "build" / "setuptools"


def _fresh(hook: Any) -> Any:
    """A hook of setuptools that begins with an empty directory for its scratch files."""

    def run(*args: Any, **names: Any) -> Any:
        shutil.rmtree(SCRATCH, ignore_errors=True)
        SCRATCH.mkdir(parents=True)
        return hook(*args, **names)

    return run


get_requires_for_build_editable = _fresh(build_meta.get_requires_for_build_editable)
get_requires_for_build_sdist = _fresh(build_meta.get_requires_for_build_sdist)
get_requires_for_build_wheel = _fresh(build_meta.get_requires_for_build_wheel)
prepare_metadata_for_build_editable = _fresh(build_meta.prepare_metadata_for_build_editable)
prepare_metadata_for_build_wheel = _fresh(build_meta.prepare_metadata_for_build_wheel)
build_sdist = _fresh(build_meta.build_sdist)


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build the wheel for this platform. `-C pure=1` leaves the compiler out."""
    _make_stubs()
    name = _fresh(build_meta.build_wheel)(wheel_directory, config_settings, metadata_directory)
    return _complete(Path(wheel_directory, name), pure=_asks_pure(config_settings), home="")


def build_editable(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build a wheel that leads to this source tree: so does its launcher."""
    _make_stubs()
    # For the interpreter that installs, which is the one that will run it.
    for name in ("ocirt", "api/ocirt_api", "images", "cni", "shim", "csi", "cri"):
        compileall.compile_dir(HERE.parent / name, quiet=2)
    for package in launcher.PACKAGES:
        launcher.write_archive(package)
    try:
        for program, place in launcher.IN_PACKAGE.items():
            launcher.compile_program(program, HERE.parent / place)
    except RuntimeError as error:
        sys.stderr.write(f"{error}: created containers will wait in Python\n")
    name = _fresh(build_meta.build_editable)(wheel_directory, config_settings, metadata_directory)
    return _complete(Path(wheel_directory, name), pure=_asks_pure(config_settings), home=str(HERE.parent))


def _make_stubs() -> None:
    """Make the stubs, unless they are as new as what they are made from: what makes them is for one version of Python."""
    if not stubs.are_fresh():
        stubs.make()


def _asks_pure(config_settings: Settings) -> bool:
    return bool((config_settings or {}).get("pure"))


def _complete(wheel: Path, *, pure: bool, home: str) -> str:
    """Rewrite `wheel` with what setuptools did not put into it. Returns its new name."""
    distribution, version, *_ = wheel.name.split("-")
    scripts = f"{distribution}-{version}.data/scripts"
    info = f"{distribution}-{version}.dist-info"
    made, inside, tags = _programs(wheel.parent, pure=pure)
    added = {f"{scripts}/{name}": made for name in ("ocirt", *launcher.OTHER_NAMES)}
    added |= {f"{scripts}/ocirt-python": launcher.companion(home=home).encode()}
    plain = {}
    if not home:
        plain = {launcher.archive_name(one.name): launcher.archive(one, checked=False) for one in launcher.PACKAGES}
    if not home:
        plain |= inside
    root = f"{distribution}-{version}.data/data"
    plain |= {f"{root}/share/{place}": text.encode() for place, text in _shared().items()}
    plain |= {f"{root}/{place}/{one}": (HERE.parent / "cri/install" / one).read_bytes() for one, place in _INSTALLED.items()}
    tag = "py3-none-" + ".".join(tags)
    target = wheel.with_name(f"{distribution}-{version}-{tag}.whl")
    scratch = wheel.with_suffix(".new")
    record = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as new:

        def put(name: str, data: bytes, mode: int = 0o644) -> None:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")

        for name in old.namelist():
            data = old.read(name)
            if name == f"{info}/RECORD":
                continue
            if name == f"{info}/WHEEL":
                lines = [line for line in data.decode().splitlines() if line and not line.startswith("Tag:")]
                lines += [f"Tag: py3-none-{platform}" for platform in tags]
                data = "".join(line + "\n" for line in lines).encode()
            put(name, data)
            if name.endswith(".py") and not name.startswith("__editable__"):
                put(importlib.util.cache_from_source(name), _byte_code(data, name))
        for name, data in plain.items():
            put(name, data)
        for name, data in added.items():
            put(name, data, 0o755)
        new.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
    wheel.unlink()
    scratch.replace(target)
    return target.name


def _shared() -> dict[str, str]:
    """Completions and manual pages, by their places below share/."""
    places = [str(HERE.parent), *(str(HERE.parent / floor) for floor in ("cni", "csi", "cri"))]
    sys.path[:0] = places
    from ocirt.cli import completion, manual  # noqa: PLC0415  (of this source tree)
    from ocirt_cni.cli import completion as networks  # noqa: PLC0415
    from ocirt_cni.cli import manual as networks_manual  # noqa: PLC0415
    from ocirt_cri import manual as daemon_manual  # noqa: PLC0415
    from ocirt_csi import manual as driver_manual  # noqa: PLC0415

    for place in places:
        sys.path.remove(place)
    found = {f"man/man{manual.SECTION}/{name}": manual.page(verb) for name, verb in manual.names().items()}
    found[f"man/man{daemon_manual.SECTION}/ocirtd.{daemon_manual.SECTION}"] = daemon_manual.page()
    found[f"man/man{driver_manual.SECTION}/ocirt-csi.{driver_manual.SECTION}"] = driver_manual.page()
    found[f"man/man{networks_manual.SECTION}/ocirt-cni.{networks_manual.SECTION}"] = networks_manual.page()
    return found | {
        "bash-completion/completions/ocirt": completion.bash("ocirt"),
        "zsh/site-functions/_ocirt": completion.zsh("ocirt"),
        "fish/vendor_completions.d/ocirt.fish": completion.fish("ocirt"),
        "bash-completion/completions/ocirt-cni": networks.bash(),
        "zsh/site-functions/_ocirt-cni": networks.zsh(),
        "fish/vendor_completions.d/ocirt-cni.fish": networks.fish(),
    }


def _byte_code(source: bytes, name: str) -> bytes:
    """The content of a .pyc file that is used without looking at its source (PEP 552)."""
    with tempfile.TemporaryDirectory() as scratch:
        path, made = Path(scratch, "source.py"), Path(scratch, "made.pyc")
        path.write_bytes(source)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), str(made), dfile=name, doraise=True, invalidation_mode=mode)
        return made.read_bytes()


def _programs(scratch: Path, *, pure: bool) -> tuple[bytes, dict[str, bytes], list[str]]:
    """The command, what lies in the package by its place (nothing without a compiler), and the platforms that they run on."""
    machine = os.uname().machine
    if not pure:
        made = {}
        try:
            for name in ("launcher", *launcher.IN_PACKAGE):
                target = scratch / name
                launcher.compile_program(name, target)
                made[name] = target.read_bytes()
                target.unlink()
        except RuntimeError as error:
            sys.stderr.write(f"{error}: the command `ocirt` will be a shell script\n")
        else:
            # They need no library, so they run beside any C library.
            inside = {place: made[name] for name, place in launcher.IN_PACKAGE.items()}
            return made["launcher"], inside, [f"{libc}_{machine}" for libc in ("manylinux_2_17", "musllinux_1_1")]
    return launcher.shell_launcher().encode(), {}, ["any"]
