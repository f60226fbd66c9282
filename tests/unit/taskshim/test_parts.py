"""URLs of streams, layers of overlays, lines of the log, flags of checkpoints, metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import stats
from ocirt.cgroups.parse import UNLIMITED
from ocirt.errors import Error
from ocirt_api.messages import cgroups_v1, cgroups_v2
from ocirt_api.messages.google import Any as Wrapped
from ocirt_api.messages.options import CheckpointOptions, Options
from ocirt_shim.loop import Loop
from ocirt_shim.task import images, stdio
from ocirt_shim.task.journal import Journal
from ocirt_shim.task.metrics import metrics
from ocirt_shim.task.mounts import Layers
from ocirt_shim.task.stdio import Named, Streams


@pytest.mark.parametrize(
    ("stdout", "stderr", "found"),
    [
        ("", "", (("", ""), ("", ""))),
        ("/a/out", "/a/err", (("fifo", "/a/out"), ("fifo", "/a/err"))),
        ("/a/out", "", (("fifo", "/a/out"), ("", ""))),
        ("fifo:///a/o%20t", "/a/err", (("fifo", "/a/o t"), ("fifo", "/a/err"))),
        ("file:///a/log", "file:///a/log", (("file", "/a/log"), ("file", "/a/log"))),
        ("file:///a/log", "", (("file", "/a/log"), ("file", "/a/log"))),
        ("binary:///bin/x?a=b", "binary:///bin/x?a=b", (("binary", "/bin/x"), ("binary", "/bin/x"))),
    ],
)
def test_targets(stdout: str, stderr: str, found: tuple[tuple[str, str], ...]) -> None:
    streams = Streams(Loop(), Named("", stdout, stderr, terminal=False))
    assert (streams._target_of("stdout"), streams._target_of("stderr")) == found


def test_a_terminal_has_no_stderr() -> None:
    assert Named("", "/a/out", "/a/err", terminal=True).stderr == ""


@pytest.mark.parametrize(
    ("query", "words"),
    [("", []), ("a=b", ["a", "b"]), ("a=b&c", ["a", "b", "c", ""]), ("a=1&a=2", ["a", "1"]), ("a%3D=b+c%26", ["a=", "b c&"])],
)
def test_arguments_of_a_program(query: str, words: list[str]) -> None:
    assert stdio._arguments(query) == words


@given(st.text(max_size=20))
def test_escapes(text: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in text.encode())
    assert stdio._unescape(escaped) == text


@pytest.mark.parametrize("text", ["%", "%4", "%zz", "a%2"])
def test_escapes_that_are_none(text: str) -> None:
    with pytest.raises(Error, match="hexadecimal"):
        stdio._unescape(text)


def test_streams_that_cannot_be_opened_leave_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    before = len(os.listdir("/proc/self/fd"))
    streams = Streams(Loop(), Named(f"{tmp_path}/in", f"{tmp_path}/no", "", terminal=False))
    with pytest.raises(FileNotFoundError):
        streams.open()
    assert len(os.listdir("/proc/self/fd")) == before


def test_layers() -> None:
    found = Layers(["lowerdir=/a\\:b:/c\\\\:/d", "upperdir=/u", "workdir=/w", "index=off", "userxattr"])
    assert found.lowers == ("/a:b", "/c\\", "/d")
    assert (found.upper, found.work, found.data) == ("/u", "/w", (("index", "off"), ("userxattr", None)))
    mapped = Layers(["lowerdir=/a", "uidmap=0:1000:10,10:5000:5", "gidmap=0:1000:10"])
    assert (mapped.uids, mapped.gids, mapped.data) == (((0, 1000, 10), (10, 5000, 5)), ((0, 1000, 10),), ())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "lower"),
        (["lowerdir=/a", "upperdir=/u"], "neither"),
        (["lowerdir=/a", "uidmap=0:1:2"], "both"),
        (["lowerdir=/a", "uidmap=0:x:2", "gidmap=0:1:2"], "numbers"),
        (["lowerdir=/a", "uidmap=0:1", "gidmap=0:1:2"], "numbers"),
    ],
)
def test_layers_that_are_none(options: list[str], said: str) -> None:
    with pytest.raises(Error, match=said):
        Layers(options)


def test_the_log(tmp_path: Path) -> None:
    """Nobody is waited for: without a reader lines are lost, and a later reader gets later ones."""
    journal = Journal(str(tmp_path / "log"), {"id": "one", "note": "two words"}, debug=False)
    journal.say("info", "there is no FIFO")
    os.mkfifo(tmp_path / "log")
    journal.say("info", "nobody reads")
    for text in ("first", "second"):
        reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
        journal.say("debug", "not wanted")
        journal.say("warning", f'{text} "quoted"\n')
        line = os.read(reader, 1000).decode()
        assert line.startswith('time="20')
        assert line.endswith(f' level=warning msg="{text} \\"quoted\\"\\n" id=one note="two words"\n')
        os.close(reader)
    journal.close()


def test_flags_of_a_checkpoint() -> None:
    asked = CheckpointOptions(exit=True, open_tcp=True, terminal=True, work_path="/w", empty_namespaces=["network"])
    found = images.flags("/images", images.options_of(Wrapped.of(asked)))
    assert (found["image-path"], found["work-path"], found["leave-running"]) == ("/images", "/w", False)
    assert (found["tcp-established"], found["shell-job"], found["file-locks"]) == (True, True, False)
    assert images.flags("/i", images.options_of(None), "/default")["work-path"] == "/default"
    assert images.flags("/i", images.options_of(Wrapped()))["leave-running"]
    with pytest.raises(Error, match="CheckpointOptions"):
        images.options_of(Wrapped.of(Options()))


def fill(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "huge_page_sizes", lambda: ["2MB"])


def test_metrics_of_version_1(tmp_path: Path) -> None:
    paths = {
        "cpu": fill(tmp_path / "cpu", {"cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n"}),
        "cpuacct": fill(tmp_path / "cpu", {"cpuacct.stat": "user 5\nsystem 6\n", "cpuacct.usage_percpu": "1 2 \n"}),
        "pids": fill(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "max\n"}),
        "memory": fill(
            tmp_path / "memory",
            {
                "memory.stat": "cache 7\npgpgin 8\ntotal_pgmajfault 9\nhierarchical_memsw_limit 10\n",
                "memory.usage_in_bytes": "11\n",
                "memory.limit_in_bytes": "12\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n",
            },
        ),
        "blkio": fill(tmp_path / "blkio", {"blkio.throttle.io_serviced_recursive": "8:0 Read 5\nTotal 5\n"}),
    }
    found = metrics({"mode": "v1", "paths": paths}).read(cgroups_v1.Metrics)
    assert found.cpu is not None
    assert found.memory is not None
    assert found.memory.usage is not None
    assert found.blkio is not None
    assert (found.cpu.usage.user, found.cpu.usage.per_cpu) == (50_000_000, [1, 2])  # type: ignore[union-attr]
    assert (found.pids.current, found.pids.limit) == (3, 0)  # type: ignore[union-attr]
    memory = found.memory
    assert (memory.cache, memory.pg_pg_in, memory.total_pg_maj_fault, memory.hierarchical_swap_limit) == (7, 8, 9, 10)
    assert (found.memory.usage.usage, found.memory.usage.limit) == (11, 12)
    assert (found.memory_oom_control.under_oom, found.memory_oom_control.oom_kill) == (1, 2)  # type: ignore[union-attr]
    entries = [(one.op, one.major, one.minor, one.value) for one in found.blkio.io_serviced_recursive]
    assert entries == [("Read", 8, 0, 5)]


def test_metrics_of_version_2(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\nnr_bursts 7\n",
        "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=6\n",
        "memory.stat": "anon 1\nfile 2\npgmajfault 3\nnew_in_a_later_kernel 4\n",
        "memory.current": "5\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 8\noom 9\noom_kill 10\noom_group_kill 0\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0\n",
        "pids.current": "6\n",
        "pids.max": "100\n",
        "hugetlb.2MB.current": "2097152\n",
        "hugetlb.2MB.max": "max\n",
    }
    found: Any = metrics({"mode": "v2", "paths": {"": fill(tmp_path / "g", files)}}).read(cgroups_v2.Metrics)
    assert (found.cpu.usage_usec, found.cpu.nr_bursts, found.cpu.psi.some.avg10, found.cpu.psi.full.total) == (10, 7, 1.5, 6)
    assert (found.memory.anon, found.memory.pgmajfault, found.memory.usage, found.memory.usage_limit) == (1, 3, 5, UNLIMITED)
    assert (found.memory_events.max, found.memory_events.oom_kill) == (8, 10)
    first, second = found.io.usage
    assert (first.major, first.rbytes, first.wbytes, first.rios, first.wios, second.major) == (8, 1, 2, 3, 4, 253)
    assert (found.pids.current, found.pids.limit) == (6, 100)
    assert [(one.pagesize, one.current, one.max) for one in found.hugetlb] == [("2MB", 2097152, UNLIMITED)]


def test_metrics_without_a_cgroup() -> None:
    with pytest.raises(Error) as caught:
        metrics({"mode": "v1", "paths": {}})
    assert caught.value.code == "not-found"
