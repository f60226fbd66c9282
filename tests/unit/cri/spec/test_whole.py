"""A request as a kubelet sends it, whole; and that nothing of this looks at anything by itself."""

from __future__ import annotations

import ast
from pathlib import Path

import ocirt_cri.spec
from ocirt.spec.capabilities import NUMBERS
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.inputs import CAPABILITIES
from ocirt_cri.spec.pod import pod_of
from ocirt_cri.spec.rlimits import limits
from tests.unit.cri.spec.requests import CONTAINER_ID, HOST, SETTINGS, image, made, pod

KUBELET = "/var/lib/kubelet/pods/4d6b"
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# What this may use of the standard library: nothing that looks at a machine.
PURE = {"__future__", "collections", "dataclasses", "ipaddress", "json", "posixpath", "typing"}


def sandbox() -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="web-7d9", uid="4d6b", namespace="shop", attempt=1),
        hostname="web-7d9",
        log_directory="/var/log/pods/shop_web-7d9_4d6b",
        dns_config=cri.DNSConfig(
            servers=["10.96.0.10"], searches=["shop.svc.cluster.local", "svc.cluster.local"], options=["ndots:5"]
        ),
        port_mappings=[cri.PortMapping(container_port=8080)],
        labels={"app": "web", "io.kubernetes.pod.uid": "4d6b"},
        annotations={"kubernetes.io/config.seen": "2026-01-01T00:00:00Z", "kubernetes.io/config.source": "api"},
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent="/kubepods/burstable/pod4d6b",
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(pid=cri.CONTAINER), seccomp=cri.SecurityProfile()
            ),
            overhead=cri.LinuxContainerResources(),
            resources=cri.LinuxContainerResources(cpu_period=100000, cpu_shares=102, memory_limit_in_bytes=128 << 20),
        ),
    )


def container() -> cri.ContainerConfig:
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="server", attempt=2),
        image=cri.ImageSpec(image="sha256:0123", user_specified_image="shop/web:1.2"),
        args=["--port", "8080"],
        working_dir="",
        envs=[
            cri.KeyValue(key="KUBERNETES_SERVICE_HOST", value=b"10.96.0.1"),
            cri.KeyValue(key="MODE", value=b"production"),
        ],
        mounts=[
            cri.Mount(container_path="/etc/web", host_path=f"{KUBELET}/volumes/kubernetes.io~configmap/web", readonly=True),
            cri.Mount(
                container_path="/var/run/secrets/kubernetes.io/serviceaccount",
                host_path=f"{KUBELET}/volumes/kubernetes.io~projected/token",
                readonly=True,
            ),
            cri.Mount(container_path="/etc/hosts", host_path=f"{KUBELET}/etc-hosts"),
            cri.Mount(container_path="/dev/termination-log", host_path=f"{KUBELET}/containers/server/1234"),
        ],
        labels={"io.kubernetes.container.name": "server"},
        annotations={"io.kubernetes.container.hash": "7f", "io.kubernetes.container.restartCount": "2"},
        log_path="server/2.log",
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(
                cpu_period=100000,
                cpu_quota=50000,
                cpu_shares=102,
                memory_limit_in_bytes=128 << 20,
                oom_score_adj=935,
                hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=0)],
                unified={"memory.oom.group": "1"},
            ),
            security_context=cri.LinuxContainerSecurityContext(
                capabilities=cri.Capability(drop_capabilities=["NET_RAW"]),
                namespace_options=cri.NamespaceOption(pid=cri.CONTAINER),
                run_as_username="alice",
                masked_paths=MASKED,
                readonly_paths=READ_ONLY,
                seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined),
                no_new_privs=True,
            ),
        ),
    )


def bind(destination: str, source: str, *words: str) -> dict[str, object]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", *words]}


