"""One side of the connection: calls both ways in pieces of any size, and what is no connection of NRI at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_api import status
from ocirt_api.nri.mux import PLUGIN, RUNTIME
from ocirt_api.ttrpc import LIMIT, ProtocolError, Refused, RequestReceived, ResponseReceived
from ocirt_cri.nri.link import Link


def pair() -> tuple[Link, Link]:
    return Link(serves=RUNTIME, calls=PLUGIN), Link(serves=PLUGIN, calls=RUNTIME)


@given(
    calls=st.lists(st.tuples(st.booleans(), st.text(max_size=8), st.binary(max_size=40)), max_size=8),
    sizes=st.lists(st.integers(1, 50)),
)
def test_calls_both_ways(calls: list[tuple[bool, str, bytes]], sizes: list[int]) -> None:
    """Each arrives as it was made, and so does its answer, however the bytes are cut."""
    sides = pair()
    wires = [b"", b""]
    made: list[list[tuple[int, str, bytes]]] = [[], []]
    for by_plugin, method, payload in calls:
        stream, sent = sides[by_plugin].request("service", method, payload, timeout=5)
        wires[by_plugin] += sent
        made[by_plugin].append((stream, method, payload))
    for sender in (0, 1):
        receiver = sides[1 - sender]
        answers, at = b"", 0
        found: list[tuple[int, str, bytes]] = []
        for size in [*sizes, len(wires[sender]) + 1]:
            for event in receiver.receive(wires[sender][at : at + size]):
                assert isinstance(event, RequestReceived)
                found.append((event.stream, event.request.method, event.request.payload))
                answers += receiver.respond(event.stream, event.request.payload[::-1])
            at += size
        assert found == made[sender]
        for event, (stream, _, payload) in zip(sides[sender].receive(answers), made[sender], strict=True):
            assert isinstance(event, ResponseReceived)
            assert (event.stream, event.payload, event.status.code) == (stream, payload[::-1], status.OK)


@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_anything_else_is_a_protocol_error_or_is_refused(data: bytes, cut: int) -> None:
    link, _ = pair()
    for part in (data[:cut], data[cut:]):
        try:
            events = link.receive(part)
        except ProtocolError:
            return
        assert all(isinstance(event, RequestReceived | ResponseReceived | Refused) for event in events)


@given(data=st.data())
def test_a_byte_that_was_changed(data: st.DataObject) -> None:
    """Nothing but the errors that the caller knows."""
    runtime, plugin = pair()
    wire = bytearray(b"".join(plugin.request("service", f"m{number}", b"payload")[1] for number in range(3)))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        for event in runtime.receive(bytes(wire)):
            if isinstance(event, RequestReceived):
                runtime.respond(event.stream)
    except ProtocolError:
        pass


def test_an_answer_that_comes_too_late() -> None:
    """To a call whose number was used again: there is nobody to answer."""
    runtime, plugin = pair()
    sent = plugin.request("service", "method", b"payload")[1]
    first, second = runtime.receive(sent + sent)
    assert isinstance(first, RequestReceived)
    assert isinstance(second, Refused)
    assert runtime.respond(first.stream) == b""


def test_an_answer_that_is_too_large_is_a_failure() -> None:
    runtime, plugin = pair()
    _, sent = plugin.request("service", "method", b"")
    [event] = runtime.receive(sent)
    [answer] = plugin.receive(runtime.respond(event.stream, bytes(LIMIT + 1)))
    assert isinstance(answer, ResponseReceived)
    assert answer.status.code == status.RESOURCE_EXHAUSTED


def test_an_answer_that_nobody_waits_for() -> None:
    runtime, plugin = pair()
    stream, sent = plugin.request("service", "method", b"")
    [event] = runtime.receive(sent)
    plugin.forget(stream)
    assert plugin.receive(runtime.respond(event.stream)) == []


@pytest.mark.parametrize("number", [2, 1])
def test_a_call_with_a_wrong_number_is_refused(number: int) -> None:
    """With an answer on the channel of the side that serves."""
    from ocirt_api.nri.mux import split  # noqa: PLC0415
    from ocirt_api.ttrpc import Client  # noqa: PLC0415

    runtime, plugin = pair()
    client = Client()
    sent = bytearray(client.request("service", "method")[1])
    sent[4:8] = number.to_bytes(4, "big")
    events = runtime.receive(split(RUNTIME, bytes(sent)) * (3 - number))
    refused = events[-1]
    assert isinstance(refused, Refused)
    assert refused.answer[:4] == RUNTIME.to_bytes(4, "big")
    assert plugin.receive(refused.answer) == []  # it has not made that call
