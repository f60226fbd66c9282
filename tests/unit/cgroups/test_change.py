"""Going back when an update fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.cgroups import change as module
from ocirt.cgroups.change import change, undoing
from ocirt.cgroups.limits import OPTIONAL, REQUIRED
from ocirt.errors import Error


@pytest.mark.parametrize(
    ("file", "value", "held", "expected"),
    [
        ("pids.max", "5", "max\n", "max"),
        ("memory.limit_in_bytes", "5", "9223372036854771712\n", "9223372036854771712"),
        ("cpu.max", "max 100000", "5000 200000\n", "5000 200000"),
        ("cpuset.cpus", "0", "\n", "\n"),
        ("cpuset.cpus", "0", "0-1,3\n", "0-1,3"),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "0"),
        ("blkio.throttle.read_bps_device", "8:0 500", "8:16 1\n8:0 300\n", "8:0 300"),
        ("blkio.throttle.read_bps_device", "8:0 500", "\n", "8:0 0"),
        ("blkio.throttle.read_bps_device", "8:0 500", "8:16 1\n", "8:0 0"),
        ("io.max", "8:0 rbps=500", "8:16 rbps=1\n8:0 rbps=max wbps=7 riops=max wiops=max\n", "8:0 rbps=max"),
        ("io.max", "8:0 wbps=500", "8:0 rbps=max wbps=7 riops=max wiops=max\n", "8:0 wbps=7"),
        ("io.max", "8:0 wbps=500", "", "8:0 wbps=max"),
        ("io.weight", "500", "default 100\n8:0 50\n", "100"),
        ("io.weight", "500", "default 100\n", "100"),
        ("blkio.bfq.weight", "500", "100\n", "100"),
        ("io.bfq.weight", "8:0 500", "default 100\n8:0 50\n", "8:0 50"),
        ("rdma.max", "mlx4_0 hca_handle=2", "mlx4_0 hca_handle=max hca_object=2000\n", "mlx4_0 hca_handle=max"),
        ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 3\n", "eth0 3"),
        ("memory.high", "5", "max\n", "max"),
        # Several lines, none of them a value: it cannot be told.
        ("some.thing", "5", "a 1\nb 2\n", None),
    ],
)
def test_undoing(file: str, value: str, held: str, expected: str | None) -> None:
    assert undoing(file, value, held) == expected


def test_all_or_nothing(tmp_path: Path) -> None:
    """A file that cannot be written brings back those before it, the tied ones in the order in which they go."""
    for name, text in (("a", "1\n"), ("b", "2\n")):
        (tmp_path / name).write_text(text)
    entries = [
        ("pids", "a", "10", "/pids/limit", REQUIRED),
        ("pids", "nothing", "x", "/pids/limit", OPTIONAL),
        ("pids", "b", "20", "/pids/limit", REQUIRED),
    ]
    change({"pids": str(tmp_path)}, entries)
    assert [(tmp_path / name).read_text()[:2] for name in "ab"] == ["10", "20"]
    with pytest.raises(Error) as caught:
        change({"pids": str(tmp_path)}, [("pids", "a", "30", "/1", REQUIRED), ("pids", "nothing", "x", "/2", REQUIRED)])
    assert caught.value.subject == "/2"
    assert (tmp_path / "a").read_text()[:2] == "10"


def test_going_back_takes_two_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory must go back before memory and swap can, or the other way round."""
    held = {"memory.limit_in_bytes": 64, "memory.memsw.limit_in_bytes": 96}

    def write(path: str, text: bytes) -> None:
        file = path.rpartition("/")[2]
        if file not in held:
            raise OSError(2, "no such file", path)
        wanted = held | {file: int(text)}
        if wanted["memory.limit_in_bytes"] > wanted["memory.memsw.limit_in_bytes"]:
            raise OSError(22, "invalid", path)
        held.update(wanted)

    monkeypatch.setattr(module, "write", write)
    monkeypatch.setattr("ocirt.cgroups.apply.write", write)
    monkeypatch.setattr(module, "read", lambda path: f"{held[path.rpartition('/')[2]]}\n" if "memory" in path else "")
    failing = ("memory", "nothing", "x", "/x", REQUIRED)
    for limit, swap in ((128, 160), (16, 20)):
        entries = [
            ("memory", "memory.limit_in_bytes", str(limit), "/limit", REQUIRED),
            ("memory", "memory.memsw.limit_in_bytes", str(swap), "/swap", REQUIRED),
        ]
        with pytest.raises(Error):
            change({"memory": str(tmp_path)}, [*entries, failing])
        assert held == {"memory.limit_in_bytes": 64, "memory.memsw.limit_in_bytes": 96}
