"""Four processes that pull, remove and open the same store at random: a check beside them finds nothing, and kills leave
nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ocirt_images.errors import Error
from ocirt_images.store import Store, prune
from ocirt_images.store.checks import fsck
from tests.support.store.samples import pull, sample

WORKERS = 4
CHECKS = 40
KILLS = 40
IMAGES = [
    sample(f"registry.example/{number}:1", layers) for number, layers in enumerate([tuple("abc"), tuple("abd"), tuple("ce")])
]


def work(root: Path, seed: int) -> None:
    """Uses the store until it is killed."""
    choice = random.Random(seed)
    while True:
        with Store.open(root, sync=False) as store:
            for _ in range(choice.randint(1, 4)):
                try:
                    choice.choice(ACTIONS)(store, choice)
                except Error as err:
                    # Another process removed or made the same at the same time.
                    if err.code not in ("not-found", "exists"):
                        raise


def remove(store: Store, choice: random.Random) -> None:
    store.images.delete(choice.choice(IMAGES).name)


def container(store: Store, choice: random.Random) -> None:
    key = choice.choice("xyz")
    if store.writables.get(key) is not None:
        store.writables.delete(key)
    else:
        store.writables.create(key, choice.choice(IMAGES).chain_ids[-1])


def fetch(store: Store, choice: random.Random) -> None:
    pull(store, choice.choice(IMAGES))


ACTIONS: list[Callable[[Store, random.Random], object]] = [fetch, fetch, fetch, remove, container, lambda store, _: prune(store)]


def start(root: Path, seed: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            work(root, seed)
        except BaseException:  # noqa: BLE001 -- nothing of a child may return into the tests of its parent
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(70)
    return pid


def kill(pid: int) -> None:
    """It must have been at work until now."""
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@contextmanager
def workers(root: Path) -> Iterator[list[int]]:
    Store.open(root, sync=False).close()
    pids = [start(root, seed) for seed in range(WORKERS)]
    try:
        yield pids
    finally:
        for pid in pids:
            kill(pid)


def test_a_check_beside_others_finds_nothing(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with workers(root):
        found = [finding for _ in range(CHECKS) for finding in fsck(root, sync=False)]
    assert found == []


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """One process dies, the others go on; in the end all are killed, and the next opening has everything in order."""
    root = tmp_path / "store"
    choice = random.Random(0)
    with workers(root) as pids:
        for number in range(KILLS):
            time.sleep(choice.random() / 20)  # whenever: the moment is what varies
            index = choice.randrange(WORKERS)
            kill(pids[index])
            pids[index] = start(root, WORKERS + number)
    with Store.open(root, sync=False) as store:
        assert fsck(store) == []
        for image in IMAGES:
            pull(store, image)
        assert fsck(store) == []
