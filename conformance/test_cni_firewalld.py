"""The plugin firewall beside a firewalld that runs: what containers reach, and what firewalld itself says of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.drivers import program
from tests.support.networks import Done, Host, command
from tests.support.runtime import wait_for
from tests.support.topology import HOST_OUTSIDE, OUTSIDE, Container, Topology, reaches, source_seen
from tests.system.cni.conftest import Plugin, host, modules, plugin, plugin_path  # noqa: F401

_CONFIGURATION = """\
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/>
    <allow send_type="signal"/> <allow send_type="method_return"/> <allow send_type="error"/>
    <allow receive_type="method_call"/> <allow receive_type="method_return"/>
    <allow receive_type="signal"/> <allow receive_type="error"/>
  </policy>
</busconfig>
"""
_ADDRESSES = ("10.88.0.5/32", "fd00:88::5/128")


class Firewall:
    """A firewalld, with a bus and a configuration of its own."""

    def __init__(self, place: Path) -> None:
        self.log = place / "log"
        bus = place / "bus"
        (place / "bus.conf").write_text(_CONFIGURATION.format(path=bus))
        (place / "system").mkdir()
        self.env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._begin("dbus-daemon", "--nofork", "--nopidfile", f"--config-file={place / 'bus.conf'}")
        wait_for(bus.exists, "the bus", 10)
        self._begin(
            "firewalld", "--nofork", "--nopid", "--system-config", place / "system", "--log-file", place / "firewalld.log"
        )
        wait_for(lambda: self.call("--state").returncode == 0, f"firewalld ({self.log})", 30)

    def _begin(self, *argv: str | Path) -> None:
        with self.log.open("ab") as log:
            env = {**os.environ, **self.env}
            self.processes.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        """firewall-cmd."""
        env = {**os.environ, **self.env}
        return subprocess.run(["firewall-cmd", *args], env=env, capture_output=True, text=True, check=False)

    def sources(self, zone: str = "trusted") -> list[str]:
        """What comes from there belongs to the zone."""
        return sorted(self.call(f"--zone={zone}", "--list-sources").stdout.split())

    def stop(self, most: int = 2) -> None:
        """firewalld, then the bus; no more of them than `most`."""
        for _ in range(min(most, len(self.processes))):
            one = self.processes.pop()
            one.terminate()
            one.wait(20)


@pytest.fixture
def topology(host: Host) -> Topology:  # noqa: F811
    """A bridge, and an outside, before firewalld is there."""
    return Topology()


@pytest.fixture
def firewall(topology: Topology, tmp_path: Path) -> Iterator[Firewall]:
    """firewalld on the host of the test."""
    if program("firewalld") is None:
        pytest.skip(
            "not installed: firewalld (`make needs-conformance` leaves it out: its package puts a machine behind a firewall)"
        )
    made = Firewall(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def run(plugin: Plugin, firewall: Firewall) -> Any:  # noqa: F811
    """The plugin firewall, with firewalld's bus."""
    return partial(plugin, "firewall", netns="/run/netns/unseen", env=firewall.env)


def _conf(container: Container, **options: Any) -> dict[str, Any]:
    return {"prevResult": container.result(), **options}


def _from(container: Container) -> bool:
    """Whether the container reaches the host itself."""
    return reaches("", ("10.88.0.1", 80), container.path, ("10.88.0.1", 80))


def _gets_out(topology: Topology, container: Container) -> bool:
    command("ip", "route", "replace", "10.88.0.0/16", "via", HOST_OUTSIDE, network=topology.outside)
    return source_seen(topology.outside, (OUTSIDE, 80), container.path, (OUTSIDE, 80)) == container.address


