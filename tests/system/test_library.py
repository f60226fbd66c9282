"""`import ocirt` as a program uses it: by effect, with many threads, and when something is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ocirt
from ocirt.library.source import request
from ocirt.zygote import client
from tests.support.build import ROOT
from tests.support.bundle import make_rootfs
from tests.support.isolation import Isolation, cgroup_mounts
from tests.support.patience import SLOWNESS
from tests.support.runtime import Runtime, process_state, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available

pytestmark = pytest.mark.ocirt_only("the library is ocirt's own")

USER = 65534


class Library:
    """The library with the state root and the cgroups of the test."""

    def __init__(self, runtime: Runtime, isolation: Isolation, rootfs: Path) -> None:
        self.runtime = runtime
        self.rootfs = rootfs
        self._parent = isolation.cgroup_parent

    def words(self, given: dict[str, Any]) -> dict[str, Any]:
        """The keywords that every container of the test gets."""
        name = self.runtime.new_id()
        usual: dict[str, Any] = {"id": name, "root": self.runtime.root}
        if not {"bundle", "config"} & given.keys():
            usual["cgroup"] = f"{self._parent}/{name}"
            if "mounts" not in given:
                usual["rootfs"] = self.rootfs
        return usual | given

    def texts(self) -> dict[str, str]:
        """`words` for a program of its own."""
        return {key: str(value) for key, value in self.words({}).items()}

    def run(self, *args: Any, **given: Any) -> ocirt.CompletedProcess:
        return ocirt.run(list(args) or None, **self.words(given))

    def shell(self, script: str, **given: Any) -> ocirt.CompletedProcess:
        """A line of shell, with what it writes as text."""
        return self.run("sh", "-c", script, **({"capture_output": True, "text": True} | given))

    def create(self, *args: Any, **given: Any) -> ocirt.Container:
        return ocirt.Container.create(list(args) or None, **self.words(given))

    def names(self) -> list[str]:
        """What the command lists."""
        return self.runtime.call("list", "-q").ok().out.split() if self.runtime.root.exists() else []

    def running(self, name: str) -> int:
        """The pid of a container's init, once it runs."""
        wait_for(lambda: self.names() == [name] and self.runtime.status(name) == "running", "the container")
        return self.runtime.pid(name)


@pytest.fixture
def library(runtime: Runtime, isolation: Isolation, no_leaks: list[Path]) -> Iterator[Library]:
    """The library; its zygote ends with the test."""
    rootfs = Path(tempfile.mkdtemp(prefix="ocirt-test-"))
    no_leaks.append(rootfs)
    rootfs.chmod(0o755)
    make_rootfs(rootfs)
    ocirt.close()
    yield Library(runtime, isolation, rootfs)
    ocirt.close()


def zygote() -> int:
    """The pid of this process's zygote."""
    assert client._zygote is not None
    return client._zygote.pid


def program(text: str, **environment: str) -> subprocess.Popen[str]:
    """A Python program of its own, with the clone on its path."""
    code = f"import sys; sys.path.append({str(ROOT)!r})\n" + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


# -- run -----------------------------------------------------------------------------------------------------------------------


def test_run(library: Library) -> None:
    """Status, streams, environment, directory and user, as the keywords say; nothing is left."""
    done = library.shell("echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert library.shell("echo $A; pwd; id -u; id -g", env={"A": "b c"}, cwd="/tmp", user=(5, 6)).stdout == "b c\n/tmp\n5\n6\n"
    assert library.run("cat", input=b"\0\xff", capture_output=True).stdout == b"\0\xff"
    assert library.run("cat", input="é", capture_output=True, encoding="utf-16").stdout == "é"
    assert library.run("cat", stdin=ocirt.DEVNULL, stdout=ocirt.PIPE).stdout == b""
    done = library.shell("echo a; echo b >&2", capture_output=False, stdout=ocirt.PIPE, stderr=ocirt.STDOUT)
    assert (done.stdout, done.stderr) == ("a\nb\n", None)
    with pytest.raises(ocirt.CalledProcessError) as raised:
        library.shell("echo why; exit 3", check=True)
    assert (raised.value.returncode, raised.value.stdout) == (3, "why\n")
    assert library.names() == []


def test_a_signal_is_a_negative_status(library: Library) -> None:
    config = ocirt.config(["sh", "-c", "kill -TERM $$; sleep 9"], rootfs=library.rootfs)
    # The first process of a pid namespace would not hear its own signal.
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]
    config["linux"]["cgroupsPath"] = library.words({})["cgroup"]
    assert library.run(config=config).returncode == -signal.SIGTERM


