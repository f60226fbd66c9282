"""Events of what nobody has asked for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


@contextlib.contextmanager
def listening(node: Ocirtd) -> Iterator[list[cri.ContainerEventResponse]]:
    """What is told while the block runs."""
    found: list[cri.ContainerEventResponse] = []
    stream = node.runtime.GetContainerEvents(cri.GetEventsRequest())

    def listen() -> None:
        with contextlib.suppress(grpc.RpcError):
            found.extend(stream)

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    try:
        yield found
    finally:
        stream.cancel()
        listener.join()


def test_the_init_of_a_pod_dies(networked: Ocirtd) -> None:
    """The pod is not ready, and its containers have ended."""
    node = networked
    pod = node.run_pod(node.pod_config(options=cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.POD)))
    wanted = node.container_config("sleep", "1000")
    wanted.linux.security_context.namespace_options.pid = cri.POD
    made = node.create(pod, wanted)
    node.start_container(made)
    init = json.loads((node.place / "v/pods" / pod / "init.json").read_text())["pid"]
    with listening(node) as events:
        os.kill(init, signal.SIGKILL)
        node.until(lambda: len(events) == 2, "both events")
    told = {one.container_id: one for one in events}
    assert all(one.container_event_type == cri.CONTAINER_STOPPED_EVENT for one in events)
    assert told[pod].pod_sandbox_status.state == cri.SANDBOX_NOTREADY
    assert [one.id for one in told[pod].containers_statuses] == [made]
    assert told[made].containers_statuses[0].state == cri.CONTAINER_EXITED


def test_a_shim_dies(node: Ocirtd) -> None:
    """Its containers are killed, and the events say how that is told."""
    pod = node.run_pod()
    made = [node.run(pod, "sleep", "1000") for _ in range(2)]
    kept = node.run(node.run_pod(), "sleep", "1000")
    with listening(node) as events:
        shim = json.loads((node.place / "v/shims" / made[0] / "state.json").read_text())["pid"]
        os.kill(shim, signal.SIGKILL)
        node.until(lambda: len(events) >= len(made), "the events")
    assert sorted(event.container_id for event in events) == sorted(made)
    assert {event.container_event_type for event in events} == {cri.CONTAINER_STOPPED_EVENT}
    states = {one.id: (one.state, one.reason) for one in events[-1].containers_statuses}
    assert states == dict.fromkeys(made, (cri.CONTAINER_EXITED, "Unknown"))
    assert node.status(kept).state == cri.CONTAINER_RUNNING
