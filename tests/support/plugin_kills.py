"""Killing network plugins at a counted system call, as `kills` does it with a runtime, and looking for what is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.audits import Audit, drop
from tests.support.chains import Chain
from tests.support.kills import Point, killed_at, of_runtime, trace
from tests.support.networks import make_network
from tests.support.runtime import lines

_GRACE = 5.0  # seconds for the kernel to take away the links of a namespace that is gone
_BEGIN = 'read(0, "{'  # a plugin's first call that depends on what it is asked for


class Victim:
    """A chain whose plugins are killed one after the other, at one call after the other."""

    def __init__(self, chain: Chain, scratch: Path) -> None:
        self.chain = chain
        self.scratch = scratch
        self.killed = 0
        self.points = 0
        self.complaints: list[str] = []
        self._count = 0
        network, container = self.new()
        self.chain.add(container, network).ok()
        for answer in self.chain.delete(container, network):
            answer.ok()
        drop(network)
        self.before = Audit.take()

    def new(self) -> tuple[str, str]:
        """A container: its namespace and its id."""
        self._count += 1
        return make_network(f"k{self._count}"), f"k{self._count}"

    def argv(self, index: int, command: str, container: str, network: str) -> list[str]:
        """The command line of one call of the plugin of that place; the configuration comes from a file."""
        conf = self.chain.confs(self._previous(index, command, container))[index]
        path = self.scratch / "conf.json"
        path.write_text(json.dumps(conf))
        environment = self.chain.executables.environment(command, container, network)
        program = str(self.chain.executables.directory / conf["type"])
        words = [f"{key}={value}" for key, value in environment.items()]
        return ["env", "-i", *words, "/bin/sh", "-c", f'exec "{program}" < "{path}"']

    def _previous(self, index: int, command: str, container: str) -> dict[str, object] | None:
        if command == "DEL":
            return self.chain.results.get((container, "eth0"))
        return self.so_far.get(container) if index else None

    so_far: dict[str, dict[str, object]] = {}  # noqa: RUF012  (replaced by `begin`)

    def begin(self, index: int, command: str, container: str, network: str) -> None:
        """All that comes before the call of the plugin of that place. Raises AssertionError if it fails."""
        self.so_far = {}
        if command == "DEL":
            self.chain.add(container, network).ok()
            confs = self.chain.confs(self.chain.results[container, "eth0"])
            for conf in reversed(confs[index + 1 :]):
                self.chain.executables.invoke(conf, "DEL", container, network).ok()
            return
        for place in range(index):
            conf = self.chain.confs(self.so_far.get(container))[place]
            self.so_far[container] = self.chain.executables.invoke(conf, "ADD", container, network).ok()

    def reachable(self, index: int, command: str) -> list[Point]:
        """The points of a plugin's call: all that change something."""
        network, container = self.new()
        self.begin(index, command, container, network)
        points = of_runtime(trace(self.argv(index, command, container, network), self.scratch / "log"), _BEGIN)
        self._end(container, network)
        return points

    def kill(self, index: int, command: str, point: Point, recover: Callable[[Victim, str, str], None]) -> None:
        """Kill a call at a point, recover as a runtime does it, and note what is left."""
        network, container = self.new()
        self.begin(index, command, container, network)
        death = killed_at(self.argv(index, command, container, network), point)
        self.points += 1
        self.killed += death.code < 0
        where = f"{command} of {self.chain.plugins[index]['type']} at {point}, then {recover.__name__.strip('_')}"
        try:
            recover(self, container, network)
        except AssertionError as err:
            self.complaints.append(f"{where}: {err}")
        left = self.before.changes(_GRACE)
        if left:
            self.complaints.append(f"{where}:{lines(left)}")
            self._end(container, network)
            self.before = Audit.take()  # so that the next one is judged for itself

    def _end(self, container: str, network: str) -> None:
        self.chain.delete(container, network)
        if Path(network).exists():
            drop(network)


def by_del(victim: Victim, container: str, network: str) -> None:
    """DEL, with the namespace; what ADD came to is known if it came to an end."""
    for answer in victim.chain.delete(container, network):
        answer.ok()
    drop(network)


def by_del_without_namespace(victim: Victim, container: str, network: str) -> None:
    """DEL after the container is gone, by a runtime that remembers nothing."""
    drop(network)
    for answer in victim.chain.delete(container, "", forgotten=True):
        answer.ok()


def by_gc(victim: Victim, container: str, network: str) -> None:
    """GC after the container is gone."""
    drop(network)
    victim.chain.results.pop((container, "eth0"), None)
    for answer in victim.chain.collect():
        answer.ok()


RECOVERIES: tuple[Callable[[Victim, str, str], None], ...] = (by_del, by_del_without_namespace, by_gc)


def turns(points: list[Point], shift: int) -> Iterator[tuple[Point, Callable[[Victim, str, str], None]]]:
    """Each point with a way to recover, in turn."""
    for number, point in enumerate(points):
        yield point, RECOVERIES[(number + shift) % len(RECOVERIES)]
