"""What a transfer looks like while it goes on: bars on a terminal, lines elsewhere, JSON for programs, or nothing.

Each is a callback for the events of `ocirt_images.events`, from any thread, and a context manager. Progress goes to standard
error; what came of it to standard output, so that it can be read by a program.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from typing import TYPE_CHECKING

from ocirt_images import events
from ocirt_images.cli.output import out, size
from ocirt_images.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_images.events import Event

REDRAW = 0.1  # seconds between two drawings, at least
_SPEED = 2.0  # seconds over which speed is averaged
_BAR = 30  # columns of a bar, at most
_SHORT = 12  # digits of a digest


@dataclasses.dataclass(slots=True)
class Layer:
    """A layer on its way. state: `queued`, `moving`, `waiting`, `unpacking`, or how it ended: `done`, `exists`, `mounted`."""

    size: int
    state: str = "queued"
    moved: int = 0
    began: float | None = None
    speed: float = 0.0
    _then: float = 0.0
    _before: int = 0

    def move(self, state: str, moved: int, now: float) -> None:
        """Note how far it is."""
        if state != self.state or self.began is None:
            # What was there before the first look was not moved by us.
            self.state, self.began, self._then, self._before = state, now, now, moved
        self.moved = moved
        passed = now - self._then
        if passed >= _SPEED / 4:
            share = min(1.0, passed / _SPEED)
            found = max(0, moved - self._before) / passed
            self.speed = found if self._then == self.began else self.speed + share * (found - self.speed)
            self._then, self._before = now, moved

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("done", "exists", "mounted")


class Board:
    """All that is shown of one image, as data: what events came to."""

    def __init__(self) -> None:
        self.name = ""
        self.digest: Digest | None = None
        self.platform = ""
        self.layers: dict[Digest, Layer] = {}
        self.note = ""

    def apply(self, event: Event, now: float) -> None:
        """Take an event in. What comes before its `LayerKnown` is not lost: a layer is known then by what it moved."""
        match event:
            case events.Resolved(name, digest, platform, _):
                self.__init__()  # type: ignore[misc]
                self.name, self.digest, self.platform = name, digest, platform
            case events.LayerKnown(layer, length):
                self.layers.setdefault(layer, Layer(length)).size = length
            case events.LayerProgress(layer, moved):
                self._layer(layer).move("moving", moved, now)
                self.note = ""
            case events.LayerWaiting(layer, moved):
                self._layer(layer).move("waiting", moved, now)
            case events.LayerUnpacking(layer, unpacked):
                self._layer(layer).move("unpacking", unpacked, now)
            case events.LayerDone(layer, how):
                found = self._layer(layer)
                found.state, found.moved = how or "done", found.size
            case events.Retrying(_, reason, seconds):
                self.note = f"{reason}; again in {seconds:.0f} s"

    def _layer(self, digest: Digest) -> Layer:
        return self.layers.setdefault(digest, Layer(0))

    def lines(self, width: int, height: int) -> list[str]:
        """What fits on a terminal of that size, without colour: a head, a line for each layer that is not done, a sum."""
        head = [self.name + (f" ({self.platform})" if self.platform else "")] if self.name else []
        open_layers = [(digest, layer) for digest, layer in self.layers.items() if not layer.ended]
        ended = len(self.layers) - len(open_layers)
        # If all fits, those that are done stay in their places; a long list shows only what moves.
        shown = list(self.layers.items())
        if len(shown) > height - 4:
            shown = sorted(open_layers, key=lambda one: one[1].state == "queued")[: max(0, height - 4)]
        body = [layer_line(digest, layer, width) for digest, layer in shown]
        total = sum(layer.size for layer in self.layers.values())
        moved = sum(layer.size if layer.ended or layer.state == "unpacking" else layer.moved for layer in self.layers.values())
        speed = sum(layer.speed for layer in self.layers.values() if layer.state == "moving")
        foot = [f"{ended} of {len(self.layers)} layers, {size(moved)} of {size(total)}{_speed(speed)}"] if self.layers else []
        note = [printable(self.note)] if self.note else []
        return [line[: max(1, width - 1)] for line in (*head, *body, *foot, *note)]


def layer_line(digest: Digest, layer: Layer, width: int) -> str:
    """One layer: its digest, what is done with it, a bar if there is room, bytes and speed."""
    name = digest.encoded[:_SHORT]
    if layer.ended:
        return f"{name}  {layer.state:<9}  {size(layer.size)}"
    if layer.state == "queued":
        return f"{name}  queued     {size(layer.size)}"
    word = {"moving": "", "waiting": "waiting on another pull", "unpacking": "unpacking"}[layer.state]
    tail = f"{size(layer.moved)}/{size(layer.size)}" + (_speed(layer.speed) if layer.state == "moving" else "")
    room = min(_BAR, width - len(name) - len(word) - 28)
    middle = bar(layer.moved, layer.size, room) + "  " if room >= 5 else ""
    return f"{name}  {word}{'  ' if word else ''}{middle}{tail}"


def bar(moved: int, total: int, width: int) -> str:
    """`[====>     ]`, `width` columns wide."""
    inside = width - 2
    full = min(inside, inside * moved // total) if total else 0
    arrow = ">" if full < inside else ""
    return f"[{'=' * full}{arrow}{' ' * (inside - full - len(arrow))}]"


def _speed(speed: float) -> str:
    return f"  {size(speed)}/s" if speed >= 1 else ""


def printable(text: str) -> str:
    """Text of a stranger's without what would move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


