"""NRI as others have written it: critest's specs, and plugins on the library of containerd/nri, against ocirtd."""

from __future__ import annotations

import json
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import goprograms
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import adjust
from ocirt_cri.nri.changes import Changes
from tests.support.isolation import Isolation
from tests.support.networks import new_host
from tests.support.ocirtd import PATIENCE, Ocirtd, busybox_image, refused
from tests.support.registry import LocalRegistry
from tests.unit.cri.nri.messages import adjustments, document
from tests.unit.cri.nri.test_changes import shown
from tests.unit.cri.spec.requests import HOST, Lookups

SPECS = 13
MODULES = {
    "github.com/containerd/nri": "v0.12.5",
    "github.com/opencontainers/runtime-spec": "v1.3.0",
    "github.com/opencontainers/runtime-tools": "v0.9.1-0.20251114084447-edf4cb3d2116",
    "google.golang.org/protobuf": "v1.36.11",
}


@pytest.fixture
def place(no_leaks: list[Path]) -> Path:
    """A directory of a short path."""
    found = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
    no_leaks.append(found)
    return found


@pytest.fixture
def node(place: Path, isolation: Isolation, tmp_path: Path) -> Iterator[Ocirtd]:
    """ocirtd on a host of its own, with an image."""
    with new_host(), LocalRegistry() as registry:
        registry.add("busybox", busybox_image(tmp_path / "rootfs"), "1")
        made = Ocirtd(place, isolation.cgroup_parent)
        made.config.write_text(
            made.config.read_text().replace("[cgroups]\n", f'[cgroups]\nparent = "{isolation.cgroup_parent}"\n')
        )
        made.start()
        with made.cleared():
            made.pull(registry, "busybox", "1")
            (place / "images.yaml").write_text(f"defaultTestContainerImage: {registry.address}/busybox:1\n")
            yield made


def test_critest(node: Ocirtd, capsys: pytest.CaptureFixture[str]) -> None:
    """All specs of NRI pass, and none is skipped: not those either that containerd is let off."""
    program = goprograms.critest()
    report = node.place / "report.xml"
    flags = {
        "runtime-endpoint": f"unix://{node.socket}",
        "image-endpoint": f"unix://{node.socket}",
        "nri-socket": str(node.nri),
        "test-images-file": str(node.place / "images.yaml"),
        "ginkgo.focus": "NRI",
        "ginkgo.junit-report": str(report),
    }
    done = subprocess.run(
        [program, *(f"--{name}={value}" for name, value in flags.items())],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=node.place,
    )
    assert report.exists(), done.stdout + done.stderr
    found = {
        case.get("name", ""): case.get("status", "")
        for case in ET.parse(report).iter("testcase")
        if "NRI" in case.get("name", "") and case.get("status") != "skipped"
    }
    with capsys.disabled():
        print("".join(f"\n  {status:8} {name}" for name, status in found.items()))
    assert list(found.values()) == ["passed"] * SPECS, done.stdout + node.log.read_text()


@pytest.fixture(scope="module")
def peer() -> Path:
    """The program of nripeer.go."""
    text = Path(__file__).with_name("nripeer.go").read_text()
    return goprograms.build("nripeer", MODULES, ["."], go="1.26", files={"main.go": text}) / "nripeer"