def test_a_request_of_a_kubelet() -> None:
    wants = pod_of(sandbox(), "", HOST, SETTINGS)
    assert (wants.network, wants.ipc, wants.uts, wants.pid, wants.hostname) == (True, True, True, False, "web-7d9")
    of = image(
        entrypoint=("/usr/bin/web",),
        cmd=("--help",),
        env=("PATH=/usr/bin:/bin", "MODE=test"),
        working_dir="/srv",
        user="alice",
        stop_signal="SIGQUIT",
        volumes=("/data",),
    )
    found = made(container(), of=pod(sandbox(), hostname=wants.hostname), image=of)
    names = sorted(set(CAPABILITIES) - {"CAP_NET_RAW"}, key=NUMBERS.__getitem__)
    closed = ["nosuid", "noexec", "nodev"]
    assert found.document == {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False,
            "user": {"uid": 1000, "gid": 1001, "additionalGids": [29, 1001, 50000]},
            "args": ["/usr/bin/web", "--port", "8080"],
            "env": [
                "PATH=/usr/bin:/bin",
                "HOSTNAME=web-7d9",
                "MODE=production",
                "KUBERNETES_SERVICE_HOST=10.96.0.1",
            ],
            "cwd": "/srv",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            "rlimits": limits({}, {}),
            "noNewPrivileges": True,
            "oomScoreAdj": 935,
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": closed},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*closed, "ro"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": closed},
            bind("/dev/shm", "/run/pod/shm", *closed),
            bind("/etc/resolv.conf", "/run/pod/resolv.conf"),
            bind("/etc/hostname", "/run/pod/hostname"),
            bind("/etc/web", f"{KUBELET}/volumes/kubernetes.io~configmap/web", "ro"),
            bind("/etc/hosts", f"{KUBELET}/etc-hosts"),
            bind("/dev/termination-log", f"{KUBELET}/containers/server/1234"),
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": [*closed, "relatime", "ro"],
            },
            bind("/var/run/secrets/kubernetes.io/serviceaccount", f"{KUBELET}/volumes/kubernetes.io~projected/token", "ro"),
        ],
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "server",
            "io.kubernetes.cri.image-name": "docker.io/library/busybox:latest",
            "io.kubernetes.cri.sandbox-id": "a" * 64,
            "io.kubernetes.cri.sandbox-name": "web-7d9",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": "4d6b",
        },
        "linux": {
            "namespaces": [
                {"type": "mount"},
                {"type": "network", "path": "/run/netns/pod"},
                {"type": "uts", "path": "/run/pod/uts"},
                {"type": "ipc", "path": "/run/pod/ipc"},
                {"type": "pid"},
                {"type": "cgroup"},
            ],
            "cgroupsPath": f"/kubepods/burstable/pod4d6b/{CONTAINER_ID}",
            "resources": {
                "cpu": {"shares": 102, "quota": 50000, "period": 100000},
                "memory": {"limit": 128 << 20, "swap": 128 << 20},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "unified": {"memory.oom.group": "1"},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }
    assert found.log_path == "/var/log/pods/shop_web-7d9_4d6b/server/2.log"
    assert found.stop_signal.status == cri.SIGNAL_SIGQUIT
    assert [one.host_path for one in found.mounts] == [one.host_path for one in container().mounts]
    assert found.directories == ()


def test_the_same_twice() -> None:
    """Whatever order a map of a message has: the same request is the same document."""
    assert made(container(), of=pod(sandbox())).document == made(container(), of=pod(sandbox())).document


def test_nothing_is_looked_at() -> None:
    """No module of this opens, calls or asks anything but `Lookups`."""
    files = sorted(Path(ocirt_cri.spec.__file__).parent.glob("*.py"))
    assert len(files) > 25
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                used = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used = {(node.module or "").partition(".")[0]}
            else:
                assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"), path
                continue
            assert used <= PURE | {"ocirt", "ocirt_api", "ocirt_cri", "ocirt_images"}, (path.name, used)
