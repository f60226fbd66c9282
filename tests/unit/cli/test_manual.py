"""Manual pages: complete, and without a complaint of groff's. And docs/cli.md, which is written by hand, has everything."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ocirt.cli import help as texts
from ocirt.cli import manual, options, values
from tests.support.build import ROOT

DOCUMENT = ROOT / "docs" / "cli.md"


def plain(page: str) -> str:
    return page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")


@pytest.mark.parametrize("verb", ["", *texts.flag_lines()])
def test_a_page_has_every_flag(verb: str) -> None:
    page = plain(manual.page(verb))
    for flag in values.flags(verb):
        for form in flag.forms():
            assert re.search(rf"(^|, ){form}( |,|$)", page, re.MULTILINE), form
    assert all(each in plain(manual.page("")) for each in texts.flag_lines())


@pytest.mark.parametrize("verb", ["", *texts.flag_lines()])
def test_a_page_is_well_made(verb: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("there is no groff")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou"], input=manual.page(verb), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "SYNOPSIS" in done.stdout


def test_the_names_of_pages() -> None:
    assert {"ocirt.8", "ocirt-run.8", "ocirt-checkpoint.8"} <= set(manual.names())


def rows() -> list[list[str]]:
    """The cells of every row of a table in the document."""
    lines = DOCUMENT.read_text().splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines if line.startswith("|")]


def documented(verb: str) -> set[str]:
    """The flags that the tables give a verb: in the rows where it stands in the column `of`."""
    found: set[str] = set()
    for cells in rows():
        if len(cells) == 3 and verb in cells[1].split(", "):
            found |= set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", cells[0]))
    return found


@pytest.mark.parametrize("verb", options.VERBS)
def test_the_document_has_the_flags_of_a_verb_and_no_others(verb: str) -> None:
    assert [cells for cells in rows() if re.search(rf"`{verb}\b", cells[0])], "no row"
    assert documented(verb) == {flag.name for flag in values.flags(verb)} - {"help"}


def test_the_document_has_every_global_flag() -> None:
    text = DOCUMENT.read_text().partition("## Global flags")[2].partition("\n## ")[0]
    assert [flag.name for flag in values.flags("") if f"--{flag.name}" not in text] == []


def test_the_document_has_no_flag_that_is_none() -> None:
    known = {flag.name for verb in ("", *texts.flag_lines()) for flag in values.flags(verb)}
    # `--flag` stands for any, where the document says how they are written.
    assert set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", DOCUMENT.read_text())) - known == {"flag"}
