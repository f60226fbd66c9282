"""What a fork does in advance: it comes to its end, and is nothing that anybody would notice."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.zygote.rehearsal import rehearse


def test_a_container_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the way, or it would be of no use: what fails is not told."""
    plan = Creation.plan
    planned: list[tuple[Creation, Any]] = []

    def spy(creation: Creation, trace: str = "") -> Any:
        planned.append((creation, plan(creation, trace)))
        return planned[-1][1]

    monkeypatch.setattr(Creation, "plan", spy)
    before = set(os.listdir("/")), set(os.listdir("/proc/self/fd"))
    rehearse()
    [(creation, run)] = planned
    assert creation.record["status"] == "creating"
    assert {"parent", "init", "start"} <= run.programs.keys()
    assert (set(os.listdir("/")), set(os.listdir("/proc/self/fd"))) == before


def test_what_is_amiss_is_not_its_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(creation: Creation, trace: str = "") -> Any:
        del creation, trace
        raise Error("kernel", "no /proc here")

    monkeypatch.setattr(Creation, "plan", fails)
    rehearse()
