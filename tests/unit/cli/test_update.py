"""`update`: its flags, and what it does to a cgroup of version 2 that is a directory of plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt import state
from ocirt.cli import options as flags
from ocirt.cli.update import from_flags, size

from .conftest import Cli, MakeRecord

FILES = {
    "cpu.idle": "0",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.weight": "100",
    "cpuset.cpus": "",
    "io.max": "",
    "io.weight": "default 100",
    "memory.current": "1000",
    "memory.low": "0",
    "memory.max": "max",
    "memory.swap.max": "max",
    "pids.max": "max",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cgroup."""
    path = tmp_path / "cgroup"
    path.mkdir()
    for name, text in FILES.items():
        (path / name).write_text(text + "\n")
    return path


def read(directory: Path, name: str) -> str:
    # A write into a plain file leaves the rest of what was longer.
    return (directory / name).read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("-1", -1),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("1.5g", 3 << 29),
        ("512b", 512),
        (".5k", 512),
        ("1p", 1 << 50),
        ("9007199254740993", 9007199254740993),
        ("", "invalid size: ''"),
        ("x", "invalid size: 'x'"),
        ("-2", "invalid size: '-2'"),
        ("1.2.3", "invalid size: '1.2.3'"),
        ("1x", "invalid suffix: 'x'"),
        ("1mx", "invalid suffix: 'mx'"),
        ("1bb", "invalid suffix: 'bb'"),
        ("9000p", "invalid size: '9000p'"),
    ],
)
def test_size(text: str, expected: int | str) -> None:
    if isinstance(expected, int):
        assert size(text) == expected
        return
    with pytest.raises(ValueError, match="^" + expected.replace(".", r"\.") + "$"):
        size(text)


@given(text=st.text(alphabet="0123456789.kKmMgGiIbB -x²٣"))
def test_size_of_anything(text: str) -> None:
    try:
        assert -1 <= size(text) < 1 << 63
    except ValueError:
        pass


def parsed(*args: str) -> flags.Options:
    options = flags.Options("ocirt")
    line = flags.VERBS["update"][2]
    values, rest = flags.parse(line, list(args), reorder=True)
    assert rest == []
    options.set_verb("update", line, values)
    return options


def test_every_flag_sets_what_it_says() -> None:
    found = from_flags(
        parsed(
            *("--blkio-weight=20", "--cpu-period=1", "--cpu-quota=-1", "--cpu-burst=0", "--cpu-share=2", "--cpu-rt-period=3"),
            *("--cpu-rt-runtime=4", "--cpu-idle=1", "--cpuset-cpus=0-1", "--cpuset-mems=0", "--kernel-memory=1"),
            *("--kernel-memory-tcp=2", "--memory=1m", "--memory-reservation=2k", "--memory-swap=-1", "--pids-limit=0"),
        ),
    )
    assert found == {
        "blockIO": {"weight": 20},
        "cpu": {
            "period": 1,
            "quota": -1,
            "burst": 0,
            "shares": 2,
            "realtimePeriod": 3,
            "realtimeRuntime": 4,
            "idle": 1,
            "cpus": "0-1",
            "mems": "0",
        },
        "memory": {"kernel": 1, "kernelTCP": 2, "limit": 1 << 20, "reservation": 2048, "swap": -1},
        "pids": {"limit": 0},
    }
    assert from_flags(parsed("--cpu-share=", "--cpuset-cpus=", "--memory=")) == from_flags(parsed()) == {}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--cpu-share", "x"), 'invalid value for cpu-share: strconv.ParseUint: parsing "x": invalid syntax'),
        (("--cpu-burst", "-1"), 'invalid value for cpu-burst: strconv.ParseUint: parsing "-1": invalid syntax'),
        (("--cpu-quota", "1 "), 'invalid value for cpu-quota: strconv.ParseInt: parsing "1 ": invalid syntax'),
        (("--cpu-idle", "9" * 19), f'invalid value for cpu-idle: strconv.ParseInt: parsing "{"9" * 19}": value out of range'),
        (("--cpu-period", "9" * 400), "value out of range"),
        (("--memory", "1x"), "invalid value for memory: invalid suffix: 'x'"),
        (("--pids-limit", "x"), 'invalid value "x" for flag -pids-limit: parse error'),
        (("--l3-cache-schema", "L3:0=f"), "Intel RDT/CAT: l3 cache schema is not enabled"),
        (("--mem-bw-schema", "MB:0=5"), "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        (("-r", "/nowhere"), "open /nowhere: no such file or directory"),
        # What a flag means is held against what the container has.
        (("--memory-swap", "1m"), "--memory-swap: "),
        (("--cpuset-cpus", "x"), '--cpuset-cpus: "x" is not a list of numbers'),
        (("--pids-limit", "-2"), "--pids-limit: "),
        (("--blkio-weight", "5"), "--blkio-weight: 5 is out of range"),
    ],
)
def test_bad_flags(cli: Cli, make: MakeRecord, directory: Path, args: tuple[str, ...], expected: str) -> None:
    """One line that names the flag; nothing is changed."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}})
    status, _, err = cli("--log-format", "json", "update", *args, "c1")
    assert status == 1
    message = json.loads(err.splitlines()[-1])["msg"]
    assert expected in message
    assert {name: read(directory, name).strip() for name in FILES} == FILES


def test_what_the_container_has_is_in_the_way(cli: Cli, make: MakeRecord, directory: Path) -> None:
    """The flag that was given is named, and then what it does not go with."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}}, resources={"memory": {"limit": 100, "swap": 200}})
    status, _, err = cli("update", "--memory", "300", "c1")
    assert status == 1
    assert "--memory: the container's memory.swap: 200 is below the memory limit, which it includes" in err
    assert read(directory, "memory.max") == "max\n"


