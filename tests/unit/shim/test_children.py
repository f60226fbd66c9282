"""Who waits for a shim's children."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from ocirt_shim.children import Children
from ocirt_shim.loop import Loop


def until(loop: Loop, condition: Callable[[], object]) -> None:
    """Run the loop until something is so."""

    def look() -> None:
        if condition():
            loop.stop()
        else:
            loop.after(1_000_000, look)

    look()
    loop.run()


def test_a_program_that_ends_before_its_workers_word() -> None:
    """Somebody else has the pipe for a moment; the program that the word is about has ended by then."""
    loop = Loop()
    children = Children(loop)
    gate, way = os.pipe()

    def work() -> dict[str, Any]:
        if not os.fork():  # an orphan, which is init's to reap
            os.close(way)
            os.read(gate, 1)
            os._exit(0)
        return {"pid": program}

    program = os.fork()
    if not program:
        os._exit(7)
    heard: list[Any] = []
    ended: list[int] = []

    def hear(word: Any) -> None:
        heard.append(word)
        children.expect(word["pid"], ended.append)

    worker = children.employ(work, hear, [gate])
    children.reaped(*os.waitpid(program, 0))
    children.reaped(*os.waitpid(worker, 0))
    os.close(way)
    until(loop, lambda: heard)
    assert [os.waitstatus_to_exitcode(status) for status in ended] == [7]


def test_a_worker_leaves_nothing_for_the_collector() -> None:
    """A shim runs without it: a ring of objects would be there for as long as the shim is."""
    loop = Loop()
    children = Children(loop)
    heard: list[Any] = []
    number = 50

    def hear(word: Any) -> None:
        heard.append(word)
        if not len(heard) % number:
            loop.stop()

    def run() -> None:
        workers = [children.employ(lambda: {"done": 1}, hear, []) for _ in range(number)]
        loop._stopped = False
        loop.run()
        for worker in workers:
            children.reaped(*os.waitpid(worker, 0))

    run()
    gc.collect()
    gc.disable()
    try:
        run()
        assert gc.collect() < number, "somebody else's, such as pytest's, are few"
    finally:
        gc.enable()
    assert heard == [{"done": 1}] * 2 * number


def test_a_number_that_somebody_else_had_before() -> None:
    """A status that nobody claimed is not that of a child which has the number now."""
    children = Children(Loop())
    gate, way = os.pipe()
    program = os.fork()
    if not program:
        os.close(way)
        os.read(gate, 1)
        os._exit(3)
    children._unclaimed[program] = 9
    ended: list[int] = []
    children.expect(program, ended.append)
    assert ended == []
    os.close(way)
    os.close(gate)
    children.reaped(*os.waitpid(program, 0))
    assert [os.waitstatus_to_exitcode(status) for status in ended] == [3]


def test_a_worker_has_what_it_is_given() -> None:
    """And of its maker's other descriptors only those that all workers have."""
    loop = Loop()
    common, given, foreign = (os.open("/dev/null", os.O_RDONLY) for _ in range(3))
    children = Children(loop, (common,))
    heard: list[Any] = []

    def work() -> dict[str, Any]:
        return {str(fd): os.access(f"/proc/self/fd/{fd}", os.F_OK) for fd in (common, given, foreign)}

    worker = children.employ(work, heard.append, [given])
    until(loop, lambda: heard)
    children.reaped(*os.waitpid(worker, 0))
    assert heard == [{str(common): True, str(given): True, str(foreign): False}]
    for fd in (common, foreign):
        os.close(fd)
