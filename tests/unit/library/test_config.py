"""config.json from keywords: what is asked for is there, what is not is not, and the validator has no objection."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocirt
from ocirt.library import source
from ocirt.library.config import _bytes
from ocirt.spec.load import read_spec


def valid(config: dict[str, Any]) -> dict[str, Any]:
    """The document as the runtime reads it. Raises ocirt.Error."""
    config["root"]["path"] = config["root"]["path"] or "rootfs"
    return read_spec("/", document=config, rootless=os.geteuid() != 0)


def test_defaults_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = valid(ocirt.config(["true"]))
    process, linux = made["process"], made["linux"]
    assert process["user"] == {"uid": 65534, "gid": 65534}
    assert not any(process["capabilities"].values())
    assert process["noNewPrivileges"]
    assert made["root"]["readonly"]
    assert {each["type"] for each in linux["namespaces"]} == {"pid", "network", "ipc", "uts", "mount"}
    assert "/proc/kcore" in linux["maskedPaths"]
    assert not any(each["destination"].startswith("/sys") for each in made["mounts"])
    assert [entry.partition("=")[0] for entry in process["env"]] == ["PATH"]


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = valid(
        ocirt.config(
            ["sh", Path("/x")],
            rootfs=tmp_path,
            readonly=False,
            env={"A": "1", "PATH": "/bin"},
            cwd="/tmp",
            user="1000:100",
            network=True,
            memory="64MiB",
            swap="1MiB",
            cpus=0.5,
            cpu_seconds=2,
            pids=7,
            capabilities=["CAP_KILL"],
            mounts=[ocirt.bind("/etc/hosts"), ocirt.tmpfs("/tmp", 4096)],
            cgroup="/a/b",
            annotations={"k": "v"},
        ),
    )
    process, linux = made["process"], made["linux"]
    assert process["args"] == ["sh", "/x"]
    assert process["env"] == ["PATH=/bin", "A=1"]
    assert process["user"] == {"uid": 1000, "gid": 100}
    assert process["capabilities"]["ambient"] == ["CAP_KILL"]
    assert {"type": "RLIMIT_CPU", "soft": 2, "hard": 2} in process["rlimits"]
    assert "network" not in {each["type"] for each in linux["namespaces"]}
    resources = linux["resources"]
    assert resources["memory"]["limit"] == 64 << 20
    assert resources["memory"].get("swap", 65 << 20) == 65 << 20
    assert resources["cpu"]["quota"] * 2 == resources["cpu"]["period"]
    assert resources["pids"]["limit"] == 7
    assert resources["devices"] == [{"allow": False, "access": "rwm"}]
    assert made["mounts"][-2]["options"] == ["bind", "nosuid", "nodev", "ro"]
    assert (made["root"]["path"], linux["cgroupsPath"], made["annotations"]) == (str(tmp_path), "/a/b", {"k": "v"})


def test_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    made = ocirt.config(["true"])
    assert made["process"]["user"] == {"uid": 0, "gid": 0}
    assert {"type": "user"} in made["linux"]["namespaces"]
    assert {"type": "network"} in made["linux"]["namespaces"]
    assert "resources" not in made["linux"]


@pytest.mark.parametrize(
    ("args", "words", "says"),
    [
        ("true", {}, "list of words"),
        ([], {}, "list of words"),
        (["a\0b"], {}, "NUL"),
        ([os.fsdecode(b"\xff")], {}, "UTF-8"),
        (["true"], {"memory": "64 MB/s"}, "memory: '64 MB/s' is no size"),
        (["true"], {"memory": "64m"}, "is no size"),
        (["true"], {"swap": 1}, "memory"),
        (["true"], {"cpu_seconds": 0.5}, "whole seconds"),
        (["true"], {"cpus": 0}, "too little"),
        (["true"], {"user": "root"}, "no user"),
        (["true"], {"env": {"A=B": ""}}, "name"),
        (["true"], {"readonly": False}, "empty root"),
    ],
)
def test_mistakes(args: Any, words: dict[str, Any], says: str) -> None:
    with pytest.raises(ocirt.Error, match=says):
        ocirt.config(args, **words)


@given(st.integers(0, 1 << 20), st.sampled_from([("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("kB", 1000), ("GB", 10**9)]))
def test_sizes(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit
    assert _bytes(f"{number}{name}", "x") == _bytes(f" {number} {name}", "x") == number * factor
    assert _bytes(number, "x") == number


def test_the_hosts_python_has_a_place_for_each_part() -> None:
    places = [each["source"] for each in ocirt.host_python()]
    for path in (sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), os.__file__):
        assert any(os.path.abspath(path).startswith(place + "/") or path == place for place in places), path
    assert "/" not in places
    assert len(places) == len(set(places))


def test_a_bundle(tmp_path: Path) -> None:
    made = ocirt.Bundle.create(tmp_path / "b", ["true"], rootfs=tmp_path)
    made.config["hostname"] = "box"
    made.save()
    again = ocirt.Bundle(tmp_path / "b")
    assert again.config == made.config
    assert os.listdir(again) == ["config.json"]
    asked = source.request("run", ["x"], again, None, None, tmp_path, "cgroupfs", {"env": {"A": "1"}})
    assert asked["config"]["process"]["args"] == ["x"]
    assert asked["config"]["process"]["env"][-1] == "A=1"
    assert asked["bundle"] == str(tmp_path / "b")
    with pytest.raises(ocirt.Error, match=r"memory= cannot be given here.*config.json"):
        source.request("run", None, again, None, None, tmp_path, "cgroupfs", {"memory": 1})
    with pytest.raises(ocirt.Error, match="which is it"):
        source.request("run", None, again, again.config, None, tmp_path, "cgroupfs", {})
    with pytest.raises(ocirt.Error, match="no program"):
        source.request("run", None, None, None, None, tmp_path, "cgroupfs", {})
    with pytest.raises(ocirt.Error, match=r"/nowhere/config.json: cannot be read"):
        ocirt.Bundle("/nowhere")
    with pytest.raises(ocirt.Error, match="rootfs"):
        ocirt.Bundle.create(tmp_path / "c", ["true"])
    assert not (tmp_path / "c").exists()


def test_an_empty_root_lies_with_the_container(tmp_path: Path) -> None:
    asked = source.request("run", ["x"], None, None, "name", tmp_path, "cgroupfs", {})
    assert asked["bundle"] == f"{tmp_path}/name"
    assert asked["config"]["root"]["path"] == f"{tmp_path}/name/rootfs"
    with pytest.raises(ocirt.Error, match="invalid container ID"):
        source.request("run", ["x"], None, None, "../name", tmp_path, "cgroupfs", {})
