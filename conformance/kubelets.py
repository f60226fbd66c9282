"""A kubelet, without an API server (its pods are files in a folder) or with one. It runs where the tests run.

The API server is one for tests: whoever comes with its token may do everything. There is neither a scheduler nor a controller, so
a pod names its node.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc

from conformance import goprograms
from conformance.drivers import Machine, call, need
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as services
from tests.support.isolation import MS_BIND, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount
from tests.support.runtime import Result, wait_for

_ADDRESS = "10.77.0.1"
_PORT = 10255
# What a kubelet sets belongs to the whole machine; it writes nothing where it finds what it wants.
_SYSCTLS = {"vm/overcommit_memory": 1, "kernel/panic": 10, "kernel/panic_on_oops": 1}
_TOKEN = "sesame"
_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True}}],
    "users": [{"name": "u", "user": {"token": _TOKEN}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}
_PLACES = ("/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/usr/libexec/kubernetes")


class Kubelet:
    """A kubelet at one CRI endpoint (`unix://PATH`); `stop` ends it and takes back what it needed. cluster: with an API."""

    def __init__(self, machine: Machine, endpoint: str, *, cluster: bool = False) -> None:
        self.machine = machine
        self.cluster: Cluster | None = None
        self.program = goprograms.kube()
        self.place = Path(tempfile.mkdtemp(prefix="kubelet-", dir=machine.path))
        self.pods = self.place / "manifests"
        self.pods.mkdir(parents=True)
        self.log = self.place / "log"
        self.endpoint = endpoint
        self._bound: list[str] = []
        self._made: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
            if cluster:
                self.cluster = Cluster(machine, self.place / "cluster", self.program)
            self._start(endpoint)
        except BaseException:
            self.stop()
            raise

    def _prepare(self) -> None:
        mount("none", "/", "none", MS_REC | MS_SHARED)  # as on a node: volumes may be mounted later
        for place in _PLACES:
            path = Path(place)
            if not path.exists():
                path.mkdir(parents=True)
                self._made.append(path)
            own = self.place / path.name
            own.mkdir(exist_ok=True)
            self._bind(own, place)
        for name, value in _SYSCTLS.items():
            file = self.place / name.replace("/", "-")
            file.write_text(f"{value}\n")
            self._bind(file, f"/proc/sys/{name}")
        # It refuses a node whose address is a loopback's, and looks for a default route, which leads nowhere here.
        for words in (
            "link add node0 type veth peer name node0p",
            f"addr add {_ADDRESS}/24 dev node0",
            "link set node0 up",
            "link set node0p up",
            "route add default via 10.77.0.254 dev node0",
        ):
            call(["ip", *words.split()], env=self.machine.env).ok()

    def _bind(self, source: Path, target: str) -> None:
        mount(str(source), target, "none", MS_BIND)
        self._bound.append(target)

    def _start(self, endpoint: str) -> None:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.machine.cgroup_parent,
            "containerRuntimeEndpoint": endpoint,
            "staticPodPath": str(self.pods),
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "readOnlyPort": _PORT,
            "enableControllerAttachDetach": self.cluster is not None,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        }
        (self.place / "config.json").write_text(json.dumps(config))
        argv = [
            *(str(self.program), "kubelet"),
            f"--config={self.place}/config.json",
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki",
        ]
        argv += ["--hostname-override=node1", f"--node-ip={_ADDRESS}", "--v=2"]
        if self.cluster is not None:
            argv.append(f"--kubeconfig={self.cluster.kubeconfig}")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.machine.env)

    def add(self, pod: dict[str, Any]) -> None:
        """Give it a pod."""
        name = pod["metadata"]["name"]
        draft = self.place / f"{name}.json"
        draft.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        draft.rename(self.pods / f"{name}.json")

    def remove(self, name: str) -> None:
        """Take a pod away."""
        (self.pods / f"{name}.json").unlink()

    def status(self, name: str) -> dict[str, Any]:
        """A pod's status as the kubelet has it; empty as long as it has none."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            with urlopen(f"http://127.0.0.1:{_PORT}/pods", timeout=10) as answer:
                items = json.load(answer).get("items") or []
        except OSError:
            return {}
        for item in items:
            if item["metadata"]["name"] == f"{name}-node1":
                found: dict[str, Any] = item["status"]
                return found
        return {}

    def get(self, path: str) -> bytes:
        """What the read-only port says."""
        with urlopen(f"http://127.0.0.1:{_PORT}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        """End it. Its pods' cgroups, which nobody else removes, go too."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            remove_pods(self.endpoint)
        if self.cluster is not None:
            self.cluster.stop()
        for target in reversed(self._bound):
            umount(target)
        for path in self._made:
            path.rmdir()
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        call(["ip", "link", "delete", "node0"], env=self.machine.env)
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            below = hierarchy / self.machine.cgroup_parent[1:]
            for directory, _, _ in os.walk(below, topdown=False):
                if directory != str(below):
                    wait_for(partial(_removed, directory), directory, 5)


class Cluster:
    """An API server with its store, for the one kubelet. program: of kube.go."""

    def __init__(self, machine: Machine, place: Path, program: Path) -> None:
        need("openssl")
        self.machine = machine
        self.place = place
        self.program = program
        self.kubeconfig = place / "kubeconfig"
        self._processes: list[subprocess.Popen[bytes]] = []
        place.mkdir()
        call(["openssl", "genrsa", "-out", str(place / "sa.key"), "2048"], env=machine.env).ok()
        (place / "tokens.csv").write_text(f'{_TOKEN},admin,1,"system:masters"\n')
        self.kubeconfig.write_text(json.dumps(_KUBECONFIG))
        try:
            self._run("etcd", f"--data-dir={place}/etcd", "--unsafe-no-fsync", "--logger=zap", "--log-level=warn")
            self._run(
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                f"--cert-dir={place}/certificates",
                f"--advertise-address={_ADDRESS}",
                f"--token-auth-file={place}/tokens.csv",
                "--authorization-mode=AlwaysAllow",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={place}/sa.key",
                f"--service-account-signing-key-file={place}/sa.key",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--allow-privileged",
                "--kubelet-preferred-address-types=InternalIP",  # nobody knows the node's name
                "--disable-admission-plugins=ServiceAccount",  # whose accounts a controller would make
            )
            wait_for(lambda: self.kubectl("get", "--raw=/readyz").rc == 0, f"an API server ({place})", 120)
        except BaseException:
            self.stop()
            raise

    def _run(self, name: str, *flags: str) -> None:
        with (self.place / f"{name}.log").open("wb") as log:
            words = [str(self.program), name, *flags]
            made = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.machine.env)
        self._processes.append(made)

    def argv(self, *args: str) -> list[str]:
        """How kubectl finds it."""
        return [str(self.program), "kubectl", f"--kubeconfig={self.kubeconfig}", *args]

    def kubectl(self, *args: str, **options: Any) -> Result:
        """Any verb of kubectl; options as for `call`."""
        return call(self.argv(*args), env=self.machine.env, **options)

    def apply(self, *documents: dict[str, Any]) -> None:
        """Have these objects; a node is there for them once the kubelet has said so."""
        wait_for(lambda: self.kubectl("get", "node", "node1").rc == 0, "the node", 60)
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed)).ok()

    def explain(self, name: str) -> str:
        """What is known of a pod that is not as it should be."""
        return self.kubectl("describe", "pod", name).out + self.kubectl("logs", name).err

    def wait_for_pod(self, name: str, condition: str = "condition=Ready") -> None:
        """Wait until a pod is as wanted (`kubectl wait --for`)."""
        done = self.kubectl("wait", f"--for={condition}", f"pod/{name}", "--timeout=60s", timeout=90)
        assert done.rc == 0, done.err + self.explain(name)

    def stop(self) -> None:
        """End it."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def remove_pods(endpoint: str) -> None:
    """Remove all pods at an endpoint."""
    with grpc.insecure_channel(endpoint, options=[("grpc.default_authority", "localhost")]) as channel:
        calls = services.RuntimeServiceStub(channel)
        for pod in calls.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=30).items:
            calls.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)
            calls.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=60)


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
