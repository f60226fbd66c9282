"""Every spec of critest has a test, and docs/critest.md has a reason for each that is not run everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.support import specs

HERE = "tests/system/cri/specs"


def collected() -> list[str]:
    """The ids of all tests in the folder, as pytest itself has them."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", HERE]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}  # how this run is run
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(HERE)]


def test_every_title_is_the_id_of_a_test() -> None:
    found = [re.fullmatch(r"[^\[]*::\w+\[(.*)\]", line) for line in collected()]
    assert None not in found
    names = [match[1] for match in found if match is not None]
    assert sorted(names) == specs.titles()
    assert len(set(names)) == len(names) == 159


def test_the_page() -> None:
    """Its rows are about titles that there are, as many as it says."""
    titles = specs.titles()
    assert {one.beginning: len([name for name in titles if name.startswith(one.beginning)]) for one in specs.excuses()} == {
        one.beginning: one.count for one in specs.excuses()
    }
    assert set(specs.differences()) <= set(titles)
    assert len(specs.excuses()) == 2
    assert len(specs.differences()) == 1
