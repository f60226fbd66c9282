"""`checkpoint` and `restore` by CRIU: what ran goes on, with its memory, mounts, sockets and terminal."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle, cgroup_mount
from tests.support.isolation import MS_BIND, MS_SHARED, mount, umount
from tests.support.runtime import Runtime, process_state, wait_for
from tests.support.terminal import ConsoleSocket, Reader
from tests.system.conftest import MakeBundle

# Numbers in a file, one after the other: a shell that began anew would begin with 1.
COUNT = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/numbers; sleep 0.05; done"
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@functools.cache
def criu_lacks() -> str:
    """What `criu check` complains of first, or that there is none; "" if it works here."""
    program = shutil.which("criu", path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if program is None:
        return "there is no criu"
    done = subprocess.run([program, "check"], capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else f"criu does not work on this kernel: {(done.stderr or done.stdout).splitlines()[0]}"


def need_criu() -> None:
    if criu_lacks():
        pytest.skip(criu_lacks())


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's: criu is often in a directory for root."""
    monkeypatch.setenv("PATH", f"{os.environ.get('PATH', '')}:{SBIN}")


@pytest.fixture(scope="module", autouse=True)
def netfilter() -> None:
    """CRIU has the kernel load modules to lock a network; their sysctls would be taken for what a test leaves."""
    modules = ["nf_conntrack", "nf_conntrack_netlink", "iptable_filter", "ip6table_filter", "xt_mark"]
    if os.geteuid() == 0 and shutil.which("modprobe", path=SBIN):
        subprocess.run(["modprobe", "-a", *modules], check=False, capture_output=True, env={"PATH": SBIN})


class Images:
    """Where a test keeps images, and the commands that write and read them."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        self.runtime = runtime
        self.path = directory / "images"
        self.work = directory / "work"

    def flags(self) -> tuple[str, ...]:
        return ("--image-path", str(self.path), "--work-path", str(self.work))

    def argv(self, bundle: Bundle, *args: str | Path) -> list[str | Path]:
        return ["restore", "--bundle", bundle.path, *self.flags(), *args]

    def dump(self, container: str, *flags: str) -> None:
        self.runtime.call("checkpoint", *self.flags(), *flags, container, timeout=120).ok()

    def restore(self, bundle: Bundle, *flags: str | Path, container: str | None = None, **options: Any) -> str:
        """`restore --detach`, which has to succeed; its output goes to a file, which no process of the container's keeps."""
        container = container or self.runtime.new_id()
        self.runtime.prepare(bundle, container)
        args = self.argv(bundle, "--detach", *flags, container)
        self.runtime.detached(*args, out=self.runtime.output_of(container), timeout=120, **options).ok()
        return container


@pytest.fixture
def images(runtime: Runtime, tmp_path: Path) -> Images:
    return Images(runtime, tmp_path)


def quiet(runtime: Runtime, bundle: Bundle, *flags: str | Path) -> str:
    """`run --detach` with /dev/null for all streams: a file of the host's cannot be dumped."""
    container = runtime.new_id()
    runtime.prepare(bundle, container)
    null = subprocess.DEVNULL
    argv = runtime.argv("run", "--detach", "--bundle", bundle.path, *flags, container)
    assert subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=60, check=False).returncode == 0
    return container


def counter(bundle: MakeBundle, **edits: Any) -> Bundle:
    return bundle(args=["/bin/sh", "-c", COUNT], **edits)


def numbers(bundle: Bundle) -> list[int]:
    """What the counter wrote so far; the last line may still be under way."""
    file = bundle.rootfs / "tmp" / "numbers"
    return [int(line) for line in file.read_text().splitlines()[:-1]] if file.exists() else []


def counts_on(bundle: Bundle) -> None:
    """Wait until the counter is further than now, and see that it left out and repeated nothing."""
    begun = len(numbers(bundle))
    wait_for(lambda: len(numbers(bundle)) > begun + 3, "more numbers", 30)
    found = numbers(bundle)
    assert found == list(range(1, len(found) + 1))


