"""The table of the specification's coverage: each test that it names exists, no cell is empty, and the page is made from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import coverage_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The ids of all tests in the files that the table names, and those of parametrized ones without their parameters."""
    cells = {cell for row in coverage_table.table().values() for cell in row if not cell.startswith("not: ")}
    files = sorted({cell.partition("::")[0] for cell in cells})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OCIRT_TEST_"))}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    ids = {line for line in done.stdout.splitlines() if "::" in line}
    return ids | {line.partition("[")[0] for line in ids}


def test_every_test_that_is_named_exists(collected: set[str]) -> None:
    missing = {
        f"{entry}: {cell}"
        for entry, row in coverage_table.table().items()
        for cell in row
        if not cell.startswith("not: ") and cell not in collected
    }
    assert not missing


def test_no_cell_is_empty() -> None:
    for entry, row in coverage_table.table().items():
        for cell in row:
            assert "::" in cell or len(cell.removeprefix("not: ")) > 20, entry
        # Something judges each, if only by refusing it.
        assert "::" in row[0], entry


def test_the_page_is_up_to_date() -> None:
    found = (ROOT / "docs/spec-coverage.md").read_text()
    assert found == coverage_table.document(), "python -m tests.coverage_table > docs/spec-coverage.md"
