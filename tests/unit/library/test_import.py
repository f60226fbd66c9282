"""`import ocirt` costs nothing until a name is asked for; every name is there, and what a zygote loads exists."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import ocirt
from ocirt.zygote import main
from tests.conftest import ROOT


def loaded(statement: str) -> list[str]:
    """What a bare interpreter has loaded after a statement, beyond what it had before."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); had = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - had))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_package_alone_loads_nothing() -> None:
    assert loaded("import ocirt") == ["__future__", "ocirt"]
    assert loaded("import ocirt; ocirt.Error") == ["__future__", "ocirt", "ocirt.errors"]


def test_all_names_are_there() -> None:
    for name in ocirt._NAMES:
        assert getattr(ocirt, name) is not None
        assert name in dir(ocirt)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ocirt.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_what_a_zygote_loads_exists() -> None:
    for name in main.PRELOADED:
        assert importlib.util.find_spec("ocirt." + name) is not None, name


def test_a_zygote_loads_nothing_heavy() -> None:
    """Each fork shares it, and a page that is written to is a page of each."""
    found = loaded("from ocirt.zygote import main, server, work; main.load(sys.path[-1])")
    heavy = {"re", "typing", "enum", "dataclasses", "argparse", "logging", "json", "socket", "subprocess", "threading", "ctypes"}
    assert heavy.isdisjoint(found), heavy & set(found)