def test_large_data_in_both_directions(library: Library) -> None:
    """More than pipes and sockets hold, at the same time."""
    data = os.urandom(1 << 20) * 24
    done = library.run("cat", input=data, capture_output=True)
    assert done.stdout == data
    done = library.shell("head -c 30000000 /dev/zero; head -c 3000000 /dev/zero >&2", text=False)
    assert (len(done.stdout), len(done.stderr)) == (30_000_000, 3_000_000)
    assert library.run("true", input=data).returncode == 0  # nobody reads it


def test_a_large_request(library: Library) -> None:
    """More than a socket holds."""
    done = library.shell("echo ${#A} ${#B}", env={"A": "x" * 100_000, "B": "é" * 50_000}, annotations={"a": "y" * 3_000_000})
    assert done.stdout.startswith("100000 ")


def test_output_is_limited(library: Library) -> None:
    done = library.shell("head -c 3000000 /dev/zero; echo x >&2", output_limit=1000)
    assert (len(done.stdout), done.stderr, done.truncated) == (1000, "x\n", True)
    assert not library.shell("echo x", output_limit=2).truncated


def test_a_file_is_a_stream(library: Library, tmp_path: Path) -> None:
    """The program gets a pipe, as with the command, and the file what it wrote, from where it stood."""
    (tmp_path / "in").write_text("one\ntwo\n")
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as target:
        target.write("head\n")
        target.flush()
        library.run("sh", "-c", "cat; test -p /dev/stdout && echo pipe", stdin=source, stdout=target).check_returncode()
    assert (tmp_path / "out").read_text() == "head\none\ntwo\npipe\n"


def test_a_bundle(library: Library, bundle: MakeBundle) -> None:
    """Its config.json, with what the keywords change."""
    made = bundle(args=["sh", "-c", "echo $X $TERM; pwd"], cwd="/tmp")
    made.edit(cgroupsPath=library.words({})["cgroup"])
    words = {"bundle": made.path, "capture_output": True, "text": True}
    assert library.run(**words).stdout == "xterm\n/tmp\n"
    assert library.run(**words, env={"X": "x"}, cwd="/").stdout == "x xterm\n/\n"
    assert library.run("hostname", **words).stdout == "ocirt-test\n"


def test_hooks_run_and_complain(library: Library, bundle: MakeBundle) -> None:
    """By the zygote's forks, never by the caller; what a poststop hook says is a warning."""
    made = bundle(args=["true"], hooks={"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", "echo sorry >&2; exit 1"]}]})
    made.edit(cgroupsPath=library.words({})["cgroup"])
    with pytest.warns(RuntimeWarning, match="poststop hook #0.*"):
        library.run(bundle=made.path)


def test_errors_are_the_commands(library: Library, tmp_path: Path) -> None:
    """Code, pointer and hint, and nothing is left."""
    with pytest.raises(ocirt.Error, match=r"/process/args/0.*nope.*no such file") as raised:
        library.run("/bin/nope")
    assert (raised.value.code, raised.value.subject) == ("invalid", "/process/args/0")
    with pytest.raises(ocirt.Error, match="/root"):
        library.run("true", rootfs=tmp_path / "nothing")
    with pytest.raises(ocirt.Error, match=r"/mounts/4.*nowhere"):
        library.run("true", mounts=[ocirt.bind("/nowhere")])
    config = ocirt.config(["true"], rootfs=library.rootfs) | {"hostname": 5}
    with pytest.raises(ocirt.Error, match="/hostname"):
        library.run(config=config)
    config = ocirt.config(["true"], rootfs=library.rootfs)
    config["process"]["terminal"] = True
    with pytest.raises(ocirt.Error, match="/process/terminal"):
        library.run(config=config)
    assert library.names() == []


def test_a_timeout_kills(library: Library) -> None:
    begin = time.monotonic()
    with pytest.raises(ocirt.TimeoutExpired) as raised:
        library.shell("echo early; sleep 1000 & sleep 1000", timeout=1)
    assert raised.value.stdout == b"early\n"
    assert time.monotonic() - begin < 20
    assert library.names() == []


