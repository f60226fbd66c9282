"""Where the streams of a process go: FIFOs, files, programs, terminals."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from ocirt.errors import Error
from tests.support.runtime import wait_for
from tests.system.taskshim.conftest import Containers

LOGGER = """\
#!/bin/sh
echo "$CONTAINER_ID $CONTAINER_NAMESPACE $*" >{place}/said
env >{place}/environment
{ready}exec 5>&-
cat <&3 >{place}/out &
cat <&4 >{place}/err
wait
"""


class Reader:
    """The reading end of a FIFO."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.data = b""
        self.over = False

    def read(self) -> bytes:
        """What has come until now."""
        while not self.over:
            try:
                more = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            self.over = not more and bool(self.data)
            self.data += more
            if not more:
                break
        return self.data

    def end(self) -> bytes:
        """All, once its writers are gone."""
        os.set_blocking(self.fd, True)
        parts = [self.data]
        while more := os.read(self.fd, 65536):
            parts.append(more)
        os.close(self.fd)
        return b"".join(parts)


def test_fifos(containers: Containers) -> None:
    """Both ways; standard input ends when containerd says so, and its writer is gone."""
    names: dict[str, Any] = {name: containers.fifo(name) for name in ("stdin", "stdout", "stderr")}
    out, err = Reader(names["stdout"]), Reader(names["stderr"])
    held = containers("sh", "-c", "cat; echo done >&2; exit 3", **names)
    writer = os.open(names["stdin"], os.O_WRONLY)
    held.call("Start")
    os.write(writer, b"one\n")
    wait_for(lambda: out.read() == b"one\n", "the answer", 5)
    os.close(writer)
    time.sleep(0.1)  # a client that went: another may come
    writer = os.open(names["stdin"], os.O_WRONLY)
    os.write(writer, b"two\n")
    held.call("CloseIO", stdin=True)
    os.close(writer)
    assert held.call("Wait").exit_status == 3
    assert (out.end(), err.end()) == (b"one\ntwo\n", b"done\n")
    state = held.call("State")
    assert (state.stdin, state.stdout, state.stderr) == (names["stdin"], names["stdout"], names["stderr"])


def test_a_slow_reader(containers: Containers) -> None:
    """What a program has written is there for ten seconds after its end, also if a `Delete` comes first; others go on."""
    path = containers.fifo("stdout")
    out = Reader(path)
    held = containers("sh", "-c", "head -c 120000 /dev/zero", stdout=path)
    other = containers("sleep", "1000")
    held.call("Start")
    assert held.call("Wait").exit_status == 0
    call = held.shim.send("Delete", _delete(held.name))
    other.call("Start")
    assert len(out.end()) == 120000
    assert held.shim.receive("Delete", call).exit_status == 0


def test_a_reader_that_never_comes(containers: Containers) -> None:
    """A `Delete` waits for it, but not for ever."""
    path = containers.fifo("stdout")
    held = containers("sleep", "1000")
    held.call("Start")
    held.add("loud", "sh", "-c", "head -c 120000 /dev/zero", stdout=path)
    held.call("Start", exec_id="loud")
    assert held.call("Wait", exec_id="loud").exit_status == 0
    begun = time.monotonic()
    assert held.call("Delete", exec_id="loud").exit_status == 0
    assert 1 < time.monotonic() - begun < 10


def test_much(containers: Containers) -> None:
    """64 MiB through a shim, whole."""
    names: dict[str, Any] = {name: containers.fifo(name) for name in ("stdin", "stdout")}
    out = Reader(names["stdout"])
    held = containers("sh", "-c", "head -c 67108864 /dev/zero | tr '\\0' x; cat", **names)
    held.call("Start")
    writer = os.open(names["stdin"], os.O_WRONLY)
    os.write(writer, b"end")
    os.close(writer)
    held.call("CloseIO", stdin=True)
    assert out.end() == b"x" * 67108864 + b"end"
    assert held.call("Wait").exit_status == 0


def test_what_goes_on_in_the_background(containers: Containers) -> None:
    """An added process has ended when its first program has: whoever reads its output sees the end."""
    path = containers.fifo("stdout")
    out = Reader(path)
    held = containers("sleep", "1000")
    held.call("Start")
    held.add("e", "sh", "-c", "sleep 1000 & echo here", stdout=path)
    held.call("Start", exec_id="e")
    assert held.call("Wait", exec_id="e").exit_status == 0
    assert out.end() == b"here\n"


