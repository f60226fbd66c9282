"""ocirtd under systemd, by the unit that a package brings."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.build import ROOT
from tests.support.isolation import Isolation, cgroup_mounts
from tests.support.ocirtd import Ocirtd
from tests.support.runtime import wait_for
from tests.support.systemd import Systemd, is_running, program
from tests.system.cri.test_restart import shim_of

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

UNIT = "ocirtd-test.service"
SLICE = "ocirtdtest.slice"
MiB = 1 << 20


class Unit(Ocirtd):
    """A daemon that systemd starts."""

    def __init__(self, place: Path, systemd: Systemd) -> None:
        super().__init__(place, SLICE, "systemd")
        self.systemd = systemd
        units = Path(f"/proc/{systemd.pid or 1}/root/run/systemd/system")
        text = (ROOT / "cri/install/ocirtd.service").read_text()
        assert "\nExecStart=ocirtd\n" in text
        self.unit = units / UNIT
        self.unit.write_text(text.replace("\nExecStart=ocirtd\n", f"\nExecStart={' '.join(self.command)}\n"))
        drop_in = units / f"{UNIT}.d"
        drop_in.mkdir()
        # The systemd of tests has no sysinit.target and no journal.
        lines = ["[Unit]", "DefaultDependencies=no", "[Service]", f"StandardOutput=append:{self.log}", "StandardError=inherit"]
        lines += [f"Environment=HOME={place} OCIRT_CERTS_D={place}/certs.d"]
        (drop_in / "test.conf").write_text("\n".join(lines) + "\n")
        self.systemctl("daemon-reload")

    def systemctl(self, *words: str) -> str:
        """What it prints. Raises AssertionError if it fails."""
        done = self.systemd.call("systemctl", *words)
        assert done.returncode == 0, done.stderr + (self.log.read_text() if self.log.exists() else "")
        return done.stdout

    def start(self) -> None:
        self.systemctl("start", UNIT)
        self.connect()

    def stop(self) -> None:
        self.disconnect()
        self.systemctl("stop", UNIT)

    def restart(self) -> None:
        self.disconnect()
        self.systemctl("restart", UNIT)
        self.connect()

    def property(self, name: str) -> str:
        """Of the unit."""
        return self.systemd.show(UNIT)[name][0]

    def outside(self, pid: int) -> int:
        """The pid here of a process that systemd's namespace calls so."""
        if not self.systemd.pid:
            return pid
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                words = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()
            except (OSError, StopIteration):
                continue
            if words[-1] == str(pid) and len(words) == 3 and _same_namespace(int(words[1]), self.systemd.pid):
                return int(words[1])
        raise AssertionError(f"no process {pid}")

    def remove(self) -> None:
        """Leave no unit."""
        for path in (self.unit, self.unit.with_name(f"{UNIT}.d") / "test.conf"):
            path.unlink()
        self.unit.with_name(f"{UNIT}.d").rmdir()
        self.systemctl("daemon-reload")


def _same_namespace(one: int, other: int) -> bool:
    return os.stat(f"/proc/{one}/ns/pid").st_ino == os.stat(f"/proc/{other}/ns/pid").st_ino


@pytest.fixture
def unit(pulled: tuple[Path, str], no_leaks: list[Path], isolation: Isolation) -> Iterator[Unit]:
    if program() is None:
        pytest.skip("systemd is not installed: apt-get install systemd")
    assert isolation
    view = "hybrid" if not is_running() and len(cgroup_mounts()) > 1 else "v2"
    work = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    no_leaks.append(work)
    systemd = Systemd(view, work)
    try:
        place = systemd.share / "n"
        place.mkdir()
        (place / "r").mkdir()
        subprocess.run(["cp", "-a", pulled[0], place / "r/images"], check=True)
        made = Unit(place, systemd)
        made.image = pulled[1]
        made.start()
        try:
            yield made
            for pod in made.pods():
                made.remove_pod(pod.id)
        finally:
            made.stop()
            systemd.call("systemctl", "stop", SLICE)
            made.remove()
            made.forget()
    finally:
        systemd.stop()


def test_restarts(unit: Unit) -> None:
    """By systemctl and by a kill: containers go on, and so do their logs; a reload reads the configuration."""
    pod = unit.run_pod()
    box = unit.run(pod, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
    unit.restart()
    assert unit.status(box).state == cri.CONTAINER_RUNNING
    assert unit.exec(box, "echo", "here").stdout == b"here\n"
    main = unit.property("MainPID")
    unit.disconnect()
    unit.systemctl("kill", "--signal=KILL", "--kill-who=main", UNIT)
    wait_for(lambda: unit.property("MainPID") not in ("0", main) and unit.property("ActiveState") == "active", "another one", 60)
    unit.connect()
    assert unit.status(box).state == cri.CONTAINER_RUNNING
    unit.config.write_text(unit.config.read_text() + "[containers]\npids_limit = 77\n")
    unit.systemctl("reload", UNIT)
    unit.until(lambda: "containers.pids_limit: 77, was 0" in unit.log.read_text(), "the change in the log")
    unit.stop_container(box)
    numbers = [int(text) for _, _, text in unit.logged(box)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert unit.property("NRestarts") == "1"


def test_a_shim_that_is_killed_for_memory(unit: Unit) -> None:
    """Its container is told lost. The daemon and all other containers go on."""
    directories = [mount / unit.property("ControlGroup").lstrip("/") for mount in unit.systemd.roots()]
    found = [path / name for path in directories for name in ("memory.max", "memory.limit_in_bytes") if (path / name).exists()]
    if not found:
        pytest.skip("no memory controller in this view of the cgroups")
    (limit,) = found
    lost, kept = (unit.run(unit.run_pod(), "sleep", "1000") for _ in range(2))
    main = unit.property("MainPID")
    Path(f"/proc/{unit.outside(shim_of(unit, lost))}/oom_score_adj").write_text("1000")
    used = int((limit.parent / ("memory.current" if limit.name == "memory.max" else "memory.usage_in_bytes")).read_text())
    code = (
        "import os; open('/proc/self/oom_score_adj', 'w').write('-900'); open(os.sys.argv[1], 'w').write('0'); b'x' * (600 << 20)"
    )
    limit.write_text(str(used + 64 * MiB))
    eater = subprocess.run(["/usr/bin/python3", "-c", code, limit.parent / "cgroup.procs"], check=False)
    assert eater.returncode == -9
    limit.write_text("max" if limit.name == "memory.max" else "-1")
    status = unit.wait(lost)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    assert unit.exec(kept, "true").exit_code == 0
    assert (unit.property("ActiveState"), unit.property("MainPID"), unit.property("NRestarts")) == ("active", main, "0")
