"""The network plugins that others wrote, built, and the fixtures of the tests that hold ours beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import goprograms
from conformance.drivers import need
from tests.support.audits import Audit
from tests.support.chains import Executables
from tests.support.leaks import GRACE
from tests.support.networks import Host, new_host
from tests.support.runtime import lines

_PLUGINS = "github.com/containernetworking/plugins"
_CNI = "github.com/containernetworking/cni"
_MODULES = {_PLUGINS: "v1.10.0", _CNI: "v1.3.1"}
NAMES = (
    *("bandwidth", "bridge", "dhcp", "dummy", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan"),
    *("portmap", "ptp", "sbr", "static", "tap", "tuning", "vlan", "vrf"),
)


def programs() -> Path:
    """The directory of the reference plugins and of cnitool."""
    return goprograms.build("cni", _MODULES, [f"{_PLUGINS}/plugins/...", f"{_CNI}/cnitool"], go="1.26.0")


def reference() -> Executables:
    """The reference plugins."""
    need("iptables", "nft")  # they execute them
    return Executables("reference", programs())


def nothing_left(executables: Executables, before: Audit, known: str = "") -> None:
    """Fail if the host is not as it was. `known`: why the reference does leave something here, which it then has to do."""
    left = before.changes(1.0 if known and executables.name == "reference" else GRACE)
    if known and executables.name == "reference":
        assert left, f"the reference leaves nothing any more, though {known}"
    else:
        assert not left, f"left on the host:{lines(left)}"


@pytest.fixture
def ours(tmp_path: Path) -> Executables:
    """Our executables: names of build/ocirt."""
    return Executables.ours(tmp_path / "plugins", NAMES)


@pytest.fixture(params=["ocirt", "reference"])
def plugins(request: pytest.FixtureRequest) -> Executables:
    """Our executables, then the reference."""
    if request.param == "reference":
        return reference()
    made: Executables = request.getfixturevalue("ours")
    return made


@pytest.fixture
def host(no_leaks: list[Path]) -> Iterator[Host]:
    """A host for the test alone."""
    del no_leaks
    with new_host() as made:
        yield made
