"""The trace: one JSON array for the programs that draw it, with every step of every process once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ocirt.kernel import run
from ocirt.kernel.run import Run
from ocirt.kernel.trace import Trace
from ocirt.plan import INIT, PARENT, STAGE, START, step


def nothing(run: Run, *args: Any) -> None:
    """A step that does nothing."""
    del run, args


@pytest.fixture(autouse=True)
def fake_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fake.*` and what would need privileges does nothing; the rest is real."""
    real = run.function
    kept = (
        "sync.open",
        "sync.tell",
        "sync.expect",
        "sync.leave_parent",
        "process.clone",
        "process.meet",
        "process.clone_sibling",
    )
    monkeypatch.setattr(run, "function", lambda name: real(name) if name in kept or name.startswith("real.") else nothing)


def events(path: Path) -> list[dict[str, Any]]:
    """The trace's events. The end of the array may be missing, as the format has it, with the comma before it."""
    text = path.read_text()
    assert text.startswith("[\n")
    found: list[dict[str, Any]] = json.loads(text.rstrip().rstrip(",") + "]")
    return found


def spans(path: Path) -> list[tuple[int, str, str]]:
    """(track, name, pointer) of what took time."""
    return [(event["tid"], event["name"], event["args"]["pointer"]) for event in events(path) if event["ph"] == "X"]


def traced(path: Path, plan: Any) -> Run:
    """Walk a plan with children, and wait for them."""
    walker = Run(plan, Trace(str(path), plan))
    walker.parent()
    if walker.sync >= 0:
        walker.await_exec()
    if walker.pid:
        os.waitpid(walker.pid, 0)
    os.close(walker.trace.fd if walker.trace is not None else -1)
    return walker


def test_an_empty_trace_names_its_tracks(tmp_path: Path) -> None:
    Trace(str(tmp_path / "t"), [])
    assert [(event["ph"], event["tid"], event["args"]["name"]) for event in events(tmp_path / "t")] == [
        ("M", 1, "parent"),
        ("M", 2, "stage"),
        ("M", 3, "init"),
    ]


def test_one_process(tmp_path: Path) -> None:
    plan = [step(PARENT, "fake.a", at="/x"), step(PARENT, "fake.b"), step(PARENT, "state.commit")]
    traced(tmp_path / "t", plan)
    assert spans(tmp_path / "t") == [(1, "fake.a", "/x"), (1, "fake.b", ""), (1, "state.commit", "")]
    times = [(event["ts"], event["dur"]) for event in events(tmp_path / "t") if event["ph"] == "X"]
    assert all(duration >= 0 for _, duration in times)
    assert all(now + duration <= later + 0.001 for (now, duration), (later, _) in zip(times, times[1:], strict=False))


DANCE = [
    step(PARENT, "fake.first", at="/a"),
    step(PARENT, "sync.open"),
    step(PARENT, "process.clone", INIT, 0, at="/linux/namespaces"),
    step(PARENT, "fake.second"),
    step(INIT, "fake.work", at="/mounts/0"),
    step(INIT, "sync.tell", "ready"),
    step(PARENT, "sync.expect", "ready"),
    step(PARENT, "state.commit"),
    step(PARENT, "sync.tell", "committed"),
    step(INIT, "sync.leave_parent", "committed"),
    step(START, "program.prepare"),
    step(START, "program.keep_descriptors"),
    step(START, "program.limit"),
]
SIDES = {1: (PARENT,), 2: (STAGE,), 3: (INIT, START)}


# What only queues a call for the moment before execve: it takes no time, and who noted it would have to write that down.
QUEUED = ("program.limit", "program.filter", "program.set_capabilities", "program.execve")


def wanted(plan: Any) -> Counter[tuple[int, str, str]]:
    """Every step once."""
    return Counter((track, each[1], each[3]) for each in plan for track, sides in SIDES.items() if each[0] in sides)


def test_every_step_of_parent_and_init_once(tmp_path: Path) -> None:
    traced(tmp_path / "t", DANCE)
    found = Counter(each for each in spans(tmp_path / "t") if each[1] not in QUEUED)
    assert found == wanted(each for each in DANCE if each[1] not in QUEUED)


def test_every_step_of_a_start_without_limits(tmp_path: Path) -> None:
    """Also when none of the last steps is one after which the others are written out."""
    plan = DANCE[:-1]
    traced(tmp_path / "t", [*plan, step(START, "program.execve")])
    found = Counter(each for each in spans(tmp_path / "t") if each[1] not in QUEUED)
    assert found == wanted(plan)


def test_every_step_of_a_stage(tmp_path: Path) -> None:
    plan = [
        step(PARENT, "fake.first"),
        step(PARENT, "sync.open"),
        step(PARENT, "process.clone", STAGE, 0),
        step(STAGE, "fake.join"),
        step(STAGE, "process.clone_sibling", INIT, 0),
        step(PARENT, "process.meet"),
        step(PARENT, "sync.tell", "mapped"),
        step(INIT, "sync.expect", "mapped"),
        step(INIT, "fake.work"),
        step(INIT, "sync.tell", "ready"),
        step(PARENT, "sync.expect", "ready"),
        step(PARENT, "state.commit"),
    ]
    traced(tmp_path / "t", plan)
    assert Counter(spans(tmp_path / "t")) == wanted(plan)


@pytest.mark.parametrize(
    "pointer", ["/linux/sysctl/net.a~1b", '/x/"quoted"', "/x/back\\slash", "/x/line\nbreak", "/x/\x01\t", "/é"]
)
def test_any_pointer(tmp_path: Path, pointer: str) -> None:
    """A name in config.json may have any character, and comes to stand in a pointer."""
    plan = [step(PARENT, "fake.a", at=pointer), step(PARENT, "state.commit")]
    traced(tmp_path / "t", plan)
    assert spans(tmp_path / "t")[0] == (1, "fake.a", pointer)


def test_a_step_that_fails_ends_the_trace_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: Run, *args: Any) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(run, "function", lambda name: fail if name == "fake.fails" else nothing)
    plan = [step(PARENT, "fake.a"), step(PARENT, "fake.fails", errors={5: None}), step(PARENT, "state.commit")]
    traced(tmp_path / "t", plan)
    assert [name for _, name, _ in spans(tmp_path / "t")] == ["fake.a", "fake.fails", "state.commit"]
    # Which of the alternatives was taken.
    assert [event["args"].get("alternative", "") for event in events(tmp_path / "t") if event["ph"] == "X"] == [
        "",
        os.strerror(5),
        "",
    ]


def test_a_trace_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("x" * 10_000)
    traced(tmp_path / "t", [step(PARENT, "state.commit")])
    assert len(spans(tmp_path / "t")) == 1


def test_a_trace_is_not_handed_on(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "t"), [])
    assert not os.get_inheritable(trace.fd)
    os.close(trace.fd)
