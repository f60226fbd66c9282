"""What a container's processes may do: users, groups, capabilities, privileges, paths and filters."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import Ocirtd, refused
from tests.support.specs import fails, says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

BUCKET = "Security Context bucket runtime should "
GROUPS = "Security Context SupplementalGroupsPolicy when SupplementalGroupsPolicy="
SECCOMP = "Security Context SeccompProfilePath "
PRIVILEGES = "Security Context NoNewPrivs should "


def number(value: int) -> cri.Int64Value:
    return cri.Int64Value(value=value)


def bounds(status: str, name: str) -> int:
    """A set of capabilities, of /proc/PID/status."""
    return int(dict(line.split(":", 1) for line in status.splitlines())[name], 16)


def capabilities(node: Ocirtd, box: str, name: str = "CapBnd") -> int:
    """The same of the processes in a container."""
    return bounds(says(node, box, "cat", "/proc/self/status"), name)


# -- users and groups --


@spec(BUCKET + "support SupplementalGroups")
def test_groups(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, supplemental_groups=[1234, 5678])
    assert {"1234", "5678"} <= set(says(node, box, "id", "-G").split())


@spec(BUCKET + "support RunAsUser")
def test_user(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, run_as_user=number(1001))
    assert says(node, box, "id", "-u") == "1001\n"


@spec(BUCKET + "support RunAsUserName")
def test_name(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, run_as_username="nobody")
    assert says(node, box, "id", "-nu") == "nobody\n"


@spec(BUCKET + "support RunAsGroup")
def test_group(node: Ocirtd, pod: str) -> None:
    said = specs.ended(node, pod, "sh", "-c", "echo $(id -u):$(id -g)", run_as_user=number(1001), run_as_group=number(1002))
    assert said == "1001:1002"


@spec(BUCKET + "return error if RunAsGroup is set without RunAsUser")
def test_a_group_without_a_user(node: Ocirtd, pod: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        specs.create(node, pod, "sleep", "1000", run_as_group=number(1002))
    assert "run_as_group" in said[0]


def groups_of_predefined(node: Ocirtd, pod: str, policy: cri.SupplementalGroupsPolicy.ValueType, wanted: list[int]) -> None:
    """The first process's, those of another, and what the status tells, with an image whose user has a group of its own."""
    assert node.runtime.Status(cri.StatusRequest(), timeout=10).features.supplemental_groups_policy
    command = ("sh", "-c", "id -G; sleep 1000")
    given = {"run_as_user": number(1000), "supplemental_groups": [1234], "supplemental_groups_policy": policy}
    box = specs.started(node, specs.create(node, pod, *command, image=specs.GROUPS, **given))
    expected = cri.ContainerUser(linux=cri.LinuxContainerUser(uid=1000, gid=1000, supplemental_groups=wanted))
    assert node.status(box).user == expected
    words = " ".join(map(str, wanted))
    node.until(lambda: node.logged(box), "its groups")
    assert node.logged(box) == [("stdout", "F", words)]
    assert says(node, box, "id", "-G") == f"{words}\n"


@spec(
    GROUPS + "Merge (Default) if the container's primary UID belongs to some groups in the image, "
    "runtime should add SupplementalGroups to them"
)
def test_groups_of_the_image_too(node: Ocirtd, pod: str) -> None:
    groups_of_predefined(node, pod, cri.Merge, [1000, 1234, 50000])


@spec(
    GROUPS + "Strict even if the container's primary UID belongs to some groups in the image, "
    "runtime should not add SupplementalGroups to them"
)
def test_no_groups_of_the_image(node: Ocirtd, pod: str) -> None:
    groups_of_predefined(node, pod, cri.Strict, [1000, 1234])


# -- the root, and paths --


@spec(BUCKET + "support that ReadOnlyRootfs is false")
def test_a_root_to_write_to(node: Ocirtd, pod: str) -> None:
    assert specs.ended(node, pod, "sh", "-c", "touch file && [ -f file ] && echo Found", readonly_rootfs=False) == "Found"


@spec(BUCKET + "support that ReadOnlyRootfs is true")
def test_a_root_to_read(node: Ocirtd, pod: str) -> None:
    box = specs.create(node, pod, "sh", "-c", "touch file && [ -f file ] && echo Found", readonly_rootfs=True)
    node.start_container(box)
    assert node.wait(box).exit_code == 1
    assert node.logged(box) == [("stderr", "F", "touch: file: Read-only file system")]


@spec(BUCKET + "support MaskedPaths")
def test_masked(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, masked_paths=["/bin/ls"])
    assert fails(node, box, "/bin/sh", "-c", "ls") == "/bin/sh: ls: Permission denied\n"


@spec(BUCKET + "support ReadonlyPaths")
def test_read_only(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, readonly_paths=["/tmp"])
    assert fails(node, box, "touch", "/tmp/test") == "touch: /tmp/test: Read-only file system\n"
    says(node, box, "touch", "/test")


# -- capabilities --


BRIDGE = ("brctl", "addbr", "foobar")


@spec(BUCKET + "support Privileged is true")
def test_privileged(node: Ocirtd) -> None:
    box = specs.sleeper(node, specs.run_pod(node, privileged=True), privileged=True)
    says(node, box, *BRIDGE)


