"""What the compiler of nft's language leaves to libnftables: all that it does not know."""

from __future__ import annotations

import pytest

from ocirt_cni.nft import base, compiler


@pytest.mark.parametrize(
    "rule",
    [
        "ip saddr 10.0.0.1 ip6 daddr ::1 drop",
        "ip saddr != 10.0.0.1 drop",
        "ip saddr 0.0.0.0/0 drop",
        "ip saddr { 10.0.0.1, 10.0.0.2 } drop",
        'iifname "eth0" drop',
        "meta nfproto ipv5 drop",
        "meta l4proto tcp drop",
        "meta mark set 1",
        "meta mark & 1 != 0 drop",
        "ct state new drop",
        "iifname . oifname drop",
        "drop twice",
        "jump",
        "dnat ip to ip daddr",
        "dnat ip to 10.0.0.1",
        'drop comment "a" accept',
        'drop comment "a" comment "b"',
    ],
)
def test_other_rules(rule: str) -> None:
    with pytest.raises(compiler.NotUnderstoodError):
        compiler.compiled(f"add rule inet ocirt c {rule}\n")


@pytest.mark.parametrize(
    "line",
    [
        'add element inet ocirt admitted { "eth0" }',
        "add table inet ocirt",
        "create table inet ocirt { flags dormant; }",
        "create table arp ocirt",
        "delete table inet ocirt",
        "flush ruleset",
        "list ruleset",
        "add chain inet ocirt c { type filter hook ingress priority filter; policy accept; }",
        "add chain inet ocirt c { type filter hook forward priority mangle; policy accept; }",
        "add chain inet ocirt c { type filter hook forward priority filter; policy drop; }",
        "table inet ocirt {\nset s { type mark; }\n}",
        "table inet ocirt {\nset s { type ifname; flags interval; }\n}",
    ],
)
def test_other_commands(line: str) -> None:
    with pytest.raises(compiler.NotUnderstoodError):
        compiler.compiled(line)


def test_all_of_the_tables() -> None:
    for family in base.FAMILIES:
        assert compiler.compiled(base.table(family))
