"""host-local: which addresses are chosen, what is refused, and that nothing is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Call
from ocirt_cni.errors import CHECK_FAILED, EXHAUSTED, INVALID_CONFIG, INVALID_ENVIRONMENT, IO_FAILURE, NOT_AVAILABLE, TAKEN, Error
from ocirt_cni.ipam import boot, freed, host_local
from ocirt_cni.plugins import invoke
from ocirt_cni.results import Result


class Node:
    """host-local on a data folder. `ipam` is the configuration, but for type and folder."""

    def __init__(self, folder: Path, **ipam: Any) -> None:
        self.folder = folder
        self.ipam: dict[str, Any] = ipam
        self.more: dict[str, Any] = {"cniVersion": "1.1.0"}

    def call(self, command: str, container: str = "c1", ifname: str = "eth0", **options: Any) -> Result | None:
        conf = {
            "name": "net",
            "type": "bridge",
            **self.more,
            "ipam": {"type": "host-local", "dataDir": str(self.folder), **self.ipam},
        }
        if command in (ADD, CHECK, DEL):
            options = {"container": container, "ifname": ifname, "netns": "/n", **options}
        return invoke("host-local", Call(command, json.loads(json.dumps(conf)), **options))

    def add(self, container: str = "c1", ifname: str = "eth0", **options: Any) -> list[str]:
        result = self.call(ADD, container, ifname, **options)
        assert result is not None
        assert result.interfaces == []
        return [str(ip.address) for ip in result.ips]

    def delete(self, container: str = "c1", ifname: str = "eth0", **options: Any) -> None:
        self.call(DEL, container, ifname, **options)

    def leases(self) -> dict[str, str]:
        path = self.folder / "net"
        names = [name for name in os.listdir(path) if name[0] != "." and "." in name.replace(":", ".")] if path.exists() else []
        return {name: (path / name).read_bytes().decode() for name in names if not name.startswith("last")}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "networks", subnet="10.1.0.0/29")


def failing(call: Callable[[], object]) -> Error:
    with pytest.raises(Error) as caught:
        call()
    return caught.value


def test_a_result(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(
        "# a comment\nnameserver 192.0.2.3\nsearch a.example b.example\noptions ndots:5 rotate\n"
    )
    node = Node(
        tmp_path,
        ranges=[[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64", "rangeStart": "fd00:1::10", "gateway": "fd00:1::5"}]],
        routes=[{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.10.5.1", "mtu": 1400}],
        resolvConf=str(tmp_path / "resolv.conf"),
    )
    result = node.call(ADD)
    assert result is not None
    assert result.document("1.1.0") == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "10.1.2.2/24", "gateway": "10.1.2.1"},
            {"address": "fd00:1::10/64", "gateway": "fd00:1::5"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.10.5.1", "mtu": 1400}],
        "dns": {"nameservers": ["192.0.2.3"], "search": ["a.example", "b.example"], "options": ["ndots:5", "rotate"]},
    }
    assert node.leases() == {"10.1.2.2": "c1\r\neth0", "fd00:1::10": "c1\r\neth0"}


def test_first_what_was_never_used_then_the_oldest_freed(node: Node) -> None:
    assert [node.add(f"c{n}")[0] for n in range(3)] == ["10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29"]
    node.delete("c1")
    node.delete("c0")
    assert [node.add(f"d{n}")[0] for n in range(4)] == ["10.1.0.5/29", "10.1.0.6/29", "10.1.0.3/29", "10.1.0.2/29"]
    node.delete("c2")
    assert node.add("e") == ["10.1.0.4/29"]


def test_a_thousand_turns_on_a_28(tmp_path: Path) -> None:
    node = Node(tmp_path, subnet="10.1.0.0/28")
    seen = []
    for number in range(1000):
        seen += node.add(f"c{number}")
        node.delete(f"c{number}")
    assert node.leases() == {}
    for start in range(0, 1000 - 13, 50):
        assert len(set(seen[start : start + 13])) == 13, "none is used again before all others were"
    assert sum(path.stat().st_size for path in (tmp_path / "net").rglob("*") if path.is_file()) < 20_000


def test_exhaustion_says_how_many_are_taken(node: Node) -> None:
    node.call(STATUS)
    for number in range(5):
        node.call(STATUS)
        node.add(f"c{number}")
    error = failing(lambda: node.add("one-more"))
    assert (error.code, error.subject) == (EXHAUSTED, "/ipam")
    assert str(error) == "/ipam: no address is free in 10.1.0.1-10.1.0.6: 5 of 5 addresses are taken"
    error = failing(lambda: node.call(STATUS))
    assert (error.code, error.cause) == (NOT_AVAILABLE, "5 of 5 addresses are taken")
    assert len(node.leases()) == 5
    assert not (node.folder / "net/.ocirt/of/one-more:eth0").is_symlink()
    node.delete("c3")
    node.call(STATUS)
    assert node.add("one-more") == ["10.1.0.5/29"]


def test_status_of_ranges_that_the_runtime_names(node: Node) -> None:
    """It does so with ADD only."""
    del node.ipam["subnet"]
    node.more["runtimeConfig"] = {"ipRanges": [[{"subnet": "10.1.0.0/30"}]]}
    node.add()
    del node.more["runtimeConfig"]
    node.call(STATUS)
    assert failing(node.add).subject == "/ipam/ranges"


def test_exhaustion_of_the_second_set_takes_nothing_of_the_first(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/30"}]])
    node.add("a")
    error = failing(lambda: node.add("b"))
    assert (error.code, error.subject) == (EXHAUSTED, "/ipam/ranges/1")
    assert sorted(node.leases()) == ["10.1.0.2", "10.2.0.2"]
    assert failing(lambda: node.call(STATUS)).subject == "/ipam/ranges/1"


def test_an_attachment_asks_twice(node: Node) -> None:
    node.add("c1")
    error = failing(lambda: node.add("c1"))
    assert error.code == TAKEN
    assert str(error).startswith("net c1 eth0: it holds 10.1.0.2 already")
    assert node.add("c1", "eth1") == ["10.1.0.3/29"]
    node.delete("c1")
    assert node.leases() == {"10.1.0.3": "c1\r\neth1"}


def test_an_attachment_of_the_reference_asks_again(node: Node) -> None:
    (node.folder / "net").mkdir(parents=True)
    (node.folder / "net/10.1.0.5").write_text("c1\r\neth0")
    (node.folder / "net/last_reserved_ip.0").write_text("10.1.0.5")
    assert failing(lambda: node.add("c1")).code == TAKEN
    assert node.add("c2") == ["10.1.0.6/29"], "it goes on where the reference was"
    assert node.add("c3") == ["10.1.0.2/29"]
    node.delete("c1")
    assert sorted(node.leases()) == ["10.1.0.2", "10.1.0.6"]


def test_a_whole_range_after_the_reference(node: Node) -> None:
    """What it freed nobody noted; it is found all the same."""
    (node.folder / "net").mkdir(parents=True)
    (node.folder / "net/last_reserved_ip.0").write_text("10.1.0.6")
    (node.folder / "net/10.1.0.3").write_text("")  # killed there
    assert sorted(node.add(f"c{n}")[0] for n in range(5)) == [f"10.1.0.{n}/29" for n in range(2, 7)]


def test_delete_is_idempotent_and_needs_no_ranges(node: Node) -> None:
    node.delete()
    assert not node.folder.exists(), "nothing is made to undo nothing"
    node.add()
    node.ipam = {"ranges": "wrong", "unknown": 1}
    node.delete(netns="")
    node.delete()
    assert node.leases() == {}


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({}, {"args": {"IP": "10.1.0.5", "MAC": "02:00:00:00:00:01", "K8S_POD_NAME": "p"}}),
        ({"args": {"cni": {"ips": ["10.1.0.5"], "labels": [{"key": "a", "value": "b"}]}}}, {}),
        ({"runtimeConfig": {"ips": ["10.1.0.5/29"], "mac": "02:00:00:00:00:01"}}, {}),
        ({"runtimeConfig": {"ips": ["10.1.0.5"]}, "args": {"cni": {"ips": ["10.1.0.5"]}}}, {"args": {"IP": "10.1.0.5/16"}}),
    ],
)
def test_an_address_that_is_asked_for(node: Node, more: dict[str, Any], options: dict[str, Any]) -> None:
    node.more |= more
    assert node.add(**options) == ["10.1.0.5/29"]
    error = failing(lambda: node.add("other", **options))
    assert error.code == TAKEN
    assert str(error) == "10.1.0.5: it belongs to c1 eth0"
    assert len(node.leases()) == 1
    node.more = {"cniVersion": "1.1.0"}
    assert node.add("c2") == ["10.1.0.2/29"], "it does not move the search"


def test_an_address_of_each_set(tmp_path: Path) -> None:
    node = Node(tmp_path, ranges=[[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}], [{"subnet": "fd00::/64"}]])
    node.more["runtimeConfig"] = {"ips": ["fd00::77", "10.2.0.9"]}
    assert node.add() == ["10.2.0.9/24", "fd00::77/64"]
    node.more["runtimeConfig"] = {"ips": ["fd00::78"]}
    assert node.add("c2") == ["10.1.0.2/24", "fd00::78/64"]


@pytest.mark.parametrize(
    ("ips", "said"),
    [
        (["10.9.0.1"], "/runtimeConfig/ips/0: 10.9.0.1 is in none of the ranges (they are 10.1.0.1-10.1.0.6)"),
        (["10.1.0.1"], "/runtimeConfig/ips/0: 10.1.0.1 is the gateway"),
        (["10.1.0.7"], "/runtimeConfig/ips/0: 10.1.0.7 is in none of the ranges (they are 10.1.0.1-10.1.0.6)"),
        (["10.1.0.2", "10.1.0.3"], "/runtimeConfig/ips/1: 10.1.0.2 is asked for from the same set of ranges"),
        (["x"], "/runtimeConfig/ips/0: 'x' is not an IP address"),
        ([7], "/runtimeConfig/ips/0: this is not a string"),
    ],
)
def test_an_address_that_cannot_be_had(node: Node, ips: list[Any], said: str) -> None:
    node.more["runtimeConfig"] = {"ips": ips}
    error = failing(node.add)
    assert error.code == INVALID_CONFIG
    assert str(error) == said
    assert node.leases() == {}


def test_an_address_in_the_environment_that_is_none(node: Node) -> None:
    error = failing(lambda: node.add(args={"IP": "10.1.0"}))
    assert (error.code, error.subject) == (INVALID_ENVIRONMENT, "CNI_ARGS/IP")


def test_an_empty_one_asks_for_nothing(node: Node) -> None:
    assert node.add(args={"IP": ""}) == ["10.1.0.2/29"]


@pytest.mark.parametrize(
    ("ipam", "subject"),
    [
        ({"subnett": "10.1.0.0/24"}, "/ipam/subnett"),
        ({"routes": [{"dst": "x"}]}, "/ipam/routes/0/dst"),
        ({"routes": ["x"]}, "/ipam/routes/0"),
        ({"routes": {}}, "/ipam/routes"),
        ({"dataDir": 7}, "/ipam/dataDir"),
        ({"subnet": 7}, "/ipam/subnet"),
    ],
)
def test_what_is_refused(node: Node, ipam: dict[str, Any], subject: str) -> None:
    node.ipam |= ipam
    assert failing(node.add).subject == subject
    assert not node.folder.exists()


def test_without_ipam() -> None:
    call = Call(ADD, {"cniVersion": "1.1.0", "name": "net"}, container="c1", ifname="eth0", netns="/n")
    assert failing(lambda: host_local.add(call)).subject == "/ipam"


def test_a_resolv_conf_that_is_not_there(node: Node, tmp_path: Path) -> None:
    node.ipam["resolvConf"] = str(tmp_path / "none")
    error = failing(node.add)
    assert (error.code, error.subject) == (IO_FAILURE, "/ipam/resolvConf")
    assert not node.folder.exists()


def test_a_folder_that_cannot_be_written(node: Node, tmp_path: Path) -> None:
    node.folder = tmp_path / "file"
    node.folder.write_text("")
    error = failing(node.add)
    assert error.code == IO_FAILURE
    assert str(tmp_path) in error.subject


def test_check(node: Node) -> None:
    assert failing(lambda: node.call(CHECK)).code == CHECK_FAILED
    node.add()
    node.call(CHECK)
    node.more["prevResult"] = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/29"}, {"address": "192.0.2.1/24"}]}
    node.call(CHECK)
    node.more["prevResult"]["ips"].append({"address": "10.1.0.3/29"})
    error = failing(lambda: node.call(CHECK))
    assert str(error) == "net c1 eth0: it does not hold 10.1.0.3"


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc(node: Node, key: str) -> None:
    node.call(GC)
    for name in ("a", "b", "c"):
        node.add(name)
    node.add("b", "eth1")
    node.more[key] = [{"containerID": "b", "ifname": "eth1"}, {"containerID": "c", "ifname": "eth0"}]
    node.call(GC)
    assert sorted(node.leases().values()) == ["b\r\neth1", "c\r\neth0"]


def test_gc_leaves_other_networks_alone(node: Node, tmp_path: Path) -> None:
    other = Node(node.folder, subnet="10.2.0.0/24")
    other.more["name"] = "other"
    other.add()
    node.add()
    node.call(GC)
    assert node.leases() == {}
    assert (node.folder / "other/10.2.0.2").exists()


def test_after_a_reboot_all_are_free(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        node.add(f"c{number}")
    for name in node.leases():
        os.utime(node.folder / "net" / name, (1, 1))
    monkeypatch.setattr(boot, "identity", lambda: "another")
    node.call(STATUS)
    assert node.leases() == {}
    assert node.add("c0") == ["10.1.0.2/29"], "the same container may start again"


class Links:
    """The links of the host; as many as are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: dict[int, str] = {}
        monkeypatch.setattr(freed, "if_nametoindex", self.number)
        monkeypatch.setattr(freed, "if_indextoname", self.name)

    def number(self, name: str) -> int:
        for number, each in self.there.items():
            if each == name:
                return number
        raise OSError(name)

    def name(self, number: int) -> str:
        if number not in self.there:
            raise OSError(number)
        return self.there[number]


