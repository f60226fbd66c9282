"""Standard streams: pipes, terminals, descriptors that are handed over."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path

import pytest

from tests.support.runtime import TIMEOUT, Runtime, wait_for
from tests.support.terminal import ConsoleSocket, Reader, Terminal, get_size, set_size
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace


def test_stdin_comes_through(runtime: Runtime, bundle: MakeBundle) -> None:
    """All of it, with its end."""
    text = "".join(f"line {number}\n" for number in range(50_000))
    assert runtime.run(bundle(args=["cat"]), stdin=text).ok().out == text


def test_much_output(runtime: Runtime, bundle: MakeBundle) -> None:
    """Nothing is lost at the end."""
    result = runtime.run(bundle(args=["/bin/probe", "write", "5000001"])).ok()
    assert len(result.out) == 5_000_001


def test_a_reader_that_goes_away(runtime: Runtime, bundle: MakeBundle) -> None:
    """SIGPIPE kills the writer: dispositions are the default ones."""
    result = runtime.shell(bundle(), "(while true; do echo y; done; echo still alive >&2) | head -n 1").ok()
    assert (result.out, result.err) == ("y\n", "")


def test_detached_pipes_end_with_the_container(runtime: Runtime, bundle: MakeBundle) -> None:
    """After `create` only the container holds the caller's pipes: they end when it ends, not before and not later."""
    container = runtime.new_id()
    made = bundle(args=["/bin/sh", "-c", "echo out; read line; echo $line; exit 0"])
    read_end, write_end = os.pipe()
    in_read, in_write = os.pipe()
    try:
        runtime.prepare(made, container)
        argv = runtime.argv("create", "--bundle", made.path, container)
        subprocess.run(argv, stdin=in_read, stdout=write_end, stderr=write_end, check=True, timeout=20)
        os.close(write_end)
        os.close(in_read)
        write_end = in_read = -1
        assert not select.select([read_end], [], [], 0.1)[0]  # neither output nor an end
        pid = runtime.pid(container)
        runtime.start(container).ok()
        assert os.read(read_end, 100) == b"out\n"
        os.write(in_write, b"word\n")
        assert os.read(read_end, 100) == b"word\n"
        assert select.select([read_end], [], [], 5)[0]
        assert os.read(read_end, 100) == b""
        assert runtime.wait(container, pid) == 0
    finally:
        for fd in (read_end, write_end, in_read, in_write):
            if fd >= 0:
                os.close(fd)


