"""containerd's CRI plugin and podman with plugins: pods and containers that talk, publish ports, and leave nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.cniplugins import host, nothing_left, ours, plugins  # noqa: F401
from conformance.drivers import Containerd, Machine, Podman, call, need, podman_storage
from conformance.drivers import ours as our_runtime
from conformance.test_cri import IMAGE as POD_IMAGE
from conformance.test_cri import Crictl, make_archive
from tests.support.audits import Audit, drop
from tests.support.chains import Executables, bridge, subnet
from tests.support.networks import Host
from tests.support.runtime import wait_for
from tests.support.traffic import EDGE, HERE, OUTSIDE, outside, ping, reach, server

_numbers = itertools.count()
_LIST: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        bridge(subnet(1), capabilities={"ipRanges": True}),
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "tuning"},
    ],
}


@pytest.fixture
def crictl(plugins: Executables, host: Host, machine: Machine) -> Iterator[Crictl]:  # noqa: F811
    """containerd on a host of its own, with one list of plugins; its pods are removed afterwards."""
    del host
    need("containerd", "containerd-shim-runc-v2", "ctr")
    name = f"cni{next(_numbers)}-{plugins.name}"
    containerd = Containerd(machine, name, runtimes={"ocirt": our_runtime()}, sandbox_image=POD_IMAGE)
    try:
        wait_for(containerd.ready, "containerd", 20)
        call([*containerd.argv(), "--namespace", "k8s.io", "images", "import", str(make_archive(machine))], env=machine.env).ok()
        place = machine.path / f"{name}-containerd" / "cni"  # where it looks for lists and for executables
        for executable in plugins.directory.iterdir():
            (place / executable.name).symlink_to(executable.resolve())
        (place / "10-pods.conflist").write_text(json.dumps(_LIST))
        made = Crictl(containerd, "ocirt")
        wait_for(lambda: '"NetworkReady","status":true' in _compact(made), "the network", 20)
        yield made
        made.clean_up()
    finally:
        containerd.stop()


def _compact(crictl: Crictl) -> str:
    conditions = crictl.call("info").ok().json()["status"]["conditions"]
    return json.dumps([{"type": one["type"], "status": one["status"]} for one in conditions], separators=(",", ":"))


class Pod:
    """A pod with a network of its own."""

    def __init__(self, crictl: Crictl, *ports: dict[str, Any], annotations: dict[str, str] | None = None) -> None:
        self.crictl = crictl
        name = f"n{next(crictl.numbers)}"
        document = {
            "metadata": {"name": name, "namespace": "tests", "uid": name, "attempt": 0},
            "log_directory": str(crictl.log),
            "port_mappings": ports,
            "annotations": annotations or {},
            "linux": {"cgroup_parent": crictl.machine.cgroup_parent, "security_context": {"namespace_options": {"network": 0}}},
        }
        self.id = crictl.call("runp", "--runtime", crictl.runtime, crictl.write("pod", document)).ok().out.strip()
        said = crictl.call("inspectp", self.id).ok().json()
        self.address: str = said["status"]["network"]["ip"]
        spaces = said["info"]["runtimeSpec"]["linux"]["namespaces"]
        self.network: str = next(one["path"] for one in spaces if one["type"] == "network")

    def remove(self) -> None:
        """Stop and remove it."""
        self.crictl.call("stopp", self.id).ok()
        self.crictl.call("rmp", self.id).ok()


def test_pods(crictl: Crictl, plugins: Executables) -> None:  # noqa: F811
    """Two pods reach each other and the outside; one publishes a port; after their end the host is as before."""
    far = outside()
    port = {"protocol": 0, "container_port": 80, "host_port": 8080}
    Pod(crictl, port).remove()
    before = Audit.take()
    one, two = Pod(crictl, port), Pod(crictl)
    assert one.address != two.address
    assert ping(one.network, two.address)
    with server(one.network, 80) as listening:
        assert reach(far, EDGE[4], 8080, listening) == OUTSIDE[4]
        assert reach(HERE, "127.0.0.1", 8080, listening)
        assert reach(two.network, one.address, 80, listening) == two.address
    with server(far, 80) as listening:
        assert reach(two.network, OUTSIDE[4], 80, listening) == EDGE[4]
    one.remove()
    two.remove()
    nothing_left(plugins, before)


def test_a_pod_whose_network_is_gone(crictl: Crictl, plugins: Executables) -> None:  # noqa: F811
    """The namespace vanishes (as in a reboot); the pod can be stopped and removed, and its port is free."""
    port = {"protocol": 0, "container_port": 80, "host_port": 8080}
    Pod(crictl, port).remove()
    before = Audit.take()
    pod = Pod(crictl, port)
    drop(pod.network)
    pod.remove()
    nothing_left(plugins, before, "its bridge plugin returns before its rules are removed, when the namespace is gone")


@pytest.fixture(scope="module")
def storage(machine: Machine) -> Iterator[None]:
    """The image, and what podman makes once."""
    need("podman", "conmon")
    with podman_storage(Podman(machine, our_runtime())):
        yield


@pytest.fixture
def podman(storage: None, plugins: Executables, host: Host, machine: Machine) -> Iterator[Podman]:  # noqa: F811
    """podman with networks by CNI, on a host of its own."""
    del storage, host
    made = Podman(machine, our_runtime())
    text = Path(machine.env["CONTAINERS_CONF"]).read_text()
    name = f"cni{next(_numbers)}-{plugins.name}"
    configuration = machine.path / f"{name}.conf"
    more = f'network_backend = "cni"\ncni_plugin_dirs = ["{plugins.directory}"]\nnetwork_config_dir = "{machine.path}/{name}"\n'
    configuration.write_text(text.partition("[network]")[0] + "[network]\n" + more)
    made.env = {**machine.env, "CONTAINERS_CONF": str(configuration)}
    yield made
    made.clean_up()


def test_podman(podman: Podman, plugins: Executables) -> None:  # noqa: F811
    """A network of its own, containers on it by name of the network, a published port, addresses that are asked for."""
    if podman.call("info", "--format", "{{.Host.NetworkBackend}}").ok().out.strip() != "cni":
        pytest.skip("this podman has no networks by CNI")
    far = outside()
    podman.call("network", "create", "--disable-dns", "--subnet", "10.99.7.0/24", "blue").ok()
    flags = ["--network", "blue", "--publish", "8080:80"]
    podman.run("true", flags=flags).ok()
    before = Audit.take()
    one = podman.start("sleep", "1000", flags=[*flags, "--ip", "10.99.7.9"])
    two = podman.start("sleep", "1000", flags=["--network", "blue"])
    path, other = (podman.inspect(each, ".NetworkSettings.SandboxKey") for each in (one, two))
    assert podman.inspect(one, ".NetworkSettings.Networks.blue.IPAddress") == "10.99.7.9"
    assert ping(other, "10.99.7.9")
    with server(path, 80) as listening:
        assert reach(far, EDGE[4], 8080, listening) == OUTSIDE[4]
        assert reach(HERE, "127.0.0.1", 8080, listening)
    for container in (one, two):
        podman.call("rm", "--force", "--time", "0", container).ok()
    nothing_left(plugins, before)
    podman.call("network", "rm", "blue").ok()
