"""The daemon's small parts: locks, the store, files of pods, errors' status, what CNI is told."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import creation, files
from ocirt_cri.errors import DeadlineError, status_of
from ocirt_cri.locks import Locks
from ocirt_cri.model import Container, Sandbox
from ocirt_cri.node import find
from ocirt_cri.sandboxes import capabilities_of, quantity
from ocirt_cri.spec import inputs
from ocirt_cri.store import Store
from ocirt_images.errors import Error as ImageError


def test_a_lock_names_who_has_it(tmp_path: Path) -> None:
    code = "import sys; from ocirt_cri.locks import Locks; Locks(*sys.argv[1:]); print('held', flush=True); sys.stdin.read()"
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    words = [sys.executable, "-c", code, str(tmp_path / "r"), str(tmp_path / "v")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for root, state in (("r", "new"), ("new2", "v")):
            with pytest.raises(Error, match=f"process {other.pid}"):
                Locks(str(tmp_path / root), str(tmp_path / state))
        other.communicate()
    Locks(str(tmp_path / "r"), str(tmp_path / "v")).release()
    with pytest.raises(Error, match="the same directory"):
        Locks(str(tmp_path / "r"), str(tmp_path / "r"))


def _sandbox(identifier: str = "s1") -> Sandbox:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="n", uid="u", namespace="ns"))
    found = Sandbox(identifier, config, cri.PodSandboxStatus(id=identifier, metadata=config.metadata), boot_id="b")
    found.namespaces = {"network": "/run/netns/x"}
    return found


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(str(tmp_path / "db"))
        config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="c"), envs=[cri.KeyValue(key="k", value=b"\xff")])
        container = Container("c1", "s1", config, cri.ContainerStatus(id="c1", metadata=config.metadata))
        container.process = {"args": ["a", "\udcff"]}
        container.set_ended(3, 5)
        await asyncio.gather(store.put(_sandbox(), container), *(store.put(_sandbox(f"s{number}")) for number in range(2, 40)))
        await store.delete(_sandbox("s3"))
        store.set_meta("instance", "word")
        await store.close()
        again = Store(str(tmp_path / "db"))
        assert again.meta("instance") == "word"
        assert len(again.sandboxes()) == 38
        (sandbox,) = [one for one in again.sandboxes() if one.id == "s1"]
        assert (sandbox.namespaces, sandbox.boot_id, sandbox.key) == ({"network": "/run/netns/x"}, "b", ("ns", "n", "u", "0"))
        (found,) = again.containers()
        assert (found.process, found.status, found.config) == (container.process, container.status, container.config)
        assert found.exited.is_set()
        await again.close()

    asyncio.run(run())
    with sqlite3.connect(tmp_path / "db") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Error, match="a later one: it has version 99 of its tables"):
        Store(str(tmp_path / "db"))


def test_a_write_that_fails_is_told_to_who_waits_and_to_nobody_else(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(str(tmp_path / "db"))
        store._connection.execute("DROP TABLE pods")
        with pytest.raises(sqlite3.Error):
            await store.put(_sandbox())
        config = cri.ContainerConfig()
        await store.put(Container("c1", "s1", config, cri.ContainerStatus()))
        await store.close()

    asyncio.run(run())


def test_what_a_full_disk_did_not_take_goes_with_the_next_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is to be made is refused; what has happened is kept in mind."""

    async def run() -> list[tuple[str, str]]:
        store = Store(str(tmp_path / "db"))
        store._connection.execute("PRAGMA max_page_count = 1")  # no more than there are
        big = Container("c1", "s1", cri.ContainerConfig(log_path="x" * 100_000), cri.ContainerStatus())
        with pytest.raises(Error, match="cannot be written down") as caught:
            await store.put(big)
        assert (caught.value.code, store.broken != "") == ("exhausted", True)
        await store.note(big)
        await store.note(gone := Container("c2", "s1", cri.ContainerConfig(log_path="x" * 100_000), cri.ContainerStatus()))
        await store.delete(gone)
        store._connection.execute("PRAGMA max_page_count = 1000")
        big.phase = "removing"
        await store.put(_sandbox())
        assert store.broken == ""
        found = [(one.id, one.phase) for one in store.containers()]
        await store.close()
        return found

    assert asyncio.run(run()) == [("c1", "removing")]
    assert "cannot be written down" in caplog.text