def test_an_interrupt_kills(library: Library) -> None:
    """KeyboardInterrupt goes on to the caller once nothing is left."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    timer = threading.Timer(0.7, signal.pthread_kill, [main_thread, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        library.run("sleep", "1000")
    timer.join()
    assert library.names() == []
    assert library.run("true").returncode == 0


def test_a_container_ends_with_the_caller(library: Library) -> None:
    """However that ends: here without a chance to do anything. Its zygote goes too."""
    words = library.texts()
    caller = program(f"""
        import ocirt
        from ocirt.zygote import client
        ocirt.run(["true"], **{words!r})
        print(client._zygote.pid, flush=True)
        ocirt.run(["sh", "-c", "echo $$; sleep 1000"], **{words!r})
    """)
    assert caller.stdout is not None
    mother = int(caller.stdout.readline())
    assert caller.stdout.readline() == "1\n"
    init = library.running(words["id"])
    caller.kill()
    caller.communicate()
    wait_for(lambda: library.names() == [], "the container's end")
    for pid in (init, mother):
        wait_for(lambda pid=pid: process_state(pid) in (None, "Z"), f"the end of {pid}")  # type: ignore[misc]


def test_a_killed_zygote(library: Library) -> None:
    """What runs goes on, and the next call starts another."""
    library.run("true")
    first = zygote()
    results: list[ocirt.CompletedProcess] = []
    words = library.words({})
    reader, writer = os.pipe()

    def waits() -> None:
        results.append(ocirt.run(["sh", "-c", "echo there; cat"], stdin=reader, capture_output=True, text=True, **words))

    thread = threading.Thread(target=waits)
    thread.start()
    library.running(words["id"])
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: process_state(first) in (None, "Z"), "its end")
    assert library.shell("echo new").stdout == "new\n"
    assert zygote() != first
    for _ in range(5):  # at once: the fork that waits for a request may have it, and end with its zygote
        os.kill(zygote(), signal.SIGKILL)
        assert library.shell("echo new").stdout == "new\n"
    os.write(writer, b"late\n")
    os.close(writer)
    thread.join(20)
    os.close(reader)
    assert [(done.returncode, done.stdout) for done in results] == [(0, "there\nlate\n")]


def test_a_fork_loads_nothing(library: Library) -> None:
    """Whatever the zygote lacks, each fork would load again: a shared library alone takes a third of a millisecond."""
    words = library.words({})
    asked = request("run", ["true"], None, None, words["id"], words["root"], "cgroupfs", {"rootfs": library.rootfs})
    asked["config"]["linux"]["cgroupsPath"] = words["cgroup"]
    caller = program(f"""
        import array, os, socket
        from ocirt.zygote import main, wire
        main.load({str(ROOT)!r})
        from ocirt.zygote import rehearsal, server, work
        had = set(sys.modules)
        owner, null = os.pidfd_open(os.getpid()), os.open(os.devnull, os.O_RDWR)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told, tell = os.pipe()

        def job(fd):
            work.work(fd, owner)
            os.write(tell, repr(sorted(set(sys.modules) - had)).encode())

        if os.fork() == 0:
            control.close()
            server.serve(theirs.fileno(), owner, job, work.refuse, rehearsal.rehearse)
            os._exit(0)
        mine, other = socket.socketpair()
        control.sendmsg([b"n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [other.fileno()]))])
        other.close()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 3))]
        mine.sendmsg([wire.encode({asked!r})], rights)
        said = b""
        while more := mine.recv(1 << 16):
            said += more
        print(b'"status":0' in said, os.read(told, 1 << 16).decode())
    """)
    assert caller.communicate(timeout=60)[0] == "True []\n"


def test_a_killed_fork(library: Library) -> None:
    """The process that holds a container: an error that says so, and no container."""
    words = library.words({})
    errors: list[ocirt.Error] = []

    def waits() -> None:
        try:
            ocirt.run(["sleep", "1000"], **words)
        except ocirt.Error as err:
            errors.append(err)

    thread = threading.Thread(target=waits)
    thread.start()
    init = library.running(words["id"])
    parent = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{parent}/comm").read_text() == "ocirt-request\n"
    os.kill(parent, signal.SIGKILL)
    thread.join(20)
    [err] = errors
    assert (err.code, err.subject) == ("kernel", words["id"])
    assert library.names() == []
    wait_for(lambda: process_state(init) is None, "the end of init")


def test_a_fork_of_the_caller(library: Library) -> None:
    """It has a zygote of its own, and the caller's is not disturbed."""
    caller = program(f"""
        import ocirt, os
        from ocirt.zygote import client
        words = {library.texts()!r}
        ocirt.run(["true"], **words)
        first = client._zygote.pid
        pid = os.fork()
        if pid == 0:
            done = ocirt.run(["echo", "child"], capture_output=True, **words)
            print(done.stdout, client._zygote.pid != first, flush=True)
            ocirt.close()
            os._exit(0)
        os.waitpid(pid, 0)
        ocirt.run(["true"], **words)
        print(client._zygote.pid == first)
    """)
    assert caller.communicate(timeout=60)[0] == "b'child\\n' True\nTrue\n"


