"""How long, how often and how much: what a registry may cost us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are seconds.

    dial: for a connection to be made; stall: without a byte, or (on average over it) with fewer than `slowest` bytes a second;
    attempts: per request, the first included; backoff: before the second, doubled for each further one, with jitter; patience:
    the longest Retry-After that is waited for; redirects: in a row
    """

    dial: float = 30
    stall: float = 300
    slowest: int = 100
    attempts: int = 5
    backoff: float = 0.5
    patience: float = 60
    redirects: int = 10
