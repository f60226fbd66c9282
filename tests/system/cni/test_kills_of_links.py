"""SIGKILL of the plugins that make or change one link, at every system call that changes something; nothing is left then.

As `test_kills` does it with bridge, portmap and firewall.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.plugins import PLUGINS
from tests.support.chains import Chain, Executables, bridge, host_local, subnet
from tests.support.links import make_uplink
from tests.support.networks import Host, command
from tests.support.plugin_kills import RECOVERIES, Victim, by_del, turns
from tests.support.runtime import lines
from tests.system.cni.conftest import MakeNetns

_LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 1_000_000, "egressRate": 8_000_000, "egressBurst": 1_000_000}
_BRIDGE = bridge(subnet(1), ipMasq=False)
# What is killed is the last of each. `up0` is a link of the host's.
_CHAINS: dict[str, tuple[dict[str, Any], ...]] = {
    "macvlan": ({"type": "macvlan", "master": "up0", "ipam": host_local(subnet(1))},),
    "tap": ({"type": "tap", "owner": 1, "ipam": host_local(subnet(1))},),
    "host-device": ({"type": "host-device", "device": "up0", "ipam": host_local(subnet(1))},),
    "bandwidth": (_BRIDGE, {"type": "bandwidth", **_LIMITS}),
    "tuning": (_BRIDGE, {"type": "tuning", "sysctl": {"net.core.somaxconn": "100"}, "mtu": 1400, "mac": "02:00:00:00:00:07"}),
    "sbr": (_BRIDGE, {"type": "sbr"}),
}


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("name", _CHAINS)
def test_a_killed_plugin(
    name: str, verb: str, host: Host, netns: MakeNetns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del host
    make_uplink(netns())
    command("ip", "link", "set", "up0", "alias", "a link of the host's")
    chain = Chain(Executables.ours(tmp_path / "plugins", list(PLUGINS)), "net", *_CHAINS[name], version="1.1.0")
    victim = Victim(chain, tmp_path)
    index = len(chain.plugins) - 1
    points = victim.reachable(index, verb)
    # A veth that plays the hardware would end with its namespace, which hardware does not.
    recoveries: list[Callable[[Victim, str, str], None]] = [by_del] if name == "host-device" else [*RECOVERIES]
    for point, recover in turns(points, 0):
        victim.kill(index, verb, point, recover if recover in recoveries else by_del)
    with capsys.disabled():
        print(f"\n  {verb} of {name}: killed at {victim.killed} of {victim.points} points", end="")
    assert not victim.complaints, f"{len(victim.complaints)} complaints:{lines(victim.complaints[:20])}"
    assert victim.killed > 0.9 * victim.points, "too many points were never reached"