class Stub:
    """A plugin on containerd/nri's stub, in a process of its own."""

    def __init__(self, node: Ocirtd, peer: Path, index: str = "40") -> None:
        self.node = node
        self.log = node.place / f"stub{index}"
        with self.log.open("wb") as out:
            argv = [str(peer), "plugin", "stub", index, str(node.nri)]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
        node.until(lambda: f"NRI plugin {index}-stub is there" in node.log.read_text(), "the plugin to join")

    def said(self) -> list[list[str]]:
        """What it was told: a method, and words about it."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


def test_a_plugin_on_the_stub(node: Ocirtd, peer: Path) -> None:
    """A whole life, with messages that are larger than any buffer, both ways."""
    stub = Stub(node, peer)
    try:
        pod = node.run_pod()
        large = "x" * (300 << 10)
        box = node.run(pod, "sh", "-c", "echo $STUB; sleep 1000", annotations={"large": large})
        node.until(lambda: node.logged(box), "its word")
        assert node.logged(box) == [("stdout", "F", "from go")]
        assert node.status(box).resources.linux.cpu_shares == 333
        wanted = cri.LinuxContainerResources(cpu_quota=50000)
        request = cri.UpdateContainerResourcesRequest(container_id=box, linux=wanted)
        node.runtime.UpdateContainerResources(request, timeout=PATIENCE)
        assert node.status(box).resources.linux.cpu_shares == 444
        with refused(grpc.StatusCode.UNKNOWN) as words:
            node.create(pod, node.container_config("true", annotations={"refuse": "1"}))
        assert "refused by its annotation" in words[0]
        late = Stub(node, peer, "50")
        assert late.said()[1] == ["Synchronize", pod, box]
        late.end()
        node.remove_pod(pod)
    finally:
        stub.end()
    said = stub.said()
    refusal = said.pop([one[0] for one in said].index("PostUpdateContainer") + 1)
    assert refusal[0] == "CreateContainer"
    said = [one for one in said if one[1:2] != refusal[1:2]]  # it is told that this one has stopped and was removed
    assert said == [
        ["Configure", "", "ocirt", said[0][3]],
        ["Synchronize"],
        ["RunPodSandbox", pod],
        ["CreateContainer", box],
        ["ValidateContainerAdjustment", box, "40-stub"],
        ["PostCreateContainer", box],
        ["StartContainer", box],
        ["PostStartContainer", box],
        ["failed", "nobody"],
        ["UpdateContainer", box, "50000"],
        ["PostUpdateContainer", box, "444"],
        ["StopContainer", box],
        ["StopPodSandbox", pod],
        ["RemoveContainer", box],
        ["RemovePodSandbox", pod],
    ]


def test_the_stub_hears_of_the_end(node: Ocirtd, peer: Path) -> None:
    """Before the connection ends."""
    stub = Stub(node, peer)
    node.stop()
    stub.process.wait(PATIENCE)
    assert stub.said()[-1] == ["Shutdown"]
    node.start()


def test_the_same_as_their_runtime(peer: Path) -> None:
    """Any answers of plugins make the same container with containerd's library, or conflict in both."""
    with subprocess.Popen(
        [peer, "adapt"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as theirs:
        assert theirs.stdin is not None
        assert theirs.stdout is not None
        conflicts = []

        @settings(max_examples=400)
        @given(wanted=st.lists(adjustments(), min_size=1, max_size=3))
        def compare(wanted: list[nri.ContainerAdjustment]) -> None:
            for one in wanted:
                comparable(one)
            answers = [nri.CreateContainerResponse(adjust=one) for one in wanted]
            case = {
                "container": json_format.MessageToDict(shown()),
                "answers": [json_format.MessageToDict(one) for one in answers],
                "spec": document(),
            }
            theirs.stdin.write(json.dumps(case) + "\n")  # type: ignore[union-attr]
            theirs.stdin.flush()  # type: ignore[union-attr]
            outcome = json.loads(theirs.stdout.readline())  # type: ignore[union-attr]
            changes = Changes(shown())
            try:
                for number, answer in enumerate(answers):
                    changes.apply(answer, f"{number:02}-plugin")
            except Error as err:
                conflicts.append(err)
                # Of several, which one is found first is chance in theirs.
                assert "both tried to set" in outcome.get("error", ""), (str(err), outcome)
                return
            assert "error" not in outcome, outcome
            found = adjust.adjusted(document(), changes.adjust, HOST, Lookups())
            assert settled(found) == settled(outcome["spec"])
            seen = json_format.ParseDict(outcome["seen"], nri.Container())
            assert settled(json_format.MessageToDict(changes.container)) == settled(json_format.MessageToDict(seen))

        compare()
        theirs.stdin.close()
    assert len(conflicts) > 20


def comparable(one: nri.ContainerAdjustment) -> None:
    """Leave out what ocirt does better on purpose, or theirs leaves to chance (docs/nri.md, the last section)."""
    named = {entry.key for entry in one.env}
    kept = [entry for entry in one.env if not entry.key.startswith("-") or entry.key[1:] in named]
    copies = [nri.KeyValue(key=entry.key, value=entry.value) for entry in kept]
    del one.env[:]
    one.env.extend(copies)
    for entries in (one.annotations, one.linux.sysctl, one.linux.net_devices):
        for key in [key for key in entries if key.startswith("-")]:
            del entries[key]
    for name in ("reservation", "swap", "swappiness"):
        one.linux.resources.memory.ClearField(name)


def settled(given: Any) -> Any:
    """A document without what is empty, and without an order that means nothing."""
    if isinstance(given, dict):
        return {key: found for key, value in given.items() if (found := settled(value))}
    if not isinstance(given, list):
        return given
    found = [settled(one) for one in given]
    for name in ("destination", "type", "path", "pageSize"):
        if found and all(isinstance(one, dict) and set(one) >= {name} for one in found):
            unique = {one[name]: one for one in found}  # of rlimits the last counts
            if name != "type" or "soft" in found[0] or "minor" not in found[0]:
                return [unique[key] for key in sorted(unique)]
    return sorted(found) if found and all(isinstance(one, str) and "=" in one for one in found) else found
