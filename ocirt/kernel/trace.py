"""When each step began and how long it took, in the trace-event format that Chrome and Perfetto read.

The file is a JSON array; the format lets its end be missing, so that each process can append what it did.
"""

from __future__ import annotations

import posix
from _json import encode_basestring
from time import monotonic_ns

from ocirt.spans import LANES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan import Plan

_TRACKS = {"parent": 1, "stage": 2, "init": 3, "start": 3}
_LANES = {side: LANES.index("init" if side == "start" else side) for side in _TRACKS}


class Trace:
    """The steps of one process; `flush` appends them to the file. A forked child goes on with a copy.

    joins: the file is one of `ocirt.spans`, with its lanes.
    """

    def __init__(self, path: str, plan: Plan, *, joins: bool = False) -> None:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
        self.fd = posix.open(path, flags if joins else flags | posix.O_TRUNC, 0o644)
        self._plan = plan
        self._lines: list[str] = []
        self._tracks = _LANES if joins else _TRACKS
        if joins:
            return
        text = "[\n"
        for track, name in ((1, "parent"), (2, "stage"), (3, "init")):
            text += f'{{"name":"thread_name","ph":"M","pid":1,"tid":{track},"args":{{"name":"{name}"}}}},\n'
        posix.write(self.fd, text.encode())

    def add(self, side: str, index: int, began: int, taken: int) -> None:
        """Note a step that began at `began` (ns, CLOCK_MONOTONIC) and has just ended; `taken`: the errno of an alternative."""
        ended = monotonic_ns()
        _, operation, _, pointer, _ = self._plan[index]
        self.span(self._tracks[side], operation, pointer, began, ended, taken)
        # Before the process may end or become the program; writing takes time of its own.
        if operation in ("sync.tell", "sync.leave_parent", "program.keep_descriptors", "state.commit", "process.clone_sibling"):
            self.flush()

    def span(self, track: int, name: str, pointer: str, began: int, ended: int, taken: int = 0) -> None:
        """Note anything that took from `began` to `ended` (ns)."""
        also = f',"alternative":"{posix.strerror(taken)}"' if taken else ""
        self._lines.append(
            f'{{"name":"{name}","cat":"step","ph":"X","pid":1,"tid":{track},"ts":{began / 1000},'
            f'"dur":{(ended - began) / 1000},"args":{{"pointer":{encode_basestring(pointer)}{also}}}}},\n'
        )

    def forget(self) -> None:
        """Drop what was noted: in a new child, what its parent did."""
        self._lines.clear()

    def flush(self) -> None:
        """Append what was noted."""
        if self._lines:
            posix.write(self.fd, "".join(self._lines).encode())
            self._lines.clear()
