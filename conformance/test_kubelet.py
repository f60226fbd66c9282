"""A kubelet on ocirtd, and on containerd beside it: a static pod, and pods that kubectl speaks with. It is built: minutes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from conformance.drivers import Containerd, Machine, call, need, peer
from conformance.kubelets import Cluster, Kubelet
from conformance.nodes import Node
from conformance.test_cri import IMAGE, make_archive
from tests.support import csi
from tests.support.build import ROOT
from tests.support.disks import load_modules
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


_NUMBERS = itertools.count(1)  # each test has directories of its own


@pytest.fixture(params=["containerd", "ocirtd"])
def endpoint(request: pytest.FixtureRequest, machine: Machine, no_leaks: list[Path]) -> Iterator[str]:
    """The address of a CRI endpoint with the image, on a host of its own."""
    assert not no_leaks
    with new_host():
        yield from (_containerd if request.param == "containerd" else _ocirtd)(machine)
        wait_for(lambda: not machine.processes(), "the end of what the node ran", 20)


def _containerd(machine: Machine) -> Iterator[str]:
    need("containerd", "containerd-shim-runc-v2", "ctr", "runc")
    theirs = Containerd(machine, f"kubelet{next(_NUMBERS)}", runtimes={"runc": peer()}, sandbox_image=IMAGE)
    try:
        wait_for(theirs.ready, "containerd", 20)
        _reference_network(Path(theirs.address).with_suffix("") / "cni")
        archive = make_archive(machine)
        call([*theirs.argv(), "--namespace", "k8s.io", "images", "import", str(archive)], env=machine.env).ok()
        yield f"unix://{theirs.address}"
    finally:
        theirs.stop()


def _ocirtd(machine: Machine) -> Iterator[str]:
    node = Node(machine, f"k{next(_NUMBERS)}")
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
    kubelet = Kubelet(machine, endpoint)
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


def _pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod for the API server, on the one node."""
    named = [{"image": IMAGE, "imagePullPolicy": "Never", **one} for one in containers]
    own = {"nodeName": "node1", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1, "containers": named}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": own | spec}


_SERVE = "busybox --install -s /bin; mkdir /site; busybox httpd -p 8080 -h /site; exec sleep 1000"
_BOX = {"name": "box", "command": ["sh", "-c", _SERVE]}
_CAT = {"name": "cat", "command": ["sh", "-c", "echo begun; exec cat"], "stdin": True, "stdinOnce": True}
_LINES = 40
_COUNT = {"name": "count", "command": ["sh", "-c", f"i=0; while test $i -lt {_LINES}; do i=$((i+1)); echo $i; sleep 0.2; done"]}


@pytest.fixture
def cluster(machine: Machine, endpoint: str) -> Iterator[tuple[Cluster, Kubelet]]:
    """A node with an API server."""
    kubelet = Kubelet(machine, endpoint, cluster=True)
    assert kubelet.cluster is not None
    try:
        yield kubelet.cluster, kubelet
        names = kubelet.cluster.kubectl("get", "pods", "-o", "name").ok().out.split()
        if names:
            kubelet.cluster.kubectl("delete", "--now", *names, timeout=120).ok()
    finally:
        kubelet.stop()


