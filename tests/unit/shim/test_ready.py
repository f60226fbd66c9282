"""Workers that were forked before there is work for them. Each test has a process of its own: it forks."""

from __future__ import annotations

import subprocess
import sys

from tests.support.build import ROOT

_HEAD = """
import os, sys
from ocirt.zygote import wire
from ocirt_shim.ready import Ready

def answer(ready):
    said = b""
    while data := os.read(ready.told, 65536):
        said += data
    assert wire.is_whole(said)
    return wire.decode(said)
"""


def run(text: str) -> None:
    folders = ":".join(str(ROOT / floor) for floor in ("", "api", "shim"))
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + text], env={"PYTHONPATH": folders}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_does_what_it_is_given() -> None:
    """However much that is, with the descriptors that come along, after a rehearsal."""
    run("""
seen = []
def work(data, fds):
    return {"length": len(data), "text": os.read(fds[0], 100).decode(), "seen": seen, "pid": os.getpid()}
ready = Ready(work, lambda: seen.append("rehearsed"))
a, b = os.pipe()
os.write(b, b"hello")
ready.give(bytes(300_000), [a])
word = answer(ready)
assert word == {"length": 300_000, "text": "hello", "seen": ["rehearsed"], "pid": ready.pid}, word
assert os.waitpid(ready.pid, 0)[1] == 0
""")


def test_its_failure_is_a_word_too() -> None:
    run("""
from ocirt.errors import Error
def work(data, fds):
    raise Error("invalid", "is wrong", subject="/mounts")
ready = Ready(work, lambda: None)
ready.give(b"x", [0])
word = answer(ready)
assert word["error"]["subject"] == "/mounts", word
""")


def test_one_that_was_killed_takes_nothing() -> None:
    run("""
import signal
ready = Ready(lambda data, fds: {}, lambda: None)
os.kill(ready.pid, signal.SIGKILL)
os.waitpid(ready.pid, 0)
try:
    ready.give(b"x", [0])
except OSError:
    sys.exit(0)
sys.exit("it was given")
""")


def test_it_ends_with_its_maker() -> None:
    run("""
told, tell = os.pipe()
if not os.fork():
    ready = Ready(lambda data, fds: {}, lambda: None)
    os._exit(0)
os.close(tell)
assert os.read(told, 1) == b"", "the worker lives"
""")
