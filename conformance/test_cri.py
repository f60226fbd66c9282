"""containerd's CRI plugin, driven by crictl. Handlers of its pods: ocirt and runc, by containerd's shim, and our own shim."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from conformance import goprograms
from conformance.drivers import SHIM, Containerd, Machine, call, need, ours, peer, runtime_path
from tests.support.runtime import Result, wait_for

IMAGE = "localhost/ocirt-test:latest"


def make_archive(machine: Machine, name: str = IMAGE) -> Path:
    """An image of the machine's root file system, which sleeps unless told otherwise, so that it will do for sandboxes.

    name: also a label, so that no other image is equal to it.
    """
    system = {"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", "os": "linux"}
    layer = call(["sha256sum", str(machine.image)], env=machine.env).ok().out.split()[0]
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = {
        **system,
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": [path], "Labels": {"name": name}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
    }
    archive = machine.path / f"cri-{hashlib.sha256(name.encode()).hexdigest()[:8]}.tar"
    with tarfile.open(archive, "w") as made:
        made.add(machine.image, "layer.tar")
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        for file, document in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(document).encode()
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            made.addfile(entry, BytesIO(data))
    return archive


class Crictl:
    """crictl, and pods whose containers one runtime makes: `ocirt`, `peer` or `shim`."""

    numbers = itertools.count()

    def __init__(self, containerd: Containerd, runtime: str) -> None:
        self.containerd = containerd
        self.machine = containerd.machine
        self.runtime = runtime
        self.program = goprograms.crictl()
        self.log = self.machine.path / "pod-logs"
        self.log.mkdir(exist_ok=True)

    def call(self, *args: str | Path, **options: Any) -> Result:
        """Any verb."""
        endpoints = (
            "--runtime-endpoint",
            f"unix://{self.containerd.address}",
            "--image-endpoint",
            f"unix://{self.containerd.address}",
        )
        return call([self.program, *endpoints, *map(str, args)], env=self.machine.env, **options)

    def write(self, kind: str, document: Any) -> Path:
        """A file with a configuration."""
        path = self.log / f"{kind}-{next(self.numbers)}.json"
        path.write_text(json.dumps(document))
        return path

    def pod(self, **linux: Any) -> tuple[str, Path]:
        """A pod in the tests' network namespace: its id and its configuration."""
        name = f"p{next(self.numbers)}"
        options = {"network": 2, **linux.pop("namespaces", {})}
        path = self.write(
            "pod",
            {
                "metadata": {"name": name, "namespace": "tests", "uid": name, "attempt": 0},
                "log_directory": str(self.log),
                "linux": {
                    "cgroup_parent": self.machine.cgroup_parent,
                    "security_context": {"namespace_options": options, **linux},
                },
            },
        )
        return self.call("runp", "--runtime", self.runtime, path).ok().out.strip(), path

    def create(self, pod: tuple[str, Path], *command: str, linux: Any = None, **more: Any) -> Result:
        """`create` of a container with a command in a pod."""
        name = f"c{next(self.numbers)}"
        document = {
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": IMAGE},
            "command": list(command),
            "log_path": f"{name}.log",
            "linux": {"security_context": {"namespace_options": {"network": 2}}, **(linux or {})},
            **more,
        }
        return self.call("create", pod[0], self.write("container", document), pod[1])

    def start(self, pod: tuple[str, Path], *command: str, **more: Any) -> str:
        """A container that was created and started; its id."""
        container = self.create(pod, *command, **more).ok().out.strip()
        self.call("start", container).ok()
        return container

    def inspect(self, container: str) -> Any:
        """The status of a container."""
        return self.call("inspect", container).ok().json()["status"]

    def ended(self, container: str) -> Any:
        """Its status, once it has ended."""

        def exited() -> Any:
            status = self.inspect(container)
            return status if status["state"] == "CONTAINER_EXITED" else None

        return wait_for(exited, "the container's end", 20)

    def clean_up(self) -> None:
        """Remove every pod and wait for the shims' end."""
        self.call("rmp", "--all", "--force")
        assert self.call("pods", "--quiet").ok().out == ""
        keep = {self.containerd.process.pid}
        wait_for(lambda: set(self.machine.processes()) <= keep, "the end of the shims", 10)


@pytest.fixture(scope="module", params=["installed", "2"])
def containerd(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Containerd]:
    """The machine's containerd, then one of version 2, with the CRI plugin and the image, while this file's tests last."""
    if request.param == "installed":
        need("containerd", "containerd-shim-runc-v2", "ctr")
    programs = None if request.param == "installed" else goprograms.containerd2()
    runtimes = {"ocirt": ours(), "peer": peer(), "shim": SHIM}
    made = Containerd(machine, f"cri-{request.param}", runtimes=runtimes, sandbox_image=IMAGE, programs=programs)
    try:
        wait_for(made.ready, "containerd", 20)
        archive = make_archive(machine)
        call([*made.argv(), "--namespace", "k8s.io", "images", "import", str(archive)], env=machine.env).ok()
        yield made
    finally:
        made.stop()


