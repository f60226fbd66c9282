"""The fixtures of the tests of container networks.

Each test has a host of its own: a fresh network namespace (`host`), and empty folders at /run and /var/lib. So no test sees the
bridges, rules, sysctls and leases of another; what it should have undone it has to look for itself (`host.traces()`).

    def test_something(plugin: Plugin, netns: MakeNetns) -> None:
        result = plugin("bridge", {"ipam": {...}}, netns=netns()).ok()
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from ocirt_cni import plugins
from ocirt_cni.call import Call
from ocirt_cni.plugins import PLUGINS
from ocirt_cni.results import Result
from tests.support.build import ROOT
from tests.support.isolation import Isolation
from tests.support.networks import Done, Host, command, execute, make_network, new_host, new_network

MakeNetns = Callable[[], str]


class Plugin(Protocol):
    """Run the executable of a plugin."""

    def __call__(
        self,
        name: str,
        conf: dict[str, Any] | bytes,
        command: str = "ADD",
        *,
        netns: str = "",
        container: str = "c1",
        ifname: str = "eth0",
        env: dict[str, str] | None = None,
    ) -> Done:
        """`conf` is completed by cniVersion, name and type, where it does not have them; bytes go as they are.

        `env`: more of the environment, which wins.
        """
        ...


class Invoke(Protocol):
    """Run a plugin in this process."""

    def __call__(
        self,
        name: str,
        conf: dict[str, Any],
        command: str = "ADD",
        *,
        netns: str = "",
        container: str = "c1",
        ifname: str = "eth0",
        args: dict[str, str] | None = None,
        lazy: bool = False,
    ) -> Result | None:
        """`conf` is completed as with the executable. Raises Error."""
        ...


@pytest.fixture(scope="session", autouse=True)
def modules(isolation: Isolation) -> None:
    """Have the kernel load what rules need before the first search for leaks: sysctls come with it, and stay."""
    rules = (
        "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c ct state new masquerade"
    )
    with new_network():
        command("nft", rules, check=False)


@pytest.fixture(autouse=True)
def host(no_leaks: list[Path]) -> Iterator[Host]:
    """The host that this test has for itself."""
    with new_host() as made:
        yield made


@pytest.fixture
def netns(host: Host) -> MakeNetns:
    """Make network namespaces of containers; each call returns the path of a new one, below /run/netns."""
    numbers = iter(range(1, 10_000))
    return lambda: make_network(f"n{next(numbers)}")


@pytest.fixture(scope="session")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executables of all plugins, and `ocirt-cni`: names of build/ocirt."""
    built = ROOT / "build" / "ocirt"
    if not built.exists():
        pytest.fail(f"{built} is not there: run `make` first", pytrace=False)
    path = tmp_path_factory.mktemp("cni-bin")
    for name in (*PLUGINS, "ocirt-cni"):
        (path / name).symlink_to(built)
    return path


@pytest.fixture
def plugin(plugin_path: Path, host: Host) -> Plugin:
    """Run the executable of a plugin, see `Plugin`."""

    def run(
        name: str,
        conf: dict[str, Any] | bytes,
        command: str = "ADD",
        *,
        netns: str = "",
        container: str = "c1",
        ifname: str = "eth0",
        env: dict[str, str] | None = None,
    ) -> Done:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(plugin_path),
            **(env or {}),
        }
        data = conf if isinstance(conf, bytes) else json.dumps(_completed(name, conf)).encode()
        return execute(plugin_path, name, data, environment)

    return run


@pytest.fixture
def invoke(plugin_path: Path, host: Host) -> Invoke:
    """Run a plugin in this process, see `Invoke`."""

    def run(
        name: str,
        conf: dict[str, Any],
        command: str = "ADD",
        *,
        netns: str = "",
        container: str = "c1",
        ifname: str = "eth0",
        args: dict[str, str] | None = None,
        lazy: bool = False,
    ) -> Result | None:
        # Through JSON, so that a test cannot hand over what a runtime could not.
        whole = json.loads(json.dumps(_completed(name, conf)))
        of_a_container = command in ("ADD", "DEL", "CHECK")
        call = Call(
            command,
            whole,
            container=container if of_a_container else "",
            netns=netns if of_a_container else "",
            ifname=ifname if of_a_container else "",
            args=args,
            path=(str(plugin_path),),
            lazy=lazy,
        )
        return plugins.invoke(name, call)

    return run


def _completed(name: str, conf: dict[str, Any]) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "type": name, **conf}
