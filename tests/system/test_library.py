"""`import ocirt` as a program uses it: `ocirt.run` by effect, and the sandbox that the document makes of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ocirt
from tests.support.build import ROOT
from tests.support.isolation import cgroup_mounts
from tests.support.library import Library, library
from tests.support.patience import SLOWNESS
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available

# Fixtures of others.
__all__ = ["library"]

pytestmark = pytest.mark.ocirt_only("the library is ocirt's own")


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