def test_a_file(containers: Containers) -> None:
    """It gets both, at its end, and the folder above it is made."""
    path = containers.place / "logs" / "a b"
    held = containers("sh", "-c", "echo out; echo err >&2", stdout=f"file://{containers.place}/logs/a%20b")
    assert held.run().exit_status == 0
    held.call("Delete")
    assert sorted(path.read_text().splitlines()) == ["err", "out"]
    again = containers("echo", "more", stdout=f"file://{path.parent}/a%20b")
    again.run()
    again.call("Delete")
    assert path.read_text().endswith("more\n")


@pytest.mark.parametrize("scheme", ["binary", "binary-v2"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_program(containers: Containers, scheme: str, terminal: bool) -> None:  # noqa: FBT001
    """It is told what the container is, and reads both outputs to their end."""
    logger = containers.place / "logger"
    logger.write_text(LOGGER.format(place=containers.place, ready="printf x >&5; " if scheme == "binary-v2" else ""))
    logger.chmod(0o755)
    held = containers(
        "sh", "-c", "echo out; echo err >&2", stdout=f"{scheme}://{logger}?kind=log&more=a%20b+c", terminal=terminal
    )
    assert held.run().exit_status == 0
    held.call("Delete")
    expected = (b"out\r\nerr\r\n", b"") if terminal else (b"out\n", b"err\n")
    files = [containers.place / name for name in ("out", "err")]
    wait_for(lambda: tuple(file.read_bytes() for file in files if file.exists()) == expected, "the output", 5)
    assert (containers.place / "said").read_text() == f"{held.name} tests kind log more a b c\n"
    environment = (containers.place / "environment").read_text()
    assert not any(line.startswith("TTRPC_ADDRESS") for line in environment.splitlines())


def test_what_is_refused(containers: Containers) -> None:
    held = containers.shim("true")
    for stdout, word in (
        ("npipe://x", "unknown scheme npipe"),
        (f"{containers.place}/no/such", "no such file"),
        ("binary:///no/such", "no such file"),
        ("file:///tmp/a%2", "hexadecimal"),
    ):
        with pytest.raises(Error, match=word):
            held.create(stdout=stdout)
    logger = containers.place / "logger"
    logger.write_text("#!/bin/sh\nexit 1\n")
    logger.chmod(0o755)
    with pytest.raises(Error, match="before it was ready"):
        held.create(stdout=f"binary-v2://{logger}")
    held.create()


def test_a_terminal(containers: Containers) -> None:
    """Size, input, and one output for both."""
    names: dict[str, Any] = {name: containers.fifo(name) for name in ("stdin", "stdout")}
    out = Reader(names["stdout"])
    held = containers("sh", "-c", "stty -echo; stty size; read line; echo got $line >&2; stty size", terminal=True, **names)
    held.call("ResizePty", width=99, height=33)
    held.call("Start")
    wait_for(lambda: out.read() == b"33 99\r\n", "the size", 5)
    held.call("ResizePty", width=50, height=20)
    writer = os.open(names["stdin"], os.O_WRONLY)
    os.write(writer, b"word\n")
    assert held.call("Wait").exit_status == 0
    assert out.end() == b"33 99\r\ngot word\r\n20 50\r\n"
    os.close(writer)
    assert held.call("State").terminal


def test_an_added_terminal(containers: Containers) -> None:
    path = containers.fifo("stdout")
    out = Reader(path)
    held = containers("sleep", "1000")
    held.call("Start")
    held.add("e", "sh", "-c", "tty; exit 2", stdout=path, terminal=True)
    held.call("Start", exec_id="e")
    assert held.call("Wait", exec_id="e").exit_status == 2
    assert out.end().startswith(b"/dev/pts/")


def test_another_user_can_open_its_streams(containers: Containers) -> None:
    path = containers.fifo("stdout")
    out = Reader(path)
    held = containers("sh", "-c", "echo here >/dev/stdout", stdout=path, process={"user": {"uid": 1000, "gid": 1000}})
    assert held.run().exit_status == 0
    assert out.end() == b"here\n"


def test_pipes_have_the_owner_that_was_asked_for(containers: Containers) -> None:
    containers.options.io_uid, containers.options.io_gid = 4321, 4322
    path = containers.fifo("stdout")
    out = Reader(path)
    held = containers("sh", "-c", "stat -L -c '%u %g' /proc/self/fd/1", stdout=path)
    assert held.run().exit_status == 0
    assert out.end().split()[1] == b"4322"


def _delete(name: str) -> Any:
    from ocirt_api.messages.task import DeleteRequest  # noqa: PLC0415

    return DeleteRequest(id=name)
