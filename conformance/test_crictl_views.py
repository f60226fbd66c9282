"""What crictl shows of ocirtd beside what it shows of containerd: each difference is in docs/crictl.md, with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from conformance import goprograms
from conformance.cniplugins import programs
from conformance.crictlviews import Endpoint, Lines, Viewer, differences
from conformance.drivers import Containerd, Machine, call, ours, peer
from conformance.nodes import Node
from conformance.test_cri import IMAGE, make_archive
from tests.support.build import ROOT
from tests.support.networks import new_host
from tests.support.runtime import lines, wait_for

PAGE = ROOT / "docs" / "crictl.md"
PAUSE = "localhost/ocirt-pause:latest"
COMMANDS = (
    "pods",
    "ps",
    "inspect",
    "inspect of one that has ended",
    "inspectp",
    "logs",
    "exec -it",
    "exec",
    "attach",
    "port-forward",
    "stats",
    "statsp",
    "metricsp",
    "events",
    "images",
    "rmi",
)


def networks(place: Path, subnet: str) -> Path:
    """A folder with a network."""
    place.mkdir(parents=True, exist_ok=True)
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": f"{place}/ipam"}
    plugins = [{"type": "bridge", "bridge": f"b{place.parent.name[:8]}", "isGateway": True, "ipMasq": True, "ipam": ipam}]
    plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    (place / "10-views.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "views", "plugins": plugins}))
    return place


def of_containerd(machine: Machine) -> dict[str, Lines]:
    """Version 2, with runc and the reference plugins."""
    place = machine.path / "views-containerd"
    made = Containerd(machine, "views", runtimes={"runc": peer()}, sandbox_image=PAUSE, programs=goprograms.containerd2())
    try:
        folder = networks(place / "cni", "10.98.0.0/16")
        for program in Path(programs()).iterdir():
            (folder / program.name).symlink_to(program)
        wait_for(made.ready, "containerd", 20)
        for name in (IMAGE, PAUSE):
            archive = str(make_archive(machine, name))
            call([*made.argv(), "--namespace", "k8s.io", "images", "import", archive], env=machine.env).ok()
        return Viewer(Endpoint(f"unix://{made.address}", place, machine, IMAGE, ((str(place), "<place>"),))).look()
    finally:
        made.stop()


def of_ocirtd(machine: Machine) -> dict[str, Lines]:
    """With its own plugins."""
    node = Node(machine, "v", networks(machine.path / "v-networks" / "cni", "10.99.0.0/16"))
    try:
        archive = str(make_archive(machine, IMAGE))
        call([ours(), "--image-root", str(node.images), "load", "--input", archive], env=machine.env).ok()
        node.start()
        return Viewer(Endpoint(node.endpoint, node.place, machine, IMAGE, ((str(node.place), "<place>"),))).look()
    finally:
        node.stop()
        wait_for(lambda: not machine.processes(), "the end of what the node ran", 10)


@pytest.fixture(scope="module")
def views(machine: Machine) -> tuple[dict[str, Lines], dict[str, Lines]]:
    """containerd's and ocirtd's."""
    with new_host():
        return of_containerd(machine), of_ocirtd(machine)


@dataclass(frozen=True)
class Row:
    """Of the page: `line` is a pattern of lines that only `which` has."""

    command: str
    which: str
    line: str
    why: str


def rows() -> list[Row]:
    """Those of docs/crictl.md."""
    found = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found]
    return [Row(command.strip("`"), which, line.strip("`"), why) for command, which, line, why in cells]


def explained(row: Row, command: str, which: str, line: str) -> bool:
    """Whether a row has the reason of a difference. A pattern's brackets stand for themselves."""
    pattern = row.line.replace("[", "[[]")
    return fnmatchcase(command, row.command) and row.which in (which, "both") and fnmatchcase(line, pattern)


def told(one: Lines, other: Lines) -> Iterator[tuple[str, str]]:
    """The differences by the runtime's name."""
    for which, line in differences(one, other):
        yield {"first": "containerd", "second": "ocirtd"}[which], line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_view(views: tuple[dict[str, Lines], dict[str, Lines]], command: str) -> None:
    """Whatever is different has a row."""
    one, other = (view[command] for view in views)
    assert one
    assert other
    table = rows()
    odd = [(which, line) for which, line in told(one, other) if not any(explained(row, command, which, line) for row in table)]
    assert not odd, lines([f"only {which}: {line}" for which, line in odd])


def test_no_row_too_many(views: tuple[dict[str, Lines], dict[str, Lines]]) -> None:
    """Each row is about a difference that there is."""
    found = [(name, *each) for name in COMMANDS for each in told(views[0][name], views[1][name])]
    assert {command for command, *_ in found} <= set(COMMANDS)
    assert [row for row in rows() if not any(explained(row, *each) for each in found)] == []
