"""A DHCP client's states, without a network and without waiting."""

from __future__ import annotations

from random import Random

import pytest

from ocirt_cni.addresses import Address
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_client import (
    BOUND,
    FAILED,
    LOST,
    REBINDING,
    RENEWING,
    REQUESTING,
    SELECTING,
    Client,
    Lease,
    Outgoing,
    Timing,
)
from ocirt_cni.ipam.dhcp_message import ACK, DISCOVER, NAK, OFFER, RELEASE, REQUEST, Message

MAC, SERVER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SERVER, OURS, OTHER = (Address.parse(text) for text in ("10.1.0.1", "10.1.0.50", "10.1.0.51"))
CLIENT_ID = b"\0c1/net/eth0"


def seconds(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Scene:
    """A client, a clock, and a server that answers when it is told to."""

    def __init__(self, timing: Timing | None = None, *, broadcast: bool = False) -> None:
        self.now = 1000.0
        self.client = Client(
            MAC, {dhcp.CLIENT_ID: CLIENT_ID, dhcp.PARAMETER_LIST: b"\1\3"}, Random(1), timing, broadcast=broadcast
        )

    def sent(self) -> list[Outgoing]:
        found, self.client.outgoing = self.client.outgoing, []
        return found

    def one(self) -> Outgoing:
        found = self.sent()
        assert len(found) == 1
        return found[0]

    def answer(self, to: Outgoing, kind: int, address: Address = OURS, options: dict[int, bytes] | None = None) -> None:
        lease = {dhcp.LEASE_TIME: seconds(3600)} if kind in (OFFER, ACK) else {}
        message = Message(kind, to.message.xid, MAC, {dhcp.SERVER_ID: SERVER.packed, **lease, **(options or {})}, yours=address)
        self.client.receive(message, SERVER_MAC, self.now)

    def until_deadline(self) -> None:
        assert self.client.deadline is not None
        assert self.client.deadline >= self.now
        self.now = self.client.deadline
        self.client.tick(self.now)

    def bind(self, options: dict[int, bytes] | None = None) -> None:
        self.client.start(self.now)
        self.answer(self.one(), OFFER)
        self.answer(self.one(), ACK, options=options)
        assert self.client.state == BOUND


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_lease(scene: Scene) -> None:
    scene.client.start(scene.now)
    discover = scene.one()
    assert (discover.source, discover.destination, discover.mac) == (dhcp.ANY, dhcp.EVERYBODY, b"")
    assert discover.message.kind == DISCOVER
    assert discover.message.options == {dhcp.CLIENT_ID: CLIENT_ID, dhcp.PARAMETER_LIST: b"\1\3"}
    scene.answer(discover, OFFER)
    request = scene.one()
    assert request.message.kind == REQUEST
    assert request.message.xid == discover.message.xid
    assert request.message.options[dhcp.REQUESTED_ADDRESS] == OURS.packed
    assert request.message.options[dhcp.SERVER_ID] == SERVER.packed
    scene.answer(request, ACK, options={dhcp.SUBNET_MASK: b"\xff\xff\xff\0"})
    assert scene.client.state == BOUND
    assert not scene.client.listens
    lease = scene.client.lease
    assert lease is not None
    assert (str(lease.prefix), lease.server, lease.mac) == ("10.1.0.50/24", SERVER, SERVER_MAC)
    assert (lease.renewal, lease.rebinding, lease.expiry) == (scene.now + 1800, scene.now + 3150, scene.now + 3600)
    assert scene.client.deadline == lease.renewal


def test_nobody_answers(scene: Scene) -> None:
    """Pauses grow, and there is an end."""
    scene.client.start(scene.now)
    moments = [scene.now]
    while scene.client.state == SELECTING:
        assert all(each.message.kind == DISCOVER for each in scene.sent())
        scene.until_deadline()
        moments.append(scene.now)
    assert scene.client.state == FAILED
    assert scene.client.deadline is None
    assert moments[-1] - moments[0] == 208
    pauses = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    assert len(pauses) < 12
    for number, pause in enumerate(pauses[:6]):
        assert 0.75 * 2**number <= pause <= 1.25 * 2**number
    assert max(pauses) <= 62 * 1.25


def test_a_server_that_offers_and_is_silent_then(scene: Scene) -> None:
    scene.client.start(scene.now)
    scene.answer(scene.one(), OFFER)
    kinds = [each.message.kind for each in scene.sent()]
    while scene.client.state == REQUESTING:
        scene.until_deadline()
        kinds += [each.message.kind for each in scene.sent()]
    assert scene.client.state == SELECTING
    assert kinds == [REQUEST, REQUEST, REQUEST, REQUEST, DISCOVER]
    assert scene.now == 1010


def test_a_server_that_takes_its_offer_back(scene: Scene) -> None:
    scene.client.start(scene.now)
    discover = scene.one()
    scene.answer(discover, OFFER)
    scene.answer(scene.one(), NAK, options={dhcp.MESSAGE: b"no more"})
    assert scene.sent() == [], "not at once, or two that are quick would fill the network"
    scene.until_deadline()
    again = scene.one()
    assert again.message.kind == DISCOVER
    assert again.message.xid != discover.message.xid
    assert scene.client.said == "no more"


def test_the_clock_of_a_refusing_server_is_not_endless(scene: Scene) -> None:
    scene.client.start(scene.now)
    for _ in range(1000):
        if scene.client.state == FAILED:
            break
        for one in scene.sent():
            scene.answer(one, OFFER if one.message.kind == DISCOVER else NAK)
        if not scene.client.outgoing and scene.client.deadline is not None:
            scene.until_deadline()
    assert scene.client.state == FAILED
    assert scene.now == 1000 + 208


@pytest.mark.parametrize(
    ("change", "address"),
    [
        ({"xid": 5}, OURS),
        ({"mac": SERVER_MAC}, OURS),
        ({"kind": ACK}, OURS),
        ({"kind": NAK}, OURS),
        ({}, dhcp.ANY),
        ({"options": {}}, OURS),
    ],
)
def test_offers_that_are_not_for_us(scene: Scene, change: dict[str, object], address: Address) -> None:
    scene.client.start(scene.now)
    message = Message(OFFER, scene.one().message.xid, MAC, {dhcp.SERVER_ID: SERVER.packed}, yours=address)
    for name, value in change.items():
        setattr(message, name, value)
    scene.client.receive(message, SERVER_MAC, scene.now)
    assert scene.client.state == SELECTING
    assert scene.sent() == []


def test_a_renewal_asks_the_server_itself(scene: Scene) -> None:
    scene.bind()
    first = scene.client.lease
    assert first is not None
    scene.until_deadline()
    request = scene.one()
    assert scene.client.state == RENEWING
    assert scene.now == first.renewal
    assert (request.source, request.destination, request.mac) == (OURS, SERVER, SERVER_MAC)
    assert request.message.client == OURS
    assert dhcp.REQUESTED_ADDRESS not in request.message.options, "RFC 2131, table 5"
    assert dhcp.SERVER_ID not in request.message.options
    scene.now += 0.5
    scene.answer(request, ACK)
    assert scene.client.state == BOUND
    assert scene.client.lease is not None
    assert scene.client.lease.expiry == first.renewal + 3600, "from when it was asked for"


def test_then_any_server_then_it_is_lost(scene: Scene) -> None:
    scene.bind()
    lease = scene.client.lease
    assert lease is not None
    states = []
    while scene.client.state != LOST:
        scene.until_deadline()
        for one in scene.sent():
            states.append((scene.client.state, one.destination, one.mac))
            if scene.client.state == REBINDING:
                assert scene.now >= lease.rebinding
    assert scene.now == lease.expiry
    assert states[0] == (RENEWING, SERVER, SERVER_MAC)
    assert states[-1] == (REBINDING, dhcp.EVERYBODY, b"")
    assert len(states) < 20
    assert scene.client.deadline is None


def test_another_server_prolongs_it(scene: Scene) -> None:
    scene.bind()
    while scene.client.state != REBINDING:
        scene.until_deadline()
        request = scene.one()
    scene.answer(request, ACK, options={dhcp.SERVER_ID: OTHER.packed})
    assert scene.client.state == BOUND
    assert scene.client.lease is not None
    assert scene.client.lease.server == OTHER


def test_an_ack_with_another_address_prolongs_nothing(scene: Scene) -> None:
    scene.bind()
    scene.until_deadline()
    scene.answer(scene.one(), ACK, OTHER)
    assert scene.client.state == RENEWING


def test_a_lease_that_is_taken_back_is_asked_for_again(scene: Scene) -> None:
    scene.bind()
    scene.until_deadline()
    scene.answer(scene.one(), NAK)
    discover = scene.one()
    assert discover.message.kind == DISCOVER
    assert discover.message.options[dhcp.REQUESTED_ADDRESS] == OURS.packed
    scene.answer(discover, OFFER, OTHER)
    assert scene.client.state == SELECTING, "the address of a container does not change"
    scene.answer(discover, OFFER)
    scene.answer(scene.one(), ACK)
    assert scene.client.state == BOUND


def test_and_lost_if_it_is_not_given_again(scene: Scene) -> None:
    scene.bind()
    scene.until_deadline()
    began = scene.now
    scene.answer(scene.one(), NAK)
    while scene.client.state == SELECTING:
        for one in scene.sent():
            scene.answer(one, OFFER, OTHER)
        scene.until_deadline()
    assert scene.client.state == LOST
    assert scene.now - began == 10


def test_times_of_the_server(scene: Scene) -> None:
    scene.bind(options={dhcp.RENEWAL_TIME: seconds(100), dhcp.REBINDING_TIME: seconds(200), dhcp.LEASE_TIME: seconds(300)})
    lease = scene.client.lease
    assert lease is not None
    assert [moment - scene.now for moment in (lease.renewal, lease.rebinding, lease.expiry)] == [100, 200, 300]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({dhcp.LEASE_TIME: b""}, (1800, 3150, 3600)),
        ({dhcp.LEASE_TIME: seconds(0)}, (1800, 3150, 3600)),
        ({dhcp.LEASE_TIME: seconds(10)}, (5, 8.75, 10)),
        ({dhcp.LEASE_TIME: seconds(10), dhcp.RENEWAL_TIME: seconds(500), dhcp.REBINDING_TIME: seconds(400)}, (10, 10, 10)),
        ({dhcp.LEASE_TIME: seconds(0xFFFFFFFF)}, (float("inf"),) * 3),
    ],
)
def test_times_that_make_no_sense(scene: Scene, options: dict[int, bytes], expected: tuple[float, ...]) -> None:
    scene.bind(options=options)
    lease = scene.client.lease
    assert lease is not None
    assert tuple(moment - scene.now for moment in (lease.renewal, lease.rebinding, lease.expiry)) == expected
    if expected[0] == float("inf"):
        assert scene.client.deadline is None


