"""The specs of critest as tests of ours: their titles, which of them are left out where, and what they run."""

from __future__ import annotations

import contextlib
import http.client
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_images import platforms
from tests.support.build import ROOT
from tests.support.ocirtd import PATIENCE, Ocirtd

TITLES = ROOT / "tests" / "data" / "critest-titles"
PAGE = ROOT / "docs" / "critest.md"

_E2E, _CRI_TOOLS = "registry.k8s.io/e2e-test-images", "gcr.io/k8s-staging-cri-tools"
BUSYBOX = f"{_E2E}/busybox:1.29-2"
NGINX = f"{_E2E}/nginx:1.14-2"
HTTPD = f"{_E2E}/httpd:2.4.39-4"
NO_NEW_PRIVILEGES = f"{_E2E}/nonewprivs:1.3"
GROUPS = f"{_CRI_TOOLS}/test-image-predefined-group:latest"
HOST_NGINX = f"{_CRI_TOOLS}/hostnet-nginx-{platforms.host().architecture}:latest"
TEST_IMAGE = f"{_CRI_TOOLS}/test-image-"
PAUSES = ("registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9")


def titles() -> list[str]:
    """Those of all specs, also of those that critest has on some machines only."""
    return TITLES.read_text().splitlines()


def spec(*names: str) -> pytest.MarkDecorator:
    """Marks the test of what a spec of critest checks; its id is the title. Several names: it runs for each."""
    return pytest.mark.parametrize("title", names, ids=names, indirect=True)


@dataclass(frozen=True)
class Excuse:
    """A row of docs/critest.md: specs whose titles begin so are skipped where `path` has not `content`, or is not there."""

    beginning: str
    count: int
    path: Path
    content: str
    why: str

    def holds(self) -> bool:
        """Whether they are skipped on this machine."""
        try:
            found = self.path.read_text().strip()
        except OSError:
            return True
        return bool(self.content) and found != self.content


@dataclass(frozen=True)
class Difference:
    """Another row: what critest and our test of the spec come to, where that is not the same."""

    title: str
    critest: str
    ours: str
    why: str


def _rows(heading: str) -> list[list[str]]:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def excuses() -> list[Excuse]:
    """The rows. Raises ValueError for one that cannot be read."""
    found = []
    for which, where, why in _rows("What is skipped"):
        name = re.fullmatch(r"`([^`]+)` \((\d+)\)", which)
        condition = re.fullmatch(r"`([^`]+)` is not (?:`([^`]+)`|there)", where)
        if name is None or condition is None:
            message = f"{PAGE.name}: cannot read the row of {which}: {where}"
            raise ValueError(message)
        found.append(Excuse(name[1], int(name[2]), Path(condition[1]), condition[2] or "", why))
    return found


def differences() -> dict[str, Difference]:
    """By title."""
    rows = [Difference(name.strip("`"), theirs, ours, why) for name, theirs, ours, why in _rows("Where the verdicts differ")]
    return {row.title: row for row in rows}


# -- pods and containers as the specs have them --


def pod_config(
    node: Ocirtd, options: cri.NamespaceOption | None = None, *, privileged: bool = False, **more: Any
) -> cri.PodSandboxConfig:
    """Of a pod with all namespaces of its own, which its containers share."""
    config = node.pod_config(options=options or cri.NamespaceOption(), **more)
    config.linux.security_context.privileged = privileged
    return config


def run_pod(node: Ocirtd, options: cri.NamespaceOption | None = None, **more: Any) -> str:
    """Such a pod's id."""
    return node.run_pod(pod_config(node, options, **more))


def container_config(
    node: Ocirtd, *command: str, image: str = BUSYBOX, resources: Any = None, **more: Any
) -> cri.ContainerConfig:
    """Of a container in such a pod; what belongs to its security context goes there. Without a command: the image's."""
    fields = cri.LinuxContainerSecurityContext.DESCRIPTOR.fields_by_name
    security = {name: more.pop(name) for name in list(more) if name in fields}
    config = node.container_config(*command, **more)
    config.image.image = image
    config.linux.Clear()
    config.linux.security_context.CopyFrom(cri.LinuxContainerSecurityContext(**security))
    if resources is not None:
        config.linux.resources.CopyFrom(resources)
    return config


def create(node: Ocirtd, pod: str, *command: str, **more: Any) -> str:
    """Such a container's id."""
    return node.create(pod, container_config(node, *command, **more))


def sleeper(node: Ocirtd, pod: str, **more: Any) -> str:
    """A container that runs until it is stopped; its id."""
    return started(node, create(node, pod, "sleep", "1000", **more))


def started(node: Ocirtd, identifier: str) -> str:
    """The container, which runs now."""
    node.start_container(identifier)
    assert node.status(identifier).state == cri.CONTAINER_RUNNING
    return identifier


def ended(node: Ocirtd, pod: str, *command: str, **more: Any) -> str:
    """What a container wrote to its log before it ended, without the line's end."""
    box = create(node, pod, *command, **more)
    node.start_container(box)
    node.wait(box)
    return "\n".join(text for stream, _, text in node.logged(box) if stream == "stdout")


def says(node: Ocirtd, identifier: str, *command: str) -> str:
    """What a program writes that is run in a container; it has to succeed, without complaints."""
    done = node.exec(identifier, *command)
    assert (done.exit_code, done.stderr) == (0, b""), (command, done)
    return str(done.stdout.decode())


def fails(node: Ocirtd, identifier: str, *command: str) -> str:
    """What a program complains of that is run in a container; it must not succeed."""
    done = node.exec(identifier, *command)
    assert done.exit_code != 0, (command, done)
    return str(done.stderr.decode())


def pull(node: Ocirtd, image: str) -> str:
    """What PullImage names it by."""
    found = node.images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=image)), timeout=PATIENCE).image_ref
    assert found
    return str(found)


def page(host: str, port: int) -> int:
    """The status of a server's main page; 0 while nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/")
        return connection.getresponse().status
    return 0