def test_files_of_a_pod(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("127.0.0.1 localhost host\n")
    (etc / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    made = files.make(str(tmp_path / "pod"), cri.PodSandboxConfig(), "web", (0, 0), etc=str(etc))
    assert Path(made["hosts"]).read_text() == "127.0.0.1 localhost host\n"
    assert Path(made["resolv.conf"]).read_text() == "nameserver 9.9.9.9\n"
    assert Path(made["hostname"]).read_text() == "web\n"
    dns = cri.DNSConfig(servers=["1.1.1.1", "::1"], searches=["a", "b"], options=["ndots:5"])
    again = files.make(str(tmp_path / "pod"), cri.PodSandboxConfig(dns_config=dns), "web", (0, 0), etc=str(tmp_path / "none"))
    text = Path(again["resolv.conf"]).read_text()
    assert text == "search a b\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:5\n"
    assert "localhost" in Path(again["hosts"]).read_text()
    for path in made.values():
        assert Path(path).stat().st_mode & 0o777 == 0o644
    files.remove(str(tmp_path / "pod"))
    files.remove(str(tmp_path / "pod"))


@pytest.mark.parametrize(
    ("err", "wanted"),
    [
        (Error("not-found", "x"), status.NOT_FOUND),
        (ImageError("exhausted", "x"), status.RESOURCE_EXHAUSTED),
        (DeadlineError("x"), status.DEADLINE_EXCEEDED),
        (OSError(5, "x"), status.UNKNOWN),
        (OSError(28, "x"), status.RESOURCE_EXHAUSTED),
        (KeyError("x"), status.INTERNAL),
    ],
)
def test_the_status_of_an_error(err: Exception, wanted: int) -> None:
    assert status_of(err) == wanted


def test_ids_may_be_cut() -> None:
    known = {one.id: one for one in (_sandbox("abc"), _sandbox("abd"), _sandbox("ab"))}
    assert find(known, "ab", "f") is known["ab"]
    assert find(known, "abc", "f") is known["abc"]
    assert find(known, "x", "f") is None
    with pytest.raises(Error, match="3 ids begin with 'a'"):
        find(known, "a", "f")
    with pytest.raises(Error, match="is missing"):
        find(known, "", "f")


def test_what_plugins_are_told() -> None:
    config = cri.PodSandboxConfig(
        port_mappings=[
            cri.PortMapping(protocol=cri.UDP, host_port=53, container_port=5353, host_ip="127.0.0.1"),
            cri.PortMapping(container_port=80),
        ],
        annotations={"kubernetes.io/ingress-bandwidth": "10M"},
        dns_config=cri.DNSConfig(servers=["1.1.1.1"]),
    )
    assert capabilities_of(config) == {
        "portMappings": [{"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"}],
        "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": (1 << 31) - 1},
        "dns": {"servers": ["1.1.1.1"], "searches": [], "options": []},
    }
    assert capabilities_of(cri.PodSandboxConfig()) == {}
    assert (quantity("1Ki", "f"), quantity("7", "f")) == (1024, 7)
    for text in ("", "M", "1.5M", "1X", "-1"):
        with pytest.raises(Error, match="no rate"):
            quantity(text, "f")


def test_a_directory_that_another_has_made_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount's source may come to be between the look and the making: it is not given to the container's user."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    theirs, ours = tmp_path / "theirs", tmp_path / "deep" / "ours"
    theirs.mkdir(0o700)
    for path in (theirs, ours):
        creation._make_directory(inputs.Directory(path=str(path), uid=7, gid=8))
    assert given == [(7, 8)]
    assert theirs.stat().st_mode & 0o777 == 0o700
    assert ours.is_dir()
