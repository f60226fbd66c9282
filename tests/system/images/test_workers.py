"""Worker processes: what confines them, how they end, and who is told."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.apply.source import Growing
from ocirt_images.apply.worker import Job, Workers
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from tests.support.archives import END, directory, file, link

ROOT = Path(__file__).resolve().parents[3]
ARCHIVE = directory(b"d", 0o755) + file(b"d/f", b"data" * 1000) + link(b"g", b"d/f") + END
ALL = ("mounts", "network", "ipc", "pids", "no-new-privileges", "landlock", "capabilities")


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(2) as made:
        yield made


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    count = iter(range(1000))

    def make(archive: bytes = ARCHIVE, **fields: Any) -> Job:
        number = next(count)
        source, target = tmp_path / f"{number}.tar", tmp_path / str(number)
        source.write_bytes(archive)
        target.mkdir()
        return Job(source=source, target=target, **fields)

    return make


def children(pid: int) -> list[int]:
    """The children of a process, as the kernel lists them."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def server(workers: Workers) -> int:
    assert workers._server is not None
    return workers._server.pid


def working(workers: Workers) -> int:
    """The process that does the only job, once it is there."""
    for _ in range(10_000_000):
        if workers._server is not None and (found := children(server(workers))):
            return found[0]
        os.sched_yield()
    raise AssertionError("no worker")


def waiting(job: Callable[..., Job], **fields: Any) -> Job:
    """A job that waits for more of its file, for ever."""
    growing = Growing(len(ARCHIVE))
    growing.advance(1000)
    return job(growing=growing, **fields)


def test_applied(workers: Workers, job: Callable[..., Job]) -> None:
    made = workers.apply(job()).result(timeout=60)
    assert (made.diff_id, made.digest, made.length) == (Digest.of(ARCHIVE), None, len(ARCHIVE))
    assert (made.inodes, made.size, made.sandbox) == (2, 8192, ALL)
    assert made.needs.parents == [b""]


def test_many(workers: Workers, job: Callable[..., Job]) -> None:
    """More than there are workers for: one server, and at most two at a time."""
    jobs = [job() for _ in range(12)]
    futures = [workers.apply(one) for one in jobs]
    assert {future.result(timeout=60).diff_id for future in futures} == {Digest.of(ARCHIVE)}
    assert all((one.target / "g").read_bytes() == b"data" * 1000 for one in jobs)
    pid = server(workers)
    assert workers.apply(job()).result(timeout=60)
    assert server(workers) == pid


def test_a_growing_file(workers: Workers, job: Callable[..., Job]) -> None:
    """Applied while it arrives: what is there can be seen before the rest is."""
    archive = ARCHIVE[:-1024] + file(b"late", os.urandom(3 << 20)) + END
    data = gzip.compress(archive, 1)
    growing = Growing(len(data))
    one = job(b"", compression="gzip", growing=growing, diff_id=Digest.of(archive), digest=Digest.of(data))
    future = workers.apply(one)
    with one.source.open("r+b", buffering=0) as file_:
        file_.truncate(len(data))
        for at in range(0, len(data), 100_000):
            file_.write(data[at : at + 100_000])
            growing.advance(at + 100_000)
    assert future.result(timeout=60).digest == Digest.of(data)


def test_an_abandoned_download(workers: Workers, job: Callable[..., Job]) -> None:
    one = waiting(job)
    future = workers.apply(one)
    assert one.growing is not None
    one.growing.abandon()
    with pytest.raises(Error, match=r"the download ended after \d+ of"):
        future.result(timeout=60)


def test_a_killed_worker(workers: Workers, job: Callable[..., Job]) -> None:
    one = waiting(job, name="layer of the test")
    future = workers.apply(one)
    os.kill(working(workers), signal.SIGKILL)
    with pytest.raises(Error, match="layer of the test: the worker died of SIGKILL") as caught:
        future.result(timeout=60)
    assert caught.value.code == "unavailable"
    assert workers.apply(job()).result(timeout=60), "the others go on"


def test_a_killed_server(workers: Workers, job: Callable[..., Job]) -> None:
    """All its workers die with it; the next job starts another."""
    future = workers.apply(waiting(job))
    worker = working(workers)
    pidfd = os.pidfd_open(worker)
    old = server(workers)
    os.kill(old, signal.SIGKILL)
    with pytest.raises(Error, match="the worker died of SIGKILL"):
        future.result(timeout=60)
    assert signal.pidfd_send_signal is not None
    _await_end(pidfd)
    assert workers.apply(job()).result(timeout=60)
    assert server(workers) != old


def test_close_ends_what_works(job: Callable[..., Job]) -> None:
    workers = Workers(1)
    running, queued = workers.apply(waiting(job)), workers.apply(waiting(job))
    working(workers)
    workers.close()
    with pytest.raises(Error, match="closed"):
        running.result(timeout=60)
    assert queued.cancelled()
    with pytest.raises(Error, match="closed"):
        workers.apply(job())


def _await_end(pidfd: int) -> None:
    import select  # noqa: PLC0415

    assert select.select([pidfd], [], [], 60)[0], "it still runs"
    os.close(pidfd)


