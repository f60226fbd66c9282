"""critest against ocirtd: every spec that this kernel can pass, with images that are made here; and whether our tests agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import goprograms
from conformance.drivers import Machine
from conformance.nodes import Node
from ocirt.containers.host import security_modules
from tests.support import specs
from tests.support.build import ROOT
from tests.support.critest_images import certificates, make_all, push_all
from tests.support.networks import new_host
from tests.support.registry import LocalRegistry
from tests.support.runtime import wait_for

SECONDS = 1500
BENCHMARKS = f"""containersNumber: 2
podsNumber: 2
imagesNumber: 2
imagePullingBenchmarkImage: {specs.TEST_IMAGE}latest
"""
_OF_APPARMOR = [name for name in specs.titles() if name.startswith("AppArmor ")]
Verdicts = dict[str, tuple[str, str]]  # of a title: passed, failed or skipped; and why

whole = pytest.mark.skipif(os.environ.get("OCIRT_TEST_CRITEST") != "1", reason="it takes minutes: `make conformance-cri` runs it")


@pytest.fixture
def node(machine: Machine, no_leaks: list[Path], tmp_path: Path) -> Iterator[Node]:
    """A node on a host of its own, whose registries are one of ours."""
    assert not no_leaks
    with new_host(), LocalRegistry() as registry:
        push_all(registry, make_all(tmp_path / "images"))
        certificates(tmp_path / "certs.d", registry)
        made = Node(machine, "n")
        made.env = {**machine.env, "OCIRT_CERTS_D": str(tmp_path / "certs.d")}
        made.start()
        try:
            yield made
        finally:
            made.stop()
            wait_for(lambda: not machine.processes(), "the end of what the node ran", 10)


def title(name: str) -> str:
    """A spec's, without what Ginkgo puts around it."""
    return name.removeprefix("[It] [k8s.io] ").removesuffix(" [Serial]")


def critest(place: Path, *flags: str) -> Verdicts:
    """What became of each spec that was chosen."""
    report = place / "report.xml"
    argv = [str(goprograms.critest()), f"--ginkgo.junit-report={report}", "--ginkgo.timeout=20m", *flags]
    with (place / "critest.log").open("wb") as log:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=SECONDS, cwd=place)
    assert report.exists(), (place / "critest.log").read_text()[-4000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        if not name.startswith("[It]"):
            continue
        why = next((part.get("message", "") for part in case if part.tag in ("failure", "error", "skipped")), "")
        if why != "skipped":  # it was not chosen
            found[title(name)] = (status, " ".join(why.split())[:200])
    return found


def run(node: Node, place: Path, *flags: str) -> Verdicts:
    """The same against a node."""
    endpoints = (f"--runtime-endpoint={node.endpoint}", f"--image-endpoint={node.endpoint}", f"--nri-socket={node.nri}")
    return critest(place, *endpoints, *flags)


def ours(place: Path) -> Verdicts:
    """What becomes of our own tests of the specs."""
    report = place / "ours.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", "tests/system/cri/specs"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS, cwd=ROOT)
    assert report.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    found: Verdicts = {}
    for case in ET.parse(report).iter("testcase"):
        name = re.fullmatch(r"\w+\[(.*)\]", case.get("name", ""))
        assert name is not None, case.attrib
        part = next(iter(case), None)
        status = {None: "passed", "skipped": "skipped"}.get(None if part is None else part.tag, "failed")
        found[name[1]] = (status, "" if part is None else " ".join(part.get("message", "").split())[:200])
    return found


def judge(found: Verdicts, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the table, and fail for what has no reason."""
    counts = Counter(status for status, _ in found.values())
    reasons = {name: (one.critest, one.why) for name, one in specs.differences().items()}
    for name in found:
        for one in specs.excuses():
            if name.startswith(one.beginning) and one.holds():
                reasons[name] = ("skipped", one.why)
    odd = {name: each for name, each in found.items() if each[0] != "passed"}
    with capsys.disabled():
        print(f"\n  critest: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
        for name, (status, why) in sorted(odd.items()):
            print(f"  {status:8} {name}: {reasons.get(name, ('', why))[1]}")
    assert {name: each for name, each in odd.items() if reasons.get(name, ("", ""))[0] != each[0]} == {}
    assert counts["passed"]


def test_the_list_of_titles(tmp_path: Path) -> None:
    """It is critest's own; those of SELinux are on some machines only."""
    listed = set()
    for flags in (("--nri-socket=/nri.sock",), ("--benchmark",)):
        listed |= set(critest(tmp_path, "--ginkgo.dry-run", *flags))
    known = {name for name in specs.titles() if not name.startswith("SELinux ")}
    assert {name for name in listed if not name.startswith("SELinux ")} == known


@whole
def test_all(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By SPDY, as kubelets stream. The verdicts of our own tests are the same, but for what docs/critest.md explains."""
    (tmp_path / "benchmarks.yaml").write_text(BENCHMARKS)
    theirs = run(node, tmp_path)
    theirs |= run(node, tmp_path, "--benchmark", f"--benchmarking-params-file={tmp_path}/benchmarks.yaml")
    judge(theirs, capsys)
    mine = ours(tmp_path)
    assert sorted(mine) == specs.titles()
    pairs = {name: (status, mine[name][0]) for name, (status, _) in theirs.items()}
    expected = {name: (one.critest, one.ours) for name, one in specs.differences().items()}
    with capsys.disabled():
        print(f"  of {len(pairs)} specs, {sum(one == other for one, other in pairs.values())} have the same verdict in both runs")
    assert {name: (*pair, mine[name][1]) for name, pair in pairs.items() if pair != expected.get(name, (pair[0], pair[0]))} == {}


@pytest.mark.skipif(
    "AppArmor" not in security_modules(), reason="this kernel runs without AppArmor; the one of `make test-vm` has it"
)
def test_apparmor(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All its specs pass: make test-vm VM_TESTS=conformance/test_critest.py"""
    found = run(node, tmp_path, "--ginkgo.focus=AppArmor")
    judge(found, capsys)
    assert {name: status for name, (status, _) in found.items()} == dict.fromkeys(_OF_APPARMOR, "passed")


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
def test_streaming(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str], transport: str) -> None:
    """Its five specs, by both transports."""
    flags = [f"--websocket-{what}" for what in ("exec", "attach", "portforward") if transport == "websocket"]
    judge(run(node, tmp_path, "--ginkgo.focus=Streaming", *flags), capsys)
