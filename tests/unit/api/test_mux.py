"""The channels of NRI: what goes in on one side comes out on the other, in pieces of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_api.nri.mux import LARGEST, PLUGIN, RUNTIME, Channels, split
from ocirt_api.ttrpc import Client, ProtocolError, RequestReceived, Server


def joined(found: list[tuple[int, bytes]], channel: int) -> bytes:
    return b"".join(data for which, data in found if which == channel)


@given(sent=st.lists(st.tuples(st.sampled_from([PLUGIN, RUNTIME]), st.binary(max_size=50))), sizes=st.lists(st.integers(1, 30)))
def test_each_channel_gets_its_bytes(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    wire = b"".join(split(channel, data) for channel, data in sent)
    channels, found, at = Channels(), [], 0
    for size in [*sizes, len(wire)]:
        found += channels.receive(wire[at : at + size])
        at += size
    channels.end()
    for channel in (PLUGIN, RUNTIME):
        assert joined(found, channel) == joined(sent, channel)


def test_calls_in_both_directions_over_one_connection() -> None:
    runtime, plugin = Channels(), Channels()
    calls = {PLUGIN: (Client(), Server()), RUNTIME: (Client(), Server())}
    for receiver, channel in ((plugin, PLUGIN), (runtime, RUNTIME)):
        client, server = calls[channel]
        _, sent = client.request("nri.pkg.api.v1alpha1.Plugin", "Configure")
        [(where, data)] = receiver.receive(split(channel, sent))
        assert where == channel
        assert isinstance(server.receive(data)[0], RequestReceived)


def test_a_channel_that_nobody_has_is_dropped() -> None:
    assert Channels().receive(split(7, b"abc") + split(PLUGIN, b"d")) == [(PLUGIN, b"d")]


@pytest.mark.parametrize(("size", "pieces"), [(0, [0]), (4096, [4096]), (4097, [4096, 1]), (LARGEST, [4096, LARGEST - 4096])])
def test_a_frame_in_pieces_that_a_reader_in_go_takes(size: int, pieces: list[int]) -> None:
    wire = split(PLUGIN, bytes(size))
    found, at = [], 0
    while at < len(wire):
        found.append(int.from_bytes(wire[at + 4 : at + 8], "big"))
        at += 8 + found[-1]
    assert found == pieces
    assert len(joined(Channels().receive(wire), PLUGIN)) == size


def test_a_piece_that_no_sender_makes_ends_the_connection() -> None:
    with pytest.raises(ProtocolError, match="4194315 bytes for channel 1: it has at most 4194314"):
        Channels().receive((1).to_bytes(4, "big") + (LARGEST + 1).to_bytes(4, "big"))


@pytest.mark.parametrize("sent", [b"\0", split(PLUGIN, b"abc")[:-1]])
def test_a_connection_that_ends_within_a_piece(sent: bytes) -> None:
    channels = Channels()
    channels.receive(sent)
    with pytest.raises(ProtocolError, match="within a piece"):
        channels.end()
