"""Start-up is what the command costs: few modules, none of the heavy ones, before a container's process exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle

MOST = 30  # standard-library modules beyond the bare interpreter's
# DESIGN's list, and what else is Python code that brings dozens of modules or milliseconds.
HEAVY = frozenset(
    """
    argparse collections contextlib ctypes dataclasses enum functools hashlib inspect json logging os pathlib re signal socket
    struct subprocess types typing
    """.split()  # noqa: SIM905
)

pytestmark = pytest.mark.ocirt_only("it is about ocirt's own code")


def loaded_by(runtime: Runtime, work: Path, *args: str | Path) -> tuple[set[str], int]:
    """The modules that a command has loaded when it clones its first process, or exits; and its exit code."""
    notes = work / "notes"
    notes.unlink(missing_ok=True)
    script = ROOT / "tests" / "support" / "startup.py"
    command = [sys.executable, "-I", "-S", "-B", script, ROOT, notes, "ocirt", "--root", runtime.root, *args]
    with (work / "output").open("wb") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=30, check=False)
    assert notes.exists(), (work / "output").read_text()
    return set(notes.read_text().split()), done.returncode


def check(modules: set[str]) -> None:
    """Fail with the names if there are too many or too heavy ones."""
    foreign = {name for name in modules if name.partition(".")[0] != "ocirt"}
    assert not foreign & HEAVY, f"heavy: {sorted(foreign & HEAVY)}"
    assert len(foreign) <= MOST, f"{len(foreign)}: {sorted(foreign)}"
    assert foreign <= {name for name in foreign if name.partition(".")[0] in sys.stdlib_module_names}


def test_run_and_create(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Up to the clone of init, with everything that callers usually send."""
    from tests.seccomp_profiles import docker_default  # noqa: PLC0415

    made = bundle(seccomp=docker_default(), hooks={"createRuntime": [{"path": "/bin/true"}]}, sysctl={"net.ipv4.ip_forward": "1"})
    for verb in ("run", "create"):
        container = runtime.new_id()
        runtime.prepare(made, container)
        modules, code = loaded_by(runtime, tmp_path, verb, "--bundle", made.path, container)
        assert code == 0, (tmp_path / "output").read_text()
        check(modules)


def test_verbs_of_a_container(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Up to the end; `exec` up to its clone."""
    container = runtime.create(bundle(args=["sleep", "1000"]))
    for verb, *rest in (["state"], ["start"], ["exec", "true"], ["kill", "KILL"], ["delete", "--force"]):
        words = [*rest, container] if verb == "delete" else [container, *rest]
        modules, code = loaded_by(runtime, tmp_path, verb, *words)
        assert code == 0, (verb, (tmp_path / "output").read_text())
        check(modules)


def test_an_unknown_container(runtime: Runtime, tmp_path: Path) -> None:
    """Failing is quick too."""
    modules, code = loaded_by(runtime, tmp_path, "state", "nobody")
    assert code == 1
    check(modules)


def test_a_heavy_import_is_found() -> None:
    """The check itself."""
    with pytest.raises(AssertionError, match=r"heavy: \['re'\]"):
        check({"_json", "re"})
    with pytest.raises(AssertionError, match="31"):
        check({f"email.m{number}" for number in range(31)})