def stopped(runtime: Runtime, container: str) -> None:
    """Nothing is known of a container any more."""
    assert container not in runtime.call("list", "-q").ok().out.split()


@pytest.fixture
def running(runtime: Runtime, bundle: MakeBundle) -> Iterator[tuple[Bundle, str]]:
    need_criu()
    made = counter(bundle)
    container = quiet(runtime, made)
    wait_for(lambda: len(numbers(made)) > 3, "numbers", 30)
    yield made, container
    assert not (runtime.root / container / "criu-root").exists()


def test_what_ran_goes_on(runtime: Runtime, running: tuple[Bundle, str], images: Images) -> None:
    made, container = running
    groups = Path(f"/proc/{runtime.pid(container)}/cgroup").read_text()
    images.dump(container)
    stopped(runtime, container)
    kept = len(numbers(made))
    time.sleep(0.3)
    assert len(numbers(made)) == kept, "it still runs"

    pid_file = images.path.parent / "pid"
    images.restore(made, "--pid-file", pid_file, container=container)
    pid = runtime.pid(container)
    assert pid_file.read_text() == str(pid)
    assert runtime.status(container) == "running"
    counts_on(made)
    assert Path(f"/proc/{pid}/cgroup").read_text() == groups
    # Our child by now, as an init is for every caller who is a subreaper.
    assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()
    assert runtime.exec(container, "sh", "-c", "echo $PPID; cat /proc/1/cmdline").ok().out.split("\0")[1] == "-c"
    runtime.kill(container, "KILL").ok()
    assert runtime.wait(container, pid) == 128 + signal.SIGKILL
    runtime.delete(container).ok()


def test_leave_running(runtime: Runtime, running: tuple[Bundle, str], images: Images) -> None:
    made, container = running
    pid = runtime.pid(container)
    images.dump(container, "--leave-running")
    assert (runtime.status(container), runtime.pid(container)) == ("running", pid)
    counts_on(made)


