"""A DHCP client without a socket and a clock: messages and moments in, messages and a state out (RFC 2131, section 4.4).

An address never changes under a container: when a server takes it back, the client asks for the same one again, and if it does
not get it, the lease is lost.
"""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random

SELECTING, REQUESTING, BOUND, RENEWING, REBINDING, LOST, FAILED = (
    "selecting", "requesting", "bound", "renewing", "rebinding", "lost", "failed",
)  # fmt: skip
_LEASE_TIME = 3600  # seconds, of a server that names none, as the reference has it
_FOREVER = 0xFFFFFFFF  # RFC 2131, section 3.3
_FIRST = 1.0  # seconds until a message is sent again
_APART = 60.0  # the least between two requests for a lease that is held (section 4.4.5), for leases of an hour


class Timing:
    """How long a client tries, in seconds. `answer`: until a request that a server does not answer is given up for a new search;
    `longest`: between two messages; `total`: in all.
    """

    __slots__ = ("answer", "longest", "total")

    def __init__(self, answer: float = 10.0, longest: float = 62.0, total: float = 208.0) -> None:
        self.answer = answer
        self.longest = longest
        self.total = total


class Lease:
    """What a server gave: the ACK; `server` its address, `mac` whence it came. The rest are moments; `since`: of the request."""

    __slots__ = ("ack", "expiry", "mac", "rebinding", "renewal", "server", "since")

    def __init__(self, ack: Message, mac: bytes, since: float) -> None:
        self.ack = ack
        self.mac = mac
        self.since = since
        self.server = next(iter(ack.addresses(dhcp.SERVER_ID)), dhcp.EVERYBODY)
        length = ack.number(dhcp.LEASE_TIME) or _LEASE_TIME
        if length == _FOREVER:
            self.renewal = self.rebinding = self.expiry = float("inf")
            return
        rebinding = min(ack.number(dhcp.REBINDING_TIME) or length * 7 / 8, length)
        self.expiry = since + length
        self.rebinding = since + rebinding
        self.renewal = since + min(ack.number(dhcp.RENEWAL_TIME) or length / 2, rebinding)

    @property
    def prefix(self) -> Prefix | None:
        """The address with the length of its network; None if the server named no mask, or one with holes."""
        masks = self.ack.addresses(dhcp.SUBNET_MASK)
        if not masks:
            return None
        length = int(masks[0]).bit_count()
        return Prefix(self.ack.yours, length) if int(masks[0]) == (1 << 32) - (1 << 32 - length) else None


class Outgoing:
    """A message to send: from and to which address; `mac` b"" for everybody on the link."""

    __slots__ = ("destination", "mac", "message", "source")

    def __init__(self, message: Message, source: Address, destination: Address, mac: bytes) -> None:
        self.message = message
        self.source = source
        self.destination = destination
        self.mac = mac