def test_a_caller_with_closed_streams_and_odd_signals(library: Library) -> None:
    """Descriptors 0 to 2 closed, SIGPIPE at its default, SIGCHLD ignored."""
    words = library.texts()
    place = library.runtime.work / "said"
    caller = program(f"""
        import ocirt, os, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.closerange(0, 3)
        done = ocirt.run(["sh", "-c", "read x; echo $? >&2"], stderr=ocirt.PIPE, **{words!r})
        again = ocirt.run(["cat"], stdout=ocirt.DEVNULL, input=b"x" * 1000000, **{words!r})
        open({str(place)!r}, "w").write(repr((done.stderr, done.returncode, again.returncode)))
    """)
    caller.communicate(timeout=60)
    assert place.read_text() == "(b'1\\n', 0, 0)"


# -- threads -------------------------------------------------------------------------------------------------------------------


def in_threads(count: int, job: Callable[[int], object]) -> None:
    """Call `job` in threads at once. Raises the first exception of one."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            job(number)
        except BaseException as err:  # noqa: BLE001
            failures.append(err)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_many_threads(library: Library) -> None:
    """8 threads at once beside one that never rests. OCIRT_TEST_LIBRARY_RUNS: how many each runs (500 for the full count)."""
    runs = int(os.environ.get("OCIRT_TEST_LIBRARY_RUNS", "15"))
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            sum(range(1000))

    def job(number: int) -> None:
        for turn in range(runs):
            words = library.words({})
            done = ocirt.run(["cat"], input=f"{number} {turn}", capture_output=True, text=True, timeout=120, **words)
            assert (done.returncode, done.stdout) == (0, f"{number} {turn}")

    restless = threading.Thread(target=busy)
    restless.start()
    before = len(os.listdir("/proc/self/fd"))
    try:
        in_threads(8, job)
    finally:
        stop.set()
        restless.join()
    assert library.names() == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the zygote's socket


def test_threads_share_a_container(library: Library) -> None:
    with library.create("sleep", "1000") as box:
        box.start()

        def job(number: int) -> None:
            for _ in range(5):
                assert box.exec(["echo", str(number)], capture_output=True, text=True).stdout == f"{number}\n"

        in_threads(4, job)
        waited: list[int | None] = []
        waiters = [threading.Thread(target=lambda: waited.append(box.wait(30))) for _ in range(3)]
        for thread in waiters:
            thread.start()
        box.kill("KILL")
        for thread in waiters:
            thread.join()
        assert waited == [-signal.SIGKILL] * 3


# -- containers ----------------------------------------------------------------------------------------------------------------


def test_the_life_of_a_container(library: Library) -> None:
    """create, start, exec, kill, wait, delete; the command sees the same."""
    script = "trap 'exit 3' TERM; echo ready; cat; while :; do sleep 0.1; done"
    box = library.create("sh", "-c", script, stdin=ocirt.PIPE, stdout=ocirt.PIPE)
    assert (box.status, library.names()) == ("created", [box.id])
    assert box.pid == library.runtime.pid(box.id)
    with pytest.raises(TimeoutError):
        box.wait(0.05)
    box.start()
    with pytest.raises(ocirt.Error, match="already running"):
        box.start()
    assert box.stdin is not None
    assert box.stdout is not None
    assert box.stdout.read(6) == b"ready\n"
    box.stdin.write(b"x")
    box.stdin.close()
    assert box.stdout.read(1) == b"x"
    done = box.exec(
        ["sh", "-c", "echo $A; pwd; id -u; hostname"], env={"A": "1"}, cwd="/tmp", user=9, stdout=ocirt.PIPE, text=True
    )
    assert done.stdout == "1\n/tmp\n9\nocirt\n"
    assert box.exec(["sh", "-c", "exit 5"]).returncode == 5
    with pytest.raises(ocirt.TimeoutExpired):
        box.exec(["sleep", "1000"], timeout=0.2)
    with pytest.raises(ocirt.Error, match="nope"):
        box.exec(["/nope"])
    again = ocirt.Container.load(box.id, library.runtime.root)
    assert (again.status, again.state) == ("running", box.state)
    assert [each.id for each in ocirt.Container.list(library.runtime.root)] == [box.id]
    box.kill("TERM")
    assert box.wait(20) == 3
    assert box.wait() == 3
    assert again.wait(5) is None
    assert (box.status, box.pid) == ("stopped", 0)
    with pytest.raises(ocirt.Error, match="not running") as raised:
        box.kill(9)
    assert raised.value.code == "state"
    box.delete()
    assert library.names() == []
    with pytest.raises(ocirt.Error, match="does not exist"):
        ocirt.Container.load(box.id, library.runtime.root)


def test_pause_and_resume(library: Library) -> None:
    with library.create("sleep", "1000") as box:
        box.start()
        box.pause()
        assert box.status == "paused"
        assert library.runtime.status(box.id) == "paused"
        with pytest.raises(ocirt.Error, match="paused"):
            box.exec(["true"])
        box.resume()
        assert box.exec(["true"]).returncode == 0
        box.pause()
    assert library.names() == []  # a frozen one is deleted too


def test_a_container_lives_on(library: Library) -> None:
    """After the end of who made it, and the command goes on with it."""
    words = library.texts()
    caller = program(f"""
        import ocirt
        box = ocirt.Container.create(["sleep", "1000"], **{words!r})
        box.start()
        print(box.pid)
    """)
    pid = int(caller.communicate(timeout=60)[0])
    assert library.runtime.status(words["id"]) == "running"
    assert library.runtime.pid(words["id"]) == pid
    assert library.runtime.exec(words["id"], "echo", "x").ok().out == "x\n"
    waits = ocirt.Container.load(words["id"], library.runtime.root)
    with pytest.raises(TimeoutError):
        waits.wait(0.1)
    library.runtime.kill(words["id"], "KILL").ok()
    assert waits.wait(20) is None
    wait_for(lambda: waits.status == "stopped", "its end")
    library.runtime.delete(words["id"]).ok()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)  # we are the subreaper


def test_a_dropped_object_is_no_end(library: Library) -> None:
    box = library.create("sleep", "1000")
    name = box.id
    box.start()
    box.close()
    del box
    with ocirt.Container.load(name, library.runtime.root) as again:
        assert again.status == "running"
        assert again.exec(["true"]).returncode == 0
    assert library.names() == []


def test_what_is_made_from_keywords_is_a_bundle(library: Library) -> None:
    """The command can show its plan; the empty root goes with the container."""
    with library.create(sys.executable, "-c", "pass", mounts=ocirt.host_python()) as box:
        bundle = Path(box.state.bundle)
        assert json.loads((bundle / "config.json").read_text())["hostname"] == "ocirt"
        assert box.state.rootfs == f"{bundle}/rootfs"
        library.runtime.call("plan", bundle).ok()
        box.start()
        assert box.wait(30) == 0
    assert not bundle.exists()


def test_another_user_gets_another_zygote(library: Library) -> None:
    """A caller who gives up root does not keep it by way of the zygote."""
    library.run("true")
    first = zygote()
    os.seteuid(USER)
    try:
        with pytest.raises((ocirt.Error, OSError)):
            library.run("true")
    finally:
        os.seteuid(0)
    assert process_state(first) is None
    assert library.run("true").returncode == 0


# -- security ------------------------------------------------------------------------------------------------------------------


def test_the_zygote_is_isolated(library: Library, tmp_path: Path) -> None:
    """No environment of Python's counts, and its file lies on a mount that cannot be written to (CVE-2019-5736)."""
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('hostile')")
    (tmp_path / "json.py").write_text("raise SystemExit('hostile')")
    caller = program(
        f"""
        import ocirt, os
        from ocirt.zygote import client
        os.chdir({str(tmp_path)!r})
        ocirt.run(["true"], **{library.texts()!r})
        pid = client._zygote.pid
        for name in ("exe", "cwd"):
            print(os.readlink(f"/proc/{{pid}}/{{name}}"))
        print(bool(os.fstatvfs(os.open(f"/proc/{{pid}}/exe", os.O_RDONLY)).f_flag & os.ST_RDONLY))
        print(sorted(map(int, os.listdir(f"/proc/{{pid}}/fd"))))
        """,
        PYTHONPATH=str(tmp_path),
        PYTHONSTARTUP=str(tmp_path / "json.py"),
    )
    exe, cwd, read_only, fds = caller.communicate(timeout=60)[0].splitlines()
    assert exe != os.path.realpath(sys.executable)
    assert (cwd, read_only) == ("/", "True")
    # Streams, the control socket, the owner, signals; and the spare's pipe, or both ends while one is made.
    assert list(range(6)) == json.loads(fds)[:6]
    assert set(json.loads(fds)[6:]) <= {6, 7}


