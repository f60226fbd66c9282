"""`import ocirt` as a program uses it: its zygote, the forks of that, and what becomes of them when something is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import ocirt
from ocirt.library.source import request
from tests.support.build import ROOT
from tests.support.library import Library, library, program, zygote
from tests.support.runtime import process_state, wait_for

# Fixtures of others.
__all__ = ["library"]

pytestmark = pytest.mark.ocirt_only("the library is ocirt's own")

USER = 65534


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
