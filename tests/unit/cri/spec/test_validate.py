"""Bad requests: each is refused with the name of its field, before anything is looked up or made.

What belongs to one subject (users, capabilities, mounts …) is in that subject's file; here are the others, and that a refusal
comes before any look at the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.build import build
from ocirt_cri.spec.inputs import Container
from ocirt_cri.spec.pod import pod_of
from ocirt_cri.spec.validate import check_container, check_pod
from tests.support.build import ROOT
from tests.unit.cri.spec.requests import (
    CONTAINER_ID,
    HOST,
    SETTINGS,
    config,
    image,
    limited,
    made,
    options,
    pod,
    pod_config,
    refused,
    secure,
    secure_pod,
)


class Untouchable:
    """Lookups that must not be asked."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AssertionError(name)


def keys(count: int, length: int = 1) -> dict[str, str]:
    return {f"k{number}": "v" * length for number in range(count)}


def without(name: str) -> cri.PodSandboxConfig:
    given = pod_config()
    given.metadata.ClearField(name)  # type: ignore[arg-type]
    return given


def named(**changes: Any) -> cri.PodSandboxConfig:
    return pod_config(metadata=cri.PodSandboxMetadata(**changes))


def logged(directory: str) -> cri.PodSandboxConfig:
    given = pod_config()
    given.log_directory = directory
    return given


def ports(*given: cri.PortMapping) -> cri.PodSandboxConfig:
    return pod_config(port_mappings=given)


def port(container: int = 80, host: int = 8080, **changes: Any) -> cri.PortMapping:
    return cri.PortMapping(container_port=container, host_port=host, **changes)


PODS: list[tuple[cri.PodSandboxConfig, str, str]] = [
    (cri.PodSandboxConfig(), "config.metadata.name", "is missing"),
    (without("name"), "config.metadata.name", "is missing"),
    (without("uid"), "config.metadata.uid", "is missing"),
    (without("namespace"), "config.metadata.namespace", "is missing"),
    (named(name="a/b"), "config.metadata.name", "is no name"),
    (named(name=".."), "config.metadata.name", "is no name"),
    (named(uid="../../etc"), "config.metadata.uid", "is no name"),
    (named(namespace="a\nb"), "config.metadata.namespace", "is no name"),
    (named(namespace="x" * 1000), "config.metadata.namespace", "1000 characters"),
    (pod_config(hostname="a b"), "config.hostname", "no name of a host"),
    (pod_config(hostname="-x"), "config.hostname", "no name of a host"),
    (pod_config(hostname="a\nb"), "config.hostname", "no name of a host"),
    (pod_config(hostname="x" * 65), "config.hostname", "65 bytes"),
    (logged("var/log"), "config.log_directory", "absolute"),
    (logged("/var/log/../../etc"), "config.log_directory", "leads out"),
    (logged("/var/\0"), "config.log_directory", "no path"),
    (pod_config(dns_config=cri.DNSConfig(servers=["1.1.1.1\nnameserver 6.6.6.6"])), "config.dns_config.servers[0]", "one word"),
    (pod_config(dns_config=cri.DNSConfig(servers=[""])), "config.dns_config.servers[0]", "one word"),
    (pod_config(dns_config=cri.DNSConfig(searches=["a", "b c"])), "config.dns_config.searches[1]", "one word"),
    (pod_config(dns_config=cri.DNSConfig(options=["ndots:5\n"])), "config.dns_config.options[0]", "one word"),
    (pod_config(dns_config=cri.DNSConfig(searches=["x"] * 5000)), "config.dns_config.searches", "5000 entries"),
    (ports(port(0)), "config.port_mappings[0].container_port", "out of range"),
    (ports(port(80, 70000)), "config.port_mappings[0].host_port", "out of range"),
    (ports(port(80, -1)), "config.port_mappings[0].host_port", "out of range"),
    (ports(port(-5, 0)), "config.port_mappings[0].container_port", "out of range"),
    (ports(port(protocol=7)), "config.port_mappings[0].protocol", "TCP, UDP, SCTP"),
    (ports(port(host_ip="localhost")), "config.port_mappings[0].host_ip", "no address"),
    (ports(port(), port(81)), "config.port_mappings[1].host_port", "config.port_mappings[0]"),
    (ports(*[port(1, 0)] * 5000), "config.port_mappings", "5000 mappings"),
    (pod_config(labels=keys(10001)), "config.labels", "10001 entries"),
    (pod_config(labels={"": "x"}), "config.labels", "without a name"),
    (pod_config(annotations=keys(10, 200000)), "config.annotations", "characters"),
    (pod_config(annotations=keys(10001)), "config.annotations", "10001 entries"),
    (pod_config(windows=cri.WindowsPodSandboxConfig()), "config.windows", "Windows"),
    (
        pod_config(linux=cri.LinuxPodSandboxConfig(sysctls={f"net.x{n}": "1" for n in range(2000)})),
        "config.linux.sysctls",
        "2000 parameters",
    ),
    (
        pod_config(linux=cri.LinuxPodSandboxConfig(cgroup_parent="/../x")),
        "config.linux.cgroup_parent",
        "no path",
    ),
    (
        secure_pod(selinux_options=cri.SELinuxOption(level="; rm")),
        "config.linux.security_context.selinux_options.level",
        "no level",
    ),
    (secure_pod(namespace_options=options(network=3)), "config.linux.security_context.namespace_options.network", "TARGET"),
]


