"""portmap's conditions, and who has a port, without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.plugins import conditions, host_ports


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["-s", "192.0.2.7"], "ip saddr 192.0.2.7/32"),
        (["!", "-d", "192.0.2.9/24"], "ip daddr != 192.0.2.0/24"),
        (["-i", "eth+", "!", "--source", "10.0.0.0/8"], 'iifname "eth*" ip saddr != 10.0.0.0/8'),
        (["ip", "saddr", "!=", "{ 10.0.0.0/8, 192.0.2.1 }"], "ip saddr != { 10.0.0.0/8, 192.0.2.1 }"),
    ],
)
def test_conditions(words: list[str], text: str) -> None:
    assert conditions.parse({"conditionsV4": words}, "conditionsV4", 4) == text
    assert conditions.parse({}, "conditionsV4", 4) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-s 1.2.3.4", "/conditionsV4: this is not a list of strings"),
        (["-s", 4], "/conditionsV4: this is not a list of strings"),
        (["-s"], "/conditionsV4/0: '' is not an IP address"),
        (["-s", "host"], "/conditionsV4/1: 'host' is not an IP address"),
        (["!"], "/conditionsV4/0: '' is not understood"),
        (["-s", "10.0.0.1", "!"], "'' is not understood"),
        (["-m", "owner"], "/conditionsV4/0: '-m' is not understood"),
        (["-d", "fd00::/8"], "/conditionsV4/1: fd00::/8 is no address of IPv4"),
        (["-i", 'a"b'], "cannot be the name of an interface"),
        (["ip saddr 1.2.3.4 drop"], "is no condition of nftables"),
        (["ip saddr 1.2.3.4\ndelete table inet ocirt"], "is no condition of nftables"),
        (["#"], "is no condition of nftables"),
    ],
)
def test_refused_conditions(words: object, message: str) -> None:
    with pytest.raises(Error) as caught:
        conditions.parse({"conditionsV4": words}, "conditionsV4", 4)
    assert message in str(caught.value)
    assert caught.value.code in (INVALID_CONFIG, 4)


_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_sockets_at_a_port(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        f"{_HEAD}   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100\n"
        "   1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100\n"
        "   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100\n"
    )
    assert host_ports._inodes(str(table), "tcp", 8080) == ["111"]
    assert host_ports._inodes(str(table), "udp", 8080) == ["111", "222"]
    assert host_ports._inodes(str(tmp_path / "none"), "tcp", 8080) == []
