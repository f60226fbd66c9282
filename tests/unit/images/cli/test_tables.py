"""The tables of verbs: whole, in step with the runtime's list of them, and with docs/images.md, which is written by hand."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from ocirt.cli import elsewhere, options, values
from ocirt.cli import help as texts
from ocirt_images.cli import tables
from tests.support.build import ROOT

DOCUMENT = (ROOT / "docs" / "images.md").read_text()


def test_the_verbs_are_those_that_the_runtime_hands_over() -> None:
    ours = {verb for verb, (floor, _) in elsewhere.VERBS.items() if floor == "images"}
    assert set(tables.VERBS) == set(tables.TEXTS) == ours
    assert not set(tables.VERBS) & set(options.VERBS)


@pytest.mark.parametrize("verb", tables.VERBS)
def test_a_verb_has_a_module(verb: str) -> None:
    """Those of transfers come with the transfers."""
    wanted = verb not in ("pull", "push") or importlib.util.find_spec(f"ocirt_images.{verb}") is not None
    assert (importlib.util.find_spec(f"ocirt_images.cli.{verb}") is not None) == wanted


@pytest.mark.parametrize("verb", tables.VERBS)
def test_every_flag_has_a_text(verb: str) -> None:
    names = {options.split_word(word)[0] for word in tables.VERBS[verb][2].split()}
    assert names == set(tables.TEXTS[verb][2])
    assert all(len(line) < 120 for line in texts.text(verb, "ocirt").splitlines() if not line.startswith("   --filter"))


def rows() -> list[list[str]]:
    lines = DOCUMENT.splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("verb", tables.VERBS)
def test_the_document_has_the_flags_of_a_verb_and_no_others(verb: str) -> None:
    assert [cells for cells in rows() if re.search(rf"`{verb}\b", cells[0])], "no row"
    documented: set[str] = set()
    for cells in rows():
        if len(cells) == 3 and verb in cells[1].split(", "):
            documented |= set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", cells[0]))
    assert documented == {flag.name for flag in values.flags(verb)} - {"help"}


def test_tables_load_nothing() -> None:
    """They are read for help and completion, where the libraries may be missing."""
    code = (
        "import sys; bare = set(sys.modules); sys.path.append(sys.argv[1]); import ocirt_images.cli.tables; "
        "print(*sorted(set(sys.modules) - bare))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "images")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__future__", "ocirt_images", "ocirt_images.cli", "ocirt_images.cli.tables"]
