"""What attacks on the runtime need: the runtime with a rule switched off, and a few hostile things."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.bundle import Bundle, Config
from tests.support.runtime import Runtime

# As the launcher starts it.
FLAGS = ("-I", "-S", "-B", "-X", "utf8")


def interpreter() -> str:
    """The Python that `make` chose."""
    return (ROOT / "build/ocirt-python").read_text().splitlines()[0].removeprefix("#!")


def without(patches: str, python: str | Path | None = None) -> list[str]:
    """The runtime as a command, with the patches of `without.py` that are named."""
    driver = ROOT / "tests/support/without.py"
    return [str(python or interpreter()), *FLAGS, str(driver), str(ROOT), patches, "ocirt"]


class Attacked:
    """A runtime that is attacked, with all rules in force or, if `off`, with one switched off: then the attack must succeed."""

    def __init__(self, runtime: Runtime, patches: str | None, *, off: bool) -> None:
        self.runtime = runtime
        self.off = off
        if patches is not None:
            runtime.command = without(patches)

    def judge(self, *, success: bool, what: object = "") -> None:
        """The end of a test: whether the attack has succeeded. Raises AssertionError if it should not have, or should have."""
        if self.off:
            assert success, f"the attack does not even succeed with the rule switched off, so it shows nothing: {what}"
        else:
            assert not success, f"the attack succeeds: {what}"


def against(rule: str, *, control: str | None = None) -> pytest.MarkDecorator:
    """Run a test with every rule in force, and with one switched off: `rule` names patches of `without.py`.

    `control` names what else is patched then; with it alone the attack must not succeed.
    """
    cases = [pytest.param((None, False), id="held")]
    if control is not None:
        cases.append(pytest.param((control, False), id="control"))
    patches = ",".join(filter(None, (control, rule)))
    cases.append(pytest.param((patches, True), id=f"without {rule}"))
    return pytest.mark.parametrize("attacked", cases, indirect=True)


def drop_mounts(config: Config, *below: str) -> None:
    """Take out the mounts whose destination begins so."""
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith(below)]


def host_directory(bundle: Bundle) -> Path:
    """A directory of the host with a secret, beside the root file system: it goes with the bundle."""
    path = bundle.path / "host"
    path.mkdir()
    (path / "secret").write_text("secret words\n")
    return path


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Have somebody exchange two names, as fast as the kernel lets him (rename(2), RENAME_EXCHANGE)."""
    script = (
        "import ctypes, os, sys\n"
        "rename = ctypes.CDLL(None).renameat2\n"
        "first, second = map(os.fsencode, sys.argv[1:])\n"
        "assert not rename(-100, first, -100, second, 2)\n"
        "print('ready', flush=True)\n"
        "while True: rename(-100, first, -100, second, 2)\n"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", script, first, second], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def search_path() -> list[str]:
    """Where the interpreter of a container's init would look for modules."""
    script = "import sys; print(*sys.path, sep='\\n')"
    done = subprocess.run([interpreter(), *FLAGS, "-c", script], capture_output=True, text=True, check=True)
    return [*done.stdout.split(), str(ROOT)]


def poison_modules(rootfs: Path) -> Path:
    """Put hostile modules wherever the interpreter could come to look for some; the file that is there when one has run."""
    names = (
        "codecs ctypes encodings/idna encodings/punycode io json linecache locale ocirt os re signal tokenize traceback warnings"
    )
    for directory in search_path():
        for name in names.split():
            module = rootfs / directory[1:] / f"{name}.py"
            module.parent.mkdir(parents=True, exist_ok=True)
            module.write_text("import posix\nposix.close(posix.open('/ran', posix.O_CREAT | posix.O_WRONLY))\n")
    return rootfs / "ran"


def poison_libraries(rootfs: Path, work: Path) -> Path:
    """Put a hostile library where the C library would look for users; the file that is there when it was loaded."""
    source, library = work / "hostile.c", work / "hostile.so"
    source.write_text(
        '#include <fcntl.h>\n__attribute__((constructor)) static void run(void) { open("/ran", O_CREAT | O_WRONLY, 0600); }\n',
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    (rootfs / "etc/nsswitch.conf").write_text("passwd: hostile\ngroup: hostile\n")
    (rootfs / "etc/ld.so.preload").write_text("/lib/libnss_hostile.so.2\n")
    for directory in ("lib", "usr/lib", "lib64", "usr/lib64"):
        (rootfs / directory).mkdir(exist_ok=True)
        shutil.copy(library, rootfs / directory / "libnss_hostile.so.2")
    return rootfs / "ran"


class Victim:
    """A copy of the interpreter: `launcher` and `unprotected` are commands that run ocirt with it."""

    def __init__(self, work: Path) -> None:
        python = interpreter()
        self.prefix = str(Path(python).parents[1])
        self.python = work / "victim" / "bin" / "python3"
        self.python.parent.mkdir(parents=True)
        shutil.copy(python, self.python)
        # A virtual environment's marker lets a copy find the standard library.
        (work / "victim" / "pyvenv.cfg").write_text(f"home = {os.path.dirname(python)}\n")
        self._before = self.python.read_bytes()
        place = work / "launcher"
        subprocess.run([python, ROOT / "launcher/build.py", place], check=True)
        (place / "ocirt-python").write_text(f"#!{self.python}\n# home: {ROOT}\n")
        self.launcher = [str(place / "ocirt")]
        self.unprotected = without("", self.python)

    def overwritten(self) -> bool:
        """Whether somebody has written to it."""
        return self.python.read_bytes() != self._before

    def mounts(self) -> list[Config]:
        """What a container needs to run it: the libraries that it is linked with, and its own."""
        done = subprocess.run(["ldd", self.python], capture_output=True, text=True, check=True)
        files = [word for word in done.stdout.split() if word.startswith("/")]
        sources = {self.prefix: self.prefix, **{path: os.path.realpath(path) for path in files}}
        return [
            {"destination": target, "type": "bind", "source": source, "options": ["rbind", "ro"]}
            for target, source in sources.items()
        ]
