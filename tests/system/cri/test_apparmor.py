"""AppArmor: the daemon's own profile, profiles of the node, and none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest

from ocirt.apparmor import NAME, is_loaded
from ocirt_api.cri import api_pb2 as cri
from tests.support import apparmor
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

CONFINED = f"{NAME} (enforce)"
Profile = cri.SecurityProfile


@pytest.fixture(autouse=True)
def _needed() -> None:
    apparmor.need()


@pytest.fixture
def local() -> Iterator[str]:
    """A profile of the node's, that denies writing below /denied."""
    with apparmor.loaded("ocirt-test-cri", "deny /denied/** w,") as name:
        yield name


def secure(**context: object) -> cri.LinuxContainerConfig:
    """Of a container; the keywords are fields of its security context."""
    return cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(**context))  # type: ignore[arg-type]


def profile_of(node: Ocirtd, container: str) -> str:
    return node.exec(container, "sh", "-c", apparmor.SHOW).stdout.decode().strip()


def test_the_daemons_own(node: Ocirtd) -> None:
    """It is there when the daemon has started; it confines a container and what is run in it later, and status shows it."""
    assert is_loaded(NAME)
    pod = node.run_pod()
    for fields in ({}, {"apparmor": Profile(profile_type=Profile.RuntimeDefault)}, {"apparmor_profile": "runtime/default"}):
        container = node.run(pod, "sh", "-c", f"{apparmor.SHOW}; sleep 1000", linux=secure(**fields))
        node.until(lambda made=container: node.logged(made), "its word")  # type: ignore[misc]
        assert node.logged(container)[0][2].strip() == CONFINED
        assert profile_of(node, container) == CONFINED
        info = node.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container, verbose=True)).info["info"]
        assert json.loads(info)["process"]["apparmorProfile"] == NAME
    done = node.exec(container, "sh", "-c", "echo x >/proc/sys/kernel/domainname")
    assert done.exit_code != 0
    assert b"denied" in done.stderr


def test_without(node: Ocirtd) -> None:
    """Unconfined by its own wish, or because it is privileged."""
    config = node.pod_config()
    config.linux.security_context.privileged = True
    pod = node.run_pod(config)
    for fields in (
        {"apparmor": Profile(profile_type=Profile.Unconfined)},
        {"apparmor_profile": "unconfined"},
        {"privileged": True},
    ):
        assert profile_of(node, node.run(pod, "sleep", "1000", linux=secure(**fields))) == "unconfined"


def test_a_profile_of_the_node(node: Ocirtd, local: str) -> None:
    """By both fields; one that is not loaded is refused before anything is made."""
    pod = node.run_pod()
    for fields in (
        {"apparmor": Profile(profile_type=Profile.Localhost, localhost_ref=local)},
        {"apparmor_profile": f"localhost/{local}"},
        {"apparmor": Profile(profile_type=Profile.Localhost, localhost_ref=local), "apparmor_profile": "localhost/gone"},
    ):
        container = node.run(pod, "sleep", "1000", linux=secure(**fields))
        assert profile_of(node, container) == f"{local} (enforce)"
        done = node.exec(container, "sh", "-c", "mkdir /denied && echo >/fine && echo >/denied/x")
        assert b"denied" in done.stderr
        assert node.exec(container, "ls", "/fine", "/denied").stdout == b"/fine\n\n/denied:\n"
    before = node.left()
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        node.create(pod, node.container_config("true", linux=secure(apparmor_profile="localhost/gone")))
    assert "no profile 'gone' is loaded" in said[0]
    assert node.left() == before


def test_one_that_was_taken_away(node: Ocirtd) -> None:
    """As by programs that remove what no file of /etc/apparmor.d has: the next container has it again."""
    pod = node.run_pod()
    apparmor.remove(NAME)
    assert not is_loaded(NAME)
    assert profile_of(node, node.run(pod, "sleep", "1000")) == CONFINED
    assert is_loaded(NAME)
