"""Running something in a child of this process, as steps run: no exception of a test's may come back out of it."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(action: Callable[[], Any]) -> Any:
    """What `action` returns (as JSON has it) when a forked child does it. Raises AssertionError with what went wrong there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            # Where nothing of the action's is closed or opened over it.
            high = os.dup2(writer, 900)
            os.close(writer)
            said = json.dumps({"value": action()})
        except BaseException:  # noqa: BLE001  (it is told to the test)
            said = json.dumps({"failed": traceback.format_exc()})
        os.write(high, said.encode())
        os._exit(0)
    os.close(writer)
    data = b""
    while more := os.read(reader, 65536):
        data += more
    os.close(reader)
    os.waitpid(pid, 0)
    answer = json.loads(data or b'{"failed": "the child has ended"}')
    assert "failed" not in answer, answer["failed"]
    return answer["value"]


def open_descriptors() -> list[int]:
    """Those of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return sorted(found)