def test_pre_dump_and_parent(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """A dump on top of a pre-dump holds only what changed since; both together are restored."""
    made, container = running
    before = ("--image-path", str(tmp_path / "before"), "--work-path", str(images.work))
    done = runtime.call("checkpoint", "--pre-dump", *before, container, timeout=120)
    if "MemTrack" in done.err:
        done.failed("criu is missing features")
        pytest.skip("this kernel does not track memory (CONFIG_MEM_SOFT_DIRTY)")
    done.ok()
    assert runtime.status(container) == "running"
    images.dump(container, "--parent-path", "../before")
    assert (images.path / "parent").is_symlink()
    assert images.restore(made, container=container)
    counts_on(made)


def test_bind_mounts_and_masks(runtime: Runtime, bundle: MakeBundle, images: Images, tmp_path: Path) -> None:
    """What came from outside comes from there again, also from elsewhere; what was hidden stays hidden."""
    need_criu()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
    (tmp_path / "file").write_text("a file")
    binds = [
        {"destination": "/var/run/data", "type": "bind", "source": str(tmp_path / "here"), "options": ["rbind", "ro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(tmp_path / "file"), "options": ["bind"]},
    ]
    made = counter(bundle, add_mounts=binds)
    (made.rootfs / "var" / "run").symlink_to("../run")
    container = quiet(runtime, made)
    images.dump(container)
    shutil.rmtree(made.rootfs / "run" / "data")  # as in a root file system that was made anew
    made.config["mounts"][-2]["source"] = str(tmp_path / "there")
    images.restore(made, container=container)
    script = "cat /run/data/word /etc/one; echo x > /run/data/word || echo refused; wc -c < /proc/keys; ls /sys/firmware"
    done = runtime.exec(container, "sh", "-c", script).ok()
    assert done.out == "therea filerefused\n0\n"
    (tmp_path / "there" / "word").write_text("again")
    assert runtime.exec(container, "cat", "/run/data/word").ok().out == "again"
    counts_on(made)


@pytest.mark.ocirt_only("runc leaves lo down when it restores")
def test_a_listening_socket(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    need_criu()
    made = bundle(args=["/bin/busybox", "nc", "-ll", "-p", "4000", "-e", "/bin/cat"])
    container = quiet(runtime, made)
    talk = ("sh", "-c", "echo hello | busybox nc -w 5 127.0.0.1 4000")
    wait_for(lambda: runtime.exec(container, *talk).out == "hello\n", "the listener", 20)
    images.dump(container)
    images.restore(made, container=container)
    assert runtime.exec(container, *talk).ok().out == "hello\n"


@pytest.mark.ocirt_only("runc leaves lo down when it restores")
def test_open_connections(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    """A connection with both ends inside: refused without the flag, and open afterwards with it."""
    need_criu()
    script = (
        "mkfifo /tmp/a /tmp/b; exec 3<>/tmp/a 4<>/tmp/b; busybox nc -l -p 4000 <&3 >/tmp/heard & sleep 1; "
        "busybox nc 127.0.0.1 4000 <&4 & echo one >&4; "
        "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo two >&4; sleep 1000"
    )
    made = bundle(args=["/bin/sh", "-c", script])
    container = quiet(runtime, made)
    heard = made.rootfs / "tmp" / "heard"
    wait_for(lambda: heard.exists() and heard.read_text() == "one\n", "the first word", 20)
    pid = runtime.pid(container)
    refused = runtime.call("checkpoint", *images.flags(), container, timeout=120)
    refused.failed("criu failed: type DUMP")
    assert (runtime.status(container), runtime.pid(container)) == ("running", pid)
    shutil.rmtree(images.path)
    done = runtime.call("checkpoint", *images.flags(), "--tcp-established", container, timeout=120)
    if done.rc and "ptables" in (images.work / "dump.log").read_text():
        pytest.skip("criu cannot lock the network here: " + done.err)
    done.ok()
    images.restore(made, "--tcp-established", container=container)
    (made.rootfs / "tmp" / "go").touch()
    wait_for(lambda: heard.read_text() == "one\ntwo\n", "the second word", 20)


def test_a_terminal(runtime: Runtime, bundle: MakeBundle, images: Images, tmp_path: Path) -> None:
    """The master of the restored terminal goes to the console socket."""
    need_criu()
    made = bundle(terminal=True, args=["/bin/sh", "-c", "stty -echo; echo ready; while read x; do echo heard $x; done"])
    container = runtime.new_id()
    runtime.prepare(made, container)
    with ConsoleSocket(tmp_path / "console") as console:
        argv = ("run", "--detach", "--bundle", made.path, "--console-socket", console.path, container)
        runtime.call(*argv).ok()
        Reader(console.receive()[1][0]).expect("ready")
        images.dump(container)
        runtime.prepare(made, container)
        args = images.argv(made, "-d", "--console-socket", console.path, container)
        runtime.call(*args, timeout=120).ok()
        name, fds = console.receive()
        assert name
        reader = Reader(fds[0])
        reader.write("me\n")
        reader.expect("heard me")


def test_attached_with_pipes(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    """The streams are the caller's new pipes, the exit status is the process's, and the container is gone then."""
    need_criu()
    script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; read x; echo after $x; exit 7"
    made = bundle(args=["/bin/sh", "-c", script])
    container = runtime.new_id()
    process = runtime.spawn_run(made, container=container)
    assert process.stdout is not None
    assert process.stdout.readline() == b"before\n"
    images.dump(container)
    process.wait(20)
    (made.rootfs / "tmp" / "go").touch()
    runtime.prepare(made, container)
    done = runtime.call(*images.argv(made, container), stdin="a word\n", timeout=120)
    assert (done.rc, done.out) == (7, "after a word\n"), done.err
    stopped(runtime, container)


def test_a_network_namespace_from_outside(runtime: Runtime, bundle: MakeBundle, images: Images, tmp_path: Path) -> None:
    """The container comes back into the namespace at the path, which may be another one by then."""
    need_criu()
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "1000"]) for _ in range(2)]
    place = tmp_path / "net"
    try:
        own = os.readlink("/proc/self/ns/net")
        for holder in holders:
            wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, "a namespace")  # noqa: B023
        place.symlink_to(f"/proc/{holders[0].pid}/ns/net")
        made = counter(bundle, namespaces=["pid", "ipc", "uts", "mount", {"type": "network", "path": str(place)}])
        container = quiet(runtime, made)
        images.dump(container)
        place.unlink()
        place.symlink_to(f"/proc/{holders[1].pid}/ns/net")
        images.restore(made, container=container)
        assert os.readlink(f"/proc/{runtime.pid(container)}/ns/net") == os.readlink(f"/proc/{holders[1].pid}/ns/net")
        counts_on(made)
        runtime.delete(container, "--force").ok()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


@pytest.mark.parametrize("namespace", [True, False], ids=["namespace", "shared"])
def test_cgroups_in_the_container(runtime: Runtime, bundle: MakeBundle, images: Images, namespace: bool) -> None:
    """The mount of cgroups shows what it did."""
    need_criu()
    kinds = ["pid", "network", "ipc", "uts", "mount"] + (["cgroup"] if namespace else [])
    made = counter(bundle, add_mounts=[cgroup_mount()], namespaces=kinds)
    container = quiet(runtime, made)
    look = (
        "sh",
        "-c",
        "cat /proc/1/cgroup; find /sys/fs/cgroup -name cgroup.procs -maxdepth 2 | sort; wc -l < /proc/1/mountinfo",
    )
    before = runtime.exec(container, *look).ok().out
    images.dump(container)
    images.restore(made, container=container)
    assert runtime.exec(container, *look).ok().out == before
    counts_on(made)


def test_a_paused_container(runtime: Runtime, running: tuple[Bundle, str], images: Images) -> None:
    """It stays paused when the dump leaves it."""
    made, container = running
    runtime.call("pause", container).ok()
    images.dump(container, "--leave-running")
    assert runtime.status(container) == "paused"
    runtime.call("resume", container).ok()
    counts_on(made)


def test_mounts_that_propagate(runtime: Runtime, bundle: MakeBundle, images: Images, tmp_path: Path) -> None:
    """A bind mount that follows the host's tree goes on doing that; a read-only root stays one."""
    need_criu()
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    mount(str(tree), str(tree), "", MS_BIND)
    try:
        mount("", str(tree), "", MS_SHARED)
        bind = {"destination": "/data", "type": "bind", "source": str(tree), "options": ["rbind", "rslave"]}
        temporary = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
        made = counter(bundle, add_mounts=[bind, temporary], root={"path": "rootfs", "readonly": True})
        container = quiet(runtime, made)
        images.dump(container)
        images.restore(made, container=container)
        mount("tmpfs", str(tree / "below"), "tmpfs", 0)
        try:
            (tree / "below" / "word").write_text("seen")
            assert runtime.exec(container, "cat", "/data/below/word").ok().out == "seen"
            runtime.exec(container, "touch", "/new").failed("Read-only")
            look = ("cat", "/tmp/numbers")
            wait_for(lambda: len(runtime.exec(container, *look).ok().out.splitlines()) > 5, "more numbers")
        finally:
            umount(str(tree / "below"))
        runtime.delete(container, "--force").ok()
    finally:
        umount(str(tree))


def test_a_user_namespace(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    need_criu()
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    kinds = ["pid", "network", "ipc", "uts", "mount", "user"]
    made = counter(bundle, namespaces=kinds, uidMappings=mapping, gidMappings=mapping)
    (made.rootfs / "tmp").chmod(0o1777)
    images.path = made.path / "images"  # the container's root reads them when it is restored
    images.path.mkdir()
    images.path.chmod(0o755)
    container = quiet(runtime, made)
    maps = Path(f"/proc/{runtime.pid(container)}/uid_map").read_text()
    images.dump(container)
    images.restore(made, container=container)
    assert Path(f"/proc/{runtime.pid(container)}/uid_map").read_text() == maps
    counts_on(made)


def test_lazy_pages(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """Memory is fetched over a socket while the restored processes run."""
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 18):
        pytest.skip("CRIU 4.2 cannot send pages on Linux 6.18 (page-pipe: splice: Bad file descriptor), for runc neither")
    made, container = running
    reader, writer = os.pipe()
    port = str(20000 + os.getpid() % 10000)
    flags = ("--lazy-pages", "--status-fd", str(writer), "--page-server", f"127.0.0.1:{port}")
    argv = runtime.argv("checkpoint", *images.flags(), *flags, container)
    with subprocess.Popen(argv, pass_fds=[writer], stderr=subprocess.PIPE) as dump:
        assert dump.stderr is not None
        os.close(writer)
        told = os.read(reader, 10)
        os.close(reader)
        if not told:
            said = dump.stderr.read().decode()
            assert "LazyPages" in said, said
            pytest.skip(f"this kernel has no lazy pages for us: {said}")
        assert told == b"\0"
        daemon = [shutil.which("criu") or "", "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", port]
        daemon += ["-D", str(images.path), "-W", str(tmp_path)]
        with subprocess.Popen(daemon, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pages:
            wait_for((tmp_path / "lazy-pages.socket").exists, "the daemon's socket", 20)
            other = runtime.new_id()
            images.work = tmp_path
            images.restore(made, "--lazy-pages", container=other)
            assert pages.wait(100) == 0
        assert dump.wait(100) == 0
    stopped(runtime, container)
    counts_on(made)


@pytest.mark.ocirt_only("runc leaves a mount in its state directory")
def test_a_runtime_that_is_killed(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """What a restore had made by then is found, and removed by force."""
    made, container = running
    images.dump(container)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID; sleep 1"]}
    made.config["hooks"] = {"createRuntime": [hook]}
    runtime.prepare(made, container)
    done = runtime.detached(*images.argv(made, "-d", container), out=tmp_path / "out", timeout=120)
    assert done.rc == -signal.SIGKILL
    runtime.delete(container, "--force").ok()
    stopped(runtime, container)


def test_hooks_of_a_restore(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """createRuntime runs before the processes do, and one that fails leaves nothing."""
    made, container = running
    images.dump(container)
    hook: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {tmp_path}/state; exit 3"]}
    made.config["hooks"] = {"createRuntime": [hook]}
    runtime.prepare(made, container)
    kept = len(numbers(made))
    runtime.detached(*images.argv(made, "-d", container), out=tmp_path / "out", timeout=120).failed("hook")
    stopped(runtime, container)
    assert len(numbers(made)) == kept
    assert json.loads((tmp_path / "state").read_text())["id"] == container
    hook["args"][2] = f"cat > {tmp_path}/state"
    images.restore(made, container=container)
    counts_on(made)


def test_a_failed_restore_leaves_nothing(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    made, container = running
    images.dump(container)
    (images.path / "pages-1.img").unlink()
    runtime.prepare(made, container)
    args = images.argv(made, "-d", container)
    done = runtime.detached(*args, out=tmp_path / "out", timeout=120).failed("criu failed: type RESTORE errno ")
    if runtime.is_ocirt:
        assert "Error (" in done.err
        assert f"see {images.work}/restore.log" in done.err
        assert done.err.count("\n") == 1
    stopped(runtime, container)


def test_a_failed_dump_leaves_it_running(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    """A file of the host's as standard output is none that CRIU could find again."""
    need_criu()
    made = counter(bundle)
    container = runtime.run_detached(made)
    pid = runtime.pid(container)
    done = runtime.call("checkpoint", *images.flags(), container, timeout=120).failed("criu failed: type DUMP errno ")
    if runtime.is_ocirt:
        assert "Error (" in done.err
        assert f"see {images.work}/dump.log" in done.err
    assert (runtime.status(container), runtime.pid(container)) == ("running", pid)
    counts_on(made)


@pytest.mark.ocirt_only("runc waits for ever: what is restored holds the socket")
def test_criu_that_is_killed(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """A restore whose CRIU dies leaves no process, cgroup or directory."""
    made, container = running
    images.dump(container)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $(cat /proc/$PPID/task/$PPID/children | cut -d' ' -f1); sleep 0.2"]}
    made.config["hooks"] = {"createRuntime": [hook]}
    runtime.prepare(made, container)
    runtime.detached(*images.argv(made, "-d", container), out=tmp_path / "out", timeout=120).failed("killed by signal 9")
    stopped(runtime, container)


@pytest.mark.ocirt_only("one line with CRIU's own words; runc writes many")
def test_where_criu_does_not_work(runtime: Runtime, bundle: MakeBundle, images: Images) -> None:
    """It is CRIU that says so, and the container runs on."""
    if not criu_lacks() or shutil.which("criu") is None:
        pytest.skip(criu_lacks() or "criu works here")
    made = counter(bundle)
    container = quiet(runtime, made)
    done = runtime.call("checkpoint", *images.flags(), container).failed(r"criu failed: type DUMP errno \d+: Error \(criu/")
    assert f"see {images.work}/dump.log" in done.err
    assert done.err.count("\n") == 1
    counts_on(made)


@pytest.mark.ocirt_only("runc looks for criu first")
def test_what_is_refused_without_criu(runtime: Runtime, bundle: MakeBundle, images: Images, tmp_path: Path) -> None:
    """States, flags, images that are none, and no criu at all: before anything is made."""
    made = counter(bundle)
    container = runtime.create(made)
    dump = ("checkpoint", *images.flags())
    runtime.call(*dump, container).failed("Container cannot be checkpointed in created state")
    runtime.call(*dump, "nobody").failed("container does not exist")
    runtime.call(*dump, "--empty-ns", "ipc", container).failed('namespace \\\\"ipc\\\\" is not supported')
    runtime.call(*dump, "--page-server", "here", container).failed("Use --page-server ADDRESS:PORT")
    runtime.call(*dump, "--parent-path", "/x", container).failed("--parent-path must be relative")
    runtime.call(*dump, "--parent-path", "../x", container).failed("invalid --parent-path: stat .*no such file")
    runtime.start(container).ok()
    runtime.call(*dump, "--lazy-pages", "--status-fd", "99", container).failed("invalid --status-fd argument 99: bad file")
    env = os.environ | {"PATH": str(tmp_path)}
    runtime.call(*dump, container, env=env).failed('exec: \\\\"criu\\\\": executable file not found')
    counts_on(made)
    restore = images.argv(made, "-d")
    new = runtime.new_id()
    runtime.call(*restore, new).failed("descriptors.json: no such file or directory")
    (images.path / "descriptors.json").write_text("[]")
    runtime.call(*restore, new, env=env).failed('exec: \\\\"criu\\\\": executable file not found')
    stopped(runtime, new)
    assert process_state(runtime.pid(container))


def test_a_cgroup_that_is_taken(runtime: Runtime, running: tuple[Bundle, str], images: Images, tmp_path: Path) -> None:
    """A restore beside what it was made from, into the same cgroup, is refused: and who has that runs on."""
    made, container = running
    images.dump(container, "--leave-running")
    pid = runtime.pid(container)
    other = runtime.new_id()
    done = runtime.detached(*images.argv(made, "-d", other), out=tmp_path / "out", timeout=120)
    done.failed("container's cgroup is not empty")
    stopped(runtime, other)
    assert (runtime.status(container), runtime.pid(container)) == ("running", pid)
    counts_on(made)
