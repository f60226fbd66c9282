"""Where the time goes on a node: spans of all its processes, in one file of the trace-event format (Chrome, Perfetto).

Off until `to` is called; then each process that has called it, and its forks, append a line for each span at its end. The file is
a JSON array, whose end the format lets be missing. Each span stands on a lane, which says who did it.
"""

from __future__ import annotations

import posix
from time import monotonic_ns

LANES = ("rpc", "daemon", "journal", "network", "shims", "helper", "job", "shim", "worker", "parent", "stage", "init")
KEY = "trace"  # the member of messages between processes that says where to
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.kernel.run import Run

_fd = -1
_path = ""


def to(path: str, *, anew: bool = False) -> None:
    """Append to a file from now on, or begin it anew; "" is none. Raises OSError."""
    global _fd, _path
    if not path:
        return
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
    fd = posix.open(path, flags | (posix.O_TRUNC if anew else 0), 0o600)
    if anew:
        names = [
            f'{{"name":"thread_name","ph":"M","pid":1,"tid":{number},"args":{{"name":"{lane}"}}}},\n'
            for number, lane in enumerate(LANES)
        ]
        posix.write(fd, ("[\n" + "".join(names)).encode())
    _fd, _path = fd, path


def on() -> str:
    """The file, "" if there is none."""
    return _path


def descriptors() -> tuple[int, ...]:
    """What a fork has to keep open to go on writing."""
    return (_fd,) if _fd >= 0 else ()


def now() -> int:
    """For `add`; 0 if nothing is written down."""
    return monotonic_ns() if _fd >= 0 else 0


def add(lane: str, name: str, began: int) -> None:
    """Something that began at `began` (of `now`) has ended."""
    if _fd < 0:
        return
    taken = (monotonic_ns() - began) / 1000
    text = f'{{"name":"{name}","ph":"X","pid":1,"tid":{LANES.index(lane)},"ts":{began / 1000},"dur":{taken}}},\n'
    posix.write(_fd, text.encode())


def follow(run: Run) -> None:
    """Have the steps of a plan written down."""
    if _fd >= 0:
        from ocirt.kernel.trace import Trace  # noqa: PLC0415  (only then)

        run.trace = Trace(_path, run.plan, joins=True)


class Span:
    """What is done in a block."""

    __slots__ = ("_began", "_lane", "_name")

    def __init__(self, lane: str, name: str) -> None:
        self._lane = lane
        self._name = name
        self._began = 0

    def __enter__(self) -> None:
        self._began = now()

    def __exit__(self, *_: object) -> None:
        add(self._lane, self._name, self._began)
