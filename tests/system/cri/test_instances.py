"""Daemons beside each other, and what the kubelet says of the node's addresses."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import Isolation, umount
from tests.support.ocirtd import Ocirtd, refused
from tests.support.runtime import wait_for
from tests.system.cri.conftest import daemon

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)


@pytest.fixture
def neighbour(networked: Ocirtd, no_leaks: list[Path], isolation: Isolation) -> Iterator[Ocirtd]:
    """A second daemon on the host of the first, with directories of its own."""
    yield from daemon((networked.place / "r/images", networked.image), no_leaks, isolation)


def _cidr(node: Ocirtd, text: str) -> None:
    network = cri.NetworkConfig(pod_cidr=text)
    node.runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest(runtime_config=cri.RuntimeConfig(network_config=network)))


def _bridges() -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith("ocirt")}


def test_two_daemons_on_one_host(networked: Ocirtd, neighbour: Ocirtd) -> None:
    """Each has its bridge and its names; what one takes away at its start is its own."""
    pods = [one.run_pod(one.pod_config(options=OWN)) for one in (networked, neighbour)]
    box = neighbour.run(pods[1], "sleep", "1000")
    ips = [one.pod_status(pod).network.ip for one, pod in zip((networked, neighbour), pods, strict=True)]
    assert sorted(ip.split(".")[1] for ip in ips) == ["85", "86"]
    assert len(_bridges()) == 2
    networked.kill()
    networked.start()
    networked.remove_pod(pods[0])
    assert neighbour.pod_status(pods[1]).state == cri.SANDBOX_READY
    ping = neighbour.exec(box, "busybox", "ping", "-c", "1", "-W", "5", f"10.{ips[1].split('.')[1]}.0.1")
    assert ping.exit_code == 0, ping
    assert [path.name[-32:] for path in Path("/run/netns").iterdir()] == [pods[1][:32]]


def test_the_range_of_the_kubelet(networked: Ocirtd) -> None:
    """Pods get addresses of it, also after a restart; those that are there keep theirs, and everybody reaches everybody."""
    node = networked
    before = node.run_pod(node.pod_config(options=OWN))
    _cidr(node, "10.77.1.0/24")
    first = node.run_pod(node.pod_config(options=OWN))
    node.stop()
    node.start()
    _cidr(node, "")
    second = node.run_pod(node.pod_config(options=OWN))
    ips = {pod: node.pod_status(pod).network.ip for pod in (before, first, second)}
    assert ips[before].startswith("10.85.")
    assert all(ips[pod].startswith("10.77.1.") for pod in (first, second))
    box = node.run(second, "sleep", "1000")
    for ip in ips.values():
        ping = node.exec(box, "busybox", "ping", "-c", "1", "-W", "5", ip)
        assert ping.exit_code == 0, (ip, ping)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        _cidr(node, "10.77.1.0/33")
    assert "pod_cidr" in words[0]


def test_what_a_pod_without_a_row_had_is_taken_back(networked: Ocirtd) -> None:
    """Its directory is gone, too: its namespace and its address are found by the daemon's word in their names."""
    node = networked
    pod, other = (node.run_pod(node.pod_config(options=OWN)) for _ in range(2))
    node.kill()
    _forget(node, pod)
    node.start()
    assert [one.id for one in node.pods()] == [other]
    assert [path.name[-32:] for path in Path("/run/netns").iterdir()] == [other[:32]]
    taken = [path for path in Path("/var/lib/cni/networks").rglob("10.*") if path.read_text().startswith(pod)]
    assert taken == []
    wait_for(lambda: len([name for _, name in socket.if_nameindex() if name.startswith("veth")]) == 1, "the end of its link", 10)


def _forget(node: Ocirtd, pod: str) -> None:
    db = sqlite3.connect(node.place / "r/node.db")
    with db:
        db.execute("DELETE FROM pods WHERE id = ?", (pod,))
    db.close()
    umount(str(node.place / "v/pods" / pod / "shm"))
    shutil.rmtree(node.place / "v/pods" / pod)
