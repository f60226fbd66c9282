"""What the modules of a plugin load that an executable begins with."""

from __future__ import annotations

import ast
import marshal
import runpy
import subprocess
import sys
from typing import Any

import pytest

from ocirt_cni.nft import base, forward, ready
from tests.support.build import ROOT

BUILD = runpy.run_path(str(ROOT / "launcher/build.py"))


@pytest.mark.parametrize("group", sorted(BUILD["_PLUGIN_GROUPS"]))
def test_neither_os_nor_ctypes(group: str) -> None:
    """Each takes more than a millisecond; what else does is seen by the files of the standard library (system tests)."""
    modules = [f"ocirt_cni.{name}" for name in ("main", *BUILD["_PLUGIN"], *BUILD["_PLUGIN_GROUPS"][group])]
    code = f"import sys; sys.path.append({str(ROOT / 'cni')!r}); import {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert {"os", "ctypes", "typing"}.isdisjoint(done.stdout.split())


def test_what_is_compiled_when_the_archive_is_made() -> None:
    """The tables' messages are in the archive, as the compiler makes them, and nowhere else."""
    data = BUILD["archive"](ROOT / "cni" / "ocirt_cni", checked=False)
    start = 4 + int.from_bytes(data[:4], "little")
    index = marshal.loads(data[4:start])[1]
    offset, size, *_ = index["ocirt_cni.nft.ready"]
    found: dict[str, object] = {}
    exec(marshal.loads(data[start + offset :][:size]), found)
    assert found["READY"] == ready.made()
    assert found["READY"].keys() == {*map(base.table, base.FAMILIES), *forward.first()}
    assert ready.READY == {}


@pytest.mark.parametrize("plugin", ["bridge", "ptp"])
def test_what_is_loaded_while_the_kernel_removes_a_pair(plugin: str) -> None:
    """Nothing twice, and little before the removal begins: it takes longer than all the rest."""
    data = BUILD["archive"](ROOT / "cni" / "ocirt_cni", checked=False)
    groups = marshal.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])[2]
    before, then = (groups[name][2] for name in (f"{plugin} DEL", f"{plugin} DEL, then"))
    assert set(before).isdisjoint(then)
    assert {"ocirt_cni.plugins.pairs", "ocirt_cni.netlink.links"} <= set(before)
    assert {"ocirt_cni.nft.changes", "ocirt_cni.ipam.host_local"} <= set(then)


def test_functions_in_an_archive_have_no_types_and_classes_do() -> None:
    """A dataclass has its fields by them."""
    code = BUILD["_lean_code"](
        ast.parse("def f(a: int, *b: int, c: int = 1, **d: int) -> int: ...\nclass C:\n    e: int = 1\ng: int = 2"), "m"
    )
    found: dict[str, Any] = {}
    exec(code, found)
    assert (found["f"].__annotations__, found["C"].__annotations__, found["g"]) == ({}, {"e": "int"}, 2)
    assert "__annotations__" not in found
