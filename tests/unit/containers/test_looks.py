"""The looks of `check`, where a test can say what the machine is like."""

from __future__ import annotations

from errno import EPERM, ESRCH
from pathlib import Path

import pytest

from ocirt.containers.looks import cgroups, process, trial
from ocirt.plan import INIT, PARENT, step


def hierarchy(root: Path, *levels: str) -> str:
    """Version 2 cgroups, one below the other, with these controllers each; the path of the last."""
    root.mkdir()
    place = root
    for index, controllers in enumerate(levels):
        if index:
            place /= f"level{index}"
            place.mkdir()
        (place / "cgroup.controllers").write_text(controllers + "\n")
        (place / "cgroup.subtree_control").write_text("")
    return str(place)


@pytest.mark.parametrize(
    ("levels", "handed"),
    [
        (("cpu memory",), True),
        (("pids",), False),
        (("cpu memory", "memory"), None),
        (("cpu memory", "memory", ""), None),
        (("pids", "pids", "pids"), False),
        (("cpu", "cpu", "cpu"), True),
    ],
)
def test_controllers_are_handed_on(tmp_path: Path, levels: tuple[str, ...], handed: bool | None) -> None:
    """Making a container's cgroup hands on what there is above: a cgroup without a controller may still get it."""
    assert cgroups.handed_on(hierarchy(tmp_path / "cgroup", *levels), "cpu") is handed


def test_who_may_not_write_hands_nothing_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = hierarchy(tmp_path / "cgroup", "cpu", "")
    monkeypatch.setattr("posix.access", lambda *_, **__: False)
    assert cgroups.handed_on(place, "cpu") is False


def test_a_trial_changes_nobody_else() -> None:
    """A child does it to itself, and what it dies of is told; an errno that the plan knows is none."""
    before = Path("/proc/self/oom_score_adj").read_text()
    score = step(PARENT, "process.set_own_oom_score", 900)
    gone = step(PARENT, "process.open_target", 1 << 22, 0)
    assert trial.attempt([score]) is None
    said = trial.attempt([score, gone, score])
    assert said is not None
    assert (said.index, said.errno) == (1, ESRCH)
    assert trial.attempt([step(INIT, "process.open_target", 1 << 22, 0, errors={ESRCH: None})]) is None
    assert trial.attempt([step(INIT, "process.open_target", 1 << 22, 0, errors={EPERM: None})]) is not None
    assert Path("/proc/self/oom_score_adj").read_text() == before


@pytest.mark.parametrize(
    ("cpus", "part"), [("", False), ("0-8191", False), ("8191", True), ("0-8191:1/2", False), (" 0-8191, 9", False)]
)
def test_a_part_of_the_cpus(cpus: str, part: bool) -> None:
    assert process._are_a_part(cpus) is part