class Client:
    """One interface's client. `outgoing` is what it wants sent, `deadline` when it wants `tick` called (None: never)."""

    __slots__ = (
        "_began", "_broadcast", "_offer", "_pause", "_random", "_same", "_since", "_until", "_xid",
        "deadline", "lease", "mac", "options", "outgoing", "said", "state", "timing",
    )  # fmt: skip

    def __init__(
        self, mac: bytes, options: dict[int, bytes], random: Random, timing: Timing | None = None, *, broadcast: bool = False
    ) -> None:
        """`options` go into each DISCOVER and REQUEST; `broadcast`: servers should answer to everybody."""
        self.mac = mac
        self.timing = timing or Timing()
        self.state = FAILED
        self.lease: Lease | None = None
        self.outgoing: list[Outgoing] = []
        self.deadline: float | None = None
        self.said = ""  # by the last server that refused
        self.options = options
        self._random = random
        self._broadcast = broadcast
        self._xid = 0
        self._began = self._since = self._until = 0.0
        self._pause = _FIRST
        self._offer: Message | None = None
        self._same: Address | None = None  # the only address that will do

    @property
    def listens(self) -> bool:
        """Whether it waits for an answer."""
        return self.state in (SELECTING, REQUESTING, RENEWING, REBINDING)

    def start(self, now: float) -> None:
        """Look for a server."""
        self._until = now + self.timing.total
        self._search(now)

    def resume(self, lease: Lease, now: float) -> None:
        """Go on with a lease that another life of this process got."""
        self.lease = lease
        self._bind(now)

    def release(self) -> None:
        """Give the lease back: a message, which nobody answers."""
        lease = self.lease
        if lease is not None and self.state not in (LOST, FAILED):
            options = {dhcp.SERVER_ID: lease.server.packed}
            if dhcp.CLIENT_ID in self.options:
                options[dhcp.CLIENT_ID] = self.options[dhcp.CLIENT_ID]
            message = Message(dhcp.RELEASE, self._random.getrandbits(32), self.mac, options, client=lease.ack.yours)
            self.outgoing.append(Outgoing(message, lease.ack.yours, lease.server, lease.mac))
        self._end(FAILED)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.deadline is None or now < self.deadline:
            return
        if self.state in (BOUND, RENEWING, REBINDING):
            self._keep(now)
        elif now >= self._until:
            self._end(LOST if self._same is not None else FAILED)
        elif self.state == REQUESTING and now >= self._began + self.timing.answer:
            self._search(now)
        else:
            self._send(now)

    def receive(self, message: Message, mac: bytes, now: float) -> None:
        """A message of a server, which `mac` brought."""
        if not self.listens or message.xid != self._xid or message.mac != self.mac:
            return
        if self.state == SELECTING and message.kind == dhcp.OFFER:
            self._offered(message, now)
        elif self.state != SELECTING and message.kind == dhcp.ACK and message.yours != dhcp.ANY:
            if self._must_be() in (None, message.yours):
                message.options.setdefault(dhcp.SERVER_ID, self._server())
                self.lease = Lease(message, mac, self._since)
                self._bind(now)
        elif self.state != SELECTING and message.kind == dhcp.NAK:
            self._refused(message, now)

    def _must_be(self) -> Address | None:
        """The only address that an ACK may have now."""
        if self.state in (RENEWING, REBINDING) and self.lease is not None:
            return self.lease.ack.yours
        return self._same

    def _server(self) -> bytes:
        """Who is asked, for an ACK that does not say who sent it."""
        if self._offer is not None:
            return self._offer.options[dhcp.SERVER_ID]
        return self.lease.server.packed if self.lease is not None else dhcp.EVERYBODY.packed

    def _offered(self, message: Message, now: float) -> None:
        if message.yours == dhcp.ANY or not message.addresses(dhcp.SERVER_ID) or self._same not in (None, message.yours):
            return
        self._offer = message
        self._enter(REQUESTING, now)

    def _refused(self, message: Message, now: float) -> None:
        self.said = message.options.get(dhcp.MESSAGE, b"").decode(errors="replace")
        if self.state in (RENEWING, REBINDING) and self.lease is not None:
            self._same = self.lease.ack.yours
            self._until = min(now + self.timing.answer, self.lease.expiry)
            self._search(now)
        else:
            self._search(now, after=_FIRST)  # a server that refuses what it offers is not to be asked without a pause

    def _search(self, now: float, after: float = 0.0) -> None:
        self._offer = None
        self._xid = self._random.getrandbits(32)
        if not after:
            self._enter(SELECTING, now)
            return
        self.state = SELECTING
        self._began = now
        self._pause = _FIRST
        self.deadline = min(now + after, self._until)

    def _enter(self, state: str, now: float) -> None:
        self.state = state
        self._began = now
        self._pause = _FIRST
        self._send(now)

    def _send(self, now: float) -> None:
        """Send what the search is at, and plan to do so again, after a pause that grows (section 4.1)."""
        self._since = now
        if self.state == SELECTING:
            options = dict(self.options)
            if self._same is not None:
                options[dhcp.REQUESTED_ADDRESS] = self._same.packed
            self._put(dhcp.DISCOVER, options, now)
        elif self._offer is not None:
            chosen = {dhcp.REQUESTED_ADDRESS: self._offer.yours.packed, dhcp.SERVER_ID: self._offer.options[dhcp.SERVER_ID]}
            self._put(dhcp.REQUEST, {**self.options, **chosen}, now)
        again = now + self._pause * self._random.uniform(0.75, 1.25)
        self._pause = min(self._pause * 2, self.timing.longest)
        latest = self._began + self.timing.answer if self.state == REQUESTING else self._until
        self.deadline = min(again, self._until, latest)

    def _put(self, kind: int, options: dict[int, bytes], now: float) -> None:
        message = Message(kind, self._xid, self.mac, options, secs=int(now - self._began), broadcast=self._broadcast)
        self.outgoing.append(Outgoing(message, dhcp.ANY, dhcp.EVERYBODY, b""))

    def _bind(self, now: float) -> None:
        assert self.lease is not None
        self.state = BOUND
        self._same = self._offer = None
        self.deadline = None if self.lease.renewal == float("inf") else max(self.lease.renewal, now)

    def _hold(self, now: float, state: str) -> None:
        """Ask for the lease to be prolonged: its server, or with REBINDING any."""
        lease = self.lease
        assert lease is not None
        if self.state != state:
            self._xid = self._random.getrandbits(32)
            self._began = now
        self.state = state
        self._since = now
        secs = int(now - self._began)
        message = Message(dhcp.REQUEST, self._xid, self.mac, self.options, secs=secs, client=lease.ack.yours)
        renews = state == RENEWING
        destination = lease.server if renews else dhcp.EVERYBODY
        self.outgoing.append(Outgoing(message, lease.ack.yours, destination, lease.mac if renews else b""))
        end = lease.rebinding if renews else lease.expiry
        apart = min(_APART, (lease.expiry - lease.since) * _APART / _LEASE_TIME)
        self.deadline = min(end, now + max((end - now) / 2, apart))

    def _keep(self, now: float) -> None:
        assert self.lease is not None
        if now >= self.lease.expiry:
            self._end(LOST)
        elif now >= self.lease.rebinding:
            self._hold(now, REBINDING)
        else:
            self._hold(now, RENEWING)

    def _end(self, state: str) -> None:
        self.state = state
        self.deadline = None