def test_the_parents_death(job: Callable[..., Job], tmp_path: Path) -> None:
    """A parent that is killed takes the server and its workers with it."""
    code = """
        import sys
        from pathlib import Path
        from ocirt_images.apply.source import Growing
        from ocirt_images.apply.worker import Job, Workers
        workers = Workers(1)
        future = workers.apply(Job(source=Path(sys.argv[1]), target=Path(sys.argv[2]), growing=Growing(9999)))
        while workers._server is None: pass
        print(workers._server.pid, flush=True)
        future.result()
    """
    one = job()
    command = [sys.executable, "-c", textwrap.dedent(code), str(one.source), str(one.target)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": "images"})
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    found: list[int] = []
    while not found:
        found = children(pid)
    pidfds = [os.pidfd_open(one) for one in (pid, *found)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for pidfd in pidfds:
        _await_end(pidfd)


CONFINED = """
    import errno, os, socket, sys
    from ocirt_images.apply import sandbox, libc
    target, outside = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in sys.argv[1:3])
    mounts = sys.argv[3] == "all"
    if mounts:
        sandbox.enter()
    sandbox.confine(target)

    def refused(action, *numbers):
        try:
            action()
        except OSError as err:
            assert err.errno in numbers, err
        else:
            raise AssertionError(action)

    os.close(os.open("mine", os.O_CREAT | os.O_WRONLY, dir_fd=target))
    os.mkdir("d", dir_fd=target)
    os.link("mine", "d/linked", src_dir_fd=target, dst_dir_fd=target)
    os.mknod("gone", 0o020000, 0, dir_fd=target)
    denied = (errno.EACCES, errno.EXDEV)
    refused(lambda: os.open("../escaped", os.O_CREAT | os.O_WRONLY, dir_fd=target), *denied)
    refused(lambda: os.open("owned", os.O_CREAT | os.O_WRONLY, dir_fd=outside), *denied)
    refused(lambda: os.open("secret", os.O_WRONLY, dir_fd=outside), *denied)
    refused(lambda: os.open("secret", os.O_RDONLY, dir_fd=outside), *denied)
    refused(lambda: os.unlink("secret", dir_fd=outside), *denied)
    refused(lambda: os.rename("mine", "moved", src_dir_fd=target, dst_dir_fd=outside), *denied)
    refused(lambda: os.open("mine", os.O_RDONLY, dir_fd=target), *denied)
    refused(lambda: libc.mount(b"tmpfs", b"/", b"tmpfs", 0), errno.EPERM)
    refused(lambda: libc.unshare(libc.CLONE_NEWNS), errno.EPERM)
    for name in ("trusted.overlay.opaque", "trusted.a", "security.ima", "security.evm"):
        refused(lambda: os.setxattr(target, name, b"y"), errno.EPERM)
    if libc.landlock_version() >= 6:  # before Linux 6.12 a pid namespace is all there is against signals
        refused(lambda: os.kill(1, 0), errno.EPERM)
    refused(lambda: os.chroot("/"), errno.EPERM, errno.EACCES)
    if mounts:
        assert os.getcwd() == "/"
        refused(lambda: os.open("/etc", os.O_RDONLY), errno.ENOENT)
        with socket.socket() as sock:
            refused(lambda: sock.connect(("127.0.0.1", 9)), errno.ENETUNREACH, errno.EACCES)
    assert libc.capget() == sandbox.KEPT, hex(libc.capget())
    print("held")
"""


LEFT_BEHIND = """
    import os, signal, time
    from ocirt_images.apply import sandbox
    forks = sandbox.Forks()
    assert forks.had == ("pids",)
    for _ in range(2):  # each in a namespace of its own
        end, start = os.pipe()
        worker = forks.fork()
        if not worker:
            os.close(end)
            assert os.getpid() == 1
            if not os.fork():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.setsid()
                os.write(start, b"left")
                while True:
                    time.sleep(60)
            signal.pause()
        os.close(start)
        assert os.read(end, 4) == b"left"
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        assert os.read(end, 1) == b""  # the last writer is gone
        os.close(end)
    if not os.fork():
        assert os.getpid() != 1
        os._exit(0)
    assert os.wait()[1] == 0
    print("gone")
"""


def test_nothing_that_a_worker_starts_outlives_it() -> None:
    command = [sys.executable, "-c", textwrap.dedent(LEFT_BEHIND)]
    environment = {"PYTHONPATH": "images"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.stdout == "gone\n", done.stderr


BORN_LATE = """
    import os, signal
    from ocirt_images.apply.server import _die_with
    release, hold = os.pipe()
    server = os.fork()
    if not server:
        os.close(hold)
        os.read(release, 1)
        os._exit(0)
    for expected in (0, 1):  # while it lives, and afterwards
        worker = os.fork()
        if not worker:
            _die_with(os.pidfd_open(server))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == expected
        if not expected:
            os.close(hold)
            os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    print("gone")
"""


def test_a_worker_whose_server_died_before_it_could_ask_to_die_with_it() -> None:
    command = [sys.executable, "-c", textwrap.dedent(BORN_LATE)]
    environment = {"PYTHONPATH": "images"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.stdout == "gone\n", done.stderr


@pytest.mark.parametrize("what", ["all", "landlock alone"])
def test_the_sandbox_holds(tmp_path: Path, what: str) -> None:
    """Whatever code runs in a worker, even with a descriptor of another directory."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    command = [sys.executable, "-c", textwrap.dedent(CONFINED), str(target), str(outside), what]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": "images"}, check=False)
    assert done.stdout == "held\n", done.stderr
    assert os.listdir(outside) == ["secret"]
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]


def test_no_way_up_from_the_target(job: Callable[..., Job]) -> None:
    """The descriptor that a worker gets is a mount of its own."""
    from ocirt_images.apply.worker import _open_target  # noqa: PLC0415

    one = job()
    fd = _open_target(one)
    try:
        assert os.path.samestat(os.stat("..", dir_fd=fd), os.fstat(fd))
        assert os.path.samestat(one.target.stat(), os.fstat(fd))
    finally:
        os.close(fd)


ROOTLESS = """
    import os, sys
    from pathlib import Path
    from ocirt_images.apply.settle import settle
    from ocirt_images.apply.worker import Job, Workers
    from ocirt_images.errors import Error
    source, top = Path(sys.argv[1]), Path(sys.argv[2])
    with Workers(1) as workers:
        (top / "a").mkdir()
        (top / "lower").mkdir()
        (top / "lower/gone").touch()
        made = workers.apply(Job(source=source, target=top / "a", squash=True, devices=False, xattrs="user")).result()
        settle(made.needs, top / "a", [top / "lower"], xattrs="user")
        print(made.sandbox, made.skipped)
        (top / "b").mkdir()
        try:
            workers.apply(Job(source=source, target=top / "b")).result()
        except Error as err:
            print(err.code, err)
"""


def test_an_ordinary_user(no_leaks: list[Path]) -> None:
    from tests.support.archives import header  # noqa: PLC0415

    archive = (
        directory(b"d", 0o500, uid=33) + file(b"d/f", b"x", mode=0o4755, uid=33) + header(b"null", b"3", device=(1, 3))
        + file(b".wh.gone") + file(b"d/.wh..wh..opq") + END
    )  # fmt: skip
    top = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    no_leaks.append(top)
    (top / "layer.tar").write_bytes(archive)
    for path in (top, top / "layer.tar"):
        os.chown(path, 65534, 65534)
    command = [sys.executable, "-c", textwrap.dedent(ROOTLESS), str(top / "layer.tar"), str(top)]
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": [], "env": {"PYTHONPATH": "images"}}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **user)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "('no-new-privileges', 'landlock') 1"
    assert second.startswith("kernel layer")
    assert "the owners of its files need ids that are mapped here" in second
    assert (top / "a/d/f").stat().st_mode & 0o7777 == 0o4755
    assert (top / "a/gone").is_char_device()
    assert os.getxattr(top / "a/d", "user.overlay.opaque") == b"y"


IN_A_NAMESPACE = """
    import sys
    from concurrent.futures import wait
    from pathlib import Path
    from ocirt_images.apply.worker import Job, Workers
    source, top = Path(sys.argv[1]), Path(sys.argv[2])
    with Workers(2) as workers:
        jobs = []
        for number in range(12):
            (top / str(number)).mkdir()
            ids = ((0, 0, 1),)
            jobs.append(Job(source=source, target=top / str(number), uids=ids, gids=ids, squash=True, devices=False))
        made = [future.result() for future in map(workers.apply, jobs)]
        print(*{one.sandbox for one in made})
"""


def test_root_of_a_user_namespace(tmp_path: Path) -> None:
    """The end of one worker is not that of the others: they are in no pid namespace, as there is no way back from one."""
    (tmp_path / "layer.tar").write_bytes(file(b"f", b"x", mode=0o4755, uid=33) + END)
    script = [sys.executable, "-c", textwrap.dedent(IN_A_NAMESPACE), str(tmp_path / "layer.tar"), str(tmp_path)]
    command = ["unshare", "--user", "--map-root-user", "--mount", *script]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": "images"}, check=False
    )
    assert done.stdout == "('mounts', 'network', 'ipc', 'no-new-privileges', 'landlock', 'capabilities')\n", done.stderr
    assert all((tmp_path / str(number) / "f").stat().st_uid == 0 for number in range(12))


def test_threads_share_the_workers(workers: Workers, job: Callable[..., Job]) -> None:
    results: list[object] = []

    def run() -> None:
        results.append(workers.apply(job()).result(timeout=60).diff_id)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Digest.of(ARCHIVE)] * 8


@pytest.mark.parametrize("what", ["source", "target"])
def test_what_is_not_there(workers: Workers, job: Callable[..., Job], what: str) -> None:
    one = job(name="layer of the test")
    path = getattr(one, what)
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(Error, match="layer of the test: .*No such file"):
        workers.apply(one).result(timeout=60)
