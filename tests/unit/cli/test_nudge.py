"""Ctrl-C that comes while the main thread is about to wait for a lock."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# The signal goes to another thread: the main thread, which waits, does not hear of it by itself.
_WAIT = """
import signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "nudged":
    from ocirt.cli import nudge
    nudge.start()

def other():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

begin, lock = time.monotonic(), threading.Lock()
lock.acquire()
threading.Timer(0.2, other).start()
try:
    lock.acquire(timeout=float(sys.argv[3]))
except KeyboardInterrupt:
    print("interrupted at once" if time.monotonic() - begin < float(sys.argv[4]) else "interrupted late")
"""


def _waited(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", _WAIT, str(ROOT), *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("seconds", ["50", "-1"])
def test_a_wait_ends(seconds: str) -> None:
    done = _waited("nudged", seconds, "40")
    assert (done.stdout, done.returncode) == ("interrupted at once\n", 0), done.stderr


def test_without_it_the_wait_goes_on() -> None:
    """Else the test above would show nothing."""
    assert _waited("plain", "1.5", "1.4").stdout == "interrupted late\n"
