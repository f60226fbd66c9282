"""Aliases and names of links: whose they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.call import Attachment, Call
from ocirt_cni.plugins import host_device, owners

NAMES = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,200}\Z")
IFNAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="/:"), min_size=1).filter(
    lambda text: len(text.encode()) < 16 and text not in (".", "..")
)


def call(network: str = "net", container: str = "c1", ifname: str = "eth0", **conf: Any) -> Call:
    """A DEL."""
    whole = {"cniVersion": "1.1.0", "name": network, "type": "x", **conf}
    return Call("DEL", whole, container=container, ifname=ifname)


def collect(network: str, *valid: tuple[str, str], ipam: dict[str, str] | None = None) -> Call:
    """A GC."""
    attachments = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
    return Call("GC", {"cniVersion": "1.1.0", "name": network, "cni.dev/valid-attachments": attachments, "ipam": ipam})


def test_as_a_person_reads_it() -> None:
    assert owners.owner(call()) == "ocirt net c1 eth0"
    assert owners.owner(call(), Attachment("net", "c2", "eth1")) == "ocirt net c2 eth1"


@given(NAMES, NAMES, IFNAMES, st.sampled_from([owners.LONGEST, 180]))
def test_the_length_of_an_alias(network: str, container: str, ifname: str, longest: int) -> None:
    one = call(network, container, ifname)
    found = owners.owner(one, longest=longest)
    assert len(found.encode()) <= longest
    assert found.startswith(owners.prefix(one))
    assert len(owners.name("bwp", found).encode()) == 15


@given(st.lists(st.tuples(NAMES, IFNAMES), unique=True, min_size=1, max_size=6), NAMES, st.data())
def test_stale(attachments: list[tuple[str, str]], network: str, data: st.DataObject) -> None:
    valid = data.draw(st.sets(st.sampled_from(attachments)))
    aliases = {owners.owner(call(network, *one)): one for one in attachments}
    assert len(aliases) == len(attachments)
    stale = owners.stale(collect(network, *valid), aliases)
    assert {aliases[one] for one in stale} == set(attachments) - valid
    assert owners.stale(collect(f"{network}2", *valid), aliases) == set()


def test_networks_of_one_name_with_addresses_in_two_folders() -> None:
    ipam = {"type": "host-local", "dataDir": "/somewhere"}
    found = [owners.owner(call(ipam=ipam)), owners.owner(call()), "ocirt network c1 eth0", "somebody's", ""]
    assert owners.stale(collect("net", ipam=ipam), found) == {found[0]}
    assert owners.stale(collect("net"), found) == {found[1]}
    assert owners.anywhere(found[0]) == found[1]


@pytest.mark.parametrize("text", ["", "somebody's", "ocirt net c1 e@h0", "ocirt net c1 eth0"])
def test_an_alias_without_a_folder_stays(text: str) -> None:
    assert owners.anywhere(text) == text


class Named:
    """A link with an alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias


@given(IFNAMES, st.booleans(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80))
def test_what_a_moved_link_was(name: str, up: bool, alias: str) -> None:
    owner = owners.owner(call(), longest=180)
    text = str(host_device._Note(owner, name, alias, up=up))
    assert len(text.encode()) <= owners.LONGEST
    read = host_device._Note.read(Named(text))  # type: ignore[arg-type]
    assert read is not None
    assert (read.owner, read.name, read.up) == (owner, name, up)
    assert read.alias in (alias, "")
    assert read.alias == alias or len(alias.encode()) > 40 or alias.startswith("ocirt ")


@pytest.mark.parametrize("alias", ["", "x", "ocirt net c1 eth0", "ocirt net c1 eth0 was ", "mine was x up", "ocirt a was b off"])
def test_no_note(alias: str) -> None:
    assert host_device._Note.read(Named(alias)) is None  # type: ignore[arg-type]