def test_no_descriptor_but_three(runtime: Runtime, bundle: MakeBundle) -> None:
    """What the caller had open stays outside, in run and in exec: a file, and a directory of the host (CVE-2024-21626)."""
    pass_fds = (os.open("/etc/passwd", os.O_RDONLY), os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    try:
        seen = runtime.run(bundle(args=["/bin/probe"]), pass_fds=pass_fds).ok().json()
        assert sorted(seen["fds"], key=int) == ["0", "1", "2"]
        container = runtime.run_detached(bundle(args=["sleep", "1000"]), pass_fds=pass_fds)
        assert sorted(os.listdir(f"/proc/{runtime.pid(container)}/fd")) == ["0", "1", "2"]
        seen = runtime.exec(container, "/bin/probe", pass_fds=pass_fds).ok().json()
        assert sorted(seen["fds"], key=int) == ["0", "1", "2"]
    finally:
        for fd in pass_fds:
            os.close(fd)


def test_preserve_fds(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`--preserve-fds N` hands over the N descriptors from 3 on."""
    path = tmp_path / "kept"
    path.write_text("kept words")
    made = bundle(args=["/bin/sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"])
    argv = runtime.argv("run", "--preserve-fds", "1", "--bundle", made.path, runtime.new_id())
    made.edit(cgroupsPath=runtime.cgroups_path(f"{runtime.token}-fds"))
    with_fd = ["sh", "-c", 'exec 3<"$0"; exec "$@"', str(path), *argv]
    done = subprocess.run(with_fd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.startswith("kept words")


@pytest.mark.ocirt_only("runc takes a descriptor that it opened itself for the caller's, and hands it to the container")
def test_preserve_fds_that_are_not_open(runtime: Runtime, bundle: MakeBundle) -> None:
    """An error."""
    runtime.run(bundle(), "--preserve-fds", "1").failed("preserve-fds", rc=1)


def test_listen_fds(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """LISTEN_FDS for our own pid is passed on; for another's it is not."""
    path = tmp_path / "kept"
    path.write_text("kept words")
    made = bundle(args=["/bin/probe"], cgroupsPath=runtime.cgroups_path(f"{runtime.token}-fds"))
    for owner, fds in (("$$", {"0", "1", "2", "3"}), ("1", {"0", "1", "2"})):
        argv = runtime.argv("run", "--bundle", made.path, runtime.new_id())
        script = f'exec 3<"$0"; export LISTEN_FDS=1 LISTEN_PID={owner}; exec "$@"'
        command = ["sh", "-c", script, str(path), *argv]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=20)
        seen = json.loads(done.stdout)
        assert set(seen["fds"]) == fds
        assert ({"LISTEN_FDS=1", "LISTEN_PID=1"} <= set(seen["env"])) == (owner == "$$")


def test_streams_belong_to_the_user(runtime: Runtime, bundle: MakeBundle) -> None:
    """The container's user owns its pipes, so that it can open /dev/stdout."""
    made = bundle(args=["/bin/sh", "-c", "echo again > /dev/stdout; echo error > /dev/stderr"], user={"uid": 1000, "gid": 1000})
    result = runtime.run(made).ok()
    assert (result.out, result.err) == ("again\n", "error\n")


def test_terminal(runtime: Runtime, bundle: MakeBundle) -> None:
    """An attached run with a terminal: a tty of the container, its controlling one, with the size of ours, and its resizes."""
    made = bundle(terminal=True, args=["/bin/sh", "-c", "tty; exec probe winsize"])
    container = runtime.new_id()
    runtime.prepare(made, container)
    with Terminal(runtime.argv("run", "--bundle", made.path, container), rows=33, columns=99) as terminal:
        assert terminal.expect("33 99").startswith("/dev/")
        wait_for(lambda: "winsize" in Path(f"/proc/{runtime.pid(container)}/cmdline").read_text(), "the probe")
        terminal.resize(44, 111)
        terminal.expect("44 111")
        terminal.write("\n")
        assert terminal.wait() == 0


def test_terminal_typing(runtime: Runtime, bundle: MakeBundle) -> None:
    """Typed text arrives, Ctrl-C interrupts the foreground job, the exit code comes out, our terminal is as it was."""
    made = bundle(
        terminal=True,
        args=["/bin/sh", "-c", "trap 'echo interrupted; exit 5' INT; echo ready; read x; while true; do sleep 0.05; done"],
    )
    container = runtime.new_id()
    runtime.prepare(made, container)
    argv = runtime.argv("run", "--bundle", made.path, container)
    with Terminal(["sh", "-c", 'stty -g; "$@"; echo "rc=$?"; stty -g', "sh", *argv]) as terminal:
        terminal.expect("ready")
        terminal.write("typed\n")
        terminal.expect("typed")
        terminal.write("\x03")
        terminal.expect("interrupted")
        terminal.wait()
        lines = terminal.output.decode().split("\r\n")
        assert "rc=5" in lines
        assert lines[0] == lines[-2]


def test_exec_terminal(runtime: Runtime, bundle: MakeBundle) -> None:
    """`exec --tty`."""
    container = runtime.run_detached(bundle(args=["sleep", "1000"]))
    argv = runtime.argv("exec", "--tty", container, "/bin/sh", "-c", "tty && stty size; exit 9")
    with Terminal(argv, rows=30, columns=90) as terminal:
        assert terminal.wait() == 9
        assert terminal.output.decode().split("\r\n")[:2] == ["/dev/pts/0", "30 90"]


def test_console_socket(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`create --console-socket`: one message with the name and one descriptor, the master of a pty in the container."""
    made = bundle(terminal=True, args=["/bin/sh", "-c", "tty; read word; echo got $word"])
    made.edit(consoleSize={"height": 21, "width": 77})
    with ConsoleSocket(tmp_path / "console") as console:
        container = runtime.create(made, "--console-socket", console.path)
        name, fds = console.receive()
        assert name
        assert len(fds) == 1
        reader = Reader(fds[0])
        pid = runtime.pid(container)
        runtime.start(container).ok()
        reader.expect("/dev/")
        set_size(fds[0], 40, 100)
        reader.write("word\n")
        reader.expect("got word")
        reader.read_all()
        assert runtime.wait(container, pid) == 0


def test_console_size(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`process.consoleSize` is the size before the program starts; /dev/console is the terminal."""
    script = "stty size; test -t 0 && test -c /dev/console && echo -n console > /dev/console"
    made = bundle(terminal=True, args=["/bin/sh", "-c", script], consoleSize={"height": 21, "width": 77})
    with ConsoleSocket(tmp_path / "console") as console:
        container = runtime.create(made, "--console-socket", console.path)
        _, fds = console.receive()
        runtime.start(container).ok()
        reader = Reader(fds[0])
        reader.expect("21 77")
        reader.expect("console")


def test_console_size_of_exec(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """That of the container's process, or of a process.json; half a size is none."""
    made = bundle(args=["sleep", "1000"], consoleSize={"height": 21, "width": 77})
    container = runtime.run_detached(made)
    path = made.path / "process.json"
    base = {"args": ["stty", "size"], "cwd": "/", "env": ["PATH=/bin"], "terminal": True}
    path.write_text(json.dumps({**base, "consoleSize": {"height": 33, "width": 99}}))
    half = made.path / "half.json"
    half.write_text(json.dumps({**base, "consoleSize": {"height": 33, "width": 0}}))
    with ConsoleSocket(tmp_path / "console") as console:
        flags = ("exec", "--detach", "--console-socket", console.path)
        for rest, size in (
            (("--tty", container, "stty", "size"), (21, 77)),
            (("--process", path, container), (33, 99)),
            (("--process", half, container), (0, 0)),
        ):
            runtime.detached(*flags, *rest, out=tmp_path / "out").ok()
            _, fds = console.receive()
            Reader(fds[0]).read_all()
            assert get_size(fds[0]) == size


def test_exec_console_socket(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`exec --detach --tty --console-socket`."""
    container = runtime.run_detached(bundle(args=["sleep", "1000"]))
    with ConsoleSocket(tmp_path / "console") as console:
        flags = ("--detach", "--tty", "--console-socket", console.path)
        runtime.detached("exec", *flags, container, "/bin/sh", "-c", "tty; read x", out=tmp_path / "out").ok()
        _, fds = console.receive()
        reader = Reader(fds[0])
        reader.expect("/dev/pts/0")
        reader.write("\n")
        reader.read_all()


@pytest.mark.parametrize("terminal", [True, False])
def test_console_socket_has_to_fit(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, terminal: bool) -> None:
    """A detached terminal needs a socket, and a socket a detached terminal."""
    made = bundle(terminal=terminal)
    if terminal:
        message = "cannot allocate tty if .* will detach without setting console socket"
        runtime.try_create(made).failed(message, rc=1)
    else:
        message = "cannot use console socket if .* will not detach or allocate tty"
        with ConsoleSocket(tmp_path / "console") as console:
            runtime.try_create(made, "--console-socket", console.path).failed(message, rc=1)


@pytest.mark.parametrize("way", ["run", "detached", "exec"])
@pytest.mark.parametrize("uid", [0, 1000])
def test_pipes_belong_to_the_user_of_a_user_namespace(runtime: Runtime, bundle: MakeBundle, way: str, uid: int) -> None:
    """To whose root they do not belong: the runtime gives them."""
    if not runtime.is_ocirt:
        pytest.skip("runc leaves them to who made them")
    script = "echo again > /dev/stdout; echo error > /dev/stderr"
    made = with_user_namespace(bundle(args=["/bin/sh", "-c", script], user={"uid": uid, "gid": uid}))
    if way == "run":
        result = runtime.run(made).ok()
        assert (result.out, result.err) == ("again\n", "error\n")
        return
    container = runtime.new_id()
    runtime.prepare(made if way == "detached" else made.edit(args=["sleep", "1000"]), container)
    if way == "exec":
        runtime.detached("run", "--detach", "--bundle", made.path, container, out=runtime.output_of(container)).ok()
        argv = runtime.argv("exec", container, "/bin/sh", "-c", script)
    else:
        argv = runtime.argv("run", "--detach", "--bundle", made.path, container)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.stdout, done.stderr) == ("again\n", "error\n")
    runtime.delete(container, "--force").ok()


@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_terminal_belongs_to_the_user(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, user_namespace: bool) -> None:
    """It can be opened as /dev/tty, /dev/stdout and by its name."""
    script = 'for each in /dev/tty /dev/stdout "$(tty)"; do echo "to $each" > "$each" || echo cannot; done; echo done'
    made = bundle(terminal=True, args=["/bin/sh", "-c", script], user={"uid": 1000, "gid": 1000})
    if user_namespace:
        with_user_namespace(made)
    with ConsoleSocket(tmp_path / "console") as console:
        container = runtime.create(made, "--console-socket", console.path)
        _, fds = console.receive()
        runtime.start(container).ok()
        said = Reader(fds[0]).expect("done")
    assert "cannot" not in str(said)
