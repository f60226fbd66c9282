"""The options of cgroup2, as mountinfo has them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ocirt.criu import delegation
from tests.support.runtime import wait_for

LINE = b"53 27 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (LINE, ("nsdelegate", "memory_recursiveprot")),
        (b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw,quota\n" + LINE, ("nsdelegate", "memory_recursiveprot")),
        (b"53 27 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", ()),
        (b"22 1 8:1 / /x\\040-\\040y rw - tmpfs tmpfs rw\n", ()),
        (b"", ()),
        (b"garbage - \n", ()),
    ],
)
def test_options(text: bytes, wanted: tuple[str, ...]) -> None:
    assert delegation.options(text) == wanted


@pytest.mark.parametrize("killed", [False, True])
def test_kept(killed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put back at the end of the work, and of CRIU if the caller is killed in it: here somebody who sleeps for a moment."""
    monkeypatch.setattr(delegation, "options", lambda: ("nsdelegate",))
    said = tmp_path / "said"
    monkeypatch.setattr(delegation, "put_back", lambda before: said.write_text(f"{before[0]} {time.monotonic()}"))
    caller = os.fork()
    if not caller:
        try:
            criu = os.posix_spawn("/bin/sleep", ["sleep", "0.5"], {})
            with delegation.Kept(criu):
                if killed:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.waitpid(criu, 0)
        finally:
            os._exit(0)
    begin = time.monotonic()
    os.waitpid(caller, 0)
    wait_for(lambda: said.exists() and said.read_text(), "the guard", 10)
    word, when = said.read_text().split()
    assert word == "nsdelegate"
    assert float(when) - begin > 0.3, "while CRIU worked"