class Quiet:
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        """Take an event."""

    def close(self) -> None:
        """Nothing more comes."""


class Lines(Quiet):
    """A line for what was begun and what was done, where nothing can be redrawn."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._sizes: dict[Digest, int] = {}
        self._said: set[tuple[Digest, str]] = set()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            text = self._text(event)
        if text:
            out(text + "\n", self._fd)

    def _text(self, event: Event) -> str:
        match event:
            case events.Resolved(name, digest, platform, host):
                self._sizes.clear()
                self._said.clear()
                return f"{name}: {digest}" + (f" ({platform})" if platform else "") + (f" from {host}" if host else "")
            case events.LayerKnown(layer, length):
                self._sizes[layer] = length
            case events.LayerWaiting(layer, _) if (layer, "waiting") not in self._said:
                self._said.add((layer, "waiting"))
                return f"{layer.short}: waiting on another pull"
            case events.LayerDone(layer, how):
                # A configuration is no layer, and nobody wants to read of it.
                return f"{layer.short}: {how or 'done'}, {size(self._sizes[layer])}" if layer in self._sizes else ""
            case events.Retrying(_, reason, seconds):
                return f"{printable(reason)}; again in {seconds:.0f} s"
        return ""


class JsonLines(Quiet):
    """Each event as a line of JSON on standard output; progress of a layer not more often than it is drawn elsewhere."""

    def __init__(self, fd: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[Digest, float] = {}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, (events.LayerProgress, events.LayerWaiting, events.LayerUnpacking)):
            now = self._clock()
            with self._lock:
                if now - self._last.get(event.layer, -1.0) < REDRAW:
                    return
                self._last[event.layer] = now
        value = {"event": type(event).__name__} | {key: one for key, one in dataclasses.asdict(event).items() if one is not None}
        out(json.dumps(value) + "\n", self._fd)


class Bars(Quiet):
    """A bar for each layer, drawn over what was drawn before."""

    def __init__(
        self,
        fd: int = 2,
        clock: Callable[[], float] = time.monotonic,
        terminal: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """terminal: its columns and rows, asked for at each drawing."""
        self._fd = fd
        self._clock = clock
        self._terminal = terminal or (lambda: os.get_terminal_size(fd))
        self._lock = threading.Lock()
        self._board = Board()
        self._drawn = 0
        self._last = -REDRAW

    def __call__(self, event: Event) -> None:
        """Take an event, and draw if it is time to."""
        now = self._clock()
        with self._lock:
            if isinstance(event, events.Resolved):
                self._finish(now)
            self._board.apply(event, now)
            if now - self._last >= REDRAW:
                self._draw(now)

    def close(self) -> None:
        """Draw what it came to; the cursor stands below it."""
        with self._lock:
            self._finish(self._clock())

    def _finish(self, now: float) -> None:
        if self._board.name or self._board.layers:
            self._draw(now)
        self._board, self._drawn = Board(), 0

    def _draw(self, now: float) -> None:
        self._last = now
        try:
            width, height = self._terminal()
        except OSError:
            width, height = 80, 24
        lines = self._board.lines(width or 80, height or 24)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # Each line is cleared behind what is written, and all below the last: there is no moment without a picture.
        out(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J", self._fd)
        self._drawn = len(lines)


def choose(*, quiet: bool, as_json: bool) -> Quiet:
    """What fits to the flags and to where standard error goes."""
    if as_json:
        return JsonLines()
    if quiet:
        return Quiet()
    return Bars() if os.isatty(2) and os.environ.get("TERM") not in (None, "", "dumb") else Lines()
