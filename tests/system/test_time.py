"""Time namespaces and the offsets of their clocks: what a program in the container reads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.bundle import NAMESPACES, Bundle
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import MAPPING, with_user_namespace
from tests.system.test_rootless import ONE, owned, rootless

__all__ = ["rootless"]  # fixtures

OFFSETS = {"monotonic": {"secs": 7881, "nanosecs": 2718281}, "boottime": {"secs": 133700, "nanosecs": 3141519}}
WANTED = (7881, 133700)
CLOCKS = ["/bin/probe", "clocks"]


def timed(made: Bundle, **edits: Any) -> Bundle:
    """The bundle with a new time namespace and offsets."""
    kinds = [*(item for item in made.config["linux"]["namespaces"] if item["type"] != "time"), {"type": "time"}]
    made.edit(namespaces=kinds, edit=lambda config: config["linux"].update(timeOffsets=OFFSETS))
    return made.edit(**edits)


def shifts(text: str) -> tuple[int, int]:
    """How far the container's clocks are from ours, in seconds, rounded: monotonic and boottime."""
    seen = json.loads(text)
    now = (time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))
    return round(seen["monotonic"] - now[0]), round(seen["boottime"] - now[1])


def near(found: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Within the seconds that a slow machine may need."""
    return all(-5 <= have - want <= 1 for have, want in zip(found, wanted, strict=True))


def test_offsets(runtime: Runtime, bundle: MakeBundle) -> None:
    """The program's clocks, those of `exec`, and what /proc says; the host's are as they were."""
    made = timed(bundle(args=CLOCKS))
    assert near(shifts(runtime.run(made).ok().out), WANTED)
    lines = runtime.run(made.edit(args=["cat", "/proc/self/timens_offsets"])).ok().out.split("\n")
    assert [line.split() for line in lines[:2]] == [["monotonic", "7881", "2718281"], ["boottime", "133700", "3141519"]]
    container = runtime.create(made.edit(args=["sh", "-c", "probe clocks; sleep 1000"]))
    runtime.start(container).ok()
    assert near(shifts(runtime.wait_output(container, "}")), WANTED)
    assert near(shifts(runtime.exec(container, *CLOCKS).ok().out), WANTED)
    uptime = float(runtime.exec(container, "cat", "/proc/uptime").ok().out.split()[0])
    assert -5 <= uptime - time.clock_gettime(time.CLOCK_BOOTTIME) - WANTED[1] <= 1


@pytest.mark.parametrize("offsets", [None, {"monotonic": {"secs": 0}}])
def test_no_offsets(runtime: Runtime, bundle: MakeBundle, offsets: Any) -> None:
    """A namespace of its own, with the host's clocks."""
    made = timed(bundle(args=CLOCKS), edit=lambda config: config["linux"].update(timeOffsets=offsets))
    assert near(shifts(runtime.run(made).ok().out), (0, 0))


def test_back_in_time(runtime: Runtime, bundle: MakeBundle) -> None:
    """Negative seconds; but no clock before 0."""
    back = {"boottime": {"secs": -int(time.clock_gettime(time.CLOCK_BOOTTIME)) + 5}}
    made = timed(bundle(args=CLOCKS), edit=lambda config: config["linux"].update(timeOffsets=back))
    assert float(json.loads(runtime.run(made).ok().out)["boottime"]) < 15
    back["boottime"]["secs"] -= 100_000
    runtime.run(timed(made, edit=lambda config: config["linux"].update(timeOffsets=back))).failed("(?i)range", rc=1)


def test_beside_a_user_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """New or joined, with what belongs to it."""
    made = timed(with_user_namespace(bundle(args=CLOCKS)))
    assert near(shifts(runtime.run(made).ok().out), WANTED)
    holder = runtime.run_detached(made.edit(args=["sleep", "1000"]))
    assert near(shifts(runtime.exec(holder, *CLOCKS).ok().out), WANTED)
    where = f"/proc/{runtime.pid(holder)}/ns"
    made.edit(args=CLOCKS)
    for kinds in (("user", "network"), ("user", "uts", "pid")):
        joined = [{"type": kind, "path": f"{where}/{'net' if kind == 'network' else kind}"} for kind in kinds]
        new = [{"type": kind} for kind in NAMESPACES if kind not in kinds]
        made.edit(namespaces=[*joined, *new], uidMappings=None, gidMappings=None)
        assert near(shifts(runtime.run(timed(made)).ok().out), WANTED), kinds


@pytest.mark.ocirt_only("runc needs a /proc in every container")
def test_beside_namespaces_of_the_host_s(runtime: Runtime, bundle: MakeBundle) -> None:
    """What the host owns is joined before a new user namespace is made."""
    plain = runtime.run_detached(bundle(args=["sleep", "1000"]))
    where = f"/proc/{runtime.pid(plain)}/ns"
    joined = [{"type": kind, "path": f"{where}/{name}"} for kind, name in (("network", "net"), ("ipc", "ipc"), ("pid", "pid"))]
    made = bundle(args=CLOCKS, namespaces=[*joined, "mount", "uts"])
    assert near(shifts(runtime.run(timed(made)).ok().out), WANTED)
    made.edit(namespaces=[*joined, "mount", "uts", "user"], uidMappings=MAPPING, gidMappings=MAPPING)
    made.edit(mounts=[mount for mount in made.config["mounts"] if mount["destination"] not in ("/sys", "/dev/mqueue", "/proc")])
    made.edit(maskedPaths=[], readonlyPaths=[])
    assert near(shifts(runtime.run(timed(made)).ok().out), WANTED)


def test_joined_by_path(runtime: Runtime, bundle: MakeBundle) -> None:
    """The clocks are the other's; offsets of one's own do not go with it."""
    first = runtime.run_detached(timed(bundle(args=["sleep", "1000"])))
    path = f"/proc/{runtime.pid(first)}/ns/time"
    made = bundle(args=CLOCKS, namespaces=[*NAMESPACES, {"type": "time", "path": path}])
    assert near(shifts(runtime.run(made).ok().out), WANTED)
    made.edit(edit=lambda config: config["linux"].update(timeOffsets=OFFSETS))
    runtime.run(made).failed("(?i)offsets", rc=1)
    made.edit(namespaces=list(NAMESPACES))
    runtime.run(made).failed("(?i)offsets", rc=1)


@pytest.mark.ocirt_only("peers differ in what a user may do")
def test_rootless_offsets(rootless: Runtime, bundle: MakeBundle) -> None:
    """In a user namespace of one's own, clocks may be set too."""
    made = timed(owned(bundle(args=CLOCKS), ONE))
    assert near(shifts(rootless.run(made).ok().out), WANTED)
    container = rootless.create(made.edit(args=["sleep", "1000"]))
    rootless.start(container).ok()
    assert near(shifts(rootless.exec(container, *CLOCKS).ok().out), WANTED)
