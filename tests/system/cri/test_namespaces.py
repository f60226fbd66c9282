"""Pods with namespaces and a network of their own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.leaks import descendants
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)


def test_a_pod_with_everything_of_its_own(networked: Ocirtd) -> None:
    """Its containers share the network, the host's name and /dev/shm, and nobody else does."""
    node = networked
    pod = node.run_pod(
        node.pod_config(options=OWN, hostname="web", dns_config=cri.DNSConfig(servers=["10.9.8.7"], searches=["x.y"]))
    )
    status = node.pod_status(pod)
    assert status.network.ip.startswith("10.85.")
    one, two = (node.run(pod, "sleep", "1000") for _ in range(2))
    addresses = [node.exec(box, "busybox", "ip", "-4", "addr", "show", "eth0").stdout.decode() for box in (one, two)]
    assert all(status.network.ip in text for text in addresses)
    assert node.exec(one, "busybox", "hostname").stdout == b"web\n"
    assert node.exec(one, "cat", "/etc/hostname").stdout == b"web\n"
    assert node.exec(two, "cat", "/etc/resolv.conf").stdout == b"search x.y\nnameserver 10.9.8.7\n"
    node.exec(one, "sh", "-c", "echo shared > /dev/shm/file")
    assert node.exec(two, "cat", "/dev/shm/file").stdout == b"shared\n"
    other = node.run_pod(node.pod_config(options=OWN))
    third = node.run(other, "sleep", "1000")
    assert node.exec(third, "ls", "/dev/shm").stdout == b""
    assert node.pod_status(other).network.ip != status.network.ip
    ping = node.exec(third, "busybox", "ping", "-c", "1", "-W", "5", status.network.ip)
    assert ping.exit_code == 0, ping
    node.stop_pod(pod)
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
    node.remove_pod(pod)
    node.remove_pod(other)
    assert node.left() == []
    assert list(Path("/run/netns").iterdir()) == []


def test_a_pod_outlives_daemon_zygote_and_helper(networked: Ocirtd) -> None:
    """Namespaces are nobody's: a fresh daemon makes containers in them."""
    node = networked
    pod = node.run_pod(node.pod_config(options=OWN, hostname="web"))
    one = node.run(pod, "sleep", "1000")
    node.exec(one, "sh", "-c", "echo kept > /dev/shm/file")
    ip = node.pod_status(pod).network.ip
    node.stop_container(one)
    node.kill()
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    two = node.run(pod, "sleep", "1000")
    assert node.exec(two, "cat", "/dev/shm/file").stdout == b"kept\n"
    assert node.exec(two, "busybox", "hostname").stdout == b"web\n"
    assert ip in node.exec(two, "busybox", "ip", "addr").stdout.decode()
    assert node.process is not None
    forks = [pid for pid, said in descendants().items() if "ocirt-shim" not in said and b"ocirt_shim.zygote" in _command(pid)]
    assert len(forks) >= 2  # the zygote, and the helper
    for pid in forks:
        os.kill(pid, signal.SIGKILL)
    three = node.run(pod, "sleep", "1000")
    assert node.exec(three, "busybox", "hostname").stdout == b"web\n"
    node.remove_pod(pod)
    assert node.left() == []


def _command(pid: int) -> bytes:
    """What one of the test's processes was executed as."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_containers_share_pids_where_the_pod_does(networked: Ocirtd) -> None:
    """The default of the CRI: one PID namespace, whose init is nobody's program."""
    node = networked
    pod = node.run_pod(node.pod_config(options=cri.NamespaceOption()))
    wanted = [node.container_config("sleep", f"100{number}") for number in range(2)]
    for one in wanted:
        one.linux.security_context.namespace_options.pid = cri.POD
    first, second = (node.create(pod, one) for one in wanted)
    node.start_container(first)
    node.start_container(second)
    seen = node.exec(first, "ps", "-o", "pid,args").stdout.decode()
    assert "sleep 1000" in seen
    assert "sleep 1001" in seen
    node.stop_container(first)
    assert node.status(second).state == cri.CONTAINER_RUNNING
    node.kill()
    node.start()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    init = json.loads((node.place / "v/pods" / pod / "init.json").read_text())["pid"]
    os.kill(init, signal.SIGKILL)
    node.until(lambda: node.pod_status(pod).state == cri.SANDBOX_NOTREADY, "the pod not to be ready without its init")
    assert node.wait(second).exit_code == 137
    node.remove_pod(pod)
    assert node.left() == []


def test_a_pod_in_a_user_namespace(networked: Ocirtd) -> None:
    """Root of its containers is nobody of the host's, and the image's files are its own all the same."""
    node = networked
    ids = [cri.IDMapping(host_id=200_000, container_id=0, length=65536)]
    user = cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)
    options = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER, userns_options=user)
    pod = node.run_pod(node.pod_config(options=options, hostname="web"))
    wanted = node.container_config("sleep", "1000")
    wanted.linux.security_context.namespace_options.userns_options.CopyFrom(user)
    box = node.create(pod, wanted)
    node.start_container(box)
    assert node.exec(box, "id", "-u").stdout == b"0\n"
    assert node.exec(box, "cat", "/proc/self/uid_map").stdout.split() == [b"0", b"200000", b"65536"]
    assert node.exec(box, "stat", "-c", "%u", "/bin/busybox").stdout == b"0\n"
    assert node.exec(box, "sh", "-c", "echo x > /new && cat /new").stdout == b"x\n"
    assert node.exec(box, "sh", "-c", "echo y > /dev/shm/new && cat /dev/shm/new /etc/hostname").stdout == b"y\nweb\n"
    assert node.pod_status(pod).network.ip
    node.remove_pod(pod)
    assert node.left() == []


def test_a_user_namespace_in_the_nodes_network(networked: Ocirtd) -> None:
    """The pod has its ids, and the node's interfaces; the node's sysfs cannot be written to."""
    node = networked
    ids = [cri.IDMapping(host_id=200_000, container_id=0, length=65_536)]
    user = cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)
    options = cri.NamespaceOption(network=cri.NODE, ipc=cri.POD, pid=cri.CONTAINER, userns_options=user)
    pod = node.run_pod(node.pod_config(options=options))
    wanted = node.container_config("sleep", "1000")
    wanted.linux.security_context.namespace_options.userns_options.CopyFrom(user)
    wanted.linux.security_context.namespace_options.network = cri.NODE
    made = node.create(pod, wanted)
    node.start_container(made)
    assert node.exec(made, "cat", "/proc/self/uid_map").stdout.split() == [b"0", b"200000", b"65536"]
    assert node.exec(made, "readlink", "/proc/self/ns/net").stdout.decode().strip() == os.readlink("/proc/self/ns/net")
    assert node.exec(made, "touch", "/sys/file").exit_code != 0
    assert node.exec(made, "ls", "/sys/class/net").stdout.split() != []
    found = node.runtime.Status(cri.StatusRequest(), timeout=10)
    assert found.features.user_namespaces_host_network
    assert all(one.features.user_namespaces for one in found.runtime_handlers)
