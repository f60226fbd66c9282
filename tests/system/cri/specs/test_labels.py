"""Profiles of AppArmor and labels of SELinux, where the kernel runs with them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import Ocirtd, refused
from tests.support.specs import says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

DEPRECATED = "AppArmor runtime should support deprecated apparmor_profile field should "
FIELD = "AppArmor runtime should support apparmor field should "
NEW = "AppArmor runtime should prefer new apparmor field should "
SELINUX = "SELinux runtime should support selinux when "
NONE, DENY, AUDIT = "no-such-profile", "ocirt-test-deny-write", "ocirt-test-audit-write"
PROFILES = f"""#include <tunables/global>
profile {DENY} flags=(attach_disconnected) {{
  #include <abstractions/base>
  file,
  deny /** w,
}}
profile {AUDIT} flags=(attach_disconnected) {{
  #include <abstractions/base>
  file,
  audit /** w,
}}
"""


# -- AppArmor --


@pytest.fixture
def profiles(tmp_path: Path) -> Iterator[None]:
    """The kernel has them."""
    path = tmp_path / "profiles"
    path.write_text(PROFILES)
    parser = shutil.which("apparmor_parser", path="/sbin:/usr/sbin:/usr/local/sbin")
    assert parser is not None, "install apparmor"
    subprocess.run([parser, "--replace", "--skip-cache", path], check=True, capture_output=True)
    yield
    subprocess.run([parser, "--remove", path], check=True, capture_output=True)


def given(context: str, name: str) -> dict[str, object]:
    """A profile by one field of the security context, or by both, of which the old one is wrong."""
    field = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=f"localhost/{name}")
    if context == DEPRECATED:
        return {"apparmor_profile": f"localhost/{name}"}
    return {"apparmor": field, **({"apparmor_profile": f"localhost/{NONE}"} if context == NEW else {})}


@spec(*(f"{context}fail with an unloaded apparmor_profile" for context in (DEPRECATED, FIELD, NEW)))
def test_no_such_profile(node: Ocirtd, pod: str, title: str) -> None:
    context = title.removesuffix("fail with an unloaded apparmor_profile")
    with pytest.raises(grpc.RpcError) as said:
        specs.create(node, pod, "touch", "/tmp/file", **given(context, NONE))
    assert NONE in str(said.value)
    assert node.containers() == []


def writes(node: Ocirtd, pod: str, profile: dict[str, object]) -> bool:
    """Whether a container with a profile may write."""
    box = specs.create(node, pod, "touch", "/tmp/file", **profile)
    node.start_container(box)
    return bool(node.wait(box).exit_code == 0)


@pytest.mark.usefixtures("profiles")
@spec(*(f"{context}enforce a apparmor_profile blocking writes" for context in (DEPRECATED, FIELD, NEW)))
def test_a_profile_that_denies(node: Ocirtd, pod: str, title: str) -> None:
    assert not writes(node, pod, given(title.removesuffix("enforce a apparmor_profile blocking writes"), DENY))


@pytest.mark.usefixtures("profiles")
@spec(
    DEPRECATED + "enforce a permissive deprecated profile",
    FIELD + "enforce a permissive deprecated profile",
    NEW + "work with apparmor profile",
)
def test_a_profile_that_allows(node: Ocirtd, pod: str, title: str) -> None:
    context = next(one for one in (DEPRECATED, FIELD, NEW) if title.startswith(one))
    assert writes(node, pod, given(context, AUDIT))


# -- SELinux --

KINDS = {f"{SELINUX}single pod sandbox is {'' if privileged else 'not '}privileged ": privileged for privileged in (False, True)}


def both(name: str) -> pytest.MarkDecorator:
    """A spec for pods of both kinds."""
    return spec(*(kind + name for kind in KINDS))


@pytest.fixture
def privileged(title: str) -> bool:
    """Whether the spec's pod and containers are privileged."""
    return next((value for kind, value in KINDS.items() if title.startswith(kind)), False)


def labelled(node: Ocirtd, privileged: bool, options: cri.SELinuxOption | None = None, pod: str = "") -> str:
    """A container with labels."""
    pod = pod or specs.run_pod(node, privileged=privileged)
    return specs.sleeper(node, pod, privileged=privileged, selinux_options=options)


def process_label(node: Ocirtd, box: str) -> str:
    return says(node, box, "cat", "/proc/self/attr/current").strip("\0\n")


def mount_labels(node: Ocirtd, box: str) -> str:
    return says(node, box, "cat", "/proc/1/mountinfo")


@both("should work with just selinux level set")
def test_a_level(node: Ocirtd, privileged: bool) -> None:
    says(node, labelled(node, privileged, cri.SELinuxOption(level="s0")), "touch", "foo")


@both("should work with selinux set")
def test_a_whole_label(node: Ocirtd, privileged: bool) -> None:
    wanted = cri.SELinuxOption(user="system_u", role="system_r", type="svirt_lxc_net_t", level="s0:c4,c5")
    says(node, labelled(node, privileged, wanted), "touch", "foo")


@both("should error on create with wrong options")
def test_a_wrong_label(node: Ocirtd, privileged: bool) -> None:
    wrong = cri.SELinuxOption(user="system_u", role="system_r", type="svirt_lxc_net_t", level="s0,c4,c5")
    pod = specs.run_pod(node, privileged=privileged)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        specs.create(node, pod, "sleep", "1000", privileged=privileged, selinux_options=wrong)
    assert "selinux_options" in said[0]


@both("mount label should have correct role and type")
def test_labels_of_mounts(node: Ocirtd, privileged: bool) -> None:
    assert ":object_r:container_file_t:" in mount_labels(node, labelled(node, privileged))


@both("mount label should have category")
def test_categories_of_mounts(node: Ocirtd, privileged: bool) -> None:
    assert re.search(r',context="[^"]*:s0(-s0)?:c\d+(,c\d+)+",', mount_labels(node, labelled(node, privileged)))


@both("process label should have correct role and type")
def test_labels_of_processes(node: Ocirtd, privileged: bool) -> None:
    wanted = ":system_r:spc_t:" if privileged else ":system_r:container_t:"
    assert wanted in process_label(node, labelled(node, privileged))


@both("process label should have category")
def test_categories_of_processes(node: Ocirtd, privileged: bool) -> None:
    wanted = r":s0(-s0)?(:c0\.c1023)?$" if privileged else r":s0(-s0)?:c\d+(,c\d+)+$"
    assert re.search(wanted, process_label(node, labelled(node, privileged)))


@both("should create containers with the same process label")
def test_one_label_in_a_pod(node: Ocirtd, privileged: bool) -> None:
    pod = specs.run_pod(node, privileged=privileged)
    assert len({process_label(node, labelled(node, privileged, pod=pod)) for _ in range(2)}) == 1


@spec(SELINUX + "multiple pod sandboxes are not privileged should create containers with different process labels")
def test_another_label_in_another_pod(node: Ocirtd) -> None:
    assert len({process_label(node, labelled(node, privileged=False)) for _ in range(2)}) == 2
