"""A kubelet with a static pod on ocirtd, and on containerd beside it. Slow where the kubelet has to be built: minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import Containerd, Machine, call, need, peer
from conformance.kubelets import Kubelet
from conformance.nodes import Node
from conformance.test_cri import IMAGE, make_archive
from tests.support.layouts import Layer, image
from tests.support.networks import new_host
from tests.support.runtime import wait_for

pytestmark = pytest.mark.skipif(
    not os.environ.get("OCIRT_TEST_KUBELET"), reason="a kubelet takes ten minutes to build: `make conformance-kubelet` runs this"
)

POD = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 2,
        "volumes": [{"name": "site", "emptyDir": {}}],
        "initContainers": [
            {
                "name": "fill",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo filled >/site/index.html"],
                "volumeMounts": [{"name": "site", "mountPath": "/site"}],
            }
        ],
        "containers": [
            {
                "name": "httpd",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["busybox", "httpd", "-f", "-p", "8080", "-h", "/site"],
                "ports": [{"containerPort": 8080}],
                "volumeMounts": [{"name": "site", "mountPath": "/site", "readOnly": True}],
                "readinessProbe": {
                    "exec": {"command": ["busybox", "wget", "-qO-", "http://127.0.0.1:8080/"]},
                    "periodSeconds": 1,
                },
                "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
            },
            {
                "name": "restarts",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", "test -e /site/second && exec sleep 1000; touch /site/second; exit 3"],
                "volumeMounts": [{"name": "site", "mountPath": "/site"}],
            },
        ],
    },
}


@pytest.fixture(params=["containerd", "ocirtd"])
def endpoint(request: pytest.FixtureRequest, machine: Machine, no_leaks: list[Path]) -> Iterator[str]:
    """The address of a CRI endpoint with the image, on a host of its own."""
    assert not no_leaks
    with new_host():
        yield from (_containerd if request.param == "containerd" else _ocirtd)(machine)
        wait_for(lambda: not machine.processes(), "the end of what the node ran", 20)


def _containerd(machine: Machine) -> Iterator[str]:
    need("containerd", "containerd-shim-runc-v2", "ctr", "runc")
    theirs = Containerd(machine, "kubelet", runtimes={"runc": peer()}, sandbox_image=IMAGE)
    try:
        wait_for(theirs.ready, "containerd", 20)
        _reference_network(Path(theirs.address).with_suffix("") / "cni")
        archive = make_archive(machine)
        call([*theirs.argv(), "--namespace", "k8s.io", "images", "import", str(archive)], env=machine.env).ok()
        yield f"unix://{theirs.address}"
    finally:
        theirs.stop()


def _ocirtd(machine: Machine) -> Iterator[str]:
    node = Node(machine, "k")
    plain = machine.image.read_bytes()
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    node.load({IMAGE: image(Layer(plain, plain, ""), Cmd=["sleep", "2147483647"], Env=[path])})
    node.start()
    try:
        yield node.endpoint
    finally:
        node.stop()


def _reference_network(place: Path) -> None:
    """A network list with Debian's plugins."""
    programs = Path("/usr/lib/cni")
    if not programs.exists():
        pytest.skip("not installed: containernetworking-plugins")
    place.mkdir(exist_ok=True)
    for program in programs.iterdir():
        (place / program.name).symlink_to(program)
    (place / "10-k.conflist").write_text(
        '{"cniVersion": "1.0.0", "name": "k", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", '
        f'"dataDir": "{place}/ipam", "ranges": [[{{"subnet": "10.78.0.0/24"}}]]}}}}]}}'
    )


def test_a_static_pod(machine: Machine, endpoint: str) -> None:
    """An init container, a volume, an exec probe and a restart; then the pod goes."""
    kubelet = Kubelet(machine, Path(endpoint).parent.name, endpoint)
    try:
        kubelet.add(POD)

        def ready() -> Any:
            status = kubelet.status("web")
            found = {each["name"]: each for each in status.get("containerStatuses") or []}
            return found if len(found) == 2 and all(each["ready"] for each in found.values()) else None

        containers = wait_for(ready, f"a pod that is ready ({kubelet.log})", 90)
        assert containers["restarts"]["restartCount"] == 1
        assert containers["restarts"]["lastState"]["terminated"]["exitCode"] == 3
        status = kubelet.status("web")
        assert status["phase"] == "Running"
        assert status["podIP"]
        assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
        assert b'"name":"httpd"' in kubelet.get("/stats/summary").replace(b" ", b"").replace(b"\n", b"")
        kubelet.remove("web")
        wait_for(lambda: not kubelet.status("web"), "the end of the pod", 60)
    finally:
        kubelet.stop()
