"""`ocirt logs`: what a container has written, from the file that its shim writes in the CRI's format."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as services
from ocirt_cri.cli import output
from ocirt_cri.cli.client import PATIENCE, connected

_CHUNK = 1 << 20
_PAUSE = 0.1  # seconds until the file is looked at again
_SPAN = re.compile(r"(\d+)(h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


class Line(NamedTuple):
    """One line of the file: `time` as it stands there, `stream` (stdout or stderr), `whole`: the text ends with a line's end."""

    time: str
    stream: str
    whole: bool
    text: bytes


def parse(line: bytes) -> Line | None:
    """A line without its end: `TIME STREAM TAGS TEXT`; TAGS begins with F (whole) or P (there is more). None: it is none."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    tag = parts[2].split(b":", 1)[0]
    if tag not in (b"F", b"P"):
        return None
    return Line(parts[0].decode("ascii", "replace"), parts[1].decode(), tag == b"F", parts[3])


def run(given: Any, args: list[str]) -> int:
    """Print it. Raises Error, OSError, grpc.RpcError."""
    tail = _number(given)
    since = _since(given, time.time())
    with connected(given) as calls:
        status = find(calls, args[0])
        if not status.log_path:
            raise Error("state", "the container has no log", subject=args[0], hint="its log_path was not set when it was made")
        reader = Reader(status.log_path)
        lines: Iterator[Line] | deque[Line] = (line for line in reader.lines() if not since or line.time >= since)
        if tail is not None:
            lines = deque(lines, maxlen=tail)
        timestamps = bool(given.get("timestamps"))
        begun: set[str] = set()  # streams of which a part of a line was printed
        for line in lines:
            _print(line, begun, timestamps=timestamps)
        while given.get("follow"):
            ended = find(calls, status.id).state != cri.CONTAINER_RUNNING  # before the look, or its last words are lost
            came = False
            for line in reader.lines():
                came = True
                _print(line, begun, timestamps=timestamps)
            if ended and not came:
                break
            time.sleep(_PAUSE)
    return 0


def find(calls: services.RuntimeServiceStub, word: str) -> cri.ContainerStatus:
    """The container that a word means. Raises Error("not-found", "invalid"), grpc.RpcError."""
    found = word
    if "/" in word:
        parts = word.split("/")
        if len(parts) != 3:
            raise Error("usage", "NAMESPACE/POD/CONTAINER, or an ID", subject=word)
        pods = {
            pod.id
            for pod in calls.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=PATIENCE).items
            if [pod.metadata.namespace, pod.metadata.name] == parts[:2]
        }
        there = calls.ListContainers(cri.ListContainersRequest(), timeout=PATIENCE).containers
        each = [one for one in there if one.pod_sandbox_id in pods and one.metadata.name == parts[2]]
        if not each:
            raise Error("not-found", "no such container", subject=word)
        found = max(each, key=lambda one: one.created_at).id
    return calls.ContainerStatus(cri.ContainerStatusRequest(container_id=found), timeout=PATIENCE).status


class Reader:
    """Reads a log that grows, and goes on in the next file when it is rotated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = self._open()
        self._rest = b""

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Error("not-found", "the log is gone", subject=self._path) from None

    def lines(self) -> Iterator[Line]:
        """What has come since the last call, in whole lines of the file. Raises OSError, Error if the file is gone."""
        while True:
            while data := os.read(self._fd, _CHUNK):
                *whole, self._rest = (self._rest + data).split(b"\n")
                for one in whole:
                    line = parse(one)
                    if line is not None:
                        yield line
            if not self._rotated():
                return

    def _rotated(self) -> bool:
        """Whether another file has the name; that is the one to read then."""
        try:
            named = os.stat(self._path)
        except FileNotFoundError:
            return False  # between the two
        if os.path.samestat(named, os.fstat(self._fd)):
            return False
        if os.read(self._fd, 1):  # written just before
            os.lseek(self._fd, -1, os.SEEK_CUR)
            return True
        os.close(self._fd)
        self._fd = self._open()
        self._rest = b""
        return True


def _print(line: Line, begun: set[str], *, timestamps: bool) -> None:
    data = line.text
    if timestamps and line.stream not in begun:
        data = line.time.encode() + b" " + data
    if line.whole:
        data += b"\n"
        begun.discard(line.stream)
    else:
        begun.add(line.stream)
    output.write(data, 1 if line.stream == "stdout" else 2)


def _number(given: Any) -> int | None:
    text = str(given.get("tail"))
    if not given.given("tail"):
        return None
    if not text.isdecimal():
        raise Error("usage", f"--tail: {text!r} is no number of lines")
    return int(text)


def _since(given: Any, now: float) -> str:
    """The time that lines have to be as young as, in the file's form, whose times compare as texts; "" for any."""
    if not given.given("since"):
        return ""
    text = str(given.get("since"))
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise Error("usage", f"--since: {text!r} is no time", hint="such as 90s, 10m or 1h30m")
    then = now - sum(int(number) * _SECONDS[unit] for number, unit in found)
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%dT%H:%M:%S")
