"""Pairs of links, and the waiting for them."""

from __future__ import annotations

import os
import threading

import pytest

from ocirt_cni.call import Call
from ocirt_cni.errors import KERNEL, Error
from ocirt_cni.netlink import links
from ocirt_cni.netlink.socket import KernelError, Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import pairs
from tests.support.networks import command, link
from tests.system.cni.conftest import MakeNetns

RTNLGRP_LINK = 1


def call(path: str, container: str = "c1") -> Call:
    conf = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}
    return Call("ADD", conf, container=container, netns=path, ifname="eth0")


def test_a_pair_settles_when_both_ends_are_up(netns: MakeNetns) -> None:
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        name = pairs.create(host, namespace, one, up=True)
        namespace.netlink.execute(links.set_up(pairs.existing(namespace.netlink, "eth0").index))
        outer, inner = pairs.settle(host, namespace, one)
    assert (outer.name, inner.name) == (name, "eth0")
    assert (outer.operstate, inner.operstate) == (links.IF_OPER_UP, links.IF_OPER_UP)
    assert (outer.parent, inner.parent) == (inner.index, outer.index)


def test_a_pair_with_an_end_that_is_down_does_not(netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_PATIENCE", 0.1)
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        name = pairs.create(host, namespace, one, up=True)
        with pytest.raises(Error) as caught:
            pairs.settle(host, namespace, one)
    assert (caught.value.code, caught.value.subject) == (KERNEL, name)


def test_waiting_ends_with_the_change_that_is_waited_for(netns: MakeNetns) -> None:
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        pairs.create(host, namespace, one, up=True)
        index = pairs.existing(namespace.netlink, "eth0").index
        late = threading.Thread(target=lambda: namespace.netlink.execute(links.set_up(index)))
        with Netlink() as events:
            events.join(RTNLGRP_LINK)
            while events.wait(0):
                pass
            assert not events.wait(0)
            late.start()
            assert events.wait(10)
        late.join()


def test_what_cannot_be_made_leaves_nothing(netns: MakeNetns) -> None:
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        with pytest.raises(KernelError):
            pairs.create(host, namespace, one, master=999)
        assert links.find(host, pairs.host_name(one)) is None
        assert links.find(namespace.netlink, "eth0") is None
        # Of the two requests the second fails.
        with pytest.raises(KernelError):
            pairs.create(host, namespace, one, port={links.IFLA_MASTER: 999})
        assert links.find(host, pairs.host_name(one)) is None
        assert links.find(namespace.netlink, "eth0") is None


def test_links_are_deleted_all_at_once(netns: MakeNetns) -> None:
    path = netns()
    command("ip", "link", "add", "bystander", "type", "bridge")
    with Namespace.open(path) as namespace, Netlink() as host:
        for number in range(20):
            one = Call(
                "ADD",
                {"cniVersion": "1.1.0", "name": "net", "type": "bridge"},
                container="c1",
                netns=path,
                ifname=f"eth{number}",
            )
            pairs.create(host, namespace, one)
        found = [one for one in links.every(host) if one.kind == "veth"]
        assert len(found) == 20
        pairs.delete_all(host, found)
        assert [one.name for one in links.every(host)] == ["lo", "bystander"]
        pairs.delete_all(host, found)  # again, as two GCs at once do


def test_the_removal_of_a_pair_goes_on_beside_its_caller(netns: MakeNetns) -> None:
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        name = pairs.create(host, namespace, one)
    before = len(os.listdir("/proc/self/fd"))
    gone = pairs.begin_removal(one)
    gone()
    assert link(name) is None
    assert len(os.listdir("/proc/self/fd")) == before
    pairs.begin_removal(one)()


def test_a_pair_is_removed_where_no_thread_can_be_made(netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    one = call(netns())
    with Namespace.open(one.netns) as namespace, Netlink() as host:
        name = pairs.create(host, namespace, one)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pairs, "start_new_thread", refuse)
    gone = pairs.begin_removal(one)
    assert link(name) is None
    gone()


def test_the_removal_of_a_foreign_link_fails_where_somebody_waits(netns: MakeNetns) -> None:
    one = call(netns())
    command("ip", "link", "add", pairs.host_name(one), "type", "bridge")
    gone = pairs.begin_removal(one)
    with pytest.raises(Error, match="not this attachment's"):
        gone()
    assert link(pairs.host_name(one)) is not None