@pytest.fixture(params=["ocirt", "runc", "shim"])
def crictl(request: pytest.FixtureRequest, containerd: Containerd, no_leaks: list[Path]) -> Iterator[Crictl]:
    """crictl with ocirt, then with runc, then with our shim; its pods are removed afterwards."""
    if request.param != "shim":
        runtime_path(request.param)
    made = Crictl(containerd, {"runc": "peer"}.get(request.param, request.param))
    yield made
    made.clean_up()


def test_life(crictl: Crictl) -> None:
    """A pod, a container: exec in both ways, logs, statistics, stop, remove."""
    pod = crictl.pod()
    container = crictl.start(pod, "sh", "-c", "echo begun; trap 'echo ended; exit 5' TERM; while :; do sleep 0.05; done")
    assert crictl.inspect(container)["state"] == "CONTAINER_RUNNING"
    wait_for(lambda: "begun" in crictl.call("logs", container).out, "output in the log")
    assert crictl.call("exec", "--sync", container, "echo", "inside").ok().out.strip() == "inside"
    assert crictl.call("exec", container, "cat", stdin="").ok().out == ""
    assert "9" in crictl.call("exec", "--sync", container, "sh", "-c", "exit 9").failed().err
    crictl.call("exec", "--sync", container, "/no/such/program").failed("/no/such/program.*no such file or directory")
    assert container[:13] in crictl.call("stats").ok().out
    crictl.call("stop", "--timeout", "10", container).ok()
    assert crictl.ended(container)["exitCode"] == 5
    assert crictl.call("logs", container).ok().out == "begun\nended\n"
    crictl.call("rm", container).ok()
    crictl.call("stopp", pod[0]).ok()
    crictl.call("rmp", pod[0]).ok()


def test_ends(crictl: Crictl) -> None:
    """Exit codes, one who is deaf, one who takes too much memory, one who cannot start."""
    pod = crictl.pod()
    assert crictl.ended(crictl.start(pod, "sh", "-c", "exit 42"))["exitCode"] == 42
    deaf = crictl.start(pod, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    crictl.call("stop", "--timeout", "1", deaf).ok()
    assert crictl.ended(deaf)["exitCode"] == 137
    if os.path.isdir("/sys/fs/cgroup/memory"):
        limits = {"memory_limit_in_bytes": 16 << 20}
        greedy = crictl.ended(crictl.start(pod, "tail", "/dev/zero", linux={"resources": limits}))
        assert (greedy["exitCode"], greedy["reason"]) == (137, "OOMKilled")
    container = crictl.create(pod, "/no/such/program").ok().out.strip()
    crictl.call("start", container).failed("/no/such/program.*no such file or directory")
    assert crictl.inspect(container)["state"] == "CONTAINER_EXITED"


def test_what_a_pod_asks_for(crictl: Crictl, tmp_path: Path) -> None:
    """User, capabilities, no new privileges, a read-only root, mounts, environment, seccomp."""
    (tmp_path / "file").write_text("from outside\n")
    tmp_path.chmod(0o755)
    context = {
        "namespace_options": {"network": 2},
        "run_as_user": {"value": 1000},
        "capabilities": {"drop_capabilities": ["ALL"]},
        "no_new_privs": True,
        "readonly_rootfs": True,
        "seccomp": {"profile_type": 0},
    }
    script = "id -u; grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status; touch /x || echo closed; cat /data/file; echo $A; pwd"
    pod = crictl.pod()
    container = crictl.start(
        pod,
        *("sh", "-c", script),
        linux={"security_context": context},
        mounts=[{"container_path": "/data", "host_path": str(tmp_path), "readonly": True}],
        envs=[{"key": "A", "value": "b"}],
        working_dir="/tmp",
    )
    assert crictl.ended(container)["exitCode"] == 0
    lines = [line for line in crictl.call("logs", container).ok().out.splitlines() if "touch" not in line]
    status = ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
    assert lines == ["1000", *status, "closed", "from outside", "b", "/tmp"]


def test_a_shared_pid_namespace(crictl: Crictl) -> None:
    """The container sees the sandbox's process."""
    pod = crictl.pod(namespaces={"pid": 0})
    context = {"namespace_options": {"network": 2, "pid": 0}}
    container = crictl.start(pod, "sh", "-c", "cat /proc/1/cmdline; test $$ -gt 1", linux={"security_context": context})
    assert crictl.ended(container)["exitCode"] == 0
    assert crictl.call("logs", container).ok().out.startswith("/bin/sleep")


def test_update(crictl: Crictl) -> None:
    """Less processor time, while it runs."""
    if not os.path.isdir("/sys/fs/cgroup/cpu"):
        pytest.skip("looks at the processor's controller of cgroup version 1")
    container = crictl.start(crictl.pod(), "sleep", "1000")
    crictl.call("update", "--cpu-period", "50000", "--cpu-quota", "20000", "--memory", str(64 << 20), container).ok()
    pid = crictl.call("inspect", container).ok().json()["info"]["pid"]
    place = next(line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":cpu:" in line)
    assert Path(f"/sys/fs/cgroup/cpu{place}/cpu.cfs_quota_us").read_text() == "20000\n"
