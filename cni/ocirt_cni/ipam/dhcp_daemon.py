"""The daemon of the plugin dhcp: gets leases, renews them, gives them back. One thread, which waits for all of them at once.

Its options are those of the reference's daemon. Its leases are on disk, so that it may be restarted while containers run; that it
ends gives none back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import selectors
import signal
import socket
import sys
import time
from random import SystemRandom

from ocirt_cni import jsonio
from ocirt_cni.call import ADD, CHECK, DEL, GC, STATUS, Attachment, Call
from ocirt_cni.errors import CHECK_FAILED, INTERNAL, TRY_AGAIN_LATER, UNSUPPORTED, Error
from ocirt_cni.ipam import dhcp_options
from ocirt_cni.ipam.dhcp import SOCKET
from ocirt_cni.ipam.dhcp_client import BOUND, FAILED, LOST, Client, Timing
from ocirt_cni.ipam.dhcp_leases import STATE, Folder, Held, Place
from ocirt_cni.ipam.dhcp_socket import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LARGEST = 1 << 20  # bytes of a request
_PATIENCE = 5.0  # seconds for a plugin to take its answer
_FIRST_PASSED = 3  # sd_listen_fds(3)


def now() -> float:
    """The moment, in seconds; it goes on while the machine sleeps, and is the same for the next daemon."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def log(text: str) -> None:
    """Say something on the standard error."""
    print(text, file=sys.stderr, flush=True)