def test_kubectl(cluster: tuple[Cluster, Kubelet], tmp_path: Path) -> None:
    """exec with and without a terminal and port-forward, by both transports; attach, logs -f, cp both ways."""
    there, kubelet = cluster
    there.apply(_pod("box", _BOX), _pod("cat", _CAT, restartPolicy="Never"), _pod("count", _COUNT, restartPolicy="Never"))
    # logs -f, from its first line to its end
    try:
        wait_for(lambda: there.kubectl("logs", "count").out, "a first line", 90)
    except AssertionError:
        pytest.fail(there.explain("count") + kubelet.log.read_text()[-5000:])
    followed = there.kubectl("logs", "--follow", "count", timeout=60).ok().out
    assert followed.split() == [str(number) for number in range(1, _LINES + 1)]
    there.wait_for_pod("box")
    for transport in ("true", "false"):  # WebSocket, SPDY
        env = {**there.machine.env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": transport, "KUBECTL_PORT_FORWARD_WEBSOCKETS": transport}
        done = call(there.argv("exec", "-i", "box", "--", "sh", "-c", "cat; echo err >&2; exit 4"), env=env, stdin="hello\n")
        assert (done.rc, done.out) == (4, "hello\n")
        assert done.err.splitlines() == ["err", "command terminated with exit code 4"]
        status, said = _in_terminal(there.argv("exec", "-it", "box", "--", "sh"), env, b"stty size; tty; exit 3\n")
        assert status == 3, said
        assert "33 111" in said
        assert "/dev/pts/" in said
        _forward(there, env)
    # attach: what was begun before is not told again, and nothing is lost
    there.wait_for_pod("cat")
    done = there.kubectl("attach", "-i", "cat", stdin="one\ntwo\n", timeout=60)
    assert done.rc == 0, done.err
    assert [line for line in done.out.splitlines() if line in ("one", "two")] == ["one", "two"]
    there.wait_for_pod("cat", "jsonpath={.status.phase}=Succeeded")
    # cp: 3 MB there and back
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    there.kubectl("cp", str(tmp_path / "file"), "box:/site/copy").ok()
    there.kubectl("cp", "box:/site/copy", str(tmp_path / "back")).ok()
    assert (tmp_path / "back").read_bytes() == data
    assert kubelet.process is not None
    assert kubelet.process.poll() is None


def _in_terminal(argv: list[str], env: dict[str, str], typed: bytes) -> tuple[int, str]:
    """Run a program on a terminal of 33 lines; its status and all that it has shown."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 111))
    words = {**env, "TERM": "xterm"}
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=words, start_new_session=True) as made:
        os.close(slave)
        said, end, sent = b"", time.monotonic() + 60, False
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.2)[0]:
                if made.poll() is not None:
                    break
                continue
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # its other side is closed
                break
            said += data
            if not sent and (b"# " in said or b"$ " in said):
                time.sleep(0.5)  # the size goes another way than what is typed
                os.write(master, typed)
                sent = True
        made.wait(10)
    os.close(master)
    return made.returncode, said.decode(errors="replace")


def _forward(there: Cluster, env: dict[str, str]) -> None:
    """Fetch a page of the pod's through kubectl, twice on one forward."""
    there.kubectl("exec", "box", "--", "sh", "-c", "echo page >/site/index.html").ok()
    with subprocess.Popen(there.argv("port-forward", "pod/box", "0:8080"), env=env, stdout=subprocess.PIPE) as made:
        try:
            assert made.stdout is not None
            found = re.match(rb"Forwarding from 127.0.0.1:(\d+) -> 8080", made.stdout.readline())
            assert found
            for _ in range(2):
                with urlopen(f"http://127.0.0.1:{int(found[1])}/", timeout=20) as page:
                    assert page.read() == b"page\n"
        finally:
            made.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def _driver(tmp_path: Path) -> Iterator[Path]:
    """ocirt-csi on a pool of its own, at the kubelet; the directory of the pool."""
    load_modules()
    loops = csi.add_loops()
    try:
        with csi.disk(tmp_path, "btrfs") as disk:
            plugins = Path("/var/lib/kubelet/plugins/local.csi.ocirt")
            plugins.mkdir(parents=True)
            words = ["--pool", f"{disk}/pool", "--state", f"{tmp_path}/state", "--endpoint", f"unix://{plugins}/csi.sock"]
            words += ["--node-id", "node1", "--registration-dir", "/var/lib/kubelet/plugins_registry"]
            with (tmp_path / "csi.log").open("wb") as log:
                driver = subprocess.Popen([ROOT / "build/ocirt-csi", *words], stdin=subprocess.DEVNULL, stderr=log)
            try:
                yield disk / "pool"
            finally:
                driver.terminate()
                driver.wait(20)
    finally:
        csi.remove_loops(loops)


def test_an_inline_volume(cluster: tuple[Cluster, Kubelet], tmp_path: Path) -> None:
    """It has its size, and is gone after the pod.

    The pod is one that the API server lists: a kubelet refuses a static one ("static pods may not reference csidrivers").
    """
    there, _ = cluster
    driver = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": "local.csi.ocirt"},
        "spec": {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Persistent", "Ephemeral"]},
    }
    there.apply(driver)
    with _driver(tmp_path) as pool:
        registered = ("get", "csinode", "node1", "-o", "jsonpath={.spec.drivers[*].name}")
        wait_for(lambda: there.kubectl(*registered).out == "local.csi.ocirt", "the driver at the node", 60)
        fill = "busybox dd if=/dev/zero of=/data/file bs=1M count=200; echo status $?; busybox du -m /data/file; exec sleep 1000"
        volume = {"name": "data", "csi": {"driver": "local.csi.ocirt", "volumeAttributes": {"size": "64Mi"}}}
        box = {"name": "box", "command": ["sh", "-c", fill], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        there.apply(_pod("user", box, volumes=[volume]))
        try:
            there.wait_for_pod("user")
            wait_for(lambda: there.kubectl("logs", "user").out.rstrip().endswith("/data/file"), "a full volume", 60)
        except AssertionError:
            pytest.fail(there.explain("user") + there.kubectl("logs", "user").out)
        lines = there.kubectl("logs", "user").ok().out.splitlines()
        assert "status 1" in lines
        assert 62 <= int(lines[-1].split()[0]) <= 66
        volumes = [path for path in pool.rglob("inline-*") if path.is_dir()]
        assert len(volumes) == 1
        there.kubectl("delete", "--now", "pod", "user", timeout=120).ok()
        wait_for(lambda: not volumes[0].exists(), "the end of the volume", 90)
        wait_for(lambda: there.kubectl("get", "pods", "-o", "name").out == "", "the end of the pod", 60)
