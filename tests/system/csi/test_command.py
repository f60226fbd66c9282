"""The command `ocirt-csi`: the driver as a process, what a kubelet finds, and the verbs for a person."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocirt_csi.locks import driver_runs
from tests.support.csi import MIB, Plugin
from tests.support.patience import patience
from tests.support.runtime import wait_for

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ROOT / "build" / "ocirt-csi"
# Asked of another process: grpc and the forks of other tests do not go together.
ASK = """
import sys, grpc
from ocirt_api.kubelet import registration_pb2 as messages, registration_pb2_grpc as stubs
from tests.support.patience import patience
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    stub = stubs.RegistrationStub(channel)
    info = stub.GetInfo(messages.InfoRequest(), timeout=20)
    stub.NotifyRegistrationStatus(messages.RegistrationStatus(plugin_registered=True), timeout=20)
    print(info.type, info.name, info.endpoint, *info.supported_versions)
"""


@dataclass
class Command:
    """The command with a pool and a state of a test's own."""

    work: Path
    pool: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.work / "s" / "csi.sock"

    def argv(self, *words: str) -> list[str]:
        flags = ["--state", str(self.work / "state"), "--endpoint", f"unix://{self.socket}", "--node-id", "n"]
        return [str(COMMAND), *flags, *words]

    def run(self, *words: str, rc: int = 0) -> str:
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
        )
        assert done.returncode == rc, done.stderr
        return done.stderr if rc else done.stdout

    def json(self, *words: str, rc: int = 0) -> Any:
        done = subprocess.run(self.argv(*words, "--json"), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == rc, done.stderr
        return json.loads(done.stdout)

    def start(self, *words: str) -> None:
        argv = self.argv("--pool", str(self.pool), *words)
        with (self.work / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(lambda: driver_runs(str(self.work / "state")) and self.socket.exists(), "the driver", 20)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(patience(20))
        self.process = None
        return code


@pytest.fixture
def command(plugin: Plugin, tmp_path: Path) -> Iterator[Command]:
    """The command on a pool that is cleaned afterwards."""
    plugin.stop()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "s").mkdir()
    made = Command(tmp_path, Path(plugin.pool.directory))
    yield made
    if made.process is not None:
        made.end(signal.SIGKILL)


def test_a_kubelet_finds_it(command: Command, tmp_path: Path) -> None:
    """By the socket in its folder; both are for root alone, stale ones are replaced, and nothing is left at the end."""
    registry = tmp_path / "plugins_registry"
    registry.mkdir()
    registration = registry / "local.csi.ocirt-reg.sock"
    for path in (registration, command.socket):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    command.start("--registration-dir", str(registry))
    found = wait_for(lambda: _ask(registration), "an answer", 20)
    assert found == f"CSIPlugin local.csi.ocirt {command.socket} 1.0.0\n"
    for path in (registration, command.socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(command.socket.parent) == ["csi.sock"]
    second = command.run("--pool", str(command.pool), rc=1)
    assert f"pid {command.process.pid if command.process else 0}" in second
    assert command.end() == 0
    assert os.listdir(registry) == os.listdir(command.socket.parent) == []


def _ask(path: Path) -> str:
    places = os.pathsep.join([str(ROOT / "api"), *(one for one in sys.path if one)])
    done = subprocess.run(
        [sys.executable, "-c", ASK, path], env={"PYTHONPATH": places}, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_volumes_without_kubernetes(command: Command, tmp_path: Path) -> None:
    """The verbs without a driver that runs, and beside one: they are told the pool once."""
    assert "no driver was started here yet" in command.run("--pool", str(command.pool), "list", rc=1)
    made = command.run("--pool", str(command.pool), "create", "data", "--size", "64Mi").strip()
    place = tmp_path / "mnt"
    place.mkdir()
    for beside in (False, True):
        if beside:
            command.start()
        command.run("mount", "data", str(place))
        (place / "file").write_text("x" * 1000)
        row = next(one for one in command.json("list") if one["name"] == "data")
        assert (row["size"], row["kind"], row["at"]) == ((70 if beside else 64) * MIB, "volume", [str(place)])
        assert command.json("show", "data")["id"] == made
        assert command.run("expand", "data", "80Mi" if beside else "70Mi").strip() == str((80 if beside else 70) * MIB)
        snapshot, clone = f"s{beside}", f"c{beside}"
        command.run("snapshot", "data", snapshot)
        command.run("clone", snapshot, clone, "--size", "90Mi")
        command.run("clone", "data", clone + "2")
        assert "in use" in command.run("delete", "data", rc=1)
        command.run("unmount", "data", str(place))
        command.run("mount", clone, str(place))
        assert (place / "file").read_text() == "x" * 1000
        command.run("unmount", clone, str(place))
        for name in (snapshot, clone, clone + "2"):
            command.run("delete", name)
    assert command.json("usage")[0]["promised"] >= 79 * MIB
    assert "btrfs" in command.json("doctor", "--pool", str(command.pool))[0]["why"]
    table = command.run("list").splitlines()
    assert table[0].split() == ["NAME", "KIND", "SIZE", "OWN", "CLASS", "LAYOUT", "AT"]
    assert table[1].split()[:3] == ["data", "volume", "80Mi"]
    command.run("delete", "data")
    assert command.json("list") == []


def test_words_that_mean_nothing(command: Command) -> None:
    """Exit status 2 and one line that says what would be right."""
    for words, said in (
        (("lst",), "did you mean 'list'?"),
        (("--pol", "/x"), "did you mean --pool?"),
        (("--pool", "relative", "list"), "absolute path"),
        (("--pool", "/x,clas=y", "list"), "class, backend, over"),
        (("--pool", "/x,over=0.5", "list"), "factor"),
        (("--pool", "/x", "--pool", "/y", "list"), "two pools"),
        (("create",), "ocirt-csi create NAME"),
        (("list", "--dry-run"), "does not take --dry-run"),
        (("--endpoint", "tcp://1:1", "list"), "no address"),
        (("--name", "No Name", "list"), "name of a driver"),
        (("--node-id",), "needs a value"),
        ((), "there is no pool"),
    ):
        line = command.run(*words, rc=2)
        assert said in line
        assert line.count("\n") == 1


def test_a_file_says_it_all(command: Command, tmp_path: Path) -> None:
    """And what it says wrongly is named."""
    file = tmp_path / "csi.toml"
    file.write_text(f'node_id = "n"\nmax_volumes = 3\n[[pools]]\ndirectory = "{command.pool}"\nclass = "fast"\nover = 2.0\n')
    command.run("--config", str(file), "create", "data", "--size", "1Gi", "--class", "fast")
    assert command.json("--config", str(file), "usage")[0]["over"] == "2.0"
    for text, said in (
        ("node = 1", "there is no key 'node'"),
        ("max_volumes = true", "wrong kind"),
        ("[[pools]]\nclass = 1", "absolute"),
    ):
        file.write_text(text)
        assert said in command.run("--config", str(file), "list", rc=2)


def test_state_that_was_lost(command: Command) -> None:
    """fsck makes it again of what the pool holds; gc takes away what nobody can make sense of."""
    for name in "ab":
        command.run("--pool", str(command.pool), "create", name, "--size", "32Mi")
    command.run("snapshot", "a", "s")
    before = sorted((one["name"], one["kind"], one["size"]) for one in command.json("list"))
    for path in (command.work / "state").iterdir():
        path.unlink()
    half = command.pool / "volumes" / f"vol-{'a' * 24}"
    half.mkdir()
    (half / "data").write_text("x")
    command.start()
    assert (
        "3 volumes or snapshots" in (command.work / "log").read_text()
        or "4 volumes or snapshots" in (command.work / "log").read_text()
    )
    assert "the driver runs" in command.run("fsck", rc=1)
    assert len(command.json("fsck", "--dry-run", rc=1)) == 4
    assert command.json("list") == []
    command.end()
    assert sorted(one["done"] for one in command.json("fsck")) == ["adopted", "adopted", "adopted", "see gc"]
    assert sorted((one["name"], one["kind"], one["size"]) for one in command.json("list")) == before
    assert [one["where"] for one in command.json("gc", "--dry-run")] == [str(half)]
    assert half.exists()
    command.run("gc")
    assert not half.exists()
    assert command.json("fsck") == []
    for name in ("s", "a", "b"):
        command.run("delete", name)


def test_a_driver_that_is_killed(command: Command) -> None:
    """The next one has all that it had."""
    command.start()
    made = command.run("create", "data", "--size", "32Mi").strip()
    assert command.end(signal.SIGKILL) == -signal.SIGKILL
    command.start()
    assert command.run("create", "data", "--size", "32Mi").strip() == made
    command.run("delete", "data")
    assert command.end() == 0


def test_moving(command: Command) -> None:
    """A snapshot goes as a stream into another pool and back, whole or as what differs, beside a driver and without one."""
    stream, more = command.work / "stream", command.work / "more"
    command.run("--pool", str(command.pool), "create", "data", "--size", "64M")
    target = command.work / "point"
    target.mkdir()
    command.run("mount", "data", str(target))
    (target / "file").write_bytes(b"a" * MIB)
    command.run("snapshot", "data", "first")
    (target / "file").write_bytes(b"b" * MIB)
    command.run("snapshot", "data", "second")
    command.run("unmount", "data", str(target))
    send(command, stream, "first")
    send(command, more, "second", "--from", "first")
    send(command, command.work / "now", "data")
    assert stream.stat().st_size > MIB
    assert [one["name"] for one in command.json("list")] == ["data", "first", "second"]
    for name in ("data", "first", "second"):
        command.run("delete", name)
    command.start()
    assert "base" in receive(command, more, "late", rc=1) or "parent" in receive(command, more, "late", rc=1)
    receive(command, stream)
    assert "exists" in receive(command, stream, rc=1)
    receive(command, more)
    assert command.end() == 0
    receive(command, command.work / "now", "third")
    for name, text in (("first", b"a"), ("second", b"b"), ("third", b"b")):
        command.run("clone", name, f"of-{name}")
        command.run("mount", f"of-{name}", str(target))
        assert (target / "file").read_bytes() == text * MIB
        command.run("unmount", f"of-{name}", str(target))
    assert list((command.pool / "arrivals").iterdir()) == []


def test_streams_that_are_none(command: Command) -> None:
    """Nothing is left of them, and where there is no btrfs it is said."""
    command.run("--pool", str(command.pool), "create", "data", "--size", "64M", "--fs-type", "ext4")
    assert "is an image: btrfs alone" in send(command, command.work / "stream", "data", rc=1)
    head = b'ocirt-csi-snapshot-1 {"name":"x","volume":"v","size":1000000,"referenced":0,"created":1,"base":""}\n'
    for bad in (
        b"",
        b"hello\n",
        head[:30],
        head.replace(b"1000000", b'"many"'),
        head.replace(b'"x"', b'"\\u0000"'),
        head + b"junk",
    ):
        (command.work / "stream").write_bytes(bad)
        assert receive(command, command.work / "stream", rc=1) != ""
    arrivals = command.pool / "arrivals"
    assert list(arrivals.iterdir()) == []
    (arrivals / "in-0").mkdir()
    (arrivals / "in-0" / "file").write_text("x")
    command.run("gc")
    assert list(arrivals.iterdir()) == []


def send(command: Command, to: Path, *words: str, rc: int = 0) -> str:
    with to.open("wb") as file:
        done = subprocess.run(command.argv("send", *words), stdout=file, stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == rc, done.stderr
    return done.stderr.decode()


def receive(command: Command, of: Path, *words: str, rc: int = 0) -> str:
    with of.open("rb") as file:
        done = subprocess.run(command.argv("receive", *words), stdin=file, capture_output=True, check=False, timeout=60)
    assert done.returncode == rc, done.stderr
    return done.stderr.decode()
