"""The end of a worker whose job takes too long: with all that it has executed, whatever that is at."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt_cri.network.helper import Worker
from tests.support.runtime import wait_for

STORM = "echo begun; for i in 1 2 3 4; do (while :; do /bin/true; done) & done; while :; do /bin/true; done"


def with_word(word: str) -> list[int]:
    """The processes that have a word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def begin(script: str, word: str) -> subprocess.Popen[bytes]:
    began = subprocess.Popen(["/bin/sh", "-c", script], env={"WORD": word, "PATH": "/bin"}, stdout=subprocess.PIPE)
    assert began.stdout is not None
    assert began.stdout.readline() == b"begun\n"
    return began


def test_nothing_is_left_of_what_forks_all_the_time() -> None:
    word = uuid.uuid4().hex
    try:
        for _ in range(20):
            began = begin(STORM, word)
            Worker(began.pid, -1).kill()
            assert began.wait(10) == -signal.SIGKILL
            began.communicate()
        wait_for(lambda: not with_word(word), "the end of the processes", 5)
    finally:
        for pid in with_word(word):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError])
def test_a_process_may_end_while_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, error: type[OSError]) -> None:
    """The kernel says one or the other, by how far its end is; what stands beside it is killed all the same."""
    word = uuid.uuid4().hex
    began = begin("sleep 1000 & sleep 1000 & echo begun; wait", word)
    children = Path(f"/proc/{began.pid}/task/{began.pid}/children").read_text().split()
    assert len(children) == 2
    real: Callable[..., Any] = builtins.open

    def look(path: str, *args: Any, **keys: Any) -> Any:
        if str(path).startswith(f"/proc/{children[0]}/"):
            raise error
        return real(path, *args, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", look)
        Worker(began.pid, -1).kill()
    assert began.wait(10) == -signal.SIGKILL
    began.communicate()
    wait_for(lambda: not with_word(word), "the end of the processes", 5)