@pytest.mark.parametrize("backend", ["", "firewalld"])
def test_a_zone_lets_containers_reach_the_host_and_beyond(topology: Topology, firewall: Firewall, run: Any, backend: str) -> None:
    """Without the plugin firewalld rejects both; with it both pass until DEL."""
    one = topology.container(5)
    assert not _from(one)
    assert not _gets_out(topology, one)
    run(_conf(one, backend=backend)).ok()
    assert firewall.sources() == sorted(_ADDRESSES)
    run(_conf(one, backend=backend)).ok()  # again, as after a crash
    run(_conf(one, backend=backend), "CHECK").ok()
    assert _from(one)
    assert _gets_out(topology, one)
    run(_conf(one), "DEL").ok()
    run(_conf(one), "DEL").ok()
    assert firewall.sources() == []
    assert not _from(one)
    assert not _gets_out(topology, one)


def test_a_reload_of_firewalld(topology: Topology, firewall: Firewall, run: Any, plugin_path: Path) -> None:  # noqa: F811
    """It forgets; CHECK says so, `ocirt-cni reload` tells it again."""
    one = topology.container(5)
    run(_conf(one, firewalldZone="internal")).ok()
    assert firewall.sources("internal") == sorted(_ADDRESSES)
    assert firewall.call("--reload").returncode == 0
    assert firewall.sources("internal") == []
    said = run(_conf(one, firewalldZone="internal"), "CHECK").failed(104)
    assert "missing" in said or "firewalld does not have it in its zone internal" in said
    subprocess.run([plugin_path / "ocirt-cni", "reload"], env={**os.environ, **firewall.env}, check=True)
    run(_conf(one, firewalldZone="internal"), "CHECK").ok()
    assert firewall.sources("internal") == sorted(_ADDRESSES)
    run(_conf(one), "DEL").ok()
    assert firewall.sources("internal") == []


def test_collected(topology: Topology, firewall: Firewall, run: Any) -> None:
    """GC takes the addresses of attachments that are gone."""
    one, other = topology.container(5), topology.container(6)
    run(_conf(one), container="c5").ok()
    run(_conf(other), container="c6").ok()
    run({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "c6", "ifname": "eth0"}]}, "GC").ok()
    assert firewall.sources() == ["10.88.0.6/32", "fd00:88::6/128"]
    run(_conf(other), "DEL", container="c6").ok()


def test_other_backends_leave_firewalld_alone(topology: Topology, firewall: Firewall, run: Any) -> None:
    """The rule in its forward chain does what it can."""
    one = topology.container(5)
    run(_conf(one, backend="nftables")).ok()
    assert firewall.sources() == []
    assert not _from(one)
    assert _gets_out(topology, one)
    run(_conf(one), "DEL").ok()


@pytest.mark.parametrize(
    ("zone", "code", "words"),
    [
        ("nowhere", 100, "firewalld has no zone 'nowhere'"),
        ("trusted", 102, "10.88.0.5/32: firewalld has it in the zone internal, not in trusted"),
        ("a zone", 7, "/firewalldZone: 'a zone' cannot be the name of a zone of firewalld"),
    ],
)
def test_refused(topology: Topology, firewall: Firewall, run: Any, host: Host, zone: str, code: int, words: str) -> None:  # noqa: F811
    """A zone that is not there, an address that somebody has put elsewhere: nothing is left of the ADD."""
    one = topology.container(5)
    assert firewall.call("--zone=internal", "--add-source=10.88.0.5/32").returncode == 0
    before = host.traces()
    answer: Done = run(_conf(one, firewalldZone=zone))
    assert words in answer.failed(code)
    assert host.traces() == before
    assert firewall.sources("internal") == ["10.88.0.5/32"]


def test_a_firewalld_that_has_ended(topology: Topology, firewall: Firewall, run: Any) -> None:
    """Its bus, and perhaps its table, are still there: DEL removes what is ours."""
    one = topology.container(5)
    run(_conf(one)).ok()
    firewall.stop(1)
    run(_conf(one), "CHECK")
    run(_conf(one), "DEL").ok()
    assert "ocirt" not in command("nft", "list", "ruleset")
