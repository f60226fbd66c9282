"""What the modules of a plugin load that an executable begins with."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest

from tests.support.build import ROOT

BUILD = runpy.run_path(str(ROOT / "launcher/build.py"))


@pytest.mark.parametrize("group", sorted(BUILD["_PLUGIN_GROUPS"]))
def test_neither_os_nor_ctypes(group: str) -> None:
    """Each takes more than a millisecond; what else does is seen by the files of the standard library (system tests)."""
    modules = [f"ocirt_cni.{name}" for name in ("main", *BUILD["_PLUGIN"], *BUILD["_PLUGIN_GROUPS"][group])]
    code = f"import sys; sys.path.append({str(ROOT / 'cni')!r}); import {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert {"os", "ctypes", "typing"}.isdisjoint(done.stdout.split())
