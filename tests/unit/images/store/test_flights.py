"""Single flight: one owner at a time, whoever else wants to be it, and whatever becomes of the lock file."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ocirt_images.store import flights as module
from ocirt_images.store.changes import Changes
from ocirt_images.store.flights import Flights, progress


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "name.lock"


def make() -> Flights:
    """As in another process: it shares nothing but the files."""
    return Flights(Changes(sync=False))


def test_one_owner(path: Path) -> None:
    one, other = make(), make()
    flight = one.take(path)
    assert one.try_take(path) is None, "between threads"
    assert other.try_take(path) is None, "between processes"
    flight.end()
    flight.end()
    assert not path.exists()
    second = other.try_take(path)
    assert second is not None
    assert one.try_take(path) is None
    second.end()


def test_a_left_lock_file_is_taken(path: Path) -> None:
    path.write_bytes(b"left by a dead owner")
    flight = make().try_take(path)
    assert flight is not None
    flight.end()
    assert not path.exists()


@pytest.mark.parametrize("same", [True, False], ids=["threads", "processes"])
def test_who_waits_is_told_and_follows(path: Path, same: bool) -> None:
    one = make()
    other = one if same else make()
    flight = one.take(path)
    flight.report(77)
    seen: list[int] = []

    def waiting(done: int) -> None:
        seen.append(done)
        if len(seen) == 1:
            flight.report(78)
        else:
            flight.end()

    other.take(path, waiting).end()
    assert seen[:2] == [77, 78]
    assert progress(path) == 0


def test_waiting_may_give_up(path: Path) -> None:
    one = make()
    flight = one.take(path)

    def give_up(done: int) -> None:
        raise KeyboardInterrupt

    for flights in (one, make()):
        with pytest.raises(KeyboardInterrupt):
            flights.take(path, give_up)
    flight.end()
    follower = one.try_take(path)
    assert follower is not None, "who gave up holds nothing"
    follower.end()


def test_a_lock_of_a_file_that_was_just_unlinked_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner ends after another one has opened the lock file, and before it locks it."""
    one, other = make(), make()
    flight = one.take(path)
    real = module._flock
    opened: list[int] = []

    def flock(descriptor: int) -> bool:
        if not opened:
            flight.end()
        opened.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(module, "_flock", flock)
    follower = other.take(path)
    assert path.exists()
    assert len(opened) == 2, "the first lock was of no use"
    assert one.try_take(path) is None
    follower.end()


def test_many_threads_of_many_processes(path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    everybody = [make() for _ in range(3)]

    def work(flights: Flights) -> None:
        for _ in range(10):
            flight = flights.take(path)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            flight.end()

    threads = [threading.Thread(target=work, args=(flights,)) for flights in everybody for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 90
    assert not path.exists()
