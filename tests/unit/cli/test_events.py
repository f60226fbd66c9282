"""`events`: its interval, and the shape of a line, which is runc's."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups.parse import UNLIMITED
from ocirt.cgroups.stats import Stats, Usage
from ocirt.cli.events import duration, shape

from .conftest import Cli, MakeRecord


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5s", 5 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("500ms", 5 * 10**8),
        ("3us", 3000),
        ("3µs", 3000),
        ("7ns", 7),
        ("0", 0),
        ("-1s", -(10**9)),
        ("+1s", 10**9),
    ],
)
def test_duration(text: str, expected: int) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["5", "s", "5x", "1.s.", "-", "5s5", ".s", "9" * 30 + "h", "٣s"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text[:1])):
        duration(text)


@given(text=st.text(alphabet="0123456789.hmsunµ+-x²"))
def test_any_duration(text: str) -> None:
    try:
        assert abs(duration(text)) < 1 << 63
    except ValueError:
        pass


def test_what_is_zero_is_left_out() -> None:
    flags = dict.fromkeys(
        (
            *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab"),
            *("memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
        ),
        0,
    )
    assert shape(Stats()) == {
        "cpu": {},
        "cpuset": flags,
        "memory": {},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def test_shape() -> None:
    """The names, their order, and what stays although it is zero."""
    stats = Stats()
    stats.cpu.total, stats.cpu.per_cpu, stats.cpu.throttled_time = 5, [2, 3], 7
    stats.cpu.pressure = {"some": {"avg10": 1.5, "avg60": 0, "avg300": 0, "total": 9}}
    stats.cpuset = {"cpus": [0], "mems": [], "sched_load_balance": 1, "sched_relax_domain_level": -1}
    stats.memory.usage = Usage(UNLIMITED, 1, 0, 0)
    stats.memory.kernel = Usage(0, 0, 0, 2)
    stats.memory.raw = {"b": 1, "a": 0}
    stats.pids, stats.pids_limit = 3, 4
    stats.io = {"io_queued": [(0, 8, "Read", 0), (8, 0, "", 5)], "sectors": []}
    stats.io_pressure = {}
    stats.huge_pages = {"2MB": Usage(0, 1, 0, 0)}
    shown = json.dumps(shape(stats))
    assert shown.startswith(
        '{"cpu": {"usage": {"total": 5, "percpu": [2, 3], "kernel": 0, "user": 0}, "throttling": {"throttledTime": 7}, '
        '"psi": {"some": {"avg10": 1.5, "avg60": 0, "avg300": 0, "total": 9}}}, '
        '"cpuset": {"cpus": [0], "cpu_exclusive": 0, "mem_hardwall": 0,',
    )
    assert '"sched_load_balance": 1, "sched_relax_domain_level": -1}, ' in shown
    assert shown.endswith(
        '"memory": {"usage": {"limit": 18446744073709551615, "usage": 1, "failcnt": 0}, "kernel": {"limit": 0, "failcnt": 2}, '
        '"raw": {"a": 0, "b": 1}}, "pids": {"current": 3, "limit": 4}, '
        '"blkio": {"ioQueueRecursive": [{"minor": 8, "op": "Read"}, {"major": 8, "value": 5}], '
        '"psi": {}}, '
        '"hugetlb": {"2MB": {"usage": 1, "failcnt": 0}}, "intel_rdt": {}, "network_interfaces": null}',
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5x", 'invalid value "5x" for flag -interval: parse error'),
        ("0s", "duration interval must be greater than 0"),
        ("-1s", "duration interval must be greater than 0"),
    ],
)
def test_bad_intervals(cli: Cli, make: MakeRecord, text: str, expected: str) -> None:
    make("c1")
    status, out, err = cli("--log-format", "json", "events", "--interval", text, "c1")
    assert (status, out, json.loads(err)["msg"]) == (1, "", expected)


def test_not_running(cli: Cli, make: MakeRecord) -> None:
    make("c1", pid=0, start_time=0)
    status, out, err = cli("events", "c1")
    assert (status, out) == (1, "")
    assert "container with id c1 is not running" in err


def test_until_the_end(cli: Cli, make: MakeRecord, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A line each interval; one that cannot be read is an error on standard error and not the end."""
    (tmp_path / "pids.current").write_text("1\n")
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    make("c1", cgroup={"mode": "v2", "paths": {"": str(tmp_path)}})

    def act() -> None:
        time.sleep(0.3)
        (tmp_path / "pids.current").write_text("x\n")
        time.sleep(0.3)
        (tmp_path / "memory.events").write_text("oom_kill 1\n")
        sleeper.kill()

    thread = threading.Thread(target=act)
    thread.start()
    status, out, err = cli("events", "--interval", "50ms", "c1")
    thread.join()
    shown = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert len(shown) >= 3
    assert {each["id"] for each in shown} == {"c1"}
    assert shown[0]["data"]["pids"] == {"current": 1}
    assert shown[-1] == {"type": "oom", "id": "c1"}
    assert "unable to parse: 'x' is no number" in err
