"""Requests by themselves: what is missing, out of range, too much or contradictory, before anything is looked up or made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.spec.names import nearest
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import (
    apparmor,
    capabilities,
    cdinames,
    cgroups,
    devices,
    hostmounts,
    logs,
    namespaces,
    process,
    resources,
    seccomp,
    selinux,
    signals,
    sysctls,
    user,
    usernamespace,
)
from ocirt_cri.spec.refuse import invalid, one_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_api.cri.api_pb2 import ContainerConfig, PodSandboxConfig
    from ocirt_cri.spec.inputs import Host, Settings
    from ocirt_cri.spec.usernamespace import IdMap

MOST_WORDS = 1 << 18  # words of a command, variables
MOST_BYTES = 1 << 21  # of them together; execve(2) takes no more with the usual stack
MOST_LABELS = 10000
MOST_MAP_BYTES = 1 << 20
_LONGEST_NAME = 512
_LONGEST_HOSTNAME = 64  # sethostname(2)
_MOST_PORTS = 4096
_MOST_DNS = 1024
_MOST_SYSCTLS = 1024
_MOST_PATHS = 4096
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def check_pod(config: PodSandboxConfig, handler: str, host: Host, settings: Settings) -> None:
    """RunPodSandbox's request. Raises Error."""
    _metadata_of_pod(config, "config")
    if handler not in settings.handlers:
        near = nearest(handler, settings.handlers)
        hint = f"did you mean {near!r}?" if near else "there are " + ", ".join(repr(one) for one in settings.handlers)
        raise invalid("runtime_handler", f"no runtime handler {shown(handler)}", hint)
    _hostname(config.hostname, "config.hostname")
    logs.check_directory(config, "config.log_directory")
    _dns(config)
    _ports(config)
    _labels(config.labels, "config.labels")
    _labels(config.annotations, "config.annotations")
    security = config.linux.security_context
    place = "config.linux.security_context"
    options = security.namespace_options
    namespaces.check_pod(options, place + ".namespace_options")
    usernamespace.check(options, place + ".namespace_options", host)
    selinux.check(security.selinux_options, place + ".selinux_options")
    cgroups.parent(config.linux.cgroup_parent, settings, "config.linux.cgroup_parent")
    if len(config.linux.sysctls) > _MOST_SYSCTLS:
        raise invalid("config.linux.sysctls", f"{len(config.linux.sysctls)} parameters", f"{_MOST_SYSCTLS} at most")
    sysctls.check(config.linux.sysctls, options, "config.linux.sysctls")
    for name in ("overhead", "resources"):
        resources.check(getattr(config.linux, name), f"config.linux.{name}")
    if config.HasField("windows"):
        raise invalid("config.windows", "this is no Windows", "leave it out")


def check_container(pod: PodSandboxConfig, config: ContainerConfig, host: Host) -> IdMap | None:
    """CreateContainer's request, for a pod that was made from `pod`. The mapping of its user namespace. Raises Error."""
    if not config.metadata.name:
        raise invalid("config.metadata.name", "is missing", "the container's name in its pod")
    _name(config.metadata.name, "config.metadata.name")
    if not config.image.image:
        raise invalid("config.image.image", "is missing", "a name, a digest or an id")
    _words(config)
    if config.working_dir and (not config.working_dir.startswith("/") or "\0" in config.working_dir):
        raise invalid("config.working_dir", f"{shown(config.working_dir)} is not an absolute path", "such as /")
    logs.path(pod, config)
    _labels(config.labels, "config.labels")
    _labels(config.annotations, "config.annotations")
    if config.stdin_once and not config.stdin:
        raise invalid("config.stdin_once", "without a standard input", "stdin: true as well")
    signals.check(config)
    hostmounts.check(config, host)
    devices.check(config)
    cdinames.requested(config)
    resources.check(config.linux.resources)
    if config.HasField("windows"):
        raise invalid("config.windows", "this is no Windows", "leave it out")
    return _security(pod, config, host)


def _security(pod: PodSandboxConfig, config: ContainerConfig, host: Host) -> IdMap | None:
    security = config.linux.security_context
    place = "config.linux.security_context"
    if security.privileged and not pod.linux.security_context.privileged:
        what = "no privileged container allowed in sandbox"
        raise invalid(place + ".privileged", what, "sandbox_config.linux.security_context.privileged: true")
    user.check(security)
    capabilities.check(security)
    seccomp.check(security, host)
    apparmor.wanted(security)
    selinux.check(security.selinux_options, place + ".selinux_options")
    for name in ("masked_paths", "readonly_paths"):
        given = getattr(security, name)
        if len(given) > _MOST_PATHS:
            raise invalid(f"{place}.{name}", f"{len(given)} paths", f"{_MOST_PATHS} at most")
        for number, path in enumerate(given):
            if not path.startswith("/") or "\0" in path or process.clean(path) == "/":
                raise invalid(f"{place}.{name}[{number}]", f"{shown(path)} cannot be it", "an absolute path below the root")
    namespaces.check_container(pod.linux.security_context.namespace_options, security.namespace_options)
    return usernamespace.check_same(
        pod.linux.security_context.namespace_options, security.namespace_options, place + ".namespace_options"
    )


