"""The C programs of the tests, compiled once for each version of their source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).resolve().parent


def cache_directory() -> Path:
    """Where what the tests build stays between runs: `.cache/tests` in the clone (git does not look there)."""
    path = ROOT / ".cache" / "tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def copy_clone(target: Path) -> Path:
    """Copy what was built to an empty directory, for users who may not look into the clone; returns the path of `ocirt` there."""
    target.chmod(0o755)
    (target / "build").mkdir()
    for name in ("ocirt", "images", "build/libraries"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name)
    for name in ("ocirt", "ocirt-python"):
        shutil.copy2(ROOT / "build" / name, target / "build" / name)
    return target / "build" / "ocirt"


def compiled(name: str, folder: Path = SOURCES) -> Path:
    """The static program made from `<folder>/<name>.c` (default: here). Raises RuntimeError with the compiler's words."""
    source = folder / f"{name}.c"
    digest = hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest()
    program = cache_directory() / f"{name}-{os.uname().machine}-{digest}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        message = "the tests need a C compiler: apt-get install gcc libc6-dev"
        raise RuntimeError(message)
    partial = program.with_name(f".{program.name}.{os.getpid()}")
    command = [compiler, "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", str(partial), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(command)}: {done.stderr}"
        raise RuntimeError(message)
    partial.rename(program)  # two sessions may compile at once
    return program
