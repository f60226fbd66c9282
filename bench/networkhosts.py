"""A host for each implementation of network plugins: a process that does there what the measurement asks for."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import CommandFailedError, Sample
from ocirt_cni import plugins
from ocirt_cni.call import Call
from ocirt_cni.results import Result
from tests.support.audits import drop
from tests.support.chains import Chain, Executables, bridge, portmap
from tests.support.isolation import CLONE_NEWNS, unshare
from tests.support.leaks import links
from tests.support.networks import command, make_network, new_host

_NETWORK = "10.96.0.0/16"
_DEVICES = Path("/proc/thread-self/net/dev")
_GONE = 60.0  # seconds until what was detached has to be gone
_CHAIN = (bridge(_NETWORK), portmap((8080, 80, "tcp")))


class Engine:
    """Our plugins in this process. The interface of `tests.support.chains.Chain`, as far as it is needed here."""

    def __init__(self) -> None:
        self._results: dict[str, Result] = {}

    def _call(self, verb: str, conf: dict[str, Any], container: str, network: str) -> Call:
        whole = {"cniVersion": "1.0.0", "name": "net", **conf}
        return Call(verb, whole, container=container, netns=network, ifname="eth0", lazy=verb == "DEL")

    def add(self, container: str, network: str) -> None:
        """ADD of the chain. Raises ocirt_cni's Error."""
        result = None
        for conf in _chain(container):
            call = self._call("ADD", conf, container, network)
            call.previous = result
            result = plugins.invoke(conf["type"], call)
        assert result is not None
        self._results[container] = result

    def delete(self, container: str, network: str) -> None:
        """DEL of the chain, after which the namespace is dropped. Raises ocirt_cni's Error."""
        result = self._results.pop(container, None)
        for conf in reversed(_chain(container)):
            call = self._call("DEL", conf, container, network)
            call.previous = result
            plugins.invoke(conf["type"], call)
        drop(network)


class Programs:
    """Executables, called as libcni calls them."""

    def __init__(self, executables: Executables) -> None:
        self._executables = executables
        self._results: dict[str, Any] = {}

    def add(self, container: str, network: str) -> None:
        """ADD of the chain. Raises AssertionError."""
        chain = Chain(self._executables, "net", *_chain(container))
        chain.add(container, network).ok()
        self._results[container] = chain

    def delete(self, container: str, network: str) -> None:
        """DEL of the chain. Raises AssertionError."""
        for answer in self._results.pop(container).delete(container, network):
            answer.ok()


def _chain(container: str) -> tuple[dict[str, Any], ...]:
    """The chain with a port of the host for this container alone."""
    bridged, mapped = _CHAIN
    number = int(container.rpartition("-")[2])
    ports = [{"hostPort": 10_000 + number, "containerPort": 80, "protocol": "tcp"}]
    return bridged, {**mapped, "runtimeConfig": {"portMappings": ports}}


def _reference() -> Programs:
    from conformance.cniplugins import programs  # noqa: PLC0415  (it needs Go, which the others do not)

    return Programs(Executables("reference", programs()))


def _executables() -> Programs:
    place = Path(tempfile.mkdtemp(prefix="ocirt-bench-"))
    return Programs(Executables.ours(place, ["bridge", "host-local", "portmap"]))


CONTESTANTS: dict[str, Callable[[], Engine | Programs]] = {
    "reference": _reference,
    "executables": _executables,
    "engine": Engine,
}


class Host:
    """The process, as the measurement sees it."""

    def __init__(self, name: str, make: Callable[[], Engine | Programs]) -> None:
        self.name = name
        chain = make()
        mine, its = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            mine.close()
            _serve(chain, its)
        its.close()
        self._socket = mine
        self._stream = mine.makefile("rw")

    def ask(self, what: str, number: int = 0) -> None:
        """Send a request."""
        self._stream.write(f"{what} {number}\n")
        self._stream.flush()

    def answer(self) -> list[Sample]:
        """Its answer. Raises CommandFailedError."""
        line = self._stream.readline()
        found = json.loads(line) if line else "its process has ended"
        if isinstance(found, str):
            raise CommandFailedError(f"{self.name}: {found}")
        return [Sample(*one) for one in found]

    def attachment(self) -> tuple[Sample, Sample]:
        """One ADD and one DEL."""
        self.ask("attachment")
        added, deleted = self.answer()
        return added, deleted

    def pairs(self, number: int) -> Sample:
        """So many ADDs, each with its DEL, until nothing of them is left."""
        self.ask("pairs", number)
        return self.answer()[0]

    def close(self) -> None:
        """End the process, and with it the host."""
        # The processes that were made later hold this socket as well: to close it would be no end for this one.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _serve(chain: Engine | Programs, requests: socket.socket) -> None:
    """The process: answer requests until there are no more."""
    unshare(CLONE_NEWNS)
    with requests.makefile("rw") as stream, new_host():
        served = _Served(chain)
        for line in stream:
            what, number = line.split()
            try:
                answer: object = [(one.wall, one.cpu, one.memory) for one in getattr(served, what)(int(number))]
            except Exception:  # noqa: BLE001  (whoever asked says it)
                answer = traceback.format_exc()
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
    os._exit(0)


class _Served:
    """What a host does on request."""

    def __init__(self, chain: Engine | Programs) -> None:
        self.chain = chain
        self.filled = 0
        self.count = 0

    def fill(self, number: int) -> list[Sample]:
        """Attach more containers, until there are so many."""
        while self.filled < number:
            name = f"live-{self.filled}"
            self.chain.add(name, make_network(name))
            self.filled += 1
        return []

    def attachment(self, _: int) -> list[Sample]:
        """One more container comes and goes."""
        self.count += 1
        name = f"one-{2000 + self.count % 1000}"
        network = make_network(name)
        added = _timed(lambda: self.chain.add(name, network))
        deleted = _timed(lambda: self.chain.delete(name, network))
        if Path(network).exists():
            drop(network)
        self._await_links()
        return [added, deleted]

    def settled(self, _: int) -> list[Sample]:
        """That nothing is left of who came and went. Not after each: caches are cold after thousands of rules were listed."""
        self._all_gone("one-")
        return []

    def pairs(self, number: int) -> list[Sample]:
        """So many come and go; then until their links, rules and namespaces are gone."""
        self.chain.add("warm-5000", make_network("warm-5000"))
        self.chain.delete("warm-5000", "/run/netns/warm-5000")

        def run() -> None:
            for index in range(number):
                name = f"pair-{4000 + index}"
                network = make_network(name)
                self.chain.add(name, network)
                self.chain.delete(name, network)
                if Path(network).exists():
                    drop(network)
            self._all_gone("pair-")

        return [_timed(run)]

    def _await_links(self) -> None:
        """Wait until there are no links but those of who stays. Raises AssertionError."""
        deadline = time.monotonic() + _GONE
        while _DEVICES.read_text().count("\n") > self.filled + 4:  # two lines above; lo, the bridge, one for each container
            assert time.monotonic() < deadline, f"links stay: {sorted(links())}"
            time.sleep(0.001)

    def _all_gone(self, prefix: str) -> None:
        """Wait for the end of links, rules and namespaces of containers that are named so. Raises AssertionError."""
        self._await_links()
        assert prefix not in command("nft", "list", "ruleset")
        assert not [name for name in os.listdir("/run/netns") if name.startswith(prefix)]


def _timed(action: Callable[[], object]) -> Sample:
    def spent() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in usages)

    cpu, begin = spent(), time.perf_counter()
    action()
    wall = time.perf_counter() - begin
    return Sample(wall * 1000, (spent() - cpu) * 1000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