def test_no_such_container(cli: Cli, root: Path) -> None:
    """Said before anything else, as runc has it."""
    root.mkdir()
    status, _, err = cli("update", "--memory", "x", "c1")
    assert status == 1
    assert "container does not exist" in err


def test_a_stopped_container(cli: Cli, make: MakeRecord) -> None:
    make("c1", pid=0, start_time=0)
    status, _, err = cli("update", "--pids-limit", "5", "c1")
    assert status == 1
    assert "container not running" in err


def resources(root: Path) -> Any:
    return state.load(str(root), "c1")["resources"]


def test_updates_add_up(cli: Cli, make: MakeRecord, directory: Path, root: Path) -> None:
    """Each knows what the ones before it, and config.json, have set."""
    before = make(
        "c1",
        cgroup={"mode": "v2", "paths": {"": str(directory)}},
        resources={"cpu": {"quota": 20000, "period": 200000}, "memory": {"limit": 4096000, "swap": 8192000}},
    )
    assert cli("update", "--cpu-quota", "30000", "c1") == (0, "", "")
    assert read(directory, "cpu.max").startswith("30000 200000")
    assert cli("update", "--pids-limit", "7", "c1")[0] == 0
    assert read(directory, "memory.max").strip() == "max"  # not written again
    assert cli("update", "--memory", "5000000", "c1")[0] == 0
    assert read(directory, "memory.max").startswith("5000000")
    assert read(directory, "memory.swap.max").startswith("3192000")
    assert cli("update", "--cpu-period", "50000", "c1")[0] == 0
    assert read(directory, "cpu.max").startswith("30000 50000")
    assert resources(root) == {
        "cpu": {"quota": 30000, "period": 50000},
        "memory": {"limit": 5000000, "swap": 8192000},
        "pids": {"limit": 7},
    }
    # The rest of the record is as it was, for whoever reads it next, of this version or another.
    after = state.load(str(root), "c1")
    assert {key: after[key] for key in before if key != "resources"} == {key: before[key] for key in before if key != "resources"}


