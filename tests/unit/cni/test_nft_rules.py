"""The elements that rules are made of, their comments, and the text of chains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Attachment
from ocirt_cni.nft import base, owners, sets
from ocirt_cni.nft.rules import ALL, PLAIN, Port, Rules
from ocirt_cni.nft.wire import comment_of

_ONE = Attachment("net", "c1", "eth0")


def _rules(*ports: Port) -> Rules:
    made = Rules(_ONE, "portmap")
    for port in ports:
        made.publish(port)
    return made


def _texts(rules: Rules) -> set[str]:
    return {f"{one.set.name} {one}" for one in rules.elements()}


def test_masquerade() -> None:
    rules = Rules(_ONE, "bridge")
    rules.masquerade([Prefix.parse("10.1.2.3/16"), Prefix.parse("fd00::3/64")])
    assert _texts(rules) == {"masqueraded4 10.1.2.3", "masqueraded6 fd00::3"}
    assert {one.comment for one in rules.elements()} == {"net c1 eth0"}
    assert rules.chains() == {
        "chain masquerade-10.1.0.0_16": "masquerade-10.1.0.0/16",
        "chain masquerade-fd00___64": "masquerade-fd00__/64",
    }


def test_an_address_that_is_a_network_has_its_chain_in_a_map() -> None:
    """Such may be as many as containers: no packet is compared with all of them."""
    four = Prefix.parse("10.1.2.3/32")
    rules = _rules(Port("tcp", None, 8080, four, 80))
    rules.masquerade([four])
    assert _texts(rules) == {
        "ports4 tcp . 8080 : 10.1.2.3 . 80",
        "hairpin4 10.1.2.3 . tcp . 80 : jump hairpin-10.1.2.3/32",
        "masquerade4 10.1.2.3 : jump masquerade-10.1.2.3/32",
    }
    assert [base.above(name) for name in rules.chains().values()] == ["", ""]
    assert "networks" not in base.chain("masquerade-10.1.2.3/32")


def test_ports() -> None:
    four, six = Prefix.parse("10.1.2.3/16"), Prefix.parse("fd00::3/64")
    rules = _rules(
        Port("tcp", None, 8080, four, 80),
        Port("tcp", None, 8081, four, 80),
        Port("udp", Address.parse("192.0.2.1"), 53, four, 5353, PLAIN),
        Port("sctp", None, 9, six, 10, ALL),
    )
    assert _texts(rules) == {
        "ports4 tcp . 8080 : 10.1.2.3 . 80",
        "ports4 tcp . 8081 : 10.1.2.3 . 80",
        "hairpinned4 10.1.2.3 . tcp . 80",
        "host_ports4 192.0.2.1 . udp . 53 : 10.1.2.3 . 5353",
        "ports6 sctp . 9 : fd00::3 . 10",
        "hairpin6 fd00::3 . sctp . 10 : jump hairpin-all",
    }
    assert list(rules.chains().values()) == ["hairpin-10.1.0.0/16", "hairpin-all"]
    assert [str(one) for one in rules.ports][2:] == ["udp 192.0.2.1:53 -> 10.1.2.3:5353", "sctp *:9 -> [fd00::3]:10"]


def test_conditions_are_rules_in_a_chain_of_the_attachment() -> None:
    rules = _rules(Port("tcp", Address.parse("192.0.2.1"), 8080, Prefix.parse("10.1.2.3/16"), 80, PLAIN))
    rules.conditions = {4: "ip saddr != 10.0.0.0/8", 6: ""}
    (element,) = rules.elements()
    assert element.set is sets.CONDITIONAL[4]
    assert base.is_own(element.chain)
    assert rules.commands(element.chain).splitlines()[-1] == (
        f"add rule inet ocirt {element.chain} meta nfproto ipv4 meta l4proto tcp th dport 8080 ip daddr 192.0.2.1"
        ' ip saddr != 10.0.0.0/8 dnat ip to 10.1.2.3:80 comment "net c1 eth0"'
    )


def test_chains_say_what_is_left_alone() -> None:
    assert base.chain("masquerade-10.1.0.0/16").splitlines()[2:] == [
        "add rule inet ocirt masquerade-10.1.0.0/16 ip daddr 10.1.0.0/16 return",
        "add rule inet ocirt masquerade-10.1.0.0/16 ip daddr 224.0.0.0/4 return",
        "add rule inet ocirt masquerade-10.1.0.0/16 ip daddr 255.255.255.255 return",
        "add rule inet ocirt masquerade-10.1.0.0/16 masquerade",
        'add rule inet ocirt networks ip saddr 10.1.0.0/16 jump masquerade-10.1.0.0/16 comment "masquerade-10.1.0.0/16"',
    ]
    assert base.chain("hairpin-fd00__/64").splitlines()[2:] == [
        "add rule inet ocirt hairpin-fd00__/64 ip6 saddr fd00::/64 masquerade",
        'add rule inet ocirt hairpins ip6 daddr fd00::/64 jump hairpin-fd00__/64 comment "hairpin-fd00__/64"',
    ]


def test_a_record_says_all() -> None:
    rules = _rules(Port("udp", Address.parse("::1"), 53, Prefix.parse("fd00::3/64"), 5353, ALL))
    rules.masquerade([Prefix.parse("10.1.2.3/16")])
    rules.admit("cni0")
    rules.route_localnet("cni0")
    rules.forbid_spoofing("veth1", "02:00:00:00:00:0A")
    rules.isolate("cni0", within=True)
    rules.keep_apart("veth1")
    rules.ask("CNI-ADMIN")
    rules.conditions = {4: "tcp sport 1"}
    read = Rules.parse(rules.document())
    assert read.document() == rules.document()
    assert read.elements() == rules.elements()
    assert read.shared() == rules.shared()
    assert read.claims() == rules.claims()
    assert read.name == rules.name


_PORTS = st.integers(1, 65535)


@given(
    st.sampled_from(sorted(sets.PROTOCOLS)),
    st.ip_addresses(v=4).map(str),
    _PORTS,
    st.ip_addresses(network="2000::/3").map(str),
    _PORTS,
)
def test_fields_survive_the_kernels_form(protocol: str, four: str, port: int, six: str, inner: int) -> None:
    whole = sets.Set("all", ("protocol", "ip4", "port", "device", "mac"), ("ip6", "port"))
    made = whole.element(
        [protocol, Address.parse(four), port, "veth0123456789a", "02:00:00:00:00:01"], [Address.parse(six), inner]
    )
    assert made.fields == [protocol, four, str(port), "veth0123456789a", "02:00:00:00:00:01"]
    assert len(made.key) == 4 + 4 + 4 + 16 + 8
    assert str(made).endswith(f" : {Address.parse(six)} . {inner}")
    assert base.element(made).startswith("add element inet ocirt all { ")


_NAMES = st.text(st.sampled_from("abcXYZ019._-"), min_size=1, max_size=300)


@given(_NAMES, _NAMES, st.text(st.characters(exclude_characters=" /:\0", codec="utf-8"), min_size=1, max_size=15))
def test_comments_are_short_and_cannot_be_left(network: str, container: str, ifname: str) -> None:
    attachment = Attachment(network, container, ifname)
    text = owners.comment(attachment)
    assert len(text.encode()) <= 120
    assert '"' not in text
    assert "\\" not in text
    assert "\n" not in text
    assert owners.is_of(text, network)
    assert not owners.is_of(text, f"{network}x")


def test_different_attachments_have_different_comments() -> None:
    found = {owners.comment(Attachment("n", "c" * 200, ifname)) for ifname in ("eth0", "eth1", 'e"', "e\\")}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("data", "comment"),
    [
        (b"", ""),
        (b"\0", ""),
        (b"\0\4net\0", "net"),
        (b"\1\2xx\0\4net\0", "net"),
        (b"\1\xffxx", ""),
        (b"\0\xffab", "ab"),
    ],
)
def test_comments_within_userdata(data: bytes, comment: str) -> None:
    assert comment_of(data) == comment
