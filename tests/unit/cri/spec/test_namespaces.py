"""Namespaces in all modes, user namespaces, kernel parameters: what pods and their containers share."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.pod import PodWants, pod_of
from ocirt_cri.spec.usernamespace import IdMap
from tests.unit.cri.spec.requests import (
    HOST,
    SETTINGS,
    TARGET_ID,
    made,
    options,
    pod,
    pod_config,
    refused,
    secure,
    secure_pod,
    userns,
    with_host,
    with_settings,
)

POD, CONTAINER, NODE, TARGET = cri.POD, cri.CONTAINER, cri.NODE, cri.TARGET
PLACE = "config.linux.security_context.namespace_options"
DEFAULTS = {"net/ipv4/ip_unprivileged_port_start": "0", "net/ipv4/ping_group_range": "0 2147483647"}


def joined(given: cri.NamespaceOption, of: cri.NamespaceOption, **pod_changes: Any) -> dict[str, str]:
    """Type and path of each namespace, "" for a new one."""
    owner = pod(secure_pod(namespace_options=of, privileged=True), **pod_changes)
    return {
        one["type"]: one.get("path", "")
        for one in made(secure(namespace_options=given), of=owner).document["linux"]["namespaces"]
    }


SHARED = {"network": "/run/netns/pod", "uts": "/run/pod/uts", "ipc": "/run/pod/ipc"}


@pytest.mark.parametrize(
    ("given", "of", "wanted"),
    [
        (options(), options(), {**SHARED, "pid": "/proc/50/ns/pid"}),
        (options(pid=CONTAINER), options(pid=CONTAINER), {**SHARED, "pid": ""}),
        (options(pid=CONTAINER), options(), {**SHARED, "pid": ""}),
        (options(), options(pid=CONTAINER), {**SHARED, "pid": ""}),
        (options(pid=NODE), options(pid=NODE), SHARED),
        (options(), options(pid=NODE), SHARED),
        (options(pid=CONTAINER), options(pid=NODE), {**SHARED, "pid": ""}),
        (options(pid=TARGET, target_id=TARGET_ID), options(pid=CONTAINER), {**SHARED, "pid": "/proc/77/ns/pid"}),
        (options(network=NODE), options(network=NODE), {"ipc": "/run/pod/ipc", "pid": "/proc/50/ns/pid"}),
        (options(), options(network=NODE), {"ipc": "/run/pod/ipc", "pid": "/proc/50/ns/pid"}),
        (options(ipc=NODE), options(ipc=NODE), {"network": "/run/netns/pod", "uts": "/run/pod/uts", "pid": "/proc/50/ns/pid"}),
        (options(network=NODE, ipc=NODE, pid=NODE), options(network=NODE, ipc=NODE, pid=NODE), {}),
        (userns(), userns(), {**SHARED, "pid": "/proc/50/ns/pid", "user": "/run/pod/user"}),
    ],
)
def test_modes(given: cri.NamespaceOption, of: cri.NamespaceOption, wanted: dict[str, str]) -> None:
    assert joined(given, of) == {"mount": "", "cgroup": "", **wanted}


def test_a_host_name_of_its_own() -> None:
    assert joined(options(), options(), uts="")["uts"] == ""


@pytest.mark.parametrize(
    ("given", "of", "field", "word"),
    [
        (options(network=NODE), options(), "network", "the pod has POD"),
        (options(ipc=NODE), options(), "ipc", "the pod has POD"),
        (options(pid=NODE), options(), "pid", "the pod has POD"),
        (options(pid=NODE), options(pid=CONTAINER), "pid", "the pod has CONTAINER"),
        (options(network=CONTAINER), options(), "network", "CONTAINER is no mode"),
        (options(network=TARGET), options(), "network", "TARGET is no mode"),
        (options(ipc=CONTAINER), options(), "ipc", "CONTAINER is no mode"),
        (options(pid=9), options(), "pid", "9 is no mode"),
        (options(pid=TARGET), options(), "target_id", "without a target"),
        (options(pid=TARGET, target_id="gone"), options(), "target_id", "no running container"),
        (options(target_id=TARGET_ID), options(), "target_id", "a target in mode POD"),
        (userns(), options(), "userns_options", "the host's user namespace"),
        (options(), userns(), "userns_options", "from 100000"),
        (userns(200000), userns(), "userns_options", "from 200000"),
        (userns(length=10), userns(), "userns_options", "10 ids"),
    ],
)
def test_modes_that_contradict(given: cri.NamespaceOption, of: cri.NamespaceOption, field: str, word: str) -> None:
    refused(lambda: joined(given, of), f"{PLACE}.{field}", word)


def test_a_pod_that_lost_a_namespace() -> None:
    field = "sandbox_config.linux.security_context.namespace_options.network"
    refused(lambda: joined(options(), options(), network=""), field, "no network namespace")


# -- pods ----------------------------------------------------------------------------------------------------------------------


def wants(config: cri.PodSandboxConfig, **more: Any) -> PodWants:
    return pod_of(config, "", more.get("host", HOST), more.get("settings", SETTINGS))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (options(), (True, True, True, True)),
        (options(pid=CONTAINER), (True, True, True, False)),
        (options(pid=NODE), (True, True, True, False)),
        (options(ipc=NODE), (True, False, True, True)),
        (options(network=NODE), (False, True, False, True)),
        (userns(pid=CONTAINER), (True, True, True, False)),
    ],
)
def test_namespaces_of_a_pod(given: cri.NamespaceOption, wanted: tuple[bool, ...]) -> None:
    found = wants(secure_pod(namespace_options=given))
    assert (found.network, found.ipc, found.uts, found.pid) == wanted


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (options(network=CONTAINER), "network"),
        (options(network=TARGET), "network"),
        (options(ipc=CONTAINER), "ipc"),
        (options(pid=TARGET), "pid"),
        (options(pid=TARGET, target_id="x"), "pid"),
        (options(target_id="x"), "target_id"),
        (options(ipc=17), "ipc"),
    ],
)
def test_modes_that_a_pod_cannot_have(given: cri.NamespaceOption, field: str) -> None:
    refused(lambda: wants(secure_pod(namespace_options=given)), f"{PLACE}.{field}")


def test_user_namespace_of_a_pod() -> None:
    found = wants(secure_pod(namespace_options=userns()))
    assert found.ids == IdMap(100000, 100000, 65536)
    assert found.owner == (100000, 100000)
    assert found.ids.documents()[0] == [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert wants(pod_config()).ids is None
    node = options(userns_options=cri.UserNamespace(mode=NODE))
    assert wants(secure_pod(namespace_options=node)).ids is None
    assert wants(pod_config()).owner == (0, 0)


def ids(*ranges: tuple[int, int, int]) -> list[cri.IDMapping]:
    return [cri.IDMapping(host_id=host, container_id=container, length=length) for host, container, length in ranges]


GOOD = (100000, 0, 65536)


@pytest.mark.parametrize(
    ("given", "field", "word"),
    [
        ({"mode": CONTAINER, "uids": ids(GOOD), "gids": ids(GOOD)}, "mode", "CONTAINER is none"),
        ({"mode": TARGET}, "mode", "TARGET is none"),
        ({"mode": 8}, "mode", "8 is none"),
        ({"mode": POD}, "uids", "0 mappings"),
        ({"mode": POD, "uids": ids(GOOD, (200000, 65536, 1)), "gids": ids(GOOD)}, "uids", "2 mappings"),
        ({"mode": POD, "uids": ids(GOOD), "gids": ids(GOOD, GOOD)}, "gids", "2 mappings"),
        ({"mode": POD, "uids": ids((100000, 1, 5)), "gids": ids(GOOD)}, "uids[0].container_id", "root has to be mapped"),
        ({"mode": POD, "uids": ids((100000, 0, 0)), "gids": ids(GOOD)}, "uids[0].length", "maps no ids"),
        ({"mode": POD, "uids": ids(((1 << 32) - 5, 0, 5)), "gids": ids(GOOD)}, "uids[0].length", "beyond the last id"),
        ({"mode": POD, "uids": ids(GOOD), "gids": ids((100000, 0, 5))}, "gids", "5 groups for 65536 users"),
        ({"mode": POD, "uids": ids((0, 0, 5)), "gids": ids((0, 0, 5))}, "uids[0].host_id", "root of the host"),
        ({"mode": NODE, "uids": ids(GOOD)}, "", "mappings for the host's"),
    ],
)
def test_bad_user_namespace(given: dict[str, Any], field: str, word: str) -> None:
    modes = options(userns_options=cri.UserNamespace(**given))
    place = f"{PLACE}.userns_options" + ("." + field if field else "")
    refused(lambda: wants(secure_pod(namespace_options=modes)), place, word)
    refused(lambda: made(secure(namespace_options=modes), of=secure_pod(namespace_options=modes)), place, word)


@pytest.mark.parametrize("name", ["pid", "ipc"])
def test_the_hosts_namespace_in_a_user_namespace(name: str) -> None:
    modes = userns(**{name: NODE})
    refused(lambda: wants(secure_pod(namespace_options=modes)), f"{PLACE}.{name}", "user namespace")


@pytest.mark.parametrize("lacks", ["user_namespaces", "idmapped_mounts", "mapped_layers"])
def test_host_without_user_namespaces(lacks: str) -> None:
    given = secure_pod(namespace_options=userns())
    refused(lambda: wants(given, host=with_host(**{lacks: False})), f"{PLACE}.userns_options", "hostUsers", code="unsupported")


@pytest.mark.parametrize(
    ("asked", "given", "wanted"),
    [("", options(), "node-1"), ("web", options(), "web"), ("web", options(network=NODE), "node-1")],
)
def test_host_name_of_a_pod(asked: str, given: cri.NamespaceOption, wanted: str) -> None:
    config = secure_pod(namespace_options=given)
    config.hostname = asked
    assert wants(config).hostname == wanted


# -- kernel parameters ---------------------------------------------------------------------------------------------------------


def sysctls(given: dict[str, str], modes: cri.NamespaceOption = options(), **more: Any) -> dict[str, str]:  # noqa: B008
    config = secure_pod(namespace_options=modes)
    config.linux.sysctls.update(given)
    return wants(config, **more).sysctls


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, DEFAULTS),
        ({"kernel.shm_rmid_forced": "1"}, {**DEFAULTS, "kernel/shm_rmid_forced": "1"}),
        ({"fs.mqueue.msg_max": "100"}, {**DEFAULTS, "fs/mqueue/msg_max": "100"}),
        ({"kernel.sem": "32000 1024000000 500 32000"}, {**DEFAULTS, "kernel/sem": "32000 1024000000 500 32000"}),
        ({"kernel.msgmax": "65536"}, {**DEFAULTS, "kernel/msgmax": "65536"}),
        ({"net/ipv4/conf/eth0.100/rp_filter": "0"}, {**DEFAULTS, "net/ipv4/conf/eth0.100/rp_filter": "0"}),
        ({"net.ipv4.conf.eth0/100.rp_filter": "0"}, {**DEFAULTS, "net/ipv4/conf/eth0.100/rp_filter": "0"}),
        ({"net.ipv4.ip_unprivileged_port_start": "1024"}, {**DEFAULTS, "net/ipv4/ip_unprivileged_port_start": "1024"}),
    ],
)
def test_sysctls(given: dict[str, str], wanted: dict[str, str]) -> None:
    assert sysctls(given) == wanted


def test_default_sysctls_where_they_do_not_belong() -> None:
    """None for the host; in a user namespace not all groups are there that the second would name."""
    assert sysctls({}, options(network=NODE)) == {}
    assert sysctls({}, userns()) == {"net/ipv4/ip_unprivileged_port_start": "0"}
    assert sysctls({}, settings=with_settings(sysctls={"vm.overcommit_memory": "1", "kernel.shmmax": "5"})) == {
        "kernel/shmmax": "5"
    }


@pytest.mark.parametrize(
    ("given", "modes", "word"),
    [
        ({"net.core.somaxconn": "1"}, options(network=NODE), "shares its network namespace"),
        ({"kernel.shmmax": "1"}, options(ipc=NODE), "shares its ipc namespace"),
        ({"fs.mqueue.msg_max": "1"}, options(ipc=NODE), "shares its ipc namespace"),
        ({"vm.swappiness": "1"}, options(), "whole host"),
        ({"kernel.hostname": "x"}, options(), "whole host"),
        ({"kernel.panic": "1"}, options(), "whole host"),
        ({"fs.file-max": "1"}, options(), "whole host"),
        ({"": "1"}, options(), "not the name"),
        ({"net..x": "1"}, options(), "not the name"),
        ({"net/../kernel/panic": "1"}, options(), "not the name"),
        ({"net.core.somaxconn": "1\n2"}, options(), "no value"),
        ({"net.core.somaxconn": "1\0"}, options(), "no value"),
    ],
)
def test_bad_sysctls(given: dict[str, str], modes: cri.NamespaceOption, word: str) -> None:
    (name,) = given
    refused(lambda: sysctls(given, modes), f'config.linux.sysctls["{name}"]', word)


def test_a_sysctl_in_two_spellings() -> None:
    given = {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}
    refused(lambda: sysctls(given), 'config.linux.sysctls["net/core/somaxconn"]', "two spellings")