def test_a_record_without_resources(cli: Cli, make: MakeRecord, directory: Path, root: Path) -> None:
    """As ocirt wrote them before it had `update`."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}})
    assert cli("update", "--cpu-idle", "1", "c1")[0] == 0
    assert resources(root) == {"cpu": {"idle": 1}}


def test_a_failure_changes_nothing(cli: Cli, make: MakeRecord, directory: Path, root: Path) -> None:
    (directory / "cpuset.cpus").unlink()
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}}, resources={"pids": {"limit": 3}})
    status, _, err = cli("update", "--pids-limit", "7", "--cpuset-cpus", "0", "c1")
    assert status == 1
    assert "--cpuset-cpus: " in err
    assert read(directory, "pids.max").startswith("max")
    assert resources(root) == {"pids": {"limit": 3}}


def test_a_full_disk(cli: Cli, make: MakeRecord, directory: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed that could not be written down."""

    def write(where: str, record: Any) -> None:
        del record
        raise OSError(28, "no space", where)

    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}}, resources={"pids": {"limit": 3}})
    monkeypatch.setattr("ocirt.state.write", write)
    status, _, err = cli("update", "--pids-limit", "7", "c1")
    assert status == 1
    assert "no space" in err.lower()
    assert read(directory, "pids.max") == "max\n"
    assert resources(root) == {"pids": {"limit": 3}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("{", "line 1, column 2"),
        ("5", "resources: "),
        ('{"memory": {"limit": "64m"}}', "/memory/limit: "),
        ('{"cpu": {"period": 1}}', "/cpu/period: 1 is out of range"),
        ('{"memory": {"limit": 900, "checkBeforeUpdate": true}}', "/memory/limit: rejecting memory limit 900 <= usage 1000"),
        (
            '{"memory": {"limit": 900, "swap": 950, "checkBeforeUpdate": true}}',
            "/memory/swap: rejecting memory+swap limit 950 <= usage 1000",
        ),
        ('{"unified": {"a/b.c": "1"}}', "/unified/a~1b.c: "),
        (
            '{"blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 1, "rate": 1}, {"major": -1, "minor": 2, "rate": 1}]}}',
            "/blockIO/throttleReadBpsDevice/1/major: ",
        ),
    ],
)
def test_bad_documents(cli: Cli, make: MakeRecord, directory: Path, tmp_path: Path, document: str, expected: str) -> None:
    """The pointer is one into the file."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}})
    (tmp_path / "r.json").write_text(document)
    status, _, err = cli("update", "--resources", str(tmp_path / "r.json"), "c1")
    assert status == 1
    assert expected in err
    assert {name: read(directory, name).strip() for name in FILES} == FILES


def test_a_document(cli: Cli, make: MakeRecord, directory: Path, tmp_path: Path, root: Path) -> None:
    """The other flags are ignored, and so are device rules, both as with runc."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}})
    document = {
        "memory": {"limit": 2000, "swap": 2000, "checkBeforeUpdate": True},
        "pids": None,
        "devices": [{"allow": True, "access": "rwm"}],
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}]},
        "unified": {"io.weight": "300"},
    }
    (tmp_path / "r.json").write_text(json.dumps(document))
    assert cli("update", "-r", str(tmp_path / "r.json"), "--pids-limit", "5", "c1") == (0, "", "")
    assert read(directory, "memory.max").startswith("2000")
    assert read(directory, "memory.swap.max").startswith("0")
    assert read(directory, "io.max").startswith("8:0 rbps=max")
    assert read(directory, "io.weight").startswith("300")
    assert read(directory, "pids.max") == "max\n"
    assert set(resources(root)) == {"memory", "blockIO", "unified"}


def test_what_has_no_effect(cli: Cli, make: MakeRecord, directory: Path, tmp_path: Path) -> None:
    """Shown to who asks with --debug, and to nobody else."""
    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}})
    assert cli("update", "--kernel-memory", "5m", "c1") == (0, "", "")
    err = cli("--debug", "update", "--kernel-memory", "5m", "--cpu-rt-runtime", "5", "c1")[2]
    assert "--kernel-memory: kernel memory limits are ignored" in err
    assert "--cpu-rt-runtime: cgroup version 2 has no such setting" in err
    (tmp_path / "r.json").write_text('{"devices": [{"allow": true}], "memory": {"kernel": 5}}')
    err = cli("--debug", "update", "-r", str(tmp_path / "r.json"), "c1")[2]
    assert "/devices: device rules are left as they are" in err
    assert "/memory/kernel: kernel memory" in err


def test_unified_is_of_version_2(cli: Cli, make: MakeRecord, directory: Path, tmp_path: Path) -> None:
    make("c1", cgroup={"mode": "hybrid", "paths": {"memory": str(directory), "": str(directory)}})
    (tmp_path / "r.json").write_text('{"unified": {"memory.high": "5"}}')
    status, _, err = cli("update", "-r", str(tmp_path / "r.json"), "c1")
    assert status == 1
    assert "/unified: invalid configuration: cannot use unified on cgroup v1" in err


def test_an_idle_container_has_no_shares(
    cli: Cli,
    make: MakeRecord,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(path: str, text: bytes) -> None:
        del text
        raise OSError(22, "invalid", path)

    make("c1", cgroup={"mode": "v2", "paths": {"": str(directory)}}, resources={"cpu": {"idle": 1}})
    monkeypatch.setattr("ocirt.cgroups.apply.write", write)
    status, _, err = cli("update", "--cpu-share", "512", "c1")
    assert status == 1
    assert "--cpu-share: failed to write '59'" in err
    assert "make it idle no more" in err
