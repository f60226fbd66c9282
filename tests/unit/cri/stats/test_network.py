"""/proc/PID/net/dev as text."""

from __future__ import annotations

from pathlib import Path

from ocirt_cri.stats import network
from ocirt_cri.stats.network import Interface

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 123456789    22    3    4    0     0          0         0 987654321      33    5    6    0     0       0          0
 net.1:12        1    0    0    0     0          0         0      7       1    0    0    0     0       0          0
"""


def test_interfaces() -> None:
    assert network.parse(TEXT) == [
        Interface("eth0", 123456789, 3, 987654321, 5, 22, 33, 4, 6),
        Interface("net.1", 12, 0, 7, 0, 1, 1, 0, 0),
    ]


def test_what_is_no_such_file() -> None:
    assert network.parse("") == network.parse("a: b\n") == network.parse("eth0: 1 2 3\n") == []


def test_by_process(tmp_path: Path) -> None:
    (tmp_path / "7/net").mkdir(parents=True)
    (tmp_path / "7/net/dev").write_text(TEXT)
    assert len(network.of_process(7, str(tmp_path))) == 2
