"""Broken bundles by way of the real command: one line that says where and what, nothing left, little time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broken.bundles import DOCUMENTS, FILES
from tests.support.runtime import Runtime
from tests.unit.spec.documents import changed

from .conftest import MakeBundle

pytestmark = pytest.mark.ocirt_only("says what is wrong with JSON pointers")

_MOST_MEMORY = 200 << 10  # KiB
# Starts one command after the other from a small process: a child's peak begins with what its parent has.
_MEASURE = """
import json, os, sys
for line in sys.stdin:
    command, out, err = json.loads(line)
    files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    files += [(os.POSIX_SPAWN_OPEN, fd, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for fd, path in ((1, out), (2, err))]
    _, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=files), 0)
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, usage.ru_utime + usage.ru_stime, flush=True)
"""


class Measured:
    """Runs a command: exit status, peak memory in KiB, seconds of processor time, output, errors."""

    def __init__(self, process: subprocess.Popen[str], place: Path) -> None:
        self._process = process
        self._place = place

    def __call__(self, command: list[str]) -> tuple[int, int, float, str, str]:
        out, err = self._place / "out", self._place / "err"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, str(out), str(err)]) + "\n")
        self._process.stdin.flush()
        status, memory, seconds = self._process.stdout.readline().split()
        return int(status), int(memory), float(seconds), out.read_text(), err.read_text()


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    command = [sys.executable, "-I", "-S", "-c", _MEASURE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Measured(process, tmp_path)
        assert process.stdin is not None
        process.stdin.close()


def test_there_are_enough() -> None:
    assert len(DOCUMENTS) + len(FILES) >= 100
    assert not set(DOCUMENTS) & set(FILES)


@pytest.mark.parametrize("kind", ["documents", "files"])
def test_broken_bundles(runtime: Runtime, bundle: MakeBundle, measured: Measured, kind: str) -> None:
    made = bundle()
    config = made.path / "config.json"
    before = sorted(path.name for path in made.path.rglob("*"))
    wrong, worst = [], (0.0, "")
    for name in DOCUMENTS if kind == "documents" else FILES:
        if kind == "documents":
            changes, subject, word = DOCUMENTS[name]
            config.write_text(json.dumps(changed(changes)))
        else:
            make, subject, word = FILES[name]
            config.write_bytes(make())
        status, memory, seconds, out, err = measured(runtime.argv("run", "--bundle", made.path, runtime.new_id()))
        worst = max(worst, (seconds, name))
        if memory > _MOST_MEMORY:
            wrong.append(f"{name}: {memory >> 10} MiB")
        said = err.replace('\\"', '"')
        if status != 1 or out or err.count("\n") != 1 or word not in said or len(err) > 1000:
            wrong.append(f"{name}: {status} {out!r} {err[:300]!r}, wanted {subject}: {word}")
        elif subject and f"run failed: {subject}: " not in said:
            wrong.append(f"{name}: points elsewhere than to {subject}: {err[:300]!r}")
        elif runtime.root.exists() or sorted(path.name for path in made.path.rglob("*")) != before:
            wrong.append(f"{name}: something is left")
    # Not a limit: others may be using the machine.
    print(f"most processor time: {worst[0] * 1000:.0f} ms, for: {worst[1]}")
    assert not wrong, "\n".join(wrong)
