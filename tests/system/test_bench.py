"""The bench runs, and stops when a command fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.build import ROOT
from tests.support.runtime import default_command


def bench(work: Path, command: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the bench with one runtime in the place of runc."""
    argv = [sys.executable, str(ROOT / "bench" / "run.py"), "--ocirt", "", "--crun", "", "--runc", command]
    argv += ["--rounds", "2", "--quick", "--raw", str(work / "raw.json"), *flags]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_a_short_bench(tmp_path: Path) -> None:
    done = bench(tmp_path, " ".join(default_command()), "--view", "v2", "--only", "run;create + start + delete;delete --force")
    assert done.returncode == 0, done.stdout + done.stderr
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert {"run", "create + start + delete", "start", "delete", "delete --force", "start of the interpreter"} == set(
        raw["samples"]
    )
    assert all(item["wall"] > 0 for item in raw["samples"]["run"]["runc"])
    assert len(raw["samples"]["run"]["runc"]) == 2


def test_a_failure_stops_it(tmp_path: Path) -> None:
    """The third call of this runtime fails."""
    fake = tmp_path / "fake"
    fake.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/calls\n[ $(wc -l < {tmp_path}/calls) -lt 3 ] || {{ echo broken >&2; exit 3; }}\n"
    )
    fake.chmod(0o755)
    done = bench(tmp_path, str(fake), "--only", "run")
    assert done.returncode == 1
    assert "exit code 3: broken" in done.stderr
    assert not (tmp_path / "raw.json").exists()
