"""The plugin bandwidth: limits of a container's veth, measured and as the kernel shows them."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, INVALID_NETNS, KERNEL, TAKEN, UNSUPPORTED, UNSUPPORTED_FIELD, Error
from ocirt_cni.netlink import qdiscs
from ocirt_cni.netlink.socket import Request
from tests.support.networks import Host, command, inside, ip
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

MEGABIT = 1_000_000
LIMITS = {"ingressRate": 8 * MEGABIT, "ingressBurst": MEGABIT, "egressRate": 16 * MEGABIT, "egressBurst": MEGABIT}
BURST = pytest.approx(MEGABIT // 8, abs=10)  # the kernel keeps it as a time, rounded
PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "host0"}, {"name": "eth0", "sandbox": ""}],
    "ips": [{"address": "10.9.0.2/24", "interface": 1}],
}


def previous(path: str) -> dict[str, Any]:
    """What a plugin that made the pair would have returned."""
    found: dict[str, Any] = json.loads(json.dumps(PREVIOUS))
    found["interfaces"][1]["sandbox"] = path
    return found


@pytest.fixture
def pair(netns: MakeNetns) -> str:
    """A container with a veth, whose other end is `host0`; the path of its namespace."""
    path = netns()
    return make_pair(path, "host0", 9)


def make_pair(path: str, host: str, network: int) -> str:
    """Connect the container by a veth: 10.NETWORK.0.1 on the host, 10.NETWORK.0.2 in it."""
    command("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", path)
    command("ip", "addr", "add", f"10.{network}.0.1/24", "dev", host)
    command("ip", "link", "set", host, "up")
    command("ip", "addr", "add", f"10.{network}.0.2/24", "dev", "eth0", network=path)
    command("ip", "link", "set", "eth0", "up", network=path)
    return path


def qdiscs_of(device: str) -> list[dict[str, Any]]:
    """What `tc` shows of a link, without what the kernel puts there by itself."""
    found = json.loads(command("tc", "-j", "qdisc", "show", "dev", device))
    return [one for one in found if one["kind"] in ("tbf", "ingress")]


def ifbs() -> list[dict[str, Any]]:
    """The links of the kind ifb."""
    return [one for one in ip("link", "show") if one.get("linkinfo", {}).get("info_kind") == "ifb"]


def test_limits_as_the_kernel_has_them(plugin: Plugin, pair: str) -> None:
    result = plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair).ok()
    (ifb,) = ifbs()
    assert [one["name"] for one in result["interfaces"]] == ["host0", "eth0", ifb["ifname"]]
    assert result["interfaces"][2]["mac"] == ifb["address"]
    assert result["ips"] == [{"interface": 1, "address": "10.9.0.2/24"}]
    assert ifb["ifname"].startswith("bwp")
    assert len(ifb["ifname"]) == 15
    assert ifb["ifalias"] == "ocirt net c1 eth0"
    assert ifb["mtu"] == 1500
    assert "UP" in ifb["flags"]
    tbf, ingress = qdiscs_of("host0")
    assert (tbf["kind"], tbf["options"]["rate"], tbf["options"]["burst"]) == ("tbf", MEGABIT, BURST)
    assert tbf["options"]["lat"] == pytest.approx(25_000, abs=10)
    assert ingress["kind"] == "ingress"
    (tbf,) = qdiscs_of(ifb["ifname"])
    assert (tbf["options"]["rate"], tbf["options"]["burst"]) == (2 * MEGABIT, BURST)


def test_only_one_direction(plugin: Plugin, pair: str) -> None:
    conf = {"ingressRate": 8 * MEGABIT, "ingressBurst": MEGABIT, "prevResult": previous(pair)}
    assert len(plugin("bandwidth", conf, netns=pair).ok()["interfaces"]) == 2
    assert [one["kind"] for one in qdiscs_of("host0")] == ["tbf"]
    assert ifbs() == []
    plugin("bandwidth", conf, "CHECK", netns=pair).ok()
    plugin("bandwidth", conf, "DEL", netns=pair).ok()
    assert qdiscs_of("host0") == []
    conf = {"egressRate": 8 * MEGABIT, "egressBurst": MEGABIT, "prevResult": previous(pair)}
    plugin("bandwidth", conf, netns=pair).ok()
    assert [one["kind"] for one in qdiscs_of("host0")] == ["ingress"]
    assert len(ifbs()) == 1
    plugin("bandwidth", conf, "CHECK", netns=pair).ok()


def send(source: str, target: str, network_of_target: str, size: int) -> float:
    """Send bytes by TCP from one network namespace to an address of another; the seconds until all have arrived."""
    with _socket_in(network_of_target) as server:
        server.bind((target, 0))
        server.listen(1)
        with _socket_in(source) as client:
            client.settimeout(60)
            client.connect(server.getsockname())
            other, _ = server.accept()
            with other:
                other.settimeout(60)
                client.setblocking(False)
                return _pump(client, other, size)


def _socket_in(network: str) -> socket.socket:
    if not network:
        return socket.socket()
    with inside(network):
        return socket.socket()


def _pump(client: socket.socket, other: socket.socket, size: int) -> float:
    begun, arrived, left = time.monotonic(), 0, size
    while arrived < size:
        if left:
            try:
                left -= client.send(bytes(min(left, 1 << 16)))
            except BlockingIOError:
                pass
        arrived += len(other.recv(1 << 20))
    return time.monotonic() - begun


def test_what_arrives_is_limited_in_both_directions(plugin: Plugin, pair: str) -> None:
    plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair).ok()
    # What is beyond the burst takes its time; that it may take longer is no fault.
    assert send("", "10.9.0.2", pair, 1_000_000) > 0.8 * (1_000_000 - MEGABIT / 8) / MEGABIT
    assert send(pair, "10.9.0.1", "", 1_000_000) > 0.8 * (1_000_000 - MEGABIT / 8) / (2 * MEGABIT)


def test_a_small_burst_lets_packets_through(plugin: Plugin, pair: str) -> None:
    conf = {"ingressRate": 8 * MEGABIT, "ingressBurst": 8, "egressRate": 8 * MEGABIT, "egressBurst": 8}
    plugin("bandwidth", {**conf, "prevResult": previous(pair)}, netns=pair).ok()
    assert [one["options"]["burst"] for one in qdiscs_of("host0") if one["kind"] == "tbf"] == [pytest.approx(1518, abs=10)]
    send("", "10.9.0.2", pair, 50_000)
    send(pair, "10.9.0.1", "", 50_000)
    plugin("bandwidth", {**conf, "prevResult": previous(pair)}, "CHECK", netns=pair).ok()


def test_more_than_32_bits_of_bytes_a_second(plugin: Plugin, pair: str) -> None:
    conf = {"ingressRate": 80_000_000_000, "ingressBurst": 8 * MEGABIT, "prevResult": previous(pair)}
    plugin("bandwidth", conf, netns=pair).ok()
    (tbf,) = qdiscs_of("host0")
    assert tbf["options"]["rate"] == 10_000_000_000
    plugin("bandwidth", conf, "CHECK", netns=pair).ok()


def test_the_capability(plugin: Plugin, pair: str) -> None:
    conf = {"runtimeConfig": {"bandwidth": LIMITS}, "prevResult": previous(pair)}
    plugin("bandwidth", conf, netns=pair).ok()
    assert [one["kind"] for one in qdiscs_of("host0")] == ["tbf", "ingress"]
    plugin("bandwidth", conf, "CHECK", netns=pair).ok()


def test_the_configuration_wins_over_the_capability(plugin: Plugin, pair: str) -> None:
    conf = {"ingressRate": 800_000, "ingressBurst": MEGABIT, "runtimeConfig": {"bandwidth": LIMITS}}
    plugin("bandwidth", {**conf, "prevResult": previous(pair)}, netns=pair).ok()
    (tbf,) = qdiscs_of("host0")
    assert tbf["options"]["rate"] == 100_000


@pytest.mark.parametrize("conf", [{}, {"runtimeConfig": {"bandwidth": {}}}, dict.fromkeys(LIMITS, 0)])
def test_no_limits(plugin: Plugin, pair: str, conf: dict[str, Any]) -> None:
    whole = {**conf, "prevResult": previous(pair)}
    assert plugin("bandwidth", whole, netns=pair).ok()["interfaces"] == previous(pair)["interfaces"]
    assert qdiscs_of("host0") == []
    plugin("bandwidth", whole, "CHECK", netns=pair).ok()
    plugin("bandwidth", whole, "DEL", netns=pair).ok()


def test_before_interfaces_were_in_results(plugin: Plugin, pair: str) -> None:
    result = plugin("bandwidth", {**LIMITS, "cniVersion": "0.2.0", "prevResult": {"ip4": {"ip": "10.9.0.2/24"}}}, netns=pair).ok()
    assert result["ip4"] == {"ip": "10.9.0.2/24"}
    assert [one["kind"] for one in qdiscs_of("host0")] == ["tbf", "ingress"]


@pytest.mark.parametrize(
    ("conf", "code", "subject"),
    [
        ({"ingressRate": 8000}, INVALID_CONFIG, "/ingressBurst"),
        ({"ingressBurst": 8000}, INVALID_CONFIG, "/ingressRate"),
        ({"egressRate": 8000, "egressBurst": 0}, INVALID_CONFIG, "/egressBurst"),
        ({"egressRate": 7, "egressBurst": 8000}, INVALID_CONFIG, "/egressRate"),
        ({"egressRate": -8, "egressBurst": 8000}, INVALID_CONFIG, "/egressRate"),
        ({"egressRate": "1M", "egressBurst": 8000}, INVALID_CONFIG, "/egressRate"),
        ({"ingressRate": 8000, "ingressBurst": 8 << 32}, INVALID_CONFIG, "/ingressBurst"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 8000}}}, INVALID_CONFIG, "/runtimeConfig/bandwidth/ingressBurst"),
        ({"rate": 8000}, UNSUPPORTED_FIELD, "/rate"),
    ],
)
def test_wrong_configurations(plugin: Plugin, pair: str, conf: dict[str, Any], code: int, subject: str) -> None:
    whole = {**conf, "prevResult": previous(pair)}
    assert plugin("bandwidth", whole, netns=pair).failed(code).startswith(f"{subject}: ")
    assert qdiscs_of("host0") == []
    assert plugin("bandwidth", whole, "STATUS").failed(code).startswith(f"{subject}: ")


def test_alone(plugin: Plugin, pair: str) -> None:
    assert plugin("bandwidth", LIMITS, netns=pair).failed(INVALID_CONFIG).startswith("/prevResult: ")


def test_a_link_that_is_no_veth(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("ip", "tuntap", "add", "eth0", "mode", "tap", network=path)
    message = plugin("bandwidth", {**LIMITS, "prevResult": previous(path)}, netns=path).failed(UNSUPPORTED)
    assert message.startswith("eth0: it is of the kind tun")
    assert ifbs() == []


def test_a_veth_whose_other_end_is_elsewhere(plugin: Plugin, netns: MakeNetns, pair: str) -> None:
    other = netns()
    command("ip", "link", "set", "host0", "netns", other)
    message = plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair).failed(UNSUPPORTED)
    assert message == "eth0: the other end of this veth is not on the host"


def test_no_link_no_namespace(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("bandwidth", {**LIMITS, "prevResult": previous(path)}, netns=path).failed(INVALID_CONFIG)
    gone = "/run/netns/gone"
    assert gone in plugin("bandwidth", {**LIMITS, "prevResult": previous(gone)}, netns=gone).failed(INVALID_NETNS)


@pytest.mark.parametrize("obstacle", ["tbf", "ingress", "ifb"])
def test_a_failed_add_leaves_nothing(plugin: Plugin, host: Host, pair: str, obstacle: str) -> None:
    if obstacle == "tbf":
        command("tc", "qdisc", "add", "dev", "host0", "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "10ms")
    elif obstacle == "ingress":
        command("tc", "qdisc", "add", "dev", "host0", "ingress")
    else:
        plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair).ok()
        name = ifbs()[0]["ifname"]
        plugin("bandwidth", LIMITS, "DEL", netns=pair).ok()
        command("ip", "link", "add", name, "type", "ifb")
        command("ip", "link", "set", name, "alias", "mine")
    before, shown = host.traces(), qdiscs_of("host0")
    done = plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair)
    done.failed(TAKEN if obstacle == "ifb" else KERNEL)
    assert host.traces() == before
    assert [one["kind"] for one in qdiscs_of("host0")] == [one["kind"] for one in shown]


@pytest.mark.parametrize("maker", ["shape", "take", "redirect"])
def test_a_kernel_without_it(invoke: Invoke, host: Host, pair: str, maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a kernel answers that was built without it: to a kind that none has.
    original = getattr(qdiscs, maker)

    def unknown(*args: Any) -> Request:
        request: Request = original(*args)
        kind = {"shape": b"tbf", "take": b"ingress", "redirect": b"mirred"}[maker]
        request.contents = request.contents.replace(kind, b"x" * len(kind))
        return request

    monkeypatch.setattr(qdiscs, maker, unknown)
    before = host.traces()
    with pytest.raises(Error, match="^/type: this kernel cannot limit traffic: RTM_NEW") as caught:
        invoke("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair)
    assert caught.value.code == UNSUPPORTED
    assert "CONFIG_NET_SCH_TBF" in caught.value.hint
    assert host.traces() == before
    assert qdiscs_of("host0") == []


def test_del(plugin: Plugin, host: Host, pair: str) -> None:
    before = host.traces()
    conf = {**LIMITS, "prevResult": previous(pair)}
    plugin("bandwidth", conf, netns=pair).ok()
    for _ in range(2):
        plugin("bandwidth", conf, "DEL", netns=pair).ok()
        assert host.traces() == before
        assert qdiscs_of("host0") == []
    plugin("bandwidth", conf, netns=pair).ok()


@pytest.mark.parametrize("path", ["", "/run/netns/gone"])
def test_del_without_namespace_or_result(plugin: Plugin, pair: str, path: str) -> None:
    plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair).ok()
    command("ip", "link", "del", "host0")
    plugin("bandwidth", {}, "DEL", netns=path).ok()
    assert ifbs() == []


def test_del_leaves_what_others_made(plugin: Plugin, pair: str) -> None:
    command("tc", "qdisc", "add", "dev", "host0", "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "10ms")
    command("tc", "qdisc", "add", "dev", "host0", "ingress")
    plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, "DEL", netns=pair).ok()
    assert [one["kind"] for one in qdiscs_of("host0")] == ["tbf", "ingress"]


def test_del_of_a_caller_that_drops_the_namespace(invoke: Invoke, pair: str) -> None:
    invoke("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair)
    invoke("bandwidth", LIMITS, "DEL", netns=pair, lazy=True)
    assert ifbs() == []


def test_gc(plugin: Plugin, netns: MakeNetns) -> None:
    for number, (container, network) in enumerate([("c1", "net"), ("c2", "net"), ("c1", "net2")]):
        path = make_pair(netns(), f"host{number}", number)
        conf = {**LIMITS, "name": network, "prevResult": previous(path)}
        plugin("bandwidth", conf, netns=path, container=container).ok()
    command("ip", "link", "add", "bwp0", "type", "ifb")
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    plugin("bandwidth", {"cni.dev/valid-attachments": valid}, "GC").ok()
    assert sorted(one.get("ifalias", "") for one in ifbs()) == ["", "ocirt net c2 eth0", "ocirt net2 c1 eth0"]


def test_gc_leaves_another_runtime_alone(plugin: Plugin, netns: MakeNetns) -> None:
    path, other = make_pair(netns(), "host0", 0), make_pair(netns(), "host1", 1)
    for one, container in ((path, "c1"), (other, "c2")):
        plugin("bandwidth", {**LIMITS, "prevResult": previous(one)}, netns=one, container=container).ok()
    # As bridge and ptp note it, if the network keeps its addresses in a folder of its own.
    command("ip", "link", "set", "host1", "alias", "ocirt net@01234567 c2 eth0")
    plugin("bandwidth", {"cni.dev/valid-attachments": []}, "GC").ok()
    assert [one["ifalias"] for one in ifbs()] == ["ocirt net c2 eth0"]


def test_check_says_what_is_wrong(plugin: Plugin, pair: str) -> None:
    conf = {**LIMITS, "prevResult": previous(pair)}
    plugin("bandwidth", conf, netns=pair).ok()
    plugin("bandwidth", conf, "CHECK", netns=pair).ok()
    name = ifbs()[0]["ifname"]

    def check(**changed: int) -> str:
        return plugin("bandwidth", {**conf, **changed}, "CHECK", netns=pair).failed(CHECK_FAILED)

    assert check(ingressRate=16 * MEGABIT).startswith("host0: it lets 8000000 bits a second through")
    assert check(egressBurst=2 * MEGABIT).startswith(f"{name}: it lets 16000000 bits a second through")
    command("tc", "qdisc", "del", "dev", "host0", "ingress")
    assert check() == f"host0: what comes in is not redirected to {name}"
    command("tc", "qdisc", "del", "dev", name, "root")
    assert check() == f"{name}: it has no limit"
    command("ip", "link", "del", name)
    assert check() == f"{name}: there is no such link"
    command("tc", "qdisc", "del", "dev", "host0", "root")
    assert check() == "host0: it has no limit"


def test_two_interfaces_of_a_container(plugin: Plugin, pair: str) -> None:
    command("ip", "link", "add", "host1", "type", "veth", "peer", "name", "eth1", "netns", pair)
    for name in ("eth0", "eth1"):
        plugin("bandwidth", {**LIMITS, "prevResult": previous(pair)}, netns=pair, ifname=name).ok()
    assert sorted(one["ifalias"] for one in ifbs()) == ["ocirt net c1 eth0", "ocirt net c1 eth1"]


def test_status(plugin: Plugin) -> None:
    plugin("bandwidth", LIMITS, "STATUS").ok()
