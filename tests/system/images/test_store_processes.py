"""Processes that want the same content at the same time: one fetches, the others wait and see how far it is, a dead one is
followed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ocirt_images.digest import Digest
from ocirt_images.store import Store
from ocirt_images.store.checks import fsck
from tests.support.store.samples import bytes_of, descriptor, unpack

ROOT = Path(__file__).resolve().parents[3]
SIZE = 60_000
DIGESTS = 6
# Each process wants all contents, in an order of its own; the first owner of all is killed in the middle of its content.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from ocirt_images.store import Store
from tests.support.store.samples import bytes_of, descriptor

root, number, count, size, log = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]

def said(**what):
    line = (json.dumps({"process": number, **what}) + "\\n").encode()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)

sys.stdin.readline()  # all begin at once
with Store.open(root, sync=False) as store, store.leases.lease(str(number)) as lease:
    for turn in range(count):
        name = str((turn + number // 2) % count)
        data = bytes_of(name, size)
        waiting = lambda done: said(name=name, waiting=done)
        found = store.content.ingest(descriptor(data), lease, waiting=waiting)
        if found is not None:
            with found:
                for start, end in found.missing:
                    while start < end:
                        stop = min(start + 1000, end)
                        said(name=name, fetched=[start, stop])
                        found.write_at(start, data[start:stop])
                        start = stop
                        if number == 0 and start == size // 2:
                            sys.stdout.write("half\\n")
                            sys.stdout.flush()
                            sys.stdin.readline()  # held here until it is killed
                found.commit()
    sys.stdout.write("done\\n")
    sys.stdout.flush()
    sys.stdin.readline()  # its leases hold until all are done
"""


def start(root: Path, number: int, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(root), str(number), str(DIGESTS), str(SIZE), str(log)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'images'}"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_four_processes_fetch_each_byte_once_though_the_first_owner_is_killed(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    log.touch()
    Store.open(root, sync=False).close()
    processes = [start(root, number, log) for number in range(4)]
    try:
        go_on(processes[0])
        assert line(processes[0]) == "half"
        for process in processes[1:]:
            go_on(process)
        # Someone waits for the content that the first one holds, and has been told how far it is; then it is killed.
        while not any(entry["name"] == "0" and "waiting" in entry for entry in entries(log)):
            time.sleep(0.02)
        processes[0].send_signal(signal.SIGKILL)
        assert processes[0].wait() == -signal.SIGKILL
        assert [line(process) for process in processes[1:]] == ["done"] * 3
        with Store.open(root, sync=False) as store:
            for name in range(DIGESTS):
                data = bytes_of(str(name), SIZE)
                assert store.content.read(Digest.of(data)) == data
        for process in processes[1:]:
            go_on(process)
            assert process.wait() == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
    fetched: dict[str, list[tuple[int, int]]] = {}
    for entry in entries(log):
        if "fetched" in entry:
            begin, end = entry["fetched"]
            fetched.setdefault(entry["name"], []).append((begin, end))
    whole = [(start, start + 1000) for start in range(0, SIZE, 1000)]
    assert fetched.keys() == {str(name) for name in range(DIGESTS)}
    assert all(sorted(ranges) == whole for ranges in fetched.values()), "each range was fetched once, by whomever"
    told = [entry["waiting"] for entry in entries(log) if entry["name"] == "0" and "waiting" in entry]
    assert told[0] == SIZE // 2, "who waited was told how far the killed one was"
    killed = {entry["process"] for entry in entries(log) if entry.get("name") == "0" and "fetched" in entry}
    assert len(killed) == 2, "the killed owner's content was finished by one other"
    assert fsck(root, sync=False) == []


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in log.read_text().splitlines()]


def test_the_layer_of_a_killed_owner_is_begun_anew(tmp_path: Path) -> None:
    root = tmp_path / "store"
    chain = Digest.of(b"a layer")
    Store.open(root, sync=False).close()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with Store.open(root, sync=False) as store, store.leases.lease() as lease:
                staged = store.layers.stage(chain, parent=None, diff_id=chain, lease=lease)
                assert staged is not None
                (staged.path / "half").write_text("half")
                staged.report(12345)
                os.write(writing, b"x")
                signal.pause()
        finally:
            os._exit(1)
    seen: list[int] = []

    def waiting(done: int) -> None:
        if not seen:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        seen.append(done)

    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    with Store.open(root, sync=False) as store, store.leases.lease() as lease:
        staged = store.layers.stage(chain, parent=None, diff_id=chain, lease=lease, waiting=waiting)
        assert staged is not None
        assert list(staged.path.iterdir()) == []
        staged.discard()
        assert unpack(store, chain, None, chain, lease) is not None
    assert seen[0] == 12345
    assert fsck(root, sync=False) == []


def test_the_lease_of_a_killed_process_goes_and_its_content_stays_for_the_next(tmp_path: Path) -> None:
    root = tmp_path / "store"
    data = bytes_of("left", 1000)
    pid = os.fork()
    if not pid:
        try:
            store = Store.open(root, sync=False)
            store.content.put(data, Digest.of(data), store.leases.lease("pull of something"))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    with Store.open(root, sync=False) as store:
        assert store.leases.list() == []
        with store.leases.lease() as lease:
            assert store.content.ingest(descriptor(data), lease) is None
        assert not store.content.has(Digest.of(data))
