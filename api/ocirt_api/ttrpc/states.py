"""The states of a stream, for both sides. Everything about states is here, and nothing about bytes.

A stream begins with the client's request, in one of three states by its flags. The table says what may be sent then, and which
state comes after it; what it does not have may not be sent. A stream that is over is forgotten.

The server may end a stream while the client still sends: what then comes is for a stream that is no more.
"""

from __future__ import annotations

UNARY = "unary"  # one request, one response
OPEN = "open"  # both sides may send data
HALF = "half"  # the client has sent all, the server may send data
OVER = "over"

# What is sent, and by whom.
CLIENT_DATA, CLIENT_LAST, SERVER_DATA, SERVER_LAST, RESPONSE = (
    "client-data",
    "client-last",
    "server-data",
    "server-last",
    "response",
)

TRANSITIONS = {
    UNARY: {RESPONSE: OVER},
    OPEN: {CLIENT_DATA: OPEN, CLIENT_LAST: HALF, SERVER_DATA: OPEN, SERVER_LAST: OVER, RESPONSE: OVER},
    HALF: {SERVER_DATA: HALF, SERVER_LAST: OVER, RESPONSE: OVER},
}


class StateError(Exception):
    """A call of ours that the state of the stream does not allow: a bug of the caller."""


class Streams:
    """The streams of a connection that are not over."""

    def __init__(self) -> None:
        self._states: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, stream: int) -> bool:
        return stream in self._states

    def begin(self, stream: int, state: str) -> None:
        """A request was sent."""
        self._states[stream] = state

    def allows(self, stream: int, what: str) -> bool:
        """May this be sent?"""
        return what in TRANSITIONS.get(self._states.get(stream, ""), {})

    def move(self, stream: int, what: str) -> None:
        """It was sent. Raises StateError if it may not be."""
        state = self._states.get(stream)
        if state is None:
            raise StateError(f"stream {stream} is over, or never began")
        after = TRANSITIONS[state].get(what)
        if after is None:
            raise StateError(f"stream {stream} is {state}: no {what} may be sent")
        if after == OVER:
            del self._states[stream]
        else:
            self._states[stream] = after

    def forget(self, stream: int) -> None:
        """Nobody waits for the rest of it."""
        self._states.pop(stream, None)
