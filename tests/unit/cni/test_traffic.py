"""Rules and queueing disciplines as bytes: what is asked for is what is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_cni.addresses import Prefix
from ocirt_cni.netlink import qdiscs, rules

RATES = st.integers(1, (1 << 61) - 1)
BURSTS = st.integers(1, (1 << 32) - 1)


@given(st.integers(1, 1 << 30), RATES, BURSTS)
def test_a_token_bucket(index: int, rate: int, burst: int) -> None:
    request = qdiscs.shape(index, rate, burst)
    found = qdiscs.Qdisc(request.contents)
    assert (found.index, found.kind, found.handle, found.parent) == (index, "tbf", qdiscs.HANDLE, 0xFFFFFFFF)
    assert found.rate == rate
    assert found.limit == qdiscs.room(rate, burst) <= 0xFFFFFFFF


@given(BURSTS)
def test_a_burst_has_room(burst: int) -> None:
    assert qdiscs.room(1, burst) == burst
    assert qdiscs.room(40, burst) == min(burst + 1, 0xFFFFFFFF), "25 ms of 40 bytes a second"


@given(st.integers(1, 1 << 30), st.integers(1, 1 << 30))
def test_a_redirection(index: int, to: int) -> None:
    assert qdiscs._targets(qdiscs.redirect(index, to).contents) == [to]


def test_what_others_have() -> None:
    found = qdiscs.Qdisc(qdiscs.take(7).contents)
    assert (found.index, found.kind, found.rate, found.limit) == (7, "ingress", 0, 0)


@pytest.mark.parametrize("source", ["10.1.0.2/32", "fd00::2/128", "10.1.0.0/16"])
@given(table=st.integers(1, (1 << 32) - 1))
def test_a_rule(source: str, table: int) -> None:
    for request in (rules.add(Prefix.parse(source), table), rules.delete(Prefix.parse(source), table)):
        found = rules.Rule(request.contents)
        assert (str(found.source), found.table, found.protocol) == (source, table, rules.PROTOCOL)
