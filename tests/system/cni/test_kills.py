"""SIGKILL of a plugin at every system call of ADD and DEL that changes something; DEL or GC then leaves nothing.

The ways to recover take turns from call to call; OCIRT_TEST_ALL_KILLS=1 tries every call with each of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_cni.plugins import PLUGINS
from tests.support.chains import Chain, Executables, bridge, portmap, subnet
from tests.support.kills import EVERY
from tests.support.networks import Host
from tests.support.plugin_kills import RECOVERIES, Victim, turns
from tests.support.runtime import lines

_CHAIN = (bridge(subnet(1)), portmap((8080, 80, "tcp")), {"type": "firewall"})


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("index", range(len(_CHAIN)), ids=[str(one["type"]) for one in _CHAIN])
def test_a_killed_plugin(
    index: int,
    command: str,
    host: Host,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No link, address, rule, route, sysctl or file is left."""
    del host
    chain = Chain(Executables.ours(tmp_path / "plugins", list(PLUGINS)), "net", *_CHAIN, version="1.1.0")
    victim = Victim(chain, tmp_path)
    points = victim.reachable(index, command)
    for shift in range(len(RECOVERIES) if EVERY else 1):
        for point, recover in turns(points, shift):
            victim.kill(index, command, point, recover)
    with capsys.disabled():
        print(f"\n  {command} of {_CHAIN[index]['type']}: killed at {victim.killed} of {victim.points} points", end="")
    assert not victim.complaints, f"{len(victim.complaints)} complaints:{lines(victim.complaints[:20])}"
    assert victim.killed > 0.9 * victim.points, "too many points were never reached"
