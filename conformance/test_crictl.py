"""crictl against ocirtd: what a person types on a node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.drivers import Machine
from conformance.nodes import Crictl, Node, node_with
from tests.support.runtime import wait_for

IMAGE = "localhost/ocirt-test:latest"


@pytest.fixture
def node(machine: Machine, no_leaks: list[Path]) -> Iterator[Node]:
    """A node with a network of its own, whose store has an image of the machine's busybox."""
    assert not no_leaks
    with node_with(machine, IMAGE) as made:
        yield made


@pytest.fixture
def crictl(node: Node) -> Iterator[Crictl]:
    """crictl; the pods of a test are removed after it."""
    made = Crictl(node)
    yield made
    made.clean_up()


def test_version(crictl: Crictl) -> None:
    """Name and version of the interface."""
    said = crictl.call("version").ok().out
    assert "RuntimeName:  ocirt" in said
    assert "RuntimeApiVersion:  v1" in said


def test_info(crictl: Crictl) -> None:
    """Both conditions, without a network that somebody configured. The first answers may say that it still recovers."""

    def ready() -> bool:
        conditions = crictl.call("info").ok().json()["status"]["conditions"]
        return {each["type"]: each["status"] for each in conditions} == {"RuntimeReady": True, "NetworkReady": True}

    wait_for(ready, "both conditions", 20)


def test_images(crictl: Crictl) -> None:
    """The one image, found by name."""
    images = crictl.call("images", "--output", "json").ok().json()["images"]
    assert [each["repoTags"] for each in images] == [[IMAGE]]
    assert crictl.call("inspecti", IMAGE).ok().json()["status"]["id"] == images[0]["id"]


def test_a_pod_from_its_start_to_its_end(crictl: Crictl) -> None:
    """Every verb of a pod's life in turn."""
    pod = crictl.pod()
    assert crictl.call("pods", "--quiet", "--no-trunc").ok().out.strip() == pod[0]
    status = crictl.call("inspectp", pod[0]).ok().json()["status"]
    assert status["state"] == "SANDBOX_READY"
    assert status["network"]["ip"]
    container = crictl.start(pod, IMAGE, "sh", "-c", "echo to stdout; echo to stderr >&2; exec sleep 1000")
    assert container in crictl.call("ps", "--quiet", "--no-trunc").ok().out
    said = crictl.call("exec", "--sync", container, "cat", "/hello").ok()
    assert said.out.strip() == "world"
    assert crictl.call("exec", "--sync", container, "sh", "-c", "exit 3").rc != 0
    assert "to stdout" in wait_for(lambda: crictl.call("logs", container).ok().out, "the log", 10)
    stats = crictl.call("stats", "--output", "json", container).ok().json()["stats"]
    assert int(stats[0]["memory"]["workingSetBytes"]["value"]) > 0
    crictl.call("stop", "--timeout", "0", container).ok()
    assert crictl.status(container)["exitCode"] == 137
    crictl.call("rm", container).ok()
    crictl.call("stopp", pod[0]).ok()
    crictl.call("stopp", pod[0]).ok()
    crictl.call("rmp", pod[0]).ok()
    assert crictl.call("pods", "--quiet").ok().out == ""


def test_exit_codes_and_reasons(crictl: Crictl) -> None:
    """What a program's end looks like."""
    pod = crictl.pod()
    for command, code, reason in (("exit 0", 0, "Completed"), ("exit 7", 7, "Error")):
        status = crictl.ended(crictl.start(pod, IMAGE, "sh", "-c", command))
        assert (status["exitCode"], status["reason"]) == (code, reason)


def test_a_program_that_is_not_there(crictl: Crictl) -> None:
    """Refused by name before anything is made."""
    pod = crictl.pod()
    said = crictl.create(pod, IMAGE, "/no/such/program")
    assert said.rc != 0
    assert "/no/such/program" in said.err
    assert crictl.call("ps", "--all", "--quiet").ok().out == ""


def test_an_image_that_is_not_there(crictl: Crictl) -> None:
    """Refused by name."""
    pod = crictl.pod()
    said = crictl.create(pod, "localhost/nothing:1", "true")
    assert said.rc != 0
    assert "localhost/nothing:1" in said.err


def test_two_containers_share_the_network(crictl: Crictl) -> None:
    """Over the pod's loopback."""
    pod = crictl.pod()
    crictl.start(pod, IMAGE, "sh", "-c", "mkdir /www; echo here >/www/x; exec busybox httpd -f -p 8080 -h /www")
    other = crictl.start(pod, IMAGE)
    wait_for(
        lambda: crictl.call("exec", "--sync", other, "busybox", "wget", "-qO-", "http://127.0.0.1:8080/x").out.strip() == "here",
        "the server in the other container",
        10,
    )


def test_the_daemon_is_killed(crictl: Crictl) -> None:
    """The container runs on, and no line of its log is lost."""
    pod = crictl.pod()
    container = crictl.start(pod, IMAGE, "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done")
    crictl.node.kill()
    crictl.node.start()
    status = crictl.status(container)
    assert status["state"] == "CONTAINER_RUNNING"
    assert crictl.call("exec", "--sync", container, "cat", "/hello").ok().out.strip() == "world"
    crictl.call("stop", "--timeout", "0", container).ok()
    lines = crictl.call("logs", container).ok().out.split()
    assert lines == [str(number) for number in range(len(lines))]
    assert len(lines) > 10


def test_json_of_a_container(crictl: Crictl) -> None:
    """Labels and annotations as they were given, and a filter."""
    pod = crictl.pod()
    labels = {"app": "web"}
    container = crictl.start(pod, IMAGE, labels=labels, annotations={"a": "b"})
    assert crictl.call("ps", "--quiet", "--no-trunc", "--label", "app=web").ok().out.strip() == container
    found = json.loads(crictl.call("inspect", container).ok().out)["status"]
    assert found["labels"] == labels
    assert found["annotations"] == {"a": "b"}
    assert found["image"]["image"] == IMAGE
