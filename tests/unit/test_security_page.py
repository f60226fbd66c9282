"""docs/security.md: what it names is there, and the attacks that it promises are attacks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
LINES = [line for line in PAGE.splitlines() if re.match(r"\| (\d{4}-|the same)", line)]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]
# One row or more for each (CVEs of runc since 2016, and of others that are about the same thing).
CVES = """
    2016-3697 2016-8867 2016-9962 2019-5736 2019-14271 2019-16884 2019-18837 2019-19921 2021-30465 2021-41103 2021-43784
    2022-24769 2022-27650 2022-29162 2023-25809 2023-27561 2023-28642 2024-21626 2024-45310 2025-23266 2025-24965 2025-31133
    2025-52565 2025-52881 2025-54867 2025-62161 2025-62596 2026-30892 2026-41579 2026-47766
"""


def functions(folder: str, pattern: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """(module, function) of all functions in files below a folder of the repository."""
    for path in (ROOT / folder).rglob(pattern):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path.stem, node


TESTS = {node.name: node for _, node in functions("tests", "test_*.py")}
CODE = {(module, node.name) for module, node in functions("ocirt", "*.py")}


def test_every_cve_has_a_row() -> None:
    """And none is named that is not on the list."""
    assert sorted({name for row in ROWS for name in re.findall(r"\d{4}-\d{4,}", row[0])}) == sorted(CVES.split())
    named = re.findall(r"CVE-(\d{4}-\d{4,})", "".join(path.read_text() for path in (ROOT / "ocirt").rglob("*.py")))
    assert set(named) <= set(CVES.split())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}, {row[3]}")
def test_a_row(row: list[str]) -> None:
    """The functions are there. So are the tests, and each attacks with the rule and without it, or the row says otherwise."""
    _, happened, where, attacks = row
    assert happened
    assert where
    for module, name in re.findall(r"`([a-z]+)\.(\w+)`", where):
        assert (module, name) in CODE, f"{module}.{name}"
    names = re.findall(r"`(\w+)`", attacks)
    assert names
    for name in names:
        assert name in TESTS, name
        arguments = {argument.arg for argument in TESTS[name].args.args}
        assert arguments & {"attacked", "off"} or "no pair" in attacks, f"{name} has no control"


def test_every_attack_is_on_the_page() -> None:
    """So that the page grows with the tests."""
    attacks = {node.name for module, node in functions("tests/system", "test_attacks*.py") if node.name.startswith("test_")}
    assert attacks == {name for name in attacks if f"`{name}`" in PAGE}
