"""The tables of verbs: whole, and in step with the runtime's list of them."""

from __future__ import annotations

import importlib.util

import pytest

from ocirt.cli import elsewhere, options
from ocirt.cli import help as texts
from ocirt_cri.cli import tables


def test_the_verbs_are_those_that_the_runtime_hands_over() -> None:
    ours = {verb for verb, (floor, _) in elsewhere.VERBS.items() if floor == "cri"}
    assert set(tables.VERBS) == set(tables.TEXTS) == ours


@pytest.mark.parametrize("verb", tables.VERBS)
def test_a_verb_has_a_module(verb: str) -> None:
    assert importlib.util.find_spec(f"ocirt_cri.cli.{verb}") is not None


@pytest.mark.parametrize("verb", tables.VERBS)
def test_every_flag_has_a_text(verb: str) -> None:
    assert {options.split_word(word)[0] for word in tables.VERBS[verb][2].split()} == set(tables.TEXTS[verb][2])
    assert all(len(line) < 130 for line in texts.text(verb, "ocirt").splitlines())
