"""A network helper of a zygote, on a host of the test's own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.zygote import wire
from tests.support.networks import Host, new_host
from tests.support.shims import PATIENCE, Zygote
from tests.system.cni.conftest import modules  # noqa: F401


class Helper:
    """A connection to a helper, which answers in any order."""

    numbers = itertools.count(1)

    def __init__(self, zygote: Zygote, state: Path, instance: str = "00000001") -> None:
        self.zygote = zygote
        self.state = state
        self.instance = instance
        self.answers: dict[int, dict[str, Any]] = {}
        self.start()

    def start(self) -> None:
        module = "ocirt_cri.network.helper"
        root = f"/var/lib/ocirt-{self.instance}"
        asked = {"do": "serve", "module": module, "state": str(self.state), "root": root, "instance": self.instance}
        self.socket, answer = self.zygote.ask(asked)
        self.pid = answer["at"]
        self.decoder = wire.Decoder()

    def request(self, pod: str, **members: Any) -> dict[str, Any]:
        members.setdefault("netns", f"/run/netns/ocirt-{pod}")
        cni = {"config_dir": str(self.state / "net.d"), "bin_dirs": [str(self.state / "bin")]} | members.pop("cni", {})
        return {"pod": pod, "directory": f"{self.state}/pods/{pod}", "cni": cni, **members}

    def send(self, what: str, request: dict[str, Any]) -> int:
        number = next(self.numbers)
        self.socket.sendall(wire.encode({**request, "n": number, "do": what}))
        return number

    def receive(self, number: int) -> dict[str, Any]:
        while number not in self.answers:
            data = self.socket.recv(1 << 16)
            assert data, "the helper is gone"
            self.decoder.feed(data)
            while (message := self.decoder.next()) is not None:
                assert "n" in message, message
                self.answers[message["n"]] = message
        found = self.answers.pop(number)
        if "error" in found:
            raise wire.to_error(found)
        return found

    def call(self, what: str, request: dict[str, Any]) -> dict[str, Any]:
        return self.receive(self.send(what, request))

    def up(self, pod: str, **members: Any) -> dict[str, Any]:
        return self.call("sandbox-up", self.request(pod, ipc=True, uts=True, hostname=pod, **members))

    def strays(self, *known: str) -> list[str]:
        """What it finds of pods that are not known."""
        netns = [f"/run/netns/ocirt-{pod}" for pod in known]
        found = self.call("sandbox-strays", self.request("", known=known, netns=netns, netns_dir="/run/netns", prefix="ocirt-0"))
        return list(found["pods"])

    def down(self, pod: str, **members: Any) -> dict[str, Any]:
        return self.call("sandbox-down", self.request(pod, **members))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.socket.close()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def host(no_leaks: list[Path]) -> Iterator[Host]:
    assert not no_leaks
    with new_host() as made:
        yield made


@pytest.fixture
def helper(host: Host) -> Iterator[Helper]:
    zygote = Zygote()
    state = Path("/run/ocirt-node")
    state.mkdir()
    made = Helper(zygote, state)
    assert PATIENCE
    yield made
    made.close()
    zygote.close()