@pytest.mark.parametrize(("given", "field", "word"), PODS)
def test_bad_pods(given: cri.PodSandboxConfig, field: str, word: str) -> None:
    refused(lambda: check_pod(given, "", HOST, SETTINGS), field, word)
    refused(lambda: pod_of(given, "", HOST, SETTINGS), field, word)


@pytest.mark.parametrize(
    ("handler", "word"), [("ocrit", "did you mean 'ocirt'?"), ("kata-containers", "there are '', 'ocirt'"), ("x" * 999, "…")]
)
def test_unknown_handlers(handler: str, word: str) -> None:
    refused(lambda: check_pod(pod_config(), handler, HOST, SETTINGS), "runtime_handler", word)


def test_known_handlers() -> None:
    for handler in SETTINGS.handlers:
        check_pod(pod_config(), handler, HOST, SETTINGS)


def test_ports_that_go_together() -> None:
    """The same port of the host, of another protocol or address; and ports that lead nowhere, as the kubelet sends them."""
    given = ports(port(), port(protocol=cri.UDP), port(host_ip="127.0.0.1"), port(host_ip="::1"), port(80, 0), port(80, 0))
    check_pod(given, "", HOST, SETTINGS)


def envs(key: str, value: bytes = b"") -> cri.ContainerConfig:
    return config(envs=[cri.KeyValue(key="OK", value=b"1"), cri.KeyValue(key=key, value=value)])


def nameless() -> cri.ContainerConfig:
    given = config()
    given.ClearField("metadata")
    return given


def imageless() -> cri.ContainerConfig:
    given = config()
    given.ClearField("image")
    return given


def mounts(*given: tuple[str, str], **changes: Any) -> cri.ContainerConfig:
    return config(mounts=[cri.Mount(container_path=inside, host_path=host, **changes) for inside, host in given])


