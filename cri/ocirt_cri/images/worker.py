"""The process that brings images: it is started by exec, and speaks with the daemon over a socket, one line of JSON at a time.

    {"n": 0, "do": "open", "root": …, …}                    the first line: see `Settings`
    {"n": 7, "do": "pull", "name": …, "credential": …}      {"n": 7, "moved": …, "size": …} … {"n": 7, "done": {…}}
    {"n": 8, "do": "unpack", "name": …}                     {"n": 8, "error": [code, message, subject, cause, hint]}
    {"n": 9, "do": "cancel", "of": 7}

It is a process of its own because what registries send is hostile and plenty: TLS, JSON and gigabytes through Python would take
the daemon's interpreter lock and stay in its memory. When the socket ends, all ends; what came is kept for the next attempt.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocirt_cri.images.settings import Settings
from ocirt_cri.spawned import be_killed_first
from ocirt_images import events, platforms
from ocirt_images.apply.worker import Workers
from ocirt_images.cancel import Cancel
from ocirt_images.errors import Error
from ocirt_images.pull import pull, unpack
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credential, Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from ocirt_images.store import Store
from ocirt_images.trust.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_images.digest import Digest
    from ocirt_images.store import ImageRecord

    Json = dict[str, Any]

_ATTEMPTS = 3  # of each request: the kubelet tries again by itself, and waits ever longer
_PATIENCE = 5.0  # seconds that what was given up has for its end
_OFTEN = 0.25  # seconds between two reports of progress
# Where an "unavailable" comes from the network, and not from a worker or the database.
_NETWORK = ("ocirt_images.registry.", "ocirt_images.pull.download")


def serve(fd: int) -> None:
    """Serve the daemon until the socket ends. Never returns."""
    be_killed_first()
    channel = socket.socket(fileno=fd)
    lines = channel.makefile("rb")
    first = json.loads(lines.readline() or b"{}")
    if not first:
        os._exit(0)
    server = _Server(channel, Settings(**{name: first[name] for name in Settings.__slots__}))
    try:
        for line in lines:
            server.take(json.loads(line))
    except ConnectionResetError:
        pass  # it died before it had read all that we said
    server.end()
    os._exit(0)


class _Server:
    def __init__(self, channel: socket.socket, settings: Settings) -> None:
        self._channel = channel
        self._settings = settings
        self._sending = threading.Lock()
        self._store = Store.open(Path(settings.root), sync=settings.sync)
        # Those of all pulls together: each takes a processor.
        self._workers = Workers((os.cpu_count() or 1) + 1)
        self._running: dict[int, Cancel] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._progress: dict[int, _Progress] = {}
        threading.Thread(target=self._report, name="progress", daemon=True).start()

    def take(self, order: Json) -> None:
        """Begin what the daemon orders."""
        number = order["n"]
        if order["do"] == "cancel":
            cancel = self._running.get(order["of"])
            if cancel is not None:
                cancel.set()
            return
        self._running[number] = Cancel()
        name = f"{order['do']} {number}"
        self._threads[number] = threading.Thread(target=self._run, args=(number, order), name=name, daemon=True)
        self._threads[number].start()

    def end(self) -> None:
        """Give up all; what came is written down as far as time allows."""
        for cancel in list(self._running.values()):
            cancel.set()
        until = time.monotonic() + _PATIENCE
        for thread in list(self._threads.values()):
            thread.join(max(0.0, until - time.monotonic()))
        self._workers.close()

    def _run(self, number: int, order: Json) -> None:
        do: Callable[[Json, Cancel, events.OnEvent], Json] = {"pull": self._pull, "unpack": self._unpack}[order["do"]]
        progress = self._progress[number] = _Progress()
        try:
            answer: Json = {"done": do(order, self._running[number], progress)}
        except Error as err:
            answer = {"error": [_code(err), err.message, err.subject, err.cause, err.hint]}
        except OSError as err:
            place = os.fsdecode(err.filename) if err.filename else ""
            answer = {"error": ["kernel", err.strerror or str(err), place, "", ""]}
        except Exception as err:  # noqa: BLE001  (it is told to who waits for it)
            answer = {"error": ["internal", f"{type(err).__name__}: {err}", "", _place(err), ""]}
        del self._running[number], self._progress[number]
        self._send(number, answer)
        del self._threads[number]

    def _report(self) -> None:
        """Say every now and then how far each is. Never returns."""
        said: dict[int, tuple[int, int]] = {}
        while True:
            time.sleep(_OFTEN)
            now = {number: progress.now for number, progress in list(self._progress.items())}
            for number, (moved, size) in now.items():
                if said.get(number) != (moved, size):
                    self._send(number, {"moved": moved, "size": size})
            said = now

    def _send(self, number: int, said: Json) -> None:
        with self._sending:
            try:
                self._channel.sendall(json.dumps({"n": number, **said}).encode() + b"\n")
            except OSError:
                pass  # the daemon is gone, and so are we soon

    def _pull(self, order: Json, cancel: Cancel, on_event: events.OnEvent) -> Json:
        settings = self._settings
        reference = Reference.parse(order["name"])
        given = {reference.host: Credential(**order["credential"])} if order["credential"] else {}
        files = [Path(settings.auth_file)] if settings.auth_file else []
        # All files are read anew each time: a change of them takes no restart.
        registry = Registry(
            hosts=Hosts.load(),
            credentials=Credentials(given=given, files=files),
            limits=Limits(stall=settings.stall, attempts=_ATTEMPTS),
        )
        with registry:
            record = pull(
                self._store,
                registry,
                reference,
                platforms.host(),
                on_event,
                workers=self._workers,
                connections=settings.connections,
                cancel=cancel,
                pulled_by="ocirtd",
                policy=Policy.read(Path(settings.policy)) if settings.policy else Policy.load(),
            )
        return _said(record)

    def _unpack(self, order: Json, cancel: Cancel, on_event: events.OnEvent) -> Json:
        record = self._store.images.get(order["name"])
        if record is None:
            raise Error("not-found", "the image was removed", subject=order["name"])
        return _said(unpack(self._store, record, on_event, cancel))


class _Progress:
    """Adds up a pull's events. now: bytes of its layers that are here, and all of them as far as is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: dict[Digest, int] = {}
        self._moved: dict[Digest, int] = {}

    @property
    def now(self) -> tuple[int, int]:
        with self._lock:
            return sum(self._moved.values()), sum(self._sizes.values())

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.LayerKnown):
                self._sizes[event.layer] = event.size
            elif isinstance(event, (events.LayerProgress, events.LayerWaiting)):
                self._moved[event.layer] = event.moved
            elif isinstance(event, events.LayerDone):
                self._moved[event.layer] = self._sizes.get(event.layer, 0)


def _said(record: ImageRecord) -> Json:
    return {"name": record.name, "id": str(record.config)}


def _code(err: Error) -> str:
    """The error's code; "unreachable" for what the registry or the way to it is to blame for."""
    if err.code != "unavailable":
        return err.code
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(err.__traceback__))
    return "unreachable" if any(f"{name}.".startswith(_NETWORK) for name in modules) else err.code


def _place(err: BaseException) -> str:
    last = traceback.extract_tb(err.__traceback__)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""