def test_a_descriptor_of_the_caller_stays_outside(library: Library) -> None:
    """Also an inheritable one."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        listing = library.shell("ls -l /proc/self/fd | grep -c -e pipe -e socket", stdin=ocirt.DEVNULL)
    finally:
        os.close(reader)
        os.close(writer)
    assert listing.stdout == "2\n"  # its output (to grep) and the error stream


# -- the sandbox of docs/library.md --------------------------------------------------------------------------------------------

Sandbox = Callable[..., ocirt.CompletedProcess]


@pytest.fixture
def sandbox(library: Library) -> Iterator[Sandbox]:
    """The function in the document, word for word."""
    missing = [name for name in ("memory", "pids") if not available(name)]
    if missing:
        pytest.skip(f"no controller here: {missing}")
    text = (ROOT / "docs" / "library.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert len(code.splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(compile(code, "docs/library.md", "exec"), names)
    yield names["run_untrusted"]
    assert not [path for root in cgroup_mounts() for path in root.glob("ocirt-run-*")]


def test_sandbox_returns_a_result(sandbox: Sandbox) -> None:
    done = sandbox("import json, os; print(json.dumps([6 * 7, os.getuid()]))")
    assert (json.loads(done.stdout), done.returncode) == ([42, 65534], 0)


def test_sandbox_ends_a_memory_hog(sandbox: Sandbox) -> None:
    done = sandbox("data = []\nwhile True: data.append(bytearray(1 << 20))")
    assert done.returncode == -signal.SIGKILL
    # Where the processor is emulated its second of CPU may be over before it has 64 MiB.
    assert done.oom_killed or SLOWNESS > 1


def test_sandbox_ends_a_cpu_hog(sandbox: Sandbox) -> None:
    done = sandbox("print('on', flush=True)\nwhile True: pass")
    assert (done.returncode, done.oom_killed, done.stdout) == (-signal.SIGKILL, False, "on\n")


def test_sandbox_has_no_network(sandbox: Sandbox) -> None:
    """Neither the world's nor the host's: a server that listens here is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = """
            import socket
            for place in (("192.0.2.1", 80), ("127.0.0.1", %d)):
                try:
                    socket.create_connection(place, timeout=5)
                    print("reached", place)
                except OSError as err:
                    print(err.errno)
        """
        assert sandbox(textwrap.dedent(code % server.getsockname()[1])).stdout == "101\n111\n"


def test_sandbox_refuses_writes(sandbox: Sandbox) -> None:
    code = """
        import os, sys
        for place in ("/", "/tmp", "/usr", "/etc", "/proc/sys/kernel", sys.prefix, os.path.dirname(os.__file__)):
            try:
                open(place + "/x", "w")
                print("wrote to", place)
            except OSError as err:
                assert err.errno in (2, 13, 30), err
        print(sorted(set(os.listdir("/etc")) - {"ld.so.cache", "localtime"}))
    """
    done = sandbox(textwrap.dedent(code))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_sandbox_bounds_processes_and_output(sandbox: Sandbox) -> None:
    code = """
        import os
        try:
            while True:
                if os.fork() == 0:
                    os.read(os.pipe()[0], 1)
        except OSError as err:
            print(err.errno)
    """
    assert sandbox(textwrap.dedent(code)).stdout == "11\n"
    done = sandbox("for _ in range(30): print('x' * 100000)")
    assert (len(done.stdout), done.truncated) == (1 << 20, True)