SECURITY = "config.linux.security_context"
CONTAINERS: list[tuple[cri.ContainerConfig, str, str]] = [
    (cri.ContainerConfig(), "config.metadata.name", "is missing"),
    (nameless(), "config.metadata.name", "is missing"),
    (config(metadata=cri.ContainerMetadata(name="../x")), "config.metadata.name", "is no name"),
    (imageless(), "config.image.image", "is missing"),
    (config(command=["a", "b\0"]), "config.command[1]", "NUL"),
    (config(args=["\0"]), "config.args[0]", "NUL"),
    (envs(""), "config.envs[1].key", "no name"),
    (envs("A=B"), "config.envs[1].key", "no name"),
    (envs("A\0"), "config.envs[1].key", "no name"),
    (envs("A", b"\0"), "config.envs[1].value", "NUL"),
    (envs("A", b"x" * (3 << 20)), "config", "bytes of command"),
    (config(args=["x"] * 300000), "config.args", "300000 entries"),
    (config(command=["x" * (1 << 20)] * 3), "config", "bytes of command"),
    (config(working_dir="x/y"), "config.working_dir", "absolute"),
    (config(working_dir="/x\0"), "config.working_dir", "absolute"),
    (config(log_path="/etc/passwd"), "config.log_path", "absolute path"),
    (config(log_path="../../../etc/cron.d/x"), "config.log_path", "leads out"),
    (config(log_path="a/../../b"), "config.log_path", "leads out"),
    (config(log_path="a\nb"), "config.log_path", "no path"),
    (config(log_path="app/"), "config.log_path", "names no file"),
    (config(log_path="."), "config.log_path", "names no file"),
    (config(log_path="x" * 5000), "config.log_path", "no path"),
    (config(labels=keys(10001)), "config.labels", "10001 entries"),
    (config(annotations=keys(3, 400000)), "config.annotations", "characters"),
    (config(annotations={"": "x"}), "config.annotations", "without a name"),
    (config(stdin_once=True), "config.stdin_once", "stdin"),
    (config(stop_signal=99), "config.stop_signal", "no signal"),
    (config(windows=cri.WindowsContainerConfig()), "config.windows", "Windows"),
    (mounts(("", "/x")), "config.mounts[0].container_path", "is empty"),
    (mounts(("x", "/x")), "config.mounts[0].container_path", "absolute"),
    (mounts(("/", "/x")), "config.mounts[0].container_path", "root cannot"),
    (mounts(("/../", "/x")), "config.mounts[0].container_path", "root cannot"),
    (mounts(("/proc/sys/net", "/x")), "config.mounts[0].container_path", "inside /proc"),
    (mounts(("/a", "/x"), ("/a/", "/y")), "config.mounts[1].container_path", "config.mounts[0]"),
    (mounts(("/a", "/x"), ("/b/../a", "/y")), "config.mounts[1].container_path", "config.mounts[0]"),
    (mounts(("/a\0", "/x")), "config.mounts[0].container_path", "no path"),
    (mounts(("/a", "")), "config.mounts[0].host_path", "is empty"),
    (mounts(("/a", "x")), "config.mounts[0].host_path", "absolute"),
    (mounts(("/a", "/\0")), "config.mounts[0].host_path", "no path"),
    (mounts(("/a", "/x"), propagation=9), "config.mounts[0].propagation", "9 is no propagation"),
    (mounts(("/a", "/x"), mount_options=["suid"]), "config.mounts[0].mount_options", "'suid'"),
    (mounts(("/a", "/x"), mount_options=["rw"]), "config.mounts[0].mount_options", "'rw'"),
    (mounts(("/a", "/x"), mount_options=["upperdir=/etc"]), "config.mounts[0].mount_options", "noexec"),
    (mounts(("/a", "/x"), image_sub_path="x"), "config.mounts[0].image_sub_path", "without an image"),
    (mounts(*[(f"/m{number}", "/x") for number in range(10001)]), "config.mounts", "10001 mounts"),
    (config(devices=[cri.Device(host_path="/dev/x")] * 10001), "config.devices", "10001 devices"),
    (config(CDI_devices=[cri.CDIDevice(name="x")]), "config.CDI_devices[0].name", "no name"),
    (config(annotations={"cdi.k8s.io/x": "a,b"}), 'config.annotations["cdi.k8s.io/x"]', "no name"),
    (limited(cpu_shares=-1), "config.linux.resources.cpu_shares", "out of range"),
    (secure(privileged=True), f"{SECURITY}.privileged", "no privileged container"),
    (secure(run_as_group=cri.Int64Value(value=1)), f"{SECURITY}.run_as_group", "without a user"),
    (secure(masked_paths=["proc"]), f"{SECURITY}.masked_paths[0]", "absolute path"),
    (secure(masked_paths=["/x", "/"]), f"{SECURITY}.masked_paths[1]", "below the root"),
    (secure(readonly_paths=["/x/.."]), f"{SECURITY}.readonly_paths[0]", "below the root"),
    (secure(readonly_paths=["/x"] * 5000), f"{SECURITY}.readonly_paths", "5000 paths"),
    (secure(seccomp_profile_path="strict"), f"{SECURITY}.seccomp_profile_path", "no profile"),
    (secure(apparmor_profile="strict"), f"{SECURITY}.apparmor_profile", "no profile"),
    (secure(selinux_options=cri.SELinuxOption(role="a:b")), f"{SECURITY}.selinux_options.role", "no role"),
    (
        secure(capabilities=cri.Capability(add_capabilities=["x"])),
        f"{SECURITY}.capabilities.add_capabilities[0]",
        "no capability",
    ),
    (secure(namespace_options=options(pid=cri.TARGET)), f"{SECURITY}.namespace_options.target_id", "without a target"),
    (secure(namespace_options=options(network=cri.NODE)), f"{SECURITY}.namespace_options.network", "the pod has POD"),
]


@pytest.mark.parametrize(("given", "field", "word"), CONTAINERS)
def test_bad_containers(given: cri.ContainerConfig, field: str, word: str) -> None:
    """Alone, and in `build`, which looks at nothing then."""
    refused(lambda: check_container(pod_config(), given, HOST), field, word)
    container = Container(id=CONTAINER_ID, config=given, image=image(), image_name="x", directory="/x")
    refused(lambda: build(pod(), container, HOST, SETTINGS, Untouchable()), field, word)


def test_a_hundred() -> None:
    assert len(PODS) + len(CONTAINERS) >= 95  # and more in the files of their subjects


@pytest.mark.parametrize("length", [10, 100000])
def test_errors_are_short(length: int) -> None:
    """Whatever a caller sends, what is said of it fits on a screen."""
    with pytest.raises(Error) as caught:
        made(config(working_dir="x" * length))
    assert len(str(caught.value)) < 400


def test_the_errors_of_the_documentation() -> None:
    """docs/requests.md shows what is really said."""
    text = (ROOT / "docs/requests.md").read_text()
    wrong: list[Callable[[], object]] = [
        lambda: made(secure(run_as_group=cri.Int64Value(value=1002))),
        lambda: made(mounts(("/data", "/x"), ("/data", "/y"))),
        lambda: check_pod(pod_config(), "ocrit", HOST, SETTINGS),
    ]
    shown = [line.strip() for line in text.split("## Errors")[1].splitlines() if line.startswith("    ")]
    assert len(shown) == len(wrong)
    for do, line in zip(wrong, shown, strict=True):
        with pytest.raises(Error) as caught:
            do()
        assert str(caught.value) == line
