"""Archives that `ctr` writes, of both of its major versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt_images.archive import containerd

OLD = """#!/bin/sh
case "$*" in
*--help*) echo "   --all-platforms  Exports content from all platforms" ;;
*--local*) echo "ctr: flag provided but not defined: -local" >&2; exit 1 ;;
*) printf '%s' "whole: $*" ;;
esac
"""
# Of version 2: without --local it may end before its archive does, with the status 0.
NEW = """#!/bin/sh
case "$*" in
*--help*) echo "   --local  Run export locally rather than through transfer API (default: false)" ;;
*--local*) printf '%s' "whole: $*" ;;
*) printf wh ;;
esac
"""


@pytest.mark.parametrize(("script", "flag"), [(OLD, ""), (NEW, "--local ")], ids=["1", "2"])
def test_an_archive_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, flag: str) -> None:
    (tmp_path / "ctr").write_text(script)
    (tmp_path / "ctr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    socket = tmp_path / "containerd.sock"
    for everything, more in ((False, ""), (True, "--all-platforms ")):
        with containerd.exported(socket, "k8s.io", "x", everything=everything) as fd, open(fd, closefd=False) as said:
            words = said.read()
        assert words == f"whole: --address {socket} --namespace k8s.io images export {flag}{more}- x"