def test_an_address_waits_until_its_link_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links(monkeypatch)
    for number in range(5):
        node.add(f"c{number}")
        links.there[number + 10] = f"veth{number}"
    for number in (3, 1, 2):
        node.delete(f"c{number}", link=f"veth{number}")
    del links.there[11]
    assert node.add("d") == ["10.1.0.3/29"], "the first that does not wait"

    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            del links.there[13]

    monkeypatch.setattr(time, "sleep", pause)
    assert node.add("e") == ["10.1.0.5/29"]
    assert len(pauses) == 3
    monkeypatch.setattr(host_local, "_PATIENCE", 0.0)
    error = failing(lambda: node.add("f"))
    assert error.code == EXHAUSTED
    assert error.cause == "4 of 5 addresses are taken, 1 wait for their links to go"
    assert failing(lambda: node.call(STATUS)).cause == error.cause


def test_an_address_whose_link_is_there_is_not_given_as_a_new_one(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for, so the search has not come to it yet."""
    links = Links(monkeypatch)
    links.there[7] = "veth7"
    node.add("a", args={"IP": "10.1.0.2"})
    node.delete("a", link="veth7")
    assert node.add("b") == ["10.1.0.3/29"]


def test_ranges_that_grow_are_used(node: Node) -> None:
    for number in range(5):
        node.add(f"c{number}")
    failing(lambda: node.add("d"))
    node.ipam["ranges"] = [[{"subnet": "10.1.0.0/28"}]]
    del node.ipam["subnet"]
    assert node.add("d") == ["10.1.0.7/28"]
    node.delete("c2")
    assert node.add("e") == ["10.1.0.8/28"], "none of these was used before"


def test_a_range_of_ipv6_is_not_walked(tmp_path: Path) -> None:
    node = Node(tmp_path, subnet="fd00::/8")
    assert [node.add(f"c{n}")[0] for n in range(3)] == ["fd00::2/8", "fd00::3/8", "fd00::4/8"]
    node.call(STATUS)
    node.add("end", args={"IP": "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"})
    node.delete("c0")
    assert node.add("d") == ["fd00::5/8"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_addresses_are_unique_and_none_is_lost(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]) -> None:
    node = Node(tmp_path_factory.mktemp("node"), ranges=[[{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/29"}]])
    held: dict[str, str] = {}
    for adds, number in steps:
        name = f"c{number}"
        if not adds:
            node.delete(name)
            held.pop(name, None)
        elif name in held or len(held) == 6:
            assert failing(lambda name=name: node.add(name)).code == (TAKEN if name in held else EXHAUSTED)  # type: ignore[misc]
        else:
            address = node.add(name)[0].partition("/")[0]
            assert address not in held.values()
            held[name] = address
        assert node.leases() == {address: f"{name}\r\neth0" for name, address in held.items()}


class Both(RuleBasedStateMachine):
    """Our plugin and a model of the reference take turns on one folder."""

    new_folder: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(type(self).new_folder(), subnet="10.1.0.0/29")
        self.held: dict[str, str] = {}

    @property
    def path(self) -> Path:
        return self.node.folder / "net"

    @precondition(lambda self: len(self.held) < 5)
    @rule(name=st.sampled_from("abcdefg"))
    def ours_adds(self, name: str) -> None:
        if name in self.held:
            assert failing(lambda: self.node.add(name)).code == TAKEN
        else:
            self.held[name] = self.node.add(name)[0].partition("/")[0]

    @precondition(lambda self: len(self.held) < 5)
    @rule(name=st.sampled_from("abcdefg"), start=st.integers(2, 6))
    def theirs_adds(self, name: str, start: int) -> None:
        if name in self.held:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        order = [f"10.1.0.{(start - 2 + step) % 5 + 2}" for step in range(5)]
        address = next(each for each in order if not (self.path / each).exists())
        (self.path / address).write_text(f"{name}\r\neth0")
        (self.path / "last_reserved_ip.0").write_text(address)
        self.held[name] = address

    @rule(name=st.sampled_from("abcdefg"))
    def ours_deletes(self, name: str) -> None:
        self.node.delete(name)
        self.held.pop(name, None)

    @rule(name=st.sampled_from("abcdefg"))
    def theirs_deletes(self, name: str) -> None:
        """It reads all files, wherever they lie, and removes those that say so."""
        for path in self.path.rglob("*"):
            if path.is_file() and path.read_bytes().strip().decode() in (f"{name}\r\neth0", name):
                path.unlink()
        self.held.pop(name, None)

    @invariant()
    def nobody_lost_anything(self) -> None:
        assert self.node.leases() == {address: f"{name}\r\neth0" for name, address in self.held.items()}
        assert len(set(self.held.values())) == len(self.held)


def test_beside_the_reference(tmp_path_factory: pytest.TempPathFactory) -> None:
    Both.new_folder = staticmethod(lambda: tmp_path_factory.mktemp("both"))
    run_state_machine_as_test(Both, settings=settings(max_examples=50, stateful_step_count=30))