class Connection:
    """A plugin that asked for something. `waits_for`: whose lease it waits for."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.data = b""
        self.waits_for: Attachment | None = None

    def answer(self, document: dict[str, Any]) -> None:
        """Answer and hang up. A plugin that is gone is none of our business."""
        self.socket.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            self.socket.sendall(jsonio.dumps(document).encode() + b"\n")
        self.socket.close()

    def fail(self, error: Error) -> None:
        """Answer with an error."""
        names = ("code", "message", "subject", "cause", "hint")
        self.answer({"error": {name: getattr(error, name) for name in names}})


class Daemon:
    """All leases, and the plugins that wait for some."""

    def __init__(
        self, listener: socket.socket, folder: Folder, timing: Timing, *, prefix: str = "", broadcast: bool = False
    ) -> None:
        """`prefix`: of the paths of network namespaces, as the daemon sees them."""
        self._folder = folder
        self._timing = timing
        self._prefix = prefix
        self._broadcast = broadcast
        self._listener = listener
        self._held: dict[Attachment, Held] = {}
        self._connections: set[Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: None)

    def stop(self) -> None:
        """Have `run` return; for a signal's handler."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def run(self) -> None:
        """Serve, until `stop`. Raises OSError if what is on disk cannot be read."""
        for held in self._folder.load(self._timing, now(), broadcast=self._broadcast):
            log(f"{held.attachment}: the lease is taken over from the daemon before")
            self._held[held.attachment] = held
        while not self._stopping:
            deadlines = [held.client.deadline for held in self._held.values() if held.client.deadline is not None]
            timeout = max(0.0, min(deadlines) - now()) if deadlines else None
            for key, _ in self._selector.select(timeout):
                callback: Callable[[], None] = key.data
                callback()
            for held in list(self._held.values()):
                deadline = held.client.deadline
                if deadline is not None and deadline <= now():
                    held.client.tick(now())
                    self._advance(held)
        self._close()

    def _close(self) -> None:
        for connection in self._connections:
            connection.socket.close()
        for held in self._held.values():
            if held.link is not None:
                held.link.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()

    # Plugins

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return  # it is gone already
        connected.setblocking(False)
        connection = Connection(connected)
        self._connections.add(connection)
        self._selector.register(connected, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: Connection) -> None:
        if connection not in self._connections:
            return  # it was answered by what came at the same time
        try:
            data = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(connection.data) > _LARGEST:
            self._hang_up(connection)
            connection.socket.close()
            if connection.waits_for in self._held:
                self._abandon(self._held[connection.waits_for])
            return
        if connection.waits_for is not None:
            return  # it has no more to say
        connection.data += data
        if connection.data.endswith(b"\n"):
            self._serve(connection)

    def _hang_up(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        self._connections.discard(connection)

    def _serve(self, connection: Connection) -> None:
        try:
            answer = self._handle(connection, jsonio.load_object(connection.data, "the request"))
        except Error as err:
            self._hang_up(connection)
            connection.fail(err)
        except Exception as err:  # noqa: BLE001  (the next plugin is to be served)
            self._hang_up(connection)
            connection.fail(Error(INTERNAL, f"{type(err).__name__}: {err}"))
        else:
            if answer is not None:
                self._hang_up(connection)
                connection.answer(answer)

    def _handle(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request; None if there is none yet. Raises Error."""
        call = Call(
            request["command"],
            request["conf"],
            container=request["container"],
            netns=request["netns"],
            ifname=request["ifname"],
            args=request["args"],
        )
        if call.command == ADD:
            return self._add(connection, call)
        if call.command == CHECK:
            held = self._held.get(call.attachment)
            if held is None or not held.is_held:
                raise Error(CHECK_FAILED, "the daemon holds no lease", subject=str(call.attachment))
            return self._result(held)
        if call.command == DEL and call.attachment in self._held:
            self._give_back(self._held[call.attachment])
        elif call.command == GC:
            for held in list(self._held.values()):
                one = held.attachment
                if one.network == call.network and (one.container, one.ifname) not in call.valid:
                    self._give_back(held)
        elif call.command not in (DEL, STATUS):
            raise Error(UNSUPPORTED, f"{call.command} is nothing to ask a DHCP daemon for")
        return {}

    def _add(self, connection: Connection, call: Call) -> dict[str, Any] | None:
        options = dhcp_options.parse(call)
        held = self._held.get(call.attachment)
        place = Place(self._prefix + call.netns, call.ifname)
        if held is not None and held.place.identity != place.identity:
            self._give_back(held)
            held = None
        if held is not None and held.is_held:
            return self._result(held)
        if held is None:
            held = self._search(call, place, options)
        connection.waits_for = call.attachment
        self._advance(held)
        return None

    def _search(self, call: Call, place: Place, options: dict[int, bytes]) -> Held:
        try:
            link, mac = place.open()
        except OSError as err:
            raise Error(INTERNAL, "the interface cannot be used", subject=call.ifname, cause=err.strerror or "") from None
        client = Client(mac, options, SystemRandom(), self._timing, broadcast=self._broadcast)
        priority = call.conf["ipam"].get("priority") or 0
        held = Held(call.attachment, place, client, priority, with_dns=dhcp_options.wants_dns(call))
        self._held[call.attachment] = held
        self._listen(held, link)
        log(f"{call.attachment}: looking for a DHCP server")
        client.start(now())
        return held

    def _result(self, held: Held) -> dict[str, Any]:
        lease = held.client.lease
        assert lease is not None, "it is held"
        return {"result": dhcp_options.result(lease, held.priority, with_dns=held.with_dns).document("1.1.0")}

    def _waiting(self, held: Held) -> list[Connection]:
        found = [each for each in self._connections if each.waits_for == held.attachment]
        for connection in found:
            self._hang_up(connection)
        return found

    def _abandon(self, held: Held) -> None:
        """Nobody waits any more, so a lease is not looked for either; but one that was got is kept."""
        if held.client.lease is None and not any(each.waits_for == held.attachment for each in self._connections):
            log(f"{held.attachment}: nobody waits for the lease any more")
            self._drop(held)

    # Leases

    def _listen(self, held: Held, link: Link) -> None:
        held.link = link
        self._selector.register(link, selectors.EVENT_READ, lambda: self._hear(held))

    def _deafen(self, held: Held) -> None:
        if held.link is not None:
            self._selector.unregister(held.link)
            held.link.close()
            held.link = None

    def _hear(self, held: Held) -> None:
        if held.link is None:
            return  # it was given up by what came at the same time
        try:
            messages = held.link.receive()
        except OSError:
            return  # the link is down or gone; the next message that is sent will tell
        for message, mac in messages:
            held.client.receive(message, mac, now())
        self._advance(held)

    def _advance(self, held: Held) -> None:
        """Do what the client wants after something happened to it."""
        client = held.client
        try:
            self._send(held)
        except (Error, OSError) as err:
            self._unreachable(held, err)
            return
        if client.state == BOUND:
            self._deafen(held)
            self._got(held)
        elif client.state == FAILED:
            said = f" ({client.said})" if client.said else ""
            error = Error(TRY_AGAIN_LATER, f"no DHCP server gave an address within {self._timing.total:g} s{said}")
            error.subject = held.attachment.ifname
            self._refuse(held, error)
        elif client.state == LOST:
            log(f"{held.attachment}: the lease is lost; the interface goes down")
            with contextlib.suppress(Error):
                held.place.down()
            self._refuse(held, Error(TRY_AGAIN_LATER, "the lease was lost", subject=str(held.attachment)))

    def _send(self, held: Held) -> None:
        outgoing, held.client.outgoing = held.client.outgoing, []
        if outgoing and held.link is None:
            link, mac = held.place.open()
            held.client.mac = mac  # a plugin after this one may have changed it
            for one in outgoing:
                one.message.mac = mac
            self._listen(held, link)
        for one in outgoing:
            assert held.link is not None, "it was opened"
            held.link.send(one)

    def _unreachable(self, held: Held, err: Error | OSError) -> None:
        """The container went without DEL, or its interface did."""
        log(f"{held.attachment}: {err}; the lease is left to expire")
        error = err if isinstance(err, Error) else Error(INTERNAL, "the interface cannot be used", cause=err.strerror or "")
        self._refuse(held, error)

    def _got(self, held: Held) -> None:
        lease = held.client.lease
        assert lease is not None, "it is bound"
        try:
            answer = self._result(held)
        except Error as err:
            self._give_back(held, err)
            return
        try:
            self._folder.save(held)
        except OSError as err:
            log(f"{held.attachment}: the lease cannot be written down, so another daemon will not know it: {err}")
        log(f"{held.attachment}: {lease.ack.yours} from {lease.server} for {lease.expiry - lease.since:g} s")
        for connection in self._waiting(held):
            connection.answer(answer)

    def _give_back(self, held: Held, error: Error | None = None) -> None:
        """Tell the server, if the interface is there to do so, and forget the lease."""
        held.client.release()
        try:
            self._send(held)
        except (Error, OSError) as err:
            log(f"{held.attachment}: the lease is left to expire: {err}")
        else:
            log(f"{held.attachment}: the lease is given back")
        self._refuse(held, error or Error(TRY_AGAIN_LATER, "the attachment was deleted", subject=str(held.attachment)))

    def _refuse(self, held: Held, error: Error) -> None:
        for connection in self._waiting(held):
            connection.fail(error)
        self._drop(held)

    def _drop(self, held: Held) -> None:
        self._deafen(held)
        self._held.pop(held.attachment, None)
        self._folder.remove(held.attachment)


def listen(path: str) -> socket.socket:
    """The socket that systemd passes, or one at a path, for root alone. Raises Error if another daemon is there, OSError."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=_FIRST_PASSED)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise Error(INTERNAL, "another daemon listens there", subject=path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def _seconds(text: str) -> float:
    """A duration as Go writes it: 10s, 1m30s, 500ms."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration, as in 10s or 1m30s")
    return float(sum(float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dhcp daemon", description="Get and renew the leases of the CNI plugin dhcp.")
    for name, metavar, text in (
        ("pidfile", "FILE", "write the daemon's pid there (an absolute path)"),
        ("hostprefix", "FOLDER", "where the host's files are, for a daemon in a container"),
        ("statedir", "FOLDER", f"where leases are written down (default: {STATE})"),
    ):
        parser.add_argument(f"-{name}", f"--{name}", metavar=metavar, default="", help=text)
    parser.add_argument("-socketpath", "--socketpath", "--socket", metavar="FILE", default=SOCKET, help=f"default: {SOCKET}")
    parser.add_argument("-broadcast", "--broadcast", action="store_true", help="have servers answer to everybody on the link")
    default = Timing()
    for name, value, text in (
        ("timeout", default.answer, "how long one server may take to answer a request"),
        ("resendmax", default.longest, "the longest pause between two messages"),
        ("resendtimeout", default.total, "how long a server is looked for"),
    ):
        parser.add_argument(
            f"-{name}", f"--{name}", metavar="TIME", type=_seconds, default=value, help=f"{text} (default: {value:g}s)"
        )
    return parser


def main(args: list[str]) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit status."""
    options = _parser().parse_args(args)
    if options.pidfile and not os.path.isabs(options.pidfile):
        log(f"{options.pidfile}: the path of the pid's file has to be absolute")
        return 2
    path = options.hostprefix + options.socketpath
    try:
        listener = listen(path)
        folder = Folder(options.statedir or options.hostprefix + STATE)
        if options.pidfile:
            with open(options.pidfile, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
        timing = Timing(options.timeout, options.resendmax, options.resendtimeout)
        daemon = Daemon(listener, folder, timing, prefix=options.hostprefix, broadcast=options.broadcast)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        log(f"listening at {path}")
        daemon.run()
    except (Error, OSError) as err:
        log(str(err))
        return 1
    listener.close()
    for file_name in (path if "LISTEN_FDS" not in os.environ else "", options.pidfile):
        with contextlib.suppress(OSError):
            if file_name:
                os.unlink(file_name)
    return 0
