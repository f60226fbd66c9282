"""Namespaces of the node, the pod and the container; users of a namespace."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import Ocirtd, refused
from tests.support.specs import says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

OPTION = "Security Context NamespaceOption runtime should support "
USERS = "Security Context UserNamespaces when Host idmap mount support is "
IPC_PRIVATE, IPC_CREAT, IPC_RMID = 0, 0o1000, 0


def server(node: Ocirtd, pod: str, options: cri.NamespaceOption) -> str:
    """A container whose first process has `master process` among its arguments."""
    box = specs.started(node, specs.create(node, pod, image=specs.NGINX, namespace_options=options))
    node.until(lambda: node.exec(box, "test", "-s", "/var/run/nginx.pid").exit_code == 0, "the server's pid")
    return box


@spec(OPTION + "HostPID")
def test_pids_of_the_node(node: Ocirtd) -> None:
    """Another container sees the process by the number that it has itself."""
    options = cri.NamespaceOption(pid=cri.NODE)
    pod = specs.run_pod(node, options)
    number = says(node, server(node, pod, options), "cat", "/var/run/nginx.pid").strip()
    other = specs.sleeper(node, pod, namespace_options=options)
    assert number in says(node, other, "pidof", "nginx").split()
    assert says(node, other, "readlink", "/proc/self/ns/pid").strip() == os.readlink("/proc/self/ns/pid")


@spec(OPTION + "PodPID")
def test_pids_of_the_pod(node: Ocirtd) -> None:
    """Its first process is none of a container's."""
    options = cri.NamespaceOption(pid=cri.POD)
    pod = specs.run_pod(node, options)
    box = server(node, pod, options)
    assert "master process" not in says(node, box, "cat", "/proc/1/cmdline")
    other = specs.sleeper(node, pod, namespace_options=options)
    assert says(node, other, "pidof", "nginx") == says(node, box, "cat", "/var/run/nginx.pid")


@spec(OPTION + "ContainerPID")
def test_pids_of_the_container(node: Ocirtd) -> None:
    options = cri.NamespaceOption(pid=cri.CONTAINER)
    pod = specs.run_pod(node, options)
    box = server(node, pod, options)
    assert "master process" in says(node, box, "cat", "/proc/1/cmdline")
    other = specs.sleeper(node, pod, namespace_options=options)
    assert node.exec(other, "pidof", "nginx").exit_code == 1


def sees_segment(node: Ocirtd, mode: cri.NamespaceMode.ValueType) -> bool:
    """Whether a container sees shared memory that there is on the node."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(IPC_PRIVATE, 1_048_576, IPC_CREAT | 0o600)
    assert made >= 0, os.strerror(ctypes.get_errno())
    try:
        options = cri.NamespaceOption(ipc=mode)
        box = specs.sleeper(node, specs.run_pod(node, options), namespace_options=options)
        rows = [line.split() for line in says(node, box, "ipcs", "-m").splitlines()[1:]]
        return any((int(row[1]), int(row[3])) == (made, 1_048_576) for row in rows)
    finally:
        assert libc.shmctl(made, IPC_RMID, None) == 0


@spec(OPTION + "HostIpc is true")
def test_memory_of_the_node(node: Ocirtd) -> None:
    assert sees_segment(node, cri.NODE)


@spec(OPTION + "HostIpc is false")
def test_memory_of_the_pod(node: Ocirtd) -> None:
    assert not sees_segment(node, cri.POD)


def sees_server(node: Ocirtd, mode: cri.NamespaceMode.ValueType) -> bool:
    """Whether a container sees a port on which the node listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        options = cri.NamespaceOption(network=mode)
        said = specs.ended(node, specs.run_pod(node, options), "netstat", "-ltn", namespace_options=options)
        assert "Local Address" in said
        return f":{listening.getsockname()[1]} " in said


@spec(OPTION + "HostNetwork is true")
def test_network_of_the_node(node: Ocirtd) -> None:
    assert sees_server(node, cri.NODE)


@spec(OPTION + "HostNetwork is false")
def test_network_of_the_pod(node: Ocirtd) -> None:
    assert not sees_server(node, cri.POD)


# -- users --


def mapping(*first: tuple[int, int]) -> list[cri.IDMapping]:
    """From ids of the container to ids of the host."""
    return [cri.IDMapping(container_id=inner, host_id=outer, length=100_000) for inner, outer in first]


def options_of(mode: cri.NamespaceMode.ValueType, ids: list[cri.IDMapping] | None = None) -> cri.NamespaceOption:
    """Of a pod with such users."""
    return cri.NamespaceOption(userns_options=cri.UserNamespace(mode=mode, uids=ids, gids=ids))


def map_of(node: Ocirtd, options: cri.NamespaceOption) -> list[str]:
    """What a container tells of its users."""
    pod = specs.run_pod(node, options)
    return specs.ended(node, pod, "cat", "/proc/self/uid_map", namespace_options=options).split()


@spec(USERS + "needed runtime should support NamespaceMode_POD")
def test_users_of_the_pod(node: Ocirtd) -> None:
    [handler] = [one for one in node.runtime.Status(cri.StatusRequest(), timeout=10).runtime_handlers if not one.name]
    assert handler.features.user_namespaces
    assert map_of(node, options_of(cri.POD, mapping((0, 1000)))) == ["0", "1000", "100000"]


@spec(USERS + "not needed runtime should support NamespaceMode_NODE")
def test_users_of_the_node(node: Ocirtd) -> None:
    assert map_of(node, options_of(cri.NODE)) == Path("/proc/self/uid_map").read_text().split()


def is_refused(node: Ocirtd, options: cri.NamespaceOption) -> None:
    """Such a pod, with the field's name."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        specs.run_pod(node, options)
    assert "userns_options" in said[0]
    assert node.pods() == []


@spec(USERS + "not needed runtime should fail if more than one mapping provided")
def test_two_mappings(node: Ocirtd) -> None:
    is_refused(node, options_of(cri.POD, mapping((0, 1000), (0, 2000))))
    is_refused(node, options_of(cri.POD, mapping((0, 1000), (100_000, 200_000))))


@spec(USERS + "not needed runtime should fail if container ID 0 is not mapped")
def test_no_root(node: Ocirtd) -> None:
    is_refused(node, options_of(cri.POD, mapping((1, 1000))))


@spec(USERS + "not needed runtime should fail with NamespaceMode_CONTAINER")
def test_users_of_the_container(node: Ocirtd) -> None:
    is_refused(node, options_of(cri.CONTAINER))


@spec(USERS + "not needed runtime should fail with NamespaceMode_TARGET")
def test_users_of_another_container(node: Ocirtd) -> None:
    is_refused(node, options_of(cri.TARGET))
