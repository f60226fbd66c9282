"""Every verb in every version, with what a runtime may leave out or get wrong: our executables beside the reference.

The same calls go to both, on a host of its own each. Exit status, error code and result have to be the same, and nothing may be
left; each difference has a reason in `cnireasons.py`. OCIRT_TEST_ALL_CASES=1: wrong calls in every version for every plugin.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cnicases import RIGHT, VARIANTS, VERBS, VERSIONS, Bench, Case, Outcome, Subject
from conformance.cniplugins import ours, reference  # noqa: F401
from conformance.cnireasons import reason
from tests.support.chains import Executables, bridge, host_local, portmap, subnet
from tests.support.networks import ip, new_host
from tests.support.runtime import lines

_BRIDGE = bridge(subnet(1), ipMasq=False)
_WRONG = ("loopback", "bridge", "host-local", "portmap")  # those that get wrong calls as well
_EVERY = os.environ.get("OCIRT_TEST_ALL_CASES") == "1"


def _uplink() -> None:
    """A link that macvlan and others can build on."""
    ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
    ip("link", "set", "up0", "up")
    ip("link", "set", "up1", "up")


_POLICY = {"ingressPolicy": "same-bridge"}
_RATES = {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6}
SUBJECTS = {
    "loopback": Subject({"type": "loopback"}),
    "host-local": Subject({"type": "host-local", "ipam": host_local(subnet(1))}),
    "static": Subject({"type": "static", "ipam": {"type": "static", "addresses": [{"address": "10.99.1.9/24"}]}}),
    "bridge": Subject(_BRIDGE),
    "ptp": Subject({"type": "ptp", "ipam": host_local(subnet(1))}),
    "macvlan": Subject({"type": "macvlan", "master": "up0", "ipam": host_local(subnet(1))}, prepare=_uplink),
    "tap": Subject({"type": "tap", "ipam": host_local(subnet(1))}),
    "dummy": Subject({"type": "dummy", "ipam": host_local(subnet(1))}),
    "vlan": Subject({"type": "vlan", "master": "up0", "vlanId": 7, "ipam": host_local(subnet(1))}, prepare=_uplink),
    "ipvlan": Subject({"type": "ipvlan", "master": "up0", "ipam": host_local(subnet(1))}, prepare=_uplink),
    "portmap": Subject(portmap((8080, 80, "tcp")), before=_BRIDGE),
    "firewall": Subject({"type": "firewall"}, before=_BRIDGE),
    "firewall, same-bridge": Subject({"type": "firewall", **_POLICY}, before=_BRIDGE),
    "tuning": Subject({"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400}, before=_BRIDGE),
    "bandwidth": Subject({"type": "bandwidth", **_RATES}, before=_BRIDGE),
    "sbr": Subject({"type": "sbr"}, before=_BRIDGE),
    "vrf": Subject({"type": "vrf", "vrfname": "blue"}, before=_BRIDGE),
}


def _cases(name: str) -> Iterator[Case]:
    """All that is right in every version; what is wrong in the newest, of loopback in every one."""
    for verb, version, variant in itertools.product(VERBS, VERSIONS, VARIANTS):
        wrong = name in _WRONG and (version == VERSIONS[-1] or name == "loopback")
        if variant is RIGHT or wrong or _EVERY:
            yield Case(verb, version, variant)


def _outcomes(executables: Executables, name: str, scratch: Path) -> tuple[dict[Case, Outcome], list[str]]:
    """What came of each case, and what is left on the host after all of them."""
    with new_host():
        bench = Bench(executables, SUBJECTS[name], scratch)
        return {case: bench.attempt(case) for case in _cases(name)}, bench.whole.changes()


@pytest.mark.parametrize("name", SUBJECTS)
def test_protocol(
    name: str,
    ours: Executables,  # noqa: F811
    no_leaks: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same answers but for the differences that are wanted, and nothing left after any call."""
    del no_leaks
    theirs, _ = _outcomes(reference(), name, tmp_path)
    mine, rest = _outcomes(ours, name, tmp_path)
    differences: dict[tuple[str, str, str, str, str], list[str]] = defaultdict(list)
    complaints = [f"left on the host: {one}" for one in rest]
    for case, outcome in mine.items():
        other = theirs[case]
        complaints += [f"{case.verb} {case.version}, {case.variant.name}: {one}" for one in outcome.left]
        if (outcome.rc, outcome.code, outcome.result) == (other.rc, other.code, other.result):
            continue
        why = reason(name, case, other, outcome)
        if not why:
            complaints.append(
                f"{case.verb} {case.version}, {case.variant.name}: {outcome} {outcome.words or outcome.result},"
                f" the reference: {other} {other.words or other.result}"
            )
        differences[case.verb, case.variant.name, str(other), str(outcome), why or "NO REASON"].append(case.version)
    with capsys.disabled():
        print(f"\n  {name}: {len(mine)} calls, {sum(map(len, differences.values()))} answered otherwise than by the reference")
        for (verb, variant, said, answered, why), versions in differences.items():
            since = "every version" if len(versions) == len(VERSIONS) else " ".join(versions)
            print(f"    {verb}, {variant} ({since}): {said} → {answered}: {why}")
    assert not complaints, f"{len(complaints)} complaints:{lines(complaints[:40])}"