def _metadata_of_pod(config: PodSandboxConfig, place: str) -> None:
    for name in ("name", "uid", "namespace"):
        value = getattr(config.metadata, name)
        if not value:
            raise invalid(f"{place}.metadata.{name}", "is missing", "name, uid and namespace make a pod's key")
        _name(value, f"{place}.metadata.{name}")


def _name(value: str, field: str) -> None:
    if len(value) > _LONGEST_NAME:
        raise invalid(field, f"has {len(value)} characters", f"{_LONGEST_NAME} at most")
    # It goes into lines of logs and into paths of the kubelet.
    if "/" in value or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value) or value in (".", ".."):
        raise invalid(field, f"{shown(value)} is no name", "no slash and no control characters")


def _hostname(value: str, field: str) -> None:
    if len(value.encode()) > _LONGEST_HOSTNAME:
        raise invalid(field, f"has {len(value.encode())} bytes", f"{_LONGEST_HOSTNAME} at most")
    if not _HOST_CHARACTERS.issuperset(value) or value.startswith((".", "-")):
        raise invalid(field, f"{shown(value)} is no name of a host", "letters, digits, hyphens and dots")


def _dns(config: PodSandboxConfig) -> None:
    for name in ("servers", "searches", "options"):
        entries = getattr(config.dns_config, name)
        if len(entries) > _MOST_DNS:
            raise invalid(f"config.dns_config.{name}", f"{len(entries)} entries", f"{_MOST_DNS} at most")
        for number, entry in enumerate(entries):
            # Anything else would be more lines of resolv.conf than were asked for.
            if not entry or any(ord(char) <= 0x20 or ord(char) == 0x7F for char in entry):
                raise invalid(f"config.dns_config.{name}[{number}]", f"{shown(entry)} is none", "one word")


def _ports(config: PodSandboxConfig) -> None:
    if len(config.port_mappings) > _MOST_PORTS:
        raise invalid("config.port_mappings", f"{len(config.port_mappings)} mappings", f"{_MOST_PORTS} at most")
    seen: dict[tuple[int, int, str], int] = {}
    for number, one in enumerate(config.port_mappings):
        place = f"config.port_mappings[{number}]"
        if one.protocol not in cri.Protocol.values():
            raise invalid(place + ".protocol", f"{one.protocol} is no protocol", one_of(cri.Protocol.keys()))
        for name, first in (("container_port", 1), ("host_port", 0)):
            value = getattr(one, name)
            if one.host_port and not first <= value <= 65535:
                raise invalid(f"{place}.{name}", f"{value} is out of range", f"{first} to 65535")
            if not 0 <= value <= 65535:
                raise invalid(f"{place}.{name}", f"{value} is out of range", "0 to 65535")
        if not one.host_port:
            continue
        if one.host_ip and not _is_address(one.host_ip):
            raise invalid(place + ".host_ip", f"{shown(one.host_ip)} is no address", "such as 127.0.0.1 or ::1")
        key = (one.protocol, one.host_port, one.host_ip)
        if key in seen:
            what = f"port {one.host_port} of the host leads to config.port_mappings[{seen[key]}] already"
            raise invalid(place + ".host_port", what, "another port, protocol or host_ip")
        seen[key] = number


def _is_address(text: str) -> bool:
    import ipaddress  # noqa: PLC0415  (few pods have mappings)

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _labels(given: Mapping[str, str], field: str) -> None:
    if len(given) > MOST_LABELS:
        raise invalid(field, f"{len(given)} entries", f"{MOST_LABELS} at most")
    total = sum(len(name) + len(value) for name, value in given.items())
    if total > MOST_MAP_BYTES:
        raise invalid(field, f"{total} characters", f"{MOST_MAP_BYTES} at most")
    if "" in given:
        raise invalid(field, "an entry without a name", "leave it out")


def _words(config: ContainerConfig) -> None:
    for name in ("command", "args"):
        for number, word in enumerate(getattr(config, name)):
            if "\0" in word:
                raise invalid(f"config.{name}[{number}]", "a NUL character", "leave it out")
    for number, variable in enumerate(config.envs):
        field = f"config.envs[{number}]"
        if not variable.key or "=" in variable.key or "\0" in variable.key:
            raise invalid(field + ".key", f"{shown(variable.key)} is no name of a variable", "not empty, without `=`")
        if b"\0" in variable.value:
            raise invalid(field + ".value", "a NUL character", "leave it out")
    words = [len(config.command), len(config.args), len(config.envs)]
    if sum(words) > MOST_WORDS:
        raise invalid(
            "config.envs" if words[2] == max(words) else "config.args", f"{max(words)} entries", f"{MOST_WORDS} at most"
        )
    size = _size(config.command) + _size(config.args)
    size += sum(len(variable.key) + len(variable.value) + 2 for variable in config.envs)
    if size > MOST_BYTES:
        raise invalid("config", f"{size} bytes of command, args and envs", f"{MOST_BYTES} at most")


def _size(words: Iterable[str]) -> int:
    return sum(len(word) + 1 for word in words)
