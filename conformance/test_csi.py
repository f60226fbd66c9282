"""csi-sanity against ocirt-csi, on a btrfs and on a plain folder, and the hostpath driver: with files and block volumes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.goprograms import build, hostpath
from tests.support import csi
from tests.support.disks import load_modules
from tests.support.isolation import Isolation
from tests.support.runtime import wait_for

MODULE = "github.com/kubernetes-csi/csi-test/v5"
COMMAND = Path(__file__).resolve().parents[1] / "build" / "ocirt-csi"
SIZE = 200 << 30  # bytes of a disk, all holes: the suite makes volumes of 10 GiB
# It compares messages with all that the Go library keeps in them, and one was sent before and the other not: so it passes only
# where a driver does not say where its snapshots are. tests/system/csi/test_lives.py compares what they say.
FLAWED = "CreateSnapshot [Controller Server] should succeed when creating a snapshot with accessibility requirements"
# The suite's own, which it does not run.
PENDING = "pagination should detect volumes added between pages"


@pytest.fixture(scope="session")
def sanity() -> str:
    """The program, built from its Go module."""
    return str(build("csi-sanity", {MODULE: "v5.6.0"}, [f"{MODULE}/cmd/csi-sanity"], go="1.25") / "csi-sanity")


@pytest.fixture(scope="module")
def loops(isolation: Isolation) -> Iterator[None]:
    """Names in /dev that are not taken for something left behind."""
    assert isolation
    load_modules()
    made = csi.add_loops()
    yield
    csi.remove_loops(made)


def specs(report: Path) -> list[dict[str, Any]]:
    """The suite's tests: their names and what came of them."""
    found: list[dict[str, Any]] = []
    for one in json.loads(report.read_text())[0]["SpecReports"]:
        if one["LeafNodeType"] == "It":
            name = " ".join([*one["ContainerHierarchyTexts"], one["LeafNodeText"]])
            found.append({"name": name, "state": one["State"], "failure": one.get("Failure", {}).get("Message", "")})
    return found


@pytest.mark.parametrize("access", ["mount", "block"])
@pytest.mark.parametrize("kind", ["btrfs", "ext4"])
def test_sanity(no_leaks: list[Path], loops: None, sanity: str, tmp_path: Path, kind: str, access: str) -> None:
    """All of it passes, and nothing is skipped: all that there is to advertise is advertised."""
    assert not no_leaks
    mutable = tmp_path / "mutable.yaml"
    mutable.write_text("compression: zstd\n" if (kind, access) == ("btrfs", "mount") else 'readBps: "1000000"\n')
    with csi.disk(tmp_path, kind, SIZE) as disk:
        socket = tmp_path / "csi.sock"
        words = ["--pool", f"{disk}/pool", "--state", f"{tmp_path}/state", "--endpoint", f"unix://{socket}"]
        with (tmp_path / "log").open("wb") as log:
            driver = subprocess.Popen(
                [COMMAND, *words, "--node-id", "n", "--max-volumes", "6"], stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            wait_for(socket.exists, "the socket", 20)
            argv = [
                sanity,
                f"--csi.endpoint=unix://{socket}",
                f"--csi.mountdir={tmp_path}/mount",
                f"--csi.stagingdir={tmp_path}/staging",
                f"--csi.testvolumeaccesstype={access}",
                f"--csi.testvolumemutableparameters={mutable}",
                "--csi.testnodevolumeattachlimit",
                f"--ginkgo.json-report={tmp_path}/report.json",
            ]
            subprocess.run(argv, capture_output=True, check=False, timeout=240)
        finally:
            driver.send_signal(signal.SIGTERM)
            ended = driver.wait(20)
        found = specs(tmp_path / "report.json")
        left = [path.name for path in (disk / "pool").glob("*/*")]
    bad = [one for one in found if one["state"] != "passed" and one["name"] != FLAWED and PENDING not in one["name"]]
    assert bad == []
    assert len(found) >= 103
    assert left == []
    assert ended == 0
    print(f"{kind} {access}: {sum(one['state'] == 'passed' for one in found)} of {len(found)} passed")


@pytest.mark.parametrize("access", ["mount", "block"])
def test_sanity_of_the_hostpath_driver(no_leaks: list[Path], loops: None, sanity: str, tmp_path: Path, access: str) -> None:
    """With all that it can do switched on, as a peer: what it fails or skips is in docs/csi.md, and no other driver's matter."""
    assert not no_leaks
    driver = hostpath()
    if driver is None:
        pytest.skip("hostpathplugin is not installed, and its Go module cannot be had here")
    mutable = tmp_path / "mutable.yaml"
    mutable.write_text('readBps: "1000000"\n')
    socket = tmp_path / "csi.sock"
    (tmp_path / "data").mkdir()
    words = ["--endpoint", f"unix://{socket}", "--nodeid", "n", "--statedir", f"{tmp_path}/data", "--attach-limit", "6"]
    words += ["--enable-attach", "--enable-controller-modify-volume", "--enable-snapshot-metadata"]
    words += ["--accepted-mutable-parameter-names", "readBps"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([driver, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(socket.exists, "the socket", 20)
        argv = [sanity, f"--csi.endpoint=unix://{socket}", f"--csi.mountdir={tmp_path}/mount"]
        argv += [f"--csi.stagingdir={tmp_path}/staging", f"--csi.testvolumeaccesstype={access}", "--csi.testvolumesize=104857600"]
        argv += ["--csi.testvolumeexpandsize=209715200", f"--csi.testvolumemutableparameters={mutable}"]
        argv += ["--csi.testnodevolumeattachlimit", f"--ginkgo.json-report={tmp_path}/report.json"]
        subprocess.run(argv, capture_output=True, check=False, timeout=240)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        for device, mark in backed(tmp_path).items():
            subprocess.run(["losetup", "--detach", device], check=True)
            print(f"left behind: {device} of {Path(mark).name}")
    found = specs(tmp_path / "report.json")
    assert len(found) >= 103
    counts = {state: sum(one["state"] == state for one in found) for state in ("passed", "failed", "skipped", "pending")}
    print(f"hostpath {access}: {', '.join(f'{number} {state}' for state, number in counts.items())}")
    for one in found:
        if one["state"] != "passed":
            print(f"  {one['state']}: {one['name']}: {one['failure'].strip().splitlines()[0][:200] if one['failure'] else ''}")


def backed(folder: Path) -> dict[str, str]:
    """Loop devices of files below a folder."""
    found = {}
    for one in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = one.read_text().strip()
        if file.startswith(f"{folder}/"):
            found[f"/dev/{one.parts[3]}"] = file
    return found


def test_manifests() -> None:
    """What docs/csi has is what an API server takes, field by field."""
    modules = {
        "github.com/kubernetes-csi/external-snapshotter/client/v8": "v8.4.0",
        "k8s.io/api": "v0.34.10",
        "k8s.io/apimachinery": "v0.34.10",
        "k8s.io/client-go": "v0.34.10",
    }
    text = (Path(__file__).parent / "manifests.go").read_text()
    program = build("manifests", modules, ["."], go="1.24", files={"main.go": text}) / "manifests"
    files = sorted((COMMAND.parents[1] / "docs" / "csi").glob("*.yaml"))
    done = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"CSIDriver", "DaemonSet", "StorageClass", "VolumeSnapshotClass", "VolumeAttributesClass"} <= set(done.stdout.split())