@spec(BUCKET + "support Privileged is false")
def test_not_privileged(node: Ocirtd) -> None:
    box = specs.sleeper(node, specs.run_pod(node))
    assert "Operation not permitted" in fails(node, box, *BRIDGE)


@spec(BUCKET + "support adding capability")
def test_one_more(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, capabilities=cri.Capability(add_capabilities=["NET_ADMIN"]))
    says(node, box, *BRIDGE)
    assert "Operation not permitted" in fails(node, specs.sleeper(node, pod), *BRIDGE)


@spec(BUCKET + "support dropping capability")
def test_one_less(node: Ocirtd, pod: str) -> None:
    ping = ("ping", "-c", "1", "127.0.0.1")
    box = specs.sleeper(node, pod, capabilities=cri.Capability(drop_capabilities=["NET_RAW"]))
    assert "permission denied" in fails(node, box, *ping)
    says(node, specs.sleeper(node, pod), *ping)


@spec(BUCKET + "support adding ALL capabilities")
def test_all(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, capabilities=cri.Capability(add_capabilities=["ALL"]))
    assert capabilities(node, box) == capabilities(node, box, "CapEff") == bounds(Path("/proc/self/status").read_text(), "CapBnd")


@spec(BUCKET + "support dropping ALL capabilities")
def test_none(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, capabilities=cri.Capability(drop_capabilities=["ALL"]))
    assert capabilities(node, box) == capabilities(node, box, "CapEff") == 0


# -- filters of system calls --


def localhost(place: Path, *calls: str) -> cri.SecurityProfile:
    """A profile in a file, which refuses some system calls."""
    rules = [{"names": list(calls), "action": "SCMP_ACT_ERRNO"}]
    path = place / "profile.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=str(path))


def filtered(node: Ocirtd, profile: cri.SecurityProfile | None) -> str:
    """A container with a profile, in a pod with the same."""
    config = specs.pod_config(node)
    if profile is not None:
        config.linux.security_context.seccomp.CopyFrom(profile)
    return specs.sleeper(node, node.run_pod(config), seccomp=profile)


def mode(node: Ocirtd, profile: cri.SecurityProfile | None) -> str:
    """That of a container's processes."""
    return says(node, filtered(node, profile), "grep", "Seccomp:", "/proc/self/status").split()[1]


UNCONFINED = cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)
ADMIN = cri.Capability(add_capabilities=["SYS_ADMIN"])


@spec(SECCOMP + "should support seccomp unconfined on the container")
def test_unconfined(node: Ocirtd) -> None:
    assert mode(node, UNCONFINED) == "0"


@spec(SECCOMP + "should support seccomp default on the container")
def test_default(node: Ocirtd) -> None:
    assert mode(node, cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)) == "2"


@spec(SECCOMP + "should support nil profile, which is unconfined")
def test_no_profile(node: Ocirtd) -> None:
    assert mode(node, None) == "0"


@spec(SECCOMP + "should support seccomp localhost profile on the container")
def test_a_profile(node: Ocirtd, tmp_path: Path) -> None:
    box = filtered(node, localhost(tmp_path, "chmod", "fchmod", "fchmodat", "fchmodat2"))
    assert "Operation not permitted" in fails(node, box, "chmod", "400", "/")


@spec(SECCOMP + "runtime should not block setting host name with unconfined seccomp and SYS_ADMIN")
def test_a_host_name(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, seccomp=UNCONFINED, capabilities=ADMIN)
    says(node, box, "hostname", "ANewHostName")
    assert says(node, box, "hostname") == "ANewHostName\n"


@spec(SECCOMP + "runtime should support an seccomp profile that blocks setting hostname with SYS_ADMIN")
def test_no_host_name(node: Ocirtd, pod: str, tmp_path: Path) -> None:
    box = specs.sleeper(node, pod, seccomp=localhost(tmp_path, "sethostname"), capabilities=ADMIN)
    assert "Operation not permitted" in fails(node, box, "hostname", "ANewHostName")


@spec(SECCOMP + "runtime should ignore a seccomp profile that blocks setting hostname when privileged")
def test_a_host_name_all_the_same(node: Ocirtd, tmp_path: Path) -> None:
    pod = specs.run_pod(node, privileged=True)
    box = specs.sleeper(node, pod, seccomp=localhost(tmp_path, "sethostname"), privileged=True)
    says(node, box, "hostname", "ANewHostName")


# -- more privileges than before --


def effective(node: Ocirtd, pod: str, *, no_new_privs: bool) -> str:
    """Whose rights a program of root's with the set-user-ID bit has."""
    return specs.ended(node, pod, image=specs.NO_NEW_PRIVILEGES, run_as_user=number(1000), no_new_privs=no_new_privs)


@spec(PRIVILEGES + "not allow privilege escalation when true")
def test_no_more(node: Ocirtd, pod: str) -> None:
    assert effective(node, pod, no_new_privs=True) == "Effective uid: 1000"


@spec(PRIVILEGES + "allow privilege escalation when false")
def test_more(node: Ocirtd, pod: str) -> None:
    assert effective(node, pod, no_new_privs=False) == "Effective uid: 0"
