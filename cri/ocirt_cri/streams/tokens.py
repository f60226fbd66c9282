"""What clients may ask for at the stream port: each of it once, and not for long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ocirt.errors import Error

SECONDS = 60.0
MOST = 1000
_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wish:
    """What a token stands for: a kind (of `ocirt_shim.remote`), the id of a container or pod, what else is known."""

    kind: str
    target: str
    of: Any


class Tokens:
    """Those that were given out and not used. now: seconds of a clock that does not jump."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wishes: dict[str, tuple[float, Wish]] = {}  # the oldest first

    def issue(self, wish: Wish) -> str:
        """A token for it. Raises Error("exhausted")."""
        self._drop()
        if len(self._wishes) >= MOST:
            raise Error("exhausted", f"{MOST} streams were asked for, and no client came", hint="try again in a minute")
        token = secrets.token_urlsafe(_BYTES)
        self._wishes[token] = self._now() + SECONDS, wish
        return token

    def take(self, token: str, kind: str) -> Wish | None:
        """What it stands for, once; None for one that is not known (any more), or is of another kind."""
        self._drop()
        found = self._wishes.get(token)
        if found is None or found[1].kind != kind:
            return None
        del self._wishes[token]
        return found[1]

    def _drop(self) -> None:
        now = self._now()
        for token, (until, _) in list(self._wishes.items()):
            if until > now:
                return
            del self._wishes[token]