def test_release(scene: Scene) -> None:
    scene.bind()
    scene.client.release()
    release = scene.one()
    assert release.message.kind == RELEASE
    assert (release.source, release.destination, release.mac) == (OURS, SERVER, SERVER_MAC)
    assert release.message.client == OURS
    assert release.message.options == {dhcp.SERVER_ID: SERVER.packed, dhcp.CLIENT_ID: CLIENT_ID}
    scene.client.release()
    assert scene.sent() == []


def test_nothing_is_given_back_that_was_not_got(scene: Scene) -> None:
    scene.client.start(scene.now)
    scene.sent()
    scene.client.release()
    assert scene.sent() == []
    assert scene.client.state == FAILED


def test_an_ack_that_does_not_say_who_sent_it(scene: Scene) -> None:
    scene.client.start(scene.now)
    scene.answer(scene.one(), OFFER)
    message = Message(ACK, scene.one().message.xid, MAC, {}, yours=OURS)
    scene.client.receive(message, SERVER_MAC, scene.now)
    assert scene.client.lease is not None
    assert scene.client.lease.server == SERVER


def test_broadcast() -> None:
    for broadcast in (False, True):
        scene = Scene(broadcast=broadcast)
        scene.client.start(scene.now)
        assert scene.one().message.broadcast == broadcast


@pytest.mark.parametrize(("after", "state"), [(0, BOUND), (2000, RENEWING), (3200, REBINDING), (4000, LOST)])
def test_another_life_goes_on_with_a_lease(scene: Scene, after: int, state: str) -> None:
    scene.bind()
    lease = scene.client.lease
    assert lease is not None
    other = Scene()
    other.now = scene.now + after
    other.client.resume(Lease(lease.ack, lease.mac, lease.since), other.now)
    if state == BOUND:
        assert other.client.deadline == lease.renewal
    else:
        other.until_deadline()
        assert other.client.state == state


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("ffffff00", "10.1.0.50/24"), ("00000000", "10.1.0.50/0"), ("ffffffff", "10.1.0.50/32"), ("ff00ff00", "None"), ("", "None")],
)
def test_masks(mask: str, expected: str) -> None:
    ack = Message(ACK, 1, MAC, {dhcp.SUBNET_MASK: bytes.fromhex(mask)}, yours=OURS)
    assert str(Lease(ack, SERVER_MAC, 0).prefix) == expected
