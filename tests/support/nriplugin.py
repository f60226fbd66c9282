"""A plugin of NRI for tests, in a process of its own: it writes down what it is told, and does what its orders say.

Orders are a JSON file that is read anew for each call: {method: {…}}, with any of
    fail: a text, with which the method fails; once: and then never again
    wait: a path, which has to be there before the method ends (it makes PATH.reached first); sleep: seconds
    adjust, update, evict: messages of the answer (the latter two: lists), in protobuf's JSON
    unsolicited: updates that it asks for while it answers
    exit: a status, with which the process ends at once
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import calls
from ocirt_cri.nri.plugin import Plugin, run
from tests.support.patience import patience

_METHODS = {calls.snake(name): name for name in calls.METHODS.values()}


class Recorder(Plugin):
    """In the plugin's process."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._used: set[str] = set()
        policy = self._orders().get("policy")
        if policy:
            self.failure_policy = nri.FailurePolicy(**policy)
        self._wanted = self._orders().get("events")  # without it: all but validating

    def __getattr__(self, name: str) -> Callable[..., Any]:
        wanted = self.__dict__.get("_wanted")
        method = _METHODS.get(name)
        if method is None or (method not in wanted if wanted is not None else method == "ValidateContainerAdjustment"):
            raise AttributeError(name)
        return lambda *args: self._called(method, *args)

    def configure(self, config: str, runtime: str, version: str) -> None:
        """See Plugin."""
        self._write({"method": "Configure", "config": config, "runtime": runtime, "version": version})

    def synchronize(self, pods: list[nri.PodSandbox], containers: list[nri.Container]) -> Any:
        """See Plugin."""
        self._write({"method": "Synchronize", "pods": [one.id for one in pods], "containers": [one.id for one in containers]})
        return self._obey("Synchronize")[1]

    def shutdown(self) -> None:
        """See Plugin."""
        self._write({"method": "Shutdown"})

    def _called(self, method: str, *args: Any) -> Any:
        pod = args[0].pod if method == "ValidateContainerAdjustment" else args[0]
        entry = {"method": method, "pod": pod.id, "pod_message": _bytes(pod)}
        more = args[0].container if method == "ValidateContainerAdjustment" else args[1] if len(args) > 1 else None
        if isinstance(more, nri.Container):
            entry |= {"container": more.id, "message": _bytes(more)}
        if method == "ValidateContainerAdjustment":
            entry["request"] = _bytes(args[0])
        self._write(entry)
        adjust, updates = self._obey(method)
        if method == "CreateContainer":
            return adjust, updates
        return updates if method in ("UpdateContainer", "StopContainer") else None

    def _obey(self, method: str) -> tuple[nri.ContainerAdjustment | None, list[nri.ContainerUpdate]]:
        order = self._orders().get(method, {})
        if "wait" in order:
            Path(order["wait"] + ".reached").touch()
            while not os.path.exists(order["wait"]):
                time.sleep(0.005)
        time.sleep(order.get("sleep", 0))
        if "exit" in order:
            os._exit(order["exit"])
        if "unsolicited" in order:
            failed = self.update_containers([json_format.ParseDict(one, nri.ContainerUpdate()) for one in order["unsolicited"]])
            self._write({"method": "failed", "containers": [one.container_id for one in failed]})
        if "fail" in order and method not in self._used:
            if order.get("once"):
                self._used.add(method)
            raise RuntimeError(order["fail"])
        adjust = json_format.ParseDict(order["adjust"], nri.ContainerAdjustment()) if "adjust" in order else None
        return adjust, [json_format.ParseDict(one, nri.ContainerUpdate()) for one in order.get("update", ())]

    def _orders(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._place / "orders").read_text())
        except FileNotFoundError:
            return {}
        return found

    def _write(self, entry: dict[str, Any]) -> None:
        with (self._place / "events").open("a") as file:
            file.write(json.dumps(entry | {"at": time.monotonic()}) + "\n")


def _bytes(message: Any) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


class NriPlugin:
    """In the test: such a plugin, its orders, and what it was told. `place`: a directory of its own."""

    def __init__(self, place: Path, socket: Path, name: str = "test", index: str = "50") -> None:
        self.place = place
        self.socket = socket
        self.name, self.index = name, index
        self.process: subprocess.Popen[bytes] | None = None
        place.mkdir(exist_ok=True)

    def start(self, *, reconnect: bool = False) -> None:
        """Start it. It connects by itself, `reconnect`: and again; `until` tells when it has."""
        assert self.process is None
        argv = [sys.executable, __file__, str(self.place), str(self.socket), self.name, self.index, *["again"] * reconnect]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def order(self, **orders: Any) -> None:
        """What it is to do from now on."""
        scratch = self.place / "orders.new"
        scratch.write_text(json.dumps(orders))
        scratch.rename(self.place / "orders")

    def events(self, **wanted: str) -> list[dict[str, Any]]:
        """What it was told, or what of that is about something: method=…, pod=…, container=…."""
        try:
            lines = (self.place / "events").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [one for one in found if all(one.get(key) == value for key, value in wanted.items())]

    def methods(self, **wanted: str) -> list[str]:
        """The same, by name only."""
        return [one["method"] for one in self.events(**wanted)]

    def container(self, method: str, **wanted: str) -> nri.Container:
        """The container as the last such call had it."""
        return nri.Container.FromString(base64.b64decode(self.events(method=method, **wanted)[-1]["message"]))

    def pod(self, method: str, **wanted: str) -> nri.PodSandbox:
        """The pod as the last such call had it."""
        return nri.PodSandbox.FromString(base64.b64decode(self.events(method=method, **wanted)[-1]["pod_message"]))

    def until(self, condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Wait for it."""
        end = time.monotonic() + patience(seconds)
        while not condition():
            log = (self.place / "log").read_text() if (self.place / "log").exists() else ""
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.events()}\n{log}"
            time.sleep(0.005)

    def is_there(self) -> bool:
        """Whether it was synchronised at least once."""
        return "Synchronize" in self.methods()

    def end(self) -> int:
        """Kill it, if it runs; its status."""
        if self.process is None:
            return 0
        self.process.kill()
        status = self.process.wait()
        self.process = None
        return status


if __name__ == "__main__":
    run(Recorder(Path(sys.argv[1])), path=sys.argv[2], name=sys.argv[3], index=sys.argv[4], reconnect=len(sys.argv) > 5)
