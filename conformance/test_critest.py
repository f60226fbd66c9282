"""critest against ocirtd: every spec that this kernel can pass, with images that are made here."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import goprograms
from conformance.critestimages import certificates, push_all
from conformance.drivers import Machine
from conformance.nodes import Node
from tests.support.networks import new_host
from tests.support.registry import LocalRegistry
from tests.support.runtime import wait_for

SECONDS = 1500
# Why a spec may fail or be skipped, by a part of its name.
ALLOWED = {
    "public image with digest should be pulled and removed": "its digest is that of an image of another registry",
    "AppArmor": "this kernel runs without AppArmor",
    "SELinux": "this kernel runs without SELinux",
}


@pytest.fixture
def node(machine: Machine, no_leaks: list[Path], tmp_path: Path) -> Iterator[Node]:
    """A node on a host of its own, whose registries are one of ours."""
    assert not no_leaks
    with new_host(), LocalRegistry() as registry:
        push_all(registry, tmp_path / "images")
        certificates(tmp_path / "certs.d", registry)
        made = Node(machine, "n")
        made.env = {**machine.env, "OCIRT_CERTS_D": str(tmp_path / "certs.d")}
        made.start()
        try:
            yield made
        finally:
            made.stop()
            wait_for(lambda: not machine.processes(), "the end of what the node ran", 10)


def run(node: Node, report: Path, *flags: str) -> dict[str, tuple[str, str]]:
    """What became of each spec that was chosen: (passed, failed or skipped; why)."""
    argv = [str(goprograms.critest()), f"--runtime-endpoint={node.endpoint}", f"--image-endpoint={node.endpoint}"]
    argv += [f"--nri-socket={node.nri}", f"--ginkgo.junit-report={report}", "--ginkgo.timeout=20m", *flags]
    with node.log.with_name("critest").open("wb") as log:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=SECONDS, cwd=node.place)
    assert report.exists(), node.log.with_name("critest").read_text()[-4000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        if not name.startswith("[It]"):
            continue
        why = next((part.get("message", "") for part in case if part.tag in ("failure", "error", "skipped")), "")
        if why != "skipped":  # it was not chosen
            found[name] = (status, " ".join(why.split())[:200])
    return found


def judge(found: dict[str, tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Print the table, and fail for what has no reason."""
    counts = Counter(status for status, _ in found.values())
    odd = {name: each for name, each in found.items() if each[0] != "passed"}
    with capsys.disabled():
        print(f"\n  critest: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")
        for name, (status, why) in sorted(odd.items()):
            reason = next((text for part, text in ALLOWED.items() if part in name), "")
            print(f"  {status:8} {name}: {reason or why}")
    assert {name: each for name, each in odd.items() if not any(part in name for part in ALLOWED)} == {}
    assert counts["passed"]


@pytest.mark.skipif(os.environ.get("OCIRT_TEST_CRITEST") != "1", reason="it takes minutes: `make conformance-cri` runs it")
def test_all(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By SPDY, as kubelets stream."""
    judge(run(node, tmp_path / "report.xml"), capsys)


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
def test_streaming(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str], transport: str) -> None:
    """Its five specs, by both transports."""
    flags = [f"--websocket-{what}" for what in ("exec", "attach", "portforward") if transport == "websocket"]
    judge(run(node, tmp_path / "report.xml", "--ginkgo.focus=Streaming", *flags), capsys)
